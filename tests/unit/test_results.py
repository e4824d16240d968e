# SPDX-License-Identifier: MIT
"""The result model and its table."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from harness.errors import BadInput
from harness.report.results import RED, SCHEMA, CaseResult, Finding, RunResult, Status, read, table, together
from harness.session import start


def case(category: str, status: Status) -> CaseResult:
    return CaseResult(
        id=f"guest_tests/{category}/a.c::x[x86_64-2M]", category=category, arch="x86_64", huge_page_size=2 << 20,
        claim="", status=status, findings=(Finding(kind="ktap", message="not ok: x"),),
    )  # fmt: skip


def test_the_table_has_a_row_per_category_and_only_columns_that_occur() -> None:
    cases = [case("fork", Status.PASS), case("fork", Status.SKIP), case("mapcount", Status.PASS)]
    assert table(cases) == [
        "category    pass    skip",
        "fork           1       1",
        "mapcount       1       -",
        "total          2       1",
    ]


def test_no_cases_no_table() -> None:
    assert table([]) == []


def test_results_are_written_whole(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    RunResult(started="2026-01-01T00:00:00+00:00", command=["hgm"], cases=[case("fork", Status.FAIL)]).write(path)
    data = json.loads(path.read_text())
    assert (data["schema"], data["cases"][0]["status"]) == (SCHEMA, "fail")
    assert data["cases"][0]["findings"] == [{"kind": "ktap", "message": "not ok: x", "evidence": "", "fingerprint": ""}]
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("statuses", "expected"),
    [
        ("pass", "pass"),
        ("fail", "fail"),
        ("pass pass", "pass"),
        ("skip skip", "skip"),
        ("fail fail", "fail"),
        ("fail crash", "crash"),
        ("error fail", "fail"),
        ("fail skip", "fail"),
        ("fail pass", "flaky"),
        ("pass pass hang", "flaky"),
        ("error pass", "flaky"),
        ("skip pass", "flaky"),
    ],
)
def test_several_attempts_come_to_one_result(statuses: str, expected: str, tmp_path: Path) -> None:
    attempts = [case("fork", Status(status)) for status in statuses.split()]
    whole = together(attempts)
    assert whole.status == expected
    assert whole.red == (Status(expected) in RED)
    assert [one.status for one in whole.attempts] == (statuses.split() if len(attempts) > 1 else [])
    run = RunResult(started="", command=[], cases=[whole])
    run.write(tmp_path / "results.json")
    assert read(tmp_path / "results.json") == run


def test_what_stands_for_a_flaky_case_is_its_worst_attempt() -> None:
    good, bad = case("fork", Status.PASS), replace(case("fork", Status.CRASH), directory="cases/x-2")
    assert together([good, bad]).directory == "cases/x-2"


def test_runs_are_dated_and_the_latest_is_linked(tmp_path: Path) -> None:
    first, _ = start(None, tmp_path, ["hgm"])
    second, _ = start(None, tmp_path, ["hgm"])
    assert first != second
    assert (tmp_path / "latest").resolve() == second


def test_a_place_that_cannot_be_written_is_bad_input(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(BadInput, match="cannot be written"):
        start(tmp_path / "file/run", tmp_path, ["hgm"])
