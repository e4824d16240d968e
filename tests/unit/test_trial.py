# SPDX-License-Identifier: MIT
"""What a run in a process of its own comes to: results, or the error that ended it, and never a guess."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from harness import trial
from harness.errors import BadInput, GuestFault, HarnessError, HostFault
from harness.kernel.build import BuildFailed
from harness.paths import ROOT
from harness.report.results import CaseResult, Fault, Finding, RunResult, Status, read

PASSED = CaseResult(
    id="a.c::x[x86_64-2M]", category="fork", arch="x86_64", huge_page_size=2 << 20, claim="c", status=Status.PASS
)
FAILED = CaseResult(
    id="a.c::y[x86_64-2M]", category="fork", arch="x86_64", huge_page_size=2 << 20, claim="c", status=Status.FAIL,
    findings=(Finding(kind="ktap", message="not ok: y", evidence="why"),), diagnostics=("said",),
)  # fmt: skip


def ends(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, status: int, result: RunResult | None) -> None:
    """Let the child be a script that ends as no real run can be made to: it leaves `result`, and ends with `status`."""
    prepared = tmp_path / "prepared.json"
    if result:
        result.write(prepared)
    script = f'test -e "{prepared}" && cp "{prepared}" "$6/results.json"; exit {status}'
    monkeypatch.setattr(trial, "_CHILD", ("sh", "-c", script, "sh"))


def run_result(*cases: CaseResult, finished: str = "then", **more: Any) -> RunResult:
    return RunResult(started="now", finished=finished, command=["hgm"], cases=list(cases), **more)


def test_what_was_written_is_read_again(tmp_path: Path) -> None:
    whole = run_result(PASSED, FAILED, fault=Fault(exit_code=10, message="it broke"))
    whole.write(tmp_path / "results.json")
    assert read(tmp_path / "results.json") == whole


@pytest.mark.parametrize("status", [0, 1])
def test_the_results_of_a_run_that_ended_by_itself(
    status: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    ends(monkeypatch, tmp_path, status, run_result(PASSED, FAILED))
    assert trial.run_cases([], tmp_path / "run", tmp_path).cases == [PASSED, FAILED]


@pytest.mark.parametrize("status", [2, 3, 9, 137])
def test_an_end_that_says_nothing_of_the_kernel_is_none(
    status: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    ends(monkeypatch, tmp_path, status, run_result(FAILED))
    with pytest.raises(KeyboardInterrupt if status == 2 else HostFault):
        trial.run_cases([], tmp_path / "run", tmp_path)


def test_failed_without_results_is_no_verdict(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    ends(monkeypatch, tmp_path, 1, None)
    with pytest.raises(HostFault, match="ended with status 1"):
        trial.run_cases([], tmp_path / "run", tmp_path)


@pytest.mark.parametrize("status", [1, 137])
def test_results_of_a_run_that_did_not_come_to_its_end_are_no_verdict(
    status: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    ends(monkeypatch, tmp_path, status, run_result(FAILED, finished=""))
    with pytest.raises(HostFault, match=f"ended with status {status}"):
        trial.run_cases([], tmp_path / "run", tmp_path)


def test_results_of_an_interrupted_run_are_no_verdict(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    ends(monkeypatch, tmp_path, 1, run_result(FAILED, interrupted=True))
    with pytest.raises(KeyboardInterrupt):
        trial.run_cases([], tmp_path / "run", tmp_path)


def test_green_less_what_was_lost_is_no_verdict(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As when a worker of pytest-xdist dies; after -x a case without a result is as it should be."""
    green = run_result(PASSED, not_run=["a.c::b[x86_64-2M]"])
    ends(monkeypatch, tmp_path, 1, green)
    with pytest.raises(HostFault, match=r"1 case\(s\) without a result, such as a\.c::b\[x86_64-2M\]"):
        trial.run_cases([], tmp_path / "run", tmp_path)
    assert trial.run_cases([], tmp_path / "run", tmp_path, partial=True) == green
    red = run_result(PASSED, FAILED, not_run=["a.c::b[x86_64-2M]"])
    ends(monkeypatch, tmp_path, 1, red)
    assert trial.run_cases([], tmp_path / "run", tmp_path) == red


@pytest.mark.parametrize(
    ("status", "kind"), [(4, BadInput), (10, GuestFault), (11, HostFault), (12, BuildFailed), (9, HostFault)]
)
def test_the_fault_that_ended_a_run_is_raised_again(
    status: int, kind: type[HarnessError], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    ends(monkeypatch, tmp_path, status, run_result(FAILED, fault=Fault(exit_code=status, message="it broke")))
    with pytest.raises(kind, match="it broke") as caught:
        trial.run_cases([], tmp_path / "run", tmp_path)
    assert caught.type is kind


@pytest.mark.parametrize(
    ("status", "comes"),
    [
        (0, trial.Built(image=Path("/image"))),
        (4, trial.Built(image=None, problem="it broke\n/image")),
        (12, trial.Built(image=None, problem="it broke\n/image")),
        (2, KeyboardInterrupt),
        (1, HostFault),
        (10, HostFault),
        (11, HostFault),
        (137, HostFault),
    ],
)
def test_what_a_build_comes_to(
    status: int, comes: trial.Built | type[BaseException], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(trial, "_CHILD", ("sh", "-c", f"echo hgm: it broke; echo /image; exit {status}", "sh"))
    if isinstance(comes, trial.Built):
        assert trial.build([], tmp_path / "build.txt", tmp_path) == comes
        return
    with pytest.raises(comes):
        trial.build([], tmp_path / "build.txt", tmp_path)


def test_an_internal_error_of_pytest_is_a_fault_of_the_host(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    ends(monkeypatch, tmp_path, 3, run_result(PASSED, fault=Fault(exit_code=3, message="pytest met an internal error")))
    with pytest.raises(HostFault, match="pytest met an internal error"):
        trial.run_cases([], tmp_path / "run", tmp_path)


def test_results_of_an_earlier_run_in_the_same_place_are_not_taken(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "run").mkdir()
    run_result(FAILED).write(tmp_path / "run/results.json")
    ends(monkeypatch, tmp_path, 0, None)
    with pytest.raises(HostFault):
        trial.run_cases([], tmp_path / "run", tmp_path)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--no-such-option"], "unrecognized arguments: --no-such-option"),
        (["-k", "there_is_no_such_case"], "no case was selected"),
        (["--kernel=/nowhere/bzImage", "-k", "mapcount and 2M"], "/nowhere/bzImage is not there"),
    ],
)
def test_a_request_that_cannot_be_met_is_bad_input(words: list[str], told: str, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=told):
        trial.run_cases(words, tmp_path / "run", ROOT)


def test_a_source_that_is_none_has_no_kernel_and_says_why(tmp_path: Path) -> None:
    built = trial.build([f"--tree={tmp_path}"], tmp_path / "build.txt", ROOT)
    assert built.image is None
    assert "is not a kernel tree" in built.problem


@pytest.mark.parametrize(
    "words",
    [
        ("--no-such-option",),
        ("--arch", "vax"),
        ("--arch", "all"),
        ("--tree", "/nowhere"),
        ("--runs", "0"),
        ("--same-as", "/nowhere/results.json"),
        ("--kernel", "/nowhere/bzImage"),
    ],
)
def test_a_typo_is_never_bad_to_git(words: tuple[str, ...]) -> None:
    argv = [sys.executable, "-P", "-m", "harness", "bisect-step", *words]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 129, done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("ended", "told"), [(0, 0), (100, 1), (125, 125), (128, 128), (130, 130), (1, 128), (2, 128), (11, 128), (12, 128)]
)
def test_the_launcher_lets_only_a_judgement_be_bad(ended: int, told: int, tmp_path: Path) -> None:
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\n[ "$1" = -ESc ] && exit 0\nexit {ended}\n')
    python.chmod(0o755)
    environment = os.environ | {"HGM_PYTHON": os.fspath(python)}
    assert subprocess.run([ROOT / "hgm", "bisect-step"], env=environment).returncode == told
    assert subprocess.run([ROOT / "hgm", "doctor"], env=environment).returncode == ended


def test_a_launcher_without_python_is_not_bad_to_git() -> None:
    environment = os.environ | {"HGM_PYTHON": "/bin/false"}
    done = subprocess.run([ROOT / "hgm", "bisect-step"], env=environment, capture_output=True)
    assert done.returncode == 128
