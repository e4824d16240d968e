# SPDX-License-Identifier: MIT
"""What `./hgm bisect` takes for the same bisection, and what `./hgm bisect-step` tells git; no kernel is built."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from harness import doctor, trial
from harness.bisect import verbs
from harness.bisect.failure import Failure, Word
from harness.bisect.verbs import Told
from harness.bisect.walk import Bisection
from harness.errors import BadInput, GuestFault, HostFault
from harness.kernel.source import NEEDED
from harness.report.results import CaseResult, Finding, RunResult, Status
from harness.trial import Built
from harness.verdict.fingerprint import known

NOT_OK = known(Finding(kind="ktap", message="not ok: x"))
OTHER = known(Finding(kind="leak", message="huge pages are not back"))


def result(status: Status, *findings: Finding) -> CaseResult:
    return CaseResult(
        id="a.c::x[x86_64-2M]", category="mapcount", arch="x86_64", huge_page_size=2 << 20, claim="", status=status,
        findings=findings,
    )  # fmt: skip


def ran(*cases: CaseResult) -> RunResult:
    return RunResult(started="now", finished="then", command=[], cases=list(cases))


PASSED, FAILED = result(Status.PASS), result(Status.FAIL, NOT_OK)


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A tree of three commits that looks like a kernel's."""
    monkeypatch.setenv("HGM_CACHE", os.fspath(tmp_path / "cache"))
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
    monkeypatch.setattr(doctor, "ensure", lambda arches: None)
    tree = tmp_path / "tree"
    for name in NEEDED:
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_text("VERSION = 6\nPATCHLEVEL = 1\n")
    git: list[str | Path] = ["git", "-C", tree, "-c", "user.name=a", "-c", "user.email=a"]
    for words in (["init", "-b", "main"], ["add", "."], *(["commit", "--allow-empty", "-m", str(n)] for n in range(3))):
        subprocess.run([*git, *words], check=True, capture_output=True)
    return tree


def test_another_bisection_does_not_go_on_from_this_one(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    places: list[Path] = []

    def bisection(**given: Any) -> SimpleNamespace:
        places.append(given["memory"].path)
        return SimpleNamespace(run=lambda good, bad: 0)

    def bisect(*words: str, good: str = "main~2") -> None:
        where = [f"--tree={tree}", "--bad=main", f"--results={tmp_path / 'results'}", f"--kconfig={fragment}"]
        assert verbs.main([*where, f"--good={good}", *words]) == 0

    monkeypatch.setattr(verbs, "Bisection", bisection)
    fragment = tmp_path / "more.config"
    fragment.write_text("CONFIG_A=y\n")
    bisect()
    bisect()
    assert len(set(places)) == 1
    others = (["--flavour=debug"], ["--stress=9"], ["--expect-hgm"], ["--runs=2"], ["--", "-k", "x"], ["--", "-k", "y"])
    for words in others:
        bisect(*words)
    bisect(good="main~1")
    fragment.write_text("CONFIG_B=y\n")
    bisect()
    assert len(set(places)) == 1 + len(others) + 2


@pytest.mark.parametrize(
    ("comes", "told"),
    [
        (ran(PASSED), Told.GOOD),
        (ran(FAILED), Told.BAD),
        (ran(result(Status.ERROR)), Told.SKIP),
        (GuestFault("not ready"), Told.SKIP),
        (None, Told.SKIP),  # it does not build
        (HostFault("no space left"), Told.FAULT),
        (RuntimeError("ours"), Told.FAULT),
        (BadInput("no case was selected"), Told.USAGE),
        (KeyboardInterrupt(), Told.INTERRUPTED),
    ],
)
def test_what_git_is_told_of_a_step(
    comes: RunResult | BaseException | None, told: Told, tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run_cases(*_: Any) -> RunResult:
        if isinstance(comes, RunResult):
            return comes
        assert comes
        raise comes

    image = tree / "Makefile" if comes else None
    monkeypatch.setattr(trial, "build", lambda *_: Built(image=image, problem="" if image else "does not build"))
    monkeypatch.setattr(trial, "run_cases", run_cases)
    assert verbs.step([f"--tree={tree}", f"--results={tmp_path / 'results'}"]) == told


@pytest.mark.parametrize(
    ("before", "now", "told"),
    [
        (PASSED, FAILED, Told.USAGE),  # there is nothing to compare with
        (FAILED, PASSED, Told.GOOD),
        (FAILED, FAILED, Told.BAD),
        (FAILED, result(Status.FAIL, OTHER), Told.SKIP),
    ],
)
def test_a_step_follows_what_has_failed_before(
    before: CaseResult, now: CaseResult, told: Told, tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run_cases(words: list[str], *_: Any) -> RunResult:
        assert words[-1] == before.id
        return ran(now)

    ran(before).write(tmp_path / "results.json")
    monkeypatch.setattr(trial, "build", lambda *_: Built(image=tree / "Makefile"))
    monkeypatch.setattr(trial, "run_cases", run_cases)
    words = [f"--same-as={tmp_path}", f"--results={tmp_path / 'step'}"]
    assert verbs.step([f"--tree={tree}", *words]) == told


@pytest.mark.parametrize(
    ("runs", "statuses", "word"),
    [
        (3, [Status.PASS, Status.PASS, Status.FAIL], Word.BAD),
        (3, [Status.FAIL], Word.BAD),
        (2, [Status.PASS, Status.PASS], Word.GOOD),
    ],
)
def test_a_commit_is_run_until_it_fails(
    runs: int, statuses: list[Status], word: Word, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = [FAILED if status is Status.FAIL else PASSED for status in statuses]
    monkeypatch.setattr(trial, "run_cases", lambda *_: ran(left.pop(0)))
    anything: Any = None
    bisection = Bisection(
        tree=tmp_path, words=[], running=[], selection=[], runs=runs, history=anything, memory=anything,
        directory=tmp_path,
    )  # fmt: skip
    found = Failure(case=FAILED.id, kind=NOT_OK.kind, fingerprint=NOT_OK.fingerprint)
    assert bisection._runs("main", found, tmp_path).word is word
    assert not left
