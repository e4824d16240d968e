# SPDX-License-Identifier: MIT
"""Which options come to the runs of a series, and where in it HGM is expected."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from harness import doctor, series, trial
from harness.arch import X86_64
from harness.errors import BadInput, Exit
from harness.options import add_options
from harness.report.results import CaseResult, RunResult, Status
from harness.series import Cases, Step
from tests import runs

ABOUT_KERNELS = {"arch", "tree", "commit", "source_package", "tarball", "series", "kconfig", "flavour", "stock"}


def started(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, *words: str) -> Cases | None:
    """Return what `./hgm series` with these words would run cases with."""
    asked: list[Cases | None] = []

    def walk(*arguments: Any) -> Iterator[Step]:
        asked.append(arguments[-1])
        yield from ()

    monkeypatch.setattr(doctor, "ensure", lambda arches: None)
    monkeypatch.setattr(series, "walk", walk)
    results = [f"--results={tmp_path / 'results'}"] if "--" in words else []
    assert series.main([*results, *words]) == Exit.OK
    return asked[0]


def test_every_option_is_used_passed_on_or_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    parser = argparse.ArgumentParser()
    add_options(parser.add_argument)
    mine = {*ABOUT_KERNELS, "results", "expect_hgm", "huge_pages"}
    assert vars(parser.parse_args([])).keys() == {*mine, *series.RUNNING, *series.UNFIT}
    (tmp_path / "known.toml").touch()
    words = ("--stress=60", f"--expected-failures={tmp_path / 'known.toml'}", "--repeat=3", "--dump-memory")
    cases = started(monkeypatch, tmp_path, *words, "--huge-pages=2M=8", "--expect-hgm", "--", "-k", "fork")
    assert cases and set(cases.options) == {*words} and cases.selection == ["-k", "fork"]
    assert cases.huge_pages == "2M=8"
    for word in ("--kernel=x", "--kernel-config=x", "--kselftest=mm", "--pause-on-failure"):
        with pytest.raises(BadInput, match=f"{word.partition('=')[0]} does not go with"):
            started(monkeypatch, tmp_path, word, "--")
    assert started(monkeypatch, tmp_path, "--huge-pages=2M=8") is None
    for word in ("--stress=60", "--expect-hgm", "--results=x"):
        with pytest.raises(BadInput, match=f"{word.partition('=')[0]} is about cases"):
            started(monkeypatch, tmp_path, word)
    for word in ("--json=/nonexistent/x", f"--json={tmp_path}"):
        with pytest.raises(BadInput, match="cannot be written"):
            started(monkeypatch, tmp_path, word)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ([], True),  # the reference series
        (["--patches=1-3"], False),
        (["--patches=1-3", "--expect-hgm"], True),
        (["--series=x"], False),
        (["--series=x", "--expect-hgm"], True),
    ],
)
def test_hgm_is_expected_where_it_is_asked_for(
    words: list[str], expected: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    cases = started(monkeypatch, tmp_path, *words, "--")
    assert cases and cases.expect_hgm is expected


SKIPPED = runs.case("a", "skip", reason="kernel has no HGM")
PASSED = runs.case("a")


@pytest.mark.parametrize(
    ("expect_hgm", "seen", "red"),
    [
        (True, [SKIPPED, SKIPPED, PASSED], []),
        (True, [SKIPPED, PASSED, SKIPPED, PASSED], [2]),
        (True, [SKIPPED, SKIPPED], [1]),
        (True, [runs.case("a", "skip")], []),
        (True, [PASSED, runs.case("a", "xfail")], []),
        (False, [PASSED, SKIPPED, PASSED, runs.case("a", "error")], [3]),
    ],
)
def test_hgm_that_is_lost_or_never_there_is_red(
    expect_hgm: bool, seen: list[CaseResult], red: list[int], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    left = list(seen)

    def run_cases(arguments: list[str | os.PathLike[str]], directory: Path, cwd: Path) -> RunResult:
        assert {"--arch=x86_64", "--kernel=IMAGE", "--stress=60", "--huge-pages=2M=8"} < set(arguments)
        result = runs.run(left.pop(0))
        result.machines["x86_64"]["template_boot_seconds"] = 1.0
        return result

    monkeypatch.setattr(trial, "run_cases", run_cases)
    kernel: Any = SimpleNamespace(arch=X86_64, image="IMAGE", config="CONFIG")
    cases = Cases(["-k", "fork"], ["--stress=60"], expect_hgm, tmp_path, "2M=8,64K=5")
    steps = []
    for number in range(len(seen)):
        step = Step(number=number, subject="", arch="x86_64", build_s=0)
        steps.append(cases.run(step, kernel, last=number == len(seen) - 1))
    assert [step.number for step in steps if step.status] == red
    lost = [number for number in red if seen[number].status is Status.SKIP]
    assert [step.number for step in steps if "HGM was expected" in step.problem] == lost
