# SPDX-License-Identifier: MIT
"""What runs of the suite come to that should all be green."""

from __future__ import annotations

import datetime
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from harness import doctor, soak, trial
from harness.errors import BadInput, Exit
from harness.guest import cases
from harness.report.results import CaseResult, Finding, RunResult, Status
from harness.soak import Lap, Laps, changed, lap_of, line, main, markdown, summary

CLEAN = Lap(
    number=1, seed=7, started="2026-01-02T03:04:05+00:00", seconds=61.4, load=3.25,
    counts={"x86_64": {"pass": 3, "skip": 1}},
    key="k", options=("--arch=all", "-n2"),
)  # fmt: skip
RED = Lap(
    number=2, seed=8, started="2026-01-02T04:04:05+00:00", seconds=60.0, load=4.0,
    counts={"x86_64": {"fail": 1, "pass": 3}}, red=("a.c::x[x86_64-2M]: fail: expected 1 | 2",),
    key="k", options=("--arch=all", "-n2"),
)  # fmt: skip


def case(name: str, arch: str, status: Status, *findings: Finding) -> CaseResult:
    return CaseResult(
        id=f"a.c::{name}[{arch}-2M]", category="fork", arch=arch, huge_page_size=2 << 20, claim="x", status=status,
        findings=findings,
    )  # fmt: skip


@pytest.mark.parametrize("status", [status for status in Status if status not in ("pass", "skip", "xfail")])
def test_whatever_is_no_pass_is_an_alarm(status: Status) -> None:
    result = RunResult(started="2026-01-02T03:04:05+00:00", command=[])
    finding = Finding(kind="ktap", message="not ok: x")
    result.cases += [
        case("a", "x86_64", Status.PASS),
        case("b", "arm64", Status.SKIP),
        case("c", "arm64", status, finding),
    ]
    lap = lap_of(result, number=1, seed=5, seconds=1.0, load=1.0, key="k", options=("-n2",))
    assert lap.counts == {"arm64": {status.value: 1, "skip": 1}, "x86_64": {"pass": 1}}
    assert lap.red == (f"a.c::c[arm64-2M]: {status.value}: not ok: x",)
    assert lap.cases == 3


def test_what_has_no_result_was_not_seen_to_be_green() -> None:
    result = RunResult(started="2026-01-02T03:04:05+00:00", command=[], not_run=["a.c::lost[x86_64-2M]"])
    result.cases.append(case("b", "x86_64", Status.SKIP))
    lap = lap_of(result, number=1, seed=5, seconds=1.0, load=1.0, key="k", options=("-n2",))
    assert lap.red == ("a.c::lost[x86_64-2M]: has no result", "no case has passed")


def test_laps_are_kept_and_those_of_other_tests_do_not_count(tmp_path: Path) -> None:
    laps = Laps.load(tmp_path / "soak.json")
    laps.add(CLEAN)
    laps.add(RED)
    again = Laps.load(tmp_path / "soak.json")
    assert again.of("k") == again.of("k", CLEAN.options) == [CLEAN, RED]
    assert again.of("other") == again.of("k", ("--arch=all",)) == []


def test_a_table_and_a_line_tell_of_red_ones() -> None:
    other = replace(CLEAN, number=3, options=("-k", "fork and 2M"))
    page = markdown([CLEAN, RED, other], datetime.date(2026, 1, 3))
    assert "on 2026-01-03. 3 runs, 2 clean; 12 results of cases, 1 false alarms.\n" in page
    first, second = page.split("\n## ")[1:]
    assert first.startswith("`--arch=all -n2`\n\n| run |") and second.startswith("`-k 'fork and 2M'`\n\n| run |")
    rows = first.splitlines()[4:]
    assert rows[0] == "| 1 | 2026-01-02 03:04 | 7 | 3 pass, 1 skip | none | 3.2 | 61 |"
    assert [row.split(" | ")[0] for row in rows] == ["| 1", "| 2"]
    assert [row.split(" | ")[0] for row in second.splitlines()[4:]] == ["| 1"]
    assert rows[1].split(" | ")[4] == r"a.c::x[x86_64-2M]: fail: expected 1 \| 2"
    assert line(RED).splitlines() == [
        "run 2   4 cases, 1 red  seed 8  load 4.0  60 s",
        "    a.c::x[x86_64-2M]: fail: expected 1 | 2",
    ]
    assert summary([CLEAN, RED]) == "2 runs, 1 clean; 8 results of cases, 1 false alarms"


def test_what_a_program_said_before_it_was_changed_is_told_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(soak, "ROOT", tmp_path)
    (tmp_path / "a.c").write_text("one")
    (tmp_path / "b.c").write_text("one")
    result = RunResult(started="2026-01-02T03:04:05+00:00", command=[], not_run=["b.c::lost[x86_64-2M]"])
    result.cases.append(case("x", "x86_64", Status.FAIL))
    lap = lap_of(result, number=1, seed=5, seconds=1.0, load=1.0, key="k", options=("-n2",))
    assert set(lap.programs) == {"a.c", "b.c"}
    assert (lap.alarms(), changed([lap, lap])) == (list(lap.red), [])
    (tmp_path / "a.c").write_text("two")
    later = replace(lap, programs=lap_of(result, number=2, seed=5, seconds=1.0, load=1.0, key="k", options=()).programs)
    assert lap.alarms() == ["b.c::lost[x86_64-2M]: has no result", "no case has passed"]
    assert later.alarms() == list(lap.red)
    assert changed([lap, lap, later]) == ["a.c as it is now: 1 of 3 runs"]
    page = markdown([lap, later], datetime.date(2026, 1, 3))
    assert page.endswith(" |\n\na.c as it is now: 1 of 2 runs\n")
    # One that is new was not in earlier runs; one that is gone is of no interest.
    assert changed([lap, replace(lap, programs={})]) == [
        "a.c as it is now: 0 of 2 runs",
        "b.c as it is now: 1 of 2 runs",
    ]
    (tmp_path / "a.c").unlink()
    assert changed([later]) == []


@pytest.mark.parametrize("words", [["--runs", "0"], ["--workers", "0"], ["--load", "-1"], ["--wrong"]])
def test_numbers_that_are_none_are_refused(words: list[str]) -> None:
    with pytest.raises(BadInput):
        main(words)


@pytest.fixture
def asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """What a soak asks of its runs, of which each has a case that passes, and from the third on one that fails."""
    words: list[list[str]] = []

    def run_cases(arguments: list[str], directory: Path, cwd: Path, *, partial: bool) -> RunResult:
        words.append(arguments)
        result = RunResult(started="2026-01-02T03:04:05+00:00", command=[])
        result.cases += [case("a", "x86_64", Status.PASS), *[case("b", "x86_64", Status.FAIL)][: len(words) // 3]]
        return result

    for name, text in (
        ("series/1.patch", "one"),
        ("guest_tests/lib/hgm.c", "one"),
        ("guest_tests/fork/a.c", 'HGM_CASE(x, "claim") {}'),
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(soak, "GUEST_TESTS", tmp_path / "guest_tests")
    monkeypatch.setattr(cases, "GUEST_TESTS", tmp_path / "guest_tests")
    monkeypatch.setattr(soak, "REFERENCE", tmp_path / "series")
    monkeypatch.setattr(trial, "run_cases", run_cases)
    monkeypatch.setattr(doctor, "ensure", lambda arches: None)
    return words


def test_laps_of_the_same_count_and_no_others(tmp_path: Path, asked: list[list[str]]) -> None:
    def laps(*words: str) -> int:
        before = len(asked)
        main(["--runs=2", f"--results={tmp_path / 'results'}", *words])
        return len(asked) - before

    assert (laps(), laps()) == (2, 0)
    assert (laps("--workers=1"), laps("--arch=x86_64"), laps("--", "-k", "x")) == (2, 2, 2)
    (tmp_path / "guest_tests/fork/a.c").write_text('HGM_CASE(x, "another claim") {}')
    assert laps() == 0
    (tmp_path / "guest_tests/lib/hgm.c").write_text("two")
    assert laps() == 2
    (tmp_path / "series/1.patch").write_text("two")
    assert laps() == 2
    assert all({"--expect-hgm", f"--series={tmp_path / 'series'}"} <= set(words) for words in asked)
    assert asked[6][-2:] == ["-k", "x"]


def test_a_run_during_which_guest_tests_were_changed_does_not_count(
    tmp_path: Path, asked: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    run_cases = trial.run_cases

    def changing(*words: Any, **more: Any) -> RunResult:
        (tmp_path / "guest_tests/fork/a.c").write_text('HGM_CASE(y, "claim") {}')
        return run_cases(*words, **more)

    monkeypatch.setattr(trial, "run_cases", changing)
    with pytest.raises(BadInput, match="were changed during run 1,"):
        main([f"--results={tmp_path / 'results'}", "--runs=1"])
    assert Laps.load(tmp_path / "results/soak.json").laps == []


def test_a_red_lap_is_the_status_of_all(tmp_path: Path, asked: list[list[str]]) -> None:
    words = [f"--results={tmp_path / 'results'}"]
    assert main([*words, "--runs=2"]) == Exit.OK
    assert main([*words, "--runs=3"]) == Exit.TESTS_FAILED
    assert main([*words, "--runs=3"]) == Exit.TESTS_FAILED
