# SPDX-License-Identifier: MIT
"""The table of a series: the first patch at which each case changed."""

from __future__ import annotations

from harness.report.results import Status
from harness.series import Step, change_table, changes

PASS, FAIL, SKIP, CRASH = Status.PASS, Status.FAIL, Status.SKIP, Status.CRASH


def steps(*statuses: dict[str, Status], arch: str = "x86_64") -> list[Step]:
    return [
        Step(number=number, subject=f"patch {number}", arch=arch, build_s=0, cases=cases)
        for number, cases in enumerate(statuses)
    ]


def test_the_first_change_of_each_case_in_the_order_of_the_patches() -> None:
    table = steps(
        {"a": SKIP, "b": PASS, "c": PASS},
        {"a": SKIP, "b": PASS, "c": PASS},
        {"a": SKIP, "b": CRASH, "c": PASS},
        {"a": PASS, "b": PASS, "c": PASS},
    )
    assert [(one.case, one.before, one.after, one.where) for one in changes(table)] == [
        ("b", PASS, CRASH, "2"),
        ("a", SKIP, PASS, "3"),
    ]


def test_a_patch_that_was_not_tested_makes_it_a_range() -> None:
    (one,) = changes(steps({"a": PASS}, {}, {}, {"a": FAIL}))
    assert (one.where, one.number, one.since) == ("1..3", 3, 0)


def test_a_case_that_is_new_has_not_changed() -> None:
    assert changes(steps({}, {"a": FAIL}, {"a": FAIL})) == []


def test_two_architectures_do_not_mix() -> None:
    both = [*steps({"a[x86_64-2M]": PASS}, {"a[x86_64-2M]": PASS}), *steps({"a[arm64-2M]": FAIL}, arch="arm64")]
    assert changes(both) == []


def test_what_turns_red_is_named_and_what_turns_green_is_counted() -> None:
    names = [f"case{number}" for number in range(5)]
    table = steps(dict.fromkeys(names, SKIP) | {"x": PASS, "y": PASS, "z": PASS, "w": PASS},
                  dict.fromkeys(names, PASS) | {"x": FAIL, "y": FAIL, "z": FAIL, "w": FAIL})  # fmt: skip
    assert change_table(table) == [
        "first patch at which a case changed:",
        "     1  pass -> fail: 4",
        *(f"          {name}" for name in "wxyz"),
        "     1  skip -> pass: 5",
        *(f"          {name}" for name in names[:3]),
        "          and 2 more",
    ]


def test_a_table_without_changes_says_so() -> None:
    assert change_table(steps({"a": PASS}, {"a": PASS})) == ["no case changed at any patch"]
    assert change_table(steps({}, {})) == ["no case was run"]
