# SPDX-License-Identifier: MIT
"""The KTAP reader: each kind of stream, whole and broken."""

from __future__ import annotations

import pytest

from harness.guest.ktap import parse


def stream(*lines: str) -> str:
    return "\n".join(("KTAP version 1", *lines)) + "\n"


def test_a_whole_stream_passes() -> None:
    ktap = parse(stream("1..2", "# mapped 4K", "ok 1 first", "ok 2 - second"))
    assert (ktap.status, [p.name for p in ktap.points], ktap.diagnostics) == (
        "pass",
        ["first", "second"],
        ["mapped 4K"],
    )


def test_one_failure_fails_the_stream() -> None:
    assert parse(stream("1..2", "ok 1 a", "not ok 2 b")).status == "fail"


def test_a_skip_carries_its_reason() -> None:
    ktap = parse(stream("1..1", "ok 1 a # SKIP kernel has no HGM"))
    assert (ktap.status, ktap.reason) == ("skip", "kernel has no HGM")


def test_a_skipped_plan_is_a_skip() -> None:
    ktap = parse(stream("1..0 # SKIP no huge pages"))
    assert (ktap.status, ktap.reason) == ("skip", "no huge pages")


def test_a_skip_beside_a_pass_is_a_pass() -> None:
    assert parse(stream("1..2", "ok 1 a # SKIP x", "ok 2 b")).status == "pass"


@pytest.mark.parametrize(
    ("directive", "status"),
    [("TIMEOUT 45 s", "fail"), ("ERROR x", "fail"), ("XFAIL known", "pass"), ("made-up", "pass"), ("skip x", "skip")],
)
def test_directives(directive: str, status: str) -> None:
    assert parse(stream("1..1", f"ok 1 a # {directive}")).status == status


@pytest.mark.parametrize("directive", ["SKIP x", "skip x", "TODO x", "todo x"])
def test_a_directive_decides_over_not_ok(directive: str) -> None:
    assert parse(stream("1..1", f"not ok 1 a # {directive}")).status == "skip"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "no KTAP version line"),
        ("ok 1 a\n", "no KTAP version line"),
        (stream(), "no results"),
        (stream("1..0"), "a plan of no tests"),
        (stream("1..3", "ok 1 a"), "plan 3, saw 1"),
        (stream("1..1", "ok 1 a", "ok 2 b"), "plan 1, saw 2"),
        (stream("1..2", "ok 2 b", "ok 1 a"), "result 2 came as number 1"),
        (stream("1..1", "  KTAP version 1", "  1..1", "  ok 1 inner"), "nested results without their parent's result"),
        (stream("1..1", "  KTAP version 1", "  1..1", "  not ok 1 inner", "ok 1 outer"), "outer is ok although"),
        (stream("1..1", "  KTAP version 1", "  1..2", "  ok 1 inner", "ok 1 outer"), "plan 2, saw 1 at depth 1"),
        (
            stream("1..1", "  KTAP version 1", "  1..1", "  not ok 1 inner", "ok 1 outer # SKIP"),
            "outer is skip although",
        ),
        (stream("1..1", "  KTAP version 1", "  1..1", "  not ok 1 inner", "not ok 1 outer # XFAIL"), "outer is xfail"),
        (stream("1..1", "  1..2", "  ok 1 inner", "  not ok 2 other", "ok 1 outer"), "outer is ok although"),
        (stream("1..1", "  not ok 1 inner", "ok 1 outer"), "outer is ok although"),
        (stream("1..1", "  1..2", "  ok 1 inner", "ok 1 outer"), "plan 2, saw 1 at depth 1"),
        (stream("1..1", "ok 1 outer", "  not ok 1 inner"), "nested results without their parent's result"),
        (stream("  ok 1 inner", "1..1"), "nested results without their parent's result"),
        (stream("1..1", "  1..1", "  ok 1 inner", "  Bail out! lost", "ok 1 outer"), "outer is ok although"),
    ],
)
def test_what_cannot_be_told_is_an_error(text: str, problem: str) -> None:
    ktap = parse(text)
    assert ktap.status == "error"
    assert any(problem in found for found in ktap.problems), ktap.problems


@pytest.mark.parametrize(
    "lines", [("1..1", "ok 1 a", "Bail out! lost"), ("1..3", "Bail out! lost", "ok 1 a"), ("Bail out! lost",)]
)
def test_who_bails_out_fails(lines: tuple[str, ...]) -> None:
    ktap = parse(stream(*lines), needs_plan=True)
    assert (ktap.status, ktap.problems) == ("fail", [])
    assert (ktap.points[-1].name, ktap.points[-1].text) == ("Bail out!", "lost")


@pytest.mark.parametrize("words", ["ok so far", "not ok", "1..2 of them"])
def test_words_that_stand_deeper_are_no_results(words: str) -> None:
    assert parse(stream("1..1", f"  {words}", "ok 1 a")).status == "pass"


@pytest.mark.parametrize(
    ("line", "text"),
    [("not ok 1 a # exit=1", "exit=1"), ("not ok 1 a # TIMEOUT 45 s", "45 s"), ("not ok 1 a # (none)", "(none)")],
)
def test_what_stands_behind_a_result_is_kept(line: str, text: str) -> None:
    assert [(point.status, point.text) for point in parse(stream("1..1", line)).points] == [("fail", text)]


def test_a_missing_plan_is_legal() -> None:
    assert parse(stream("ok 1 a")).status == "pass"


def test_a_missing_plan_is_none_of_a_guest_test() -> None:
    ktap = parse(stream("ok 1 a"), needs_plan=True)
    assert (ktap.status, ktap.problems) == ("error", ["no plan"])
    assert parse(stream("1..1", "ok 1 a"), needs_plan=True).status == "pass"


def test_a_nested_stream_may_be_told_by_its_name_alone() -> None:
    ktap = parse(
        stream("1..1", "    # Subtest: suite", "    1..2", "    ok 1 a", "    ok 2 b # SKIP x", "ok 1 - suite")
    )
    assert (ktap.status, [c.status for c in ktap.points[0].points]) == ("pass", ["pass", "skip"])


@pytest.mark.parametrize(
    ("lines", "status", "problem"),
    [
        (
            ("\t# Subtest: suite", "\tok 1 a", "ok 1 - other"),
            "pass",
            "the results of suite are followed by that of other",
        ),
        (("\t# Subtest: suite", "ok 1 - suite"), "missing", "suite has no results under it"),
        (("\t# Subtest: suite", "\tok 1 a"), "missing", "nested results without their parent's result"),
    ],
)
def test_a_named_nested_stream_that_does_not_come_to_its_end(lines: tuple[str, ...], status: str, problem: str) -> None:
    ktap = parse(stream(*lines))
    assert (ktap.status, ktap.problems) == ("error", [problem])
    assert [point.status for point in ktap.points] == [status]


def test_what_stands_before_the_version_line_is_not_read() -> None:
    assert parse("ok 1 hello\n  KTAP version 1\n  1..1\n  ok 1 a\n").status == "pass"


def test_any_depth_is_read_to_its_end() -> None:
    text = stream(*(f"{' ' * depth}# Subtest: {depth}" for depth in range(1, 5000)))
    assert parse(text).status == "error"


def test_nested_points_belong_to_their_parent() -> None:
    ktap = parse(
        stream("1..2", "  KTAP version 1", "  1..2", "  ok 1 a", "  not ok 2 b", "not ok 1 outer", "ok 2 other")
    )
    assert [(p.name, p.status, [c.name for c in p.points]) for p in ktap.points] == [
        ("outer", "fail", ["a", "b"]),
        ("other", "pass", []),
    ]
    assert not ktap.problems


def test_kernel_lines_and_escape_codes_in_between_change_nothing() -> None:
    ktap = parse("[    1.0] KTAP version 1\r\n1..1\r\n[    2.5][  T12] mm: hello\r\n\x1b[32mok 1 a\x1b[0m\r\n")
    assert (ktap.status, ktap.problems) == ("pass", [])


def test_binary_garbage_is_an_error() -> None:
    assert parse("\x00\xff garbage ok maybe\n").status == "error"
