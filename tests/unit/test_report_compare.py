# SPDX-License-Identifier: MIT
"""Two runs side by side: what gates, and what only is told."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from harness.errors import Exit
from harness.report.compare import compare, text
from harness.report.results import Fault, Finding, RunResult
from tests.runs import KERNEL, MACHINE, case, run

GROUPS = ("broke", "skipped", "missing", "fixed", "new", "changed")


def groups(new: RunResult, old: RunResult) -> dict[str, list[str]]:
    found = compare(new, old)
    return {name: [change.id for change in getattr(found, name)] for name in GROUPS if getattr(found, name)}


@pytest.mark.parametrize(
    ("before", "after", "group", "status"),
    [
        ("pass", "pass", "", 0),
        ("fail", "fail", "", 0),
        ("skip", "skip", "", 0),
        ("pass", "fail", "broke", 1),
        ("pass", "flaky", "broke", 1),
        ("pass", "error", "broke", 1),
        ("xfail", "xpass", "broke", 1),
        ("skip", "crash", "broke", 1),
        ("", "fail", "broke", 1),
        ("pass", "skip", "skipped", 1),
        ("fail", "skip", "skipped", 1),
        ("pass", "", "missing", 1),
        ("fail", "", "missing", 1),
        ("skip", "", "missing", 1),
        ("fail", "pass", "fixed", 0),
        ("flaky", "pass", "fixed", 0),
        ("", "pass", "new", 0),
        ("", "skip", "new", 0),
        ("fail", "hang", "changed", 0),
        ("pass", "xfail", "changed", 0),
        ("fail", "xfail", "changed", 0),
        ("skip", "pass", "changed", 0),
    ],
)
def test_each_change_is_in_one_group(before: str, after: str, group: str, status: int) -> None:
    old = run(case("other"), *([case("x", before)] if before else []))
    new = run(case("other"), *([case("x", after)] if after else []))
    assert groups(new, old) == ({group: [case("x").id]} if group else {})
    assert compare(new, old).exit_status == status
    assert (text(compare(new, old)) == ["no difference"]) == (not group)


def test_another_failure_of_a_red_case_is_told() -> None:
    other = case("x", "fail", findings=(Finding(kind="leak", message="pool 2M", fingerprint="pool 2M"),))
    assert groups(run(other), run(case("x", "fail"))) == {"changed": [other.id]}
    assert "    pool 2M" in text(compare(run(other), run(case("x", "fail"))))


def test_what_was_selected_and_did_not_run_is_missing_even_if_it_is_new() -> None:
    new = run(case("x"), not_run=[case("y").id])
    assert groups(new, run(case("x"))) == {"missing": [case("y").id]}
    assert compare(new, run(case("x"))).exit_status == Exit.TESTS_FAILED


def test_a_run_that_was_cut_short_is_no_better_run() -> None:
    result = compare(run(case("x"), fault=Fault(exit_code=11, message="the disk is full")), run(case("x")))
    assert (result.exit_status, text(result)) == (Exit.TESTS_FAILED, ["cut short: the disk is full"])
    before = compare(run(case("x")), run(case("x"), interrupted=True))
    assert (before.exit_status, before.notes) == (
        0,
        ("the run to compare with was cut short: the run was interrupted",),
    )


def names(new: RunResult, old: RunResult) -> list[str]:
    return [one.name for one in compare(new, old).slower]


@pytest.mark.parametrize(
    ("old", "new", "told"), [(1.0, 1.9, False), (4.0, 5.5, False), (1.0, 2.1, True), (0.0, 1.1, True)]
)
def test_slower_is_more_than_noise(old: float, new: float, told: bool) -> None:
    assert names(run(case("x", seconds=new)), run(case("x", seconds=old))) == ([case("x").id] if told else [])


def test_many_cases_that_are_a_little_slower_are_told_together() -> None:
    old = run(*(case(f"x{number}", seconds=1.0) for number in range(20)))
    new = run(*(case(f"x{number}", seconds=1.4) for number in range(20)))
    assert names(new, old) == ["fork on x86_64, all that passed both times"]
    assert compare(new, old).exit_status == 0
    assert "  fork on x86_64, all that passed both times: 20.0 s -> 28.0 s, 1.4x" in text(compare(new, old))


def test_seconds_of_another_accelerator_or_of_a_failure_are_not_compared() -> None:
    old, slow = run(case("x", seconds=1.0)), case("x", seconds=9.0)
    kvm = run(slow, machines={"x86_64": MACHINE | {"accelerator": "kvm"}})
    assert names(kvm, old) == []
    assert compare(kvm, old).notes == ("x86_64: tcg before, kvm now: seconds are not compared",)
    assert names(run(replace(slow, status=case("x", "fail").status)), old) == []


def test_what_else_differs_is_noted() -> None:
    newer: dict[str, Any] = KERNEL | {"tree": "2" * 40}
    notes = compare(run(case("x"), kernels={"x86_64": newer}), run(case("x"))).notes
    assert notes == (f"x86_64: kernel_tree was {'1' * 40}, is {'2' * 40}",)


def test_it_is_plain_data_too() -> None:
    data = json.loads(json.dumps(compare(run(case("x", "fail")), run(case("x"))).to_json()))
    assert (data["exit_status"], data["broke"][0]["before"], data["broke"][0]["after"]) == (1, "pass", "fail")
