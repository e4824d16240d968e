# SPDX-License-Identifier: MIT
"""Whether a run has caught a seeded bug: by whom, for which reason, and what is no answer at all."""

from __future__ import annotations

import datetime
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from harness.errors import Exit
from harness.mutants.header import Bug
from harness.mutants.outcome import Outcome, Record, exit_status, markdown, summary
from harness.mutants.verdict import Judgement, Word, judge
from harness.report.results import CaseResult, Finding, Status

BUG = Bug(path=Path("lost.patch"), title="lost | gone", category="mapcount", arches=(), notices=("it counts once",))
NOT_OK = Finding(kind="ktap", message="not ok: x", evidence="a note\na.c:7: expected 1, saw 2\nmore")
LEAK = Finding(kind="leak", message="huge pages are not back", evidence="pool 2M: free_hugepages was 2, is 1")
OOPS = Finding(kind="splat", message="oops: BUG: unable to handle page fault")
ORDER = Finding(kind="splat", message="lockdep: WARNING: possible circular locking dependency detected")
TORN = Finding(kind="ktap", message="its KTAP is not complete: plan 2, saw 1")
LATE = Finding(kind="deadline", message="did not end within 60 s")


def case(
    name: str, status: Status, *findings: Finding, category: str = "mapcount", claim: str = "other", reason: str = ""
) -> CaseResult:
    return CaseResult(
        id=f"guest_tests/{category}/a.c::{name}[x86_64-2M]", category=category, arch="x86_64", huge_page_size=2 << 20,
        claim=claim, status=status, findings=findings, reason=reason,
    )  # fmt: skip


GREEN = case("green", Status.PASS)
SKIPPED = case("skipped", Status.SKIP, reason="not applicable")


def test_caught_by_the_case_whose_rule_is_broken() -> None:
    other = case("other", Status.FAIL, LEAK)
    named = case("named", Status.FAIL, NOT_OK, claim="it counts once [why]", category="fork")
    told = judge(BUG, [GREEN, other, named])
    assert (told.word, told.status, told.named) == (Word.CAUGHT, Exit.OK, True)
    assert told.cases == (named.id, other.id)
    assert told.why == "a.c:7: expected 1, saw 2"


def test_caught_by_another_case_of_the_category_is_told_as_such() -> None:
    told = judge(BUG, [GREEN, case("other", Status.FAIL, LEAK)])
    assert (told.word, told.named, told.why) == (Word.CAUGHT, False, "pool 2M: free_hugepages was 2, is 1")


@pytest.mark.parametrize(
    ("status", "finding"), [(Status.CRASH, OOPS), (Status.HANG, LATE), (Status.FAIL, ORDER), (Status.FAIL, TORN)]
)
def test_a_crash_or_a_hang_names_no_rule(status: Status, finding: Finding) -> None:
    told = judge(BUG, [GREEN, case("named", status, finding, claim="it counts once")])
    assert (told.word, told.status, told.why) == (Word.OTHERWISE, Exit.TESTS_FAILED, finding.message)


def test_a_crash_after_the_case_has_said_no_does() -> None:
    assert judge(BUG, [case("x", Status.CRASH, OOPS, NOT_OK)]).word is Word.CAUGHT


def test_the_kernel_s_own_complaint_where_it_is_the_stated_sign() -> None:
    bug = Bug(path=BUG.path, title="", category="fork", arches=(), notices=(), sign="circular locking")
    found = case("x", Status.FAIL, ORDER, category="fork")
    assert judge(bug, [found]).word is Word.CAUGHT
    assert judge(bug, [case("x", Status.CRASH, OOPS, category="fork")]).word is Word.OTHERWISE
    assert judge(bug, [case("x", Status.FAIL, ORDER)]).word is Word.OTHERWISE


def test_another_category_only_is_another_reason() -> None:
    told = judge(BUG, [GREEN, case("x", Status.FAIL, NOT_OK, category="fork")])
    assert (told.word, told.why) == (Word.OTHERWISE, "only in fork: a.c:7: expected 1, saw 2")


def test_all_green_is_missed() -> None:
    told = judge(BUG, [GREEN, SKIPPED])
    assert (told.word, told.status) == (Word.MISSED, Exit.TESTS_FAILED)


@pytest.mark.parametrize("cases", [[], [SKIPPED], [GREEN, case("x", Status.ERROR)]])
def test_what_cannot_be_told_is_neither(cases: list[CaseResult]) -> None:
    told = judge(BUG, cases)
    assert (told.word, told.status) == (Word.UNKNOWN, Exit.TESTS_FAILED)


def test_a_case_that_is_red_without_the_bug_too_is_no_evidence() -> None:
    found = case("x", Status.FAIL, NOT_OK)
    told = judge(BUG, [GREEN, found], unsound={found.id})
    assert told.word is Word.UNKNOWN
    assert "without the bug" in told.why
    assert judge(BUG, [found, case("y", Status.FAIL, LEAK)], unsound={found.id}).word is Word.CAUGHT


def outcome(name: str, word: Word, status: Exit = Exit.OK, **changed: Any) -> Outcome:
    told = Judgement(
        word=word, why="a | b", cases=("guest_tests/mapcount/a.c::x[arm64-64k-2M]",), named=True, status=status
    )
    values: dict[str, Any] = {"arch": "x86_64", "flavour": "fast", "stress_s": 0} | changed
    return Outcome(bug=name, title="lost", category="mapcount", judgement=told, **values)


def test_the_exit_status_says_the_worst() -> None:
    caught = outcome("a", Word.CAUGHT)
    unbuilt = outcome("b", Word.UNKNOWN, Exit.BUILD_FAILED)
    assert exit_status([caught]) == Exit.OK
    assert exit_status([caught, unbuilt]) == Exit.BUILD_FAILED
    assert exit_status([unbuilt, outcome("c", Word.MISSED, Exit.TESTS_FAILED)]) == Exit.TESTS_FAILED
    assert summary([caught, unbuilt]) == "caught 1, could not tell 1; of 2"


def test_what_was_found_out_is_read_again(tmp_path: Path) -> None:
    record = Record(tmp_path / "mutants.json", baseline={"k": {"x": Status.PASS}})
    record.add(outcome("a", Word.CAUGHT, red_s=3.5))
    record.add(outcome("a", Word.MISSED, Exit.TESTS_FAILED, arch="arm64"))
    assert Record.load(record.path) == record


def test_the_table_marks_what_is_not_as_it_should_be() -> None:
    told = [outcome("z", Word.MISSED, flavour="debug", stress_s=60), outcome("a", Word.CAUGHT, red_s=3.6)]
    by_luck = replace(told[1], bug="b", judgement=replace(told[1].judgement, named=False))
    text = markdown([*told, by_luck], datetime.date(2026, 1, 2))
    assert "on 2026-01-02. caught 2, missed 1; of 3." in text
    assert text.splitlines()[-3:] == [
        r"| mapcount | `a`: lost | x86_64 | caught | a.c::x[2M] | a \| b | 4 |",
        r"| mapcount | `b`: lost | x86_64 | **caught by another rule** | a.c::x[2M] | a \| b | 4 |",
        r"| mapcount | `z`: lost | x86_64 debug, stress 60 s | **missed** | a.c::x[2M] | a \| b | - |",
    ]
