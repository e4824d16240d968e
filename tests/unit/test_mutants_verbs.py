# SPDX-License-Identifier: MIT
"""Trying seeded bugs, with kernels and guests that are only pretended: what is run, and what is taken as known."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from harness import trial
from harness.arch import ARM64, X86_64
from harness.guest.cases import Case
from harness.mutants import verbs
from harness.mutants.header import Bug
from harness.mutants.outcome import Record
from harness.mutants.verbs import Mutants, _asked, _sampled
from harness.mutants.verdict import Word
from harness.report.results import CaseResult, Finding, RunResult, Status
from harness.trial import Built

BUG = Bug(
    path=Path("lost.patch"), title="lost", category="mapcount", arches=(X86_64, ARM64), notices=("it counts once",)
)
NOT_OK = Finding(kind="ktap", message="not ok: x")


@dataclass
class World:
    """Takes the place of builds and guests: what the one case comes to with the bug and without it."""

    bug: Bug
    mutants: Mutants
    seeded: Status | None = Status.FAIL  # None: it has no result
    sound: Status | None = Status.PASS
    case: str = "x"
    ran: list[str] = field(default_factory=list)  # the places of the runs

    def build(self, arguments: Sequence[str], log: Path, cwd: Path) -> Built:
        return Built(image=log)

    def run_cases(self, arguments: Sequence[str], directory: Path, cwd: Path) -> RunResult:
        self.ran.append(directory.name)
        directory.mkdir(exist_ok=True)
        (directory / "ktap.txt").touch()
        status = self.seeded if f"--series={self.bug.path}" in arguments else self.sound
        result = RunResult(started="", command=[])
        if status:
            findings = (NOT_OK,) if status is Status.FAIL else ()
            result.cases = [
                CaseResult(id=self.case, category="mapcount", arch="x86_64", huge_page_size=2 << 20, claim="",
                           status=status, findings=findings)
            ]  # fmt: skip
        return result

    def tried(self) -> Word:
        return self.mutants.outcome(self.bug, X86_64).judgement.word


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    bug = replace(BUG, path=tmp_path / "lost.patch")
    bug.path.write_text("one")
    record = Record(tmp_path / "mutants.json")
    made = World(bug, Mutants(record=record, cases=[], stages=("category", "all"), widen=True, workers=1))
    monkeypatch.setattr(trial, "build", made.build)
    monkeypatch.setattr(trial, "run_cases", made.run_cases)
    return made


@pytest.mark.parametrize(
    ("sound", "word"), [(Status.PASS, Word.CAUGHT), (Status.FAIL, Word.UNKNOWN), (None, Word.UNKNOWN)]
)
def test_only_a_case_that_passes_without_the_bug_catches_it(sound: Status | None, word: Word, world: World) -> None:
    world.sound = sound
    assert world.tried() is word
    assert world.ran == ["category", "baseline-x86_64-fast"]


def test_what_was_caught_is_not_tried_again_unless_the_patch_is_another(world: World) -> None:
    assert world.tried() is world.tried() is Word.CAUGHT
    assert world.ran == ["category", "baseline-x86_64-fast"]
    world.bug.path.write_text("two")
    assert world.tried() is Word.CAUGHT
    assert world.ran[2:] == ["category"]


@pytest.mark.parametrize(
    ("changed", "again"), [("lib/hgm.h", True), ("mapcount/a.c", True), ("mapcount/b.c", False), ("fork/c.py", False)]
)
def test_what_was_caught_is_tried_again_if_its_cases_are_others(
    changed: str, again: bool, world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verbs, "ROOT", tmp_path)
    monkeypatch.setattr(verbs, "GUEST_TESTS", tmp_path)
    for name in ("lib/hgm.h", "mapcount/a.c", "mapcount/b.c", "fork/c.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("one")
    programs = [tmp_path / name for name in ("mapcount/a.c", "mapcount/b.c", "fork/c.py")]
    world.mutants.cases = [Case(program=program, line=1, name="x", claim="", needs_hgm=True) for program in programs]
    world.case = "mapcount/a.c::x[x86_64-2M]"
    assert world.tried() is Word.CAUGHT
    (tmp_path / changed).write_text("two")
    ran = len(world.ran)
    assert world.tried() is Word.CAUGHT
    assert (len(world.ran) > ran) is again


@pytest.mark.parametrize(("widen", "ran"), [(True, ["category", "all"]), (False, ["category"])])
def test_a_miss_goes_on_to_further_cases(widen: bool, ran: list[str], world: World) -> None:
    world.seeded, world.mutants.widen = Status.PASS, widen
    assert world.tried() is Word.MISSED
    assert world.ran == ran


@pytest.mark.parametrize("parts", [1, 3, 9])
def test_the_parts_of_all_bugs_are_all_bugs(parts: int) -> None:
    bugs = [replace(BUG, path=Path(f"{number}.patch")) for number in range(7)]
    found = [bug for part in range(1, parts + 1) for bug in _sampled(bugs, f"{part}/{parts}", datetime.date.min)]
    assert sorted(bug.name for bug in found) == [bug.name for bug in bugs]


@pytest.mark.parametrize(
    ("name", "arches"), [(None, [X86_64]), ("all", [X86_64, ARM64]), ("arm64", [ARM64]), ("arm64-64k", [])]
)
def test_a_bug_is_tried_where_it_is_asked_for(name: str | None, arches: list[object]) -> None:
    assert [arch for _, arch in _asked([BUG], name)] == arches
