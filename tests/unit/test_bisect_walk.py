# SPDX-License-Identifier: MIT
"""A whole bisection over a real git history, with kernels that are only pretended: what it asks, keeps and says."""

from __future__ import annotations

import json
import os
import subprocess
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from harness import doctor, trial
from harness.bisect import verbs
from harness.errors import BadInput, Exit, GuestFault, HostFault
from harness.kernel.source import NEEDED
from harness.report.results import CaseResult, Finding, RunResult, Status
from harness.trial import Built

COUNT = 16  # commits after the first
FIRST_BAD = 11
FILES = {name: "" for name in NEEDED} | {"Makefile": "VERSION = 6\nPATCHLEVEL = 1\n"}
NOT_OK = Finding(kind="ktap", message="not ok: x")
WARNED = Finding(kind="splat", message="warning: WARNING: at f.c:1 g+0x1/0x2", evidence="WARNING: at f.c:1 g+0x1/0x2")


def result(name: str, status: Status, *findings: Finding) -> CaseResult:
    return CaseResult(
        id=f"a.c::{name}[x86_64-2M]", category="mapcount", arch="x86_64", huge_page_size=2 << 20, claim="",
        status=status, findings=findings, seconds=1,
    )  # fmt: skip


def regressed(number: int, run: int) -> CaseResult:
    return result("x", Status.FAIL, NOT_OK) if number >= FIRST_BAD else result("x", Status.PASS)


@dataclass
class World:
    """Takes the place of builds and guests: what each commit does, and how often it was asked."""

    tree: Path
    place: Path
    case: Callable[[int, int], CaseResult] = regressed  # of the number of a commit, and of the run of it
    image: Callable[[int], str] = str
    built: Counter[int] = field(default_factory=Counter)
    ran: Counter[int] = field(default_factory=Counter)

    def number(self, arguments: Sequence[str | os.PathLike[str]]) -> int:
        commit = next(str(word) for word in arguments if str(word).startswith("--commit=")).partition("=")[2]
        argv = ["git", "show", "--no-patch", "--format=%s", commit]
        return int(subprocess.run(argv, cwd=self.tree, check=True, capture_output=True, text=True).stdout)

    def build(self, arguments: Sequence[str], log: Path, cwd: Path) -> Built:
        number = self.number(arguments)
        self.built[number] += 1
        if not self.image(number):
            return Built(image=None, problem="does not build")
        path = self.place / f"image-{number}"
        path.write_text(self.image(number))
        return Built(image=path)

    def run_cases(self, arguments: Sequence[str | os.PathLike[str]], directory: Path, cwd: Path) -> RunResult:
        number = self.number(arguments)
        self.ran[number] += 1
        return RunResult(started="", command=[], cases=[self.case(number, self.ran[number])])

    def bisect(self, *more: str, good: int = 0, bad: int = COUNT) -> int:
        """Run `./hgm bisect`."""
        ends = [f"--good=main~{COUNT - good}", f"--bad=main~{COUNT - bad}"]
        return verbs.main([f"--tree={self.tree}", *ends, f"--results={self.place / 'results'}", *more, "--", "-k", "x"])


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    subprocess.run(["git", "init", "--quiet", "--bare", "--initial-branch=main", tmp_path / "tree"], check=True)
    stream = ""
    for number in range(COUNT + 1):
        stream += f"commit refs/heads/main\ncommitter A <a@example.org> {1700000000 + number} +0000\n"
        stream += f"data <<END\n{number}\nEND\n"
        for name, text in FILES.items() if number == 0 else [("file", str(number))]:
            stream += f"M 100644 inline {name}\ndata <<END\n{text}\nEND\n"
        stream += "\n"
    subprocess.run(["git", "fast-import", "--quiet"], cwd=tmp_path / "tree", input=stream, text=True, check=True)
    made = World(tree=tmp_path / "tree", place=tmp_path)
    monkeypatch.setenv("HGM_CACHE", os.fspath(tmp_path / "cache"))
    monkeypatch.setattr(trial, "build", made.build)
    monkeypatch.setattr(trial, "run_cases", made.run_cases)
    monkeypatch.setattr(doctor, "ensure", lambda arches: None)
    return made


def test_it_finds_the_first_bad_commit(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    assert world.bisect() == Exit.OK
    said = capsys.readouterr().out
    assert f"    {FIRST_BAD}\n" in said.partition("first bad commit:")[2]
    assert "- not ok: x" in said
    assert sum(world.built.values()) <= 6
    assert world.ran[0] == world.ran[COUNT] == 2


def test_another_failure_on_the_way_is_not_blamed(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    def case(number: int, run: int) -> CaseResult:
        return result("x", Status.FAIL, WARNED) if number in (8, 9) else regressed(number, run)

    world.case = case
    assert world.bisect() == Exit.OK
    said = capsys.readouterr().out
    assert world.ran[8] and "fails otherwise: warning" in said
    assert f"    {FIRST_BAD}\n" in said.partition("first bad commit:")[2]


def test_skips_around_it_leave_several(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    world.image = lambda number: "" if number in (10, 11) else str(number)
    assert world.bisect() == Exit.TESTS_FAILED
    said = capsys.readouterr().out
    assert "only skipped commits are left; the first bad one is one of these 3:" in said
    assert "skip: does not build" in said


def test_it_goes_on_after_a_fault_of_the_host(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(arguments: Sequence[str], log: Path, cwd: Path) -> Built:
        if sum(world.built.values()) == 4:
            raise HostFault("no space left")
        return world.build(arguments, log, cwd)

    monkeypatch.setattr(trial, "build", full)
    with pytest.raises(HostFault):
        world.bisect()
    monkeypatch.setattr(trial, "build", world.build)
    assert world.bisect() == Exit.OK
    assert set(world.built.values()) == {1}
    assert world.bisect("--restart") == Exit.OK
    assert set(world.built.values()) == {2}


def test_an_identical_image_is_not_run_again(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    world.image = lambda number: "old" if number < FIRST_BAD else "new"
    assert world.bisect() == Exit.OK
    assert set(world.ran) == {0, COUNT}
    assert "is identical to that of" in capsys.readouterr().out


def test_a_guest_that_does_not_come_up_is_a_skip(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def run_cases(arguments: Sequence[str | os.PathLike[str]], directory: Path, cwd: Path) -> RunResult:
        if world.number(arguments) == 8:
            directory.mkdir(parents=True)
            (directory / "vm-1.console.txt").write_text("[    0.1] a line\n[    0.2] kernel BUG at mm/hugetlb.c:9!\n")
            raise GuestFault("not ready")
        if world.number(arguments) == 12:
            raise GuestFault("ssh broke")
        return world.run_cases(arguments, directory, cwd)

    monkeypatch.setattr(trial, "run_cases", run_cases)
    assert world.bisect() == Exit.OK
    trials = json.loads((world.place / "results/bisect.json").read_text())["trials"]
    skipped = {one["judgement"]["why"] for one in trials if one["judgement"]["word"] == "skip"}
    assert skipped == {"cannot be run: kernel BUG at mm/hugetlb.c:9!", "cannot be run: ssh broke"}


@pytest.mark.parametrize(
    ("good", "bad", "told"),
    [(0, 5, "the bad end .* is good"), (12, COUNT, "the good end .* is not good"), (5, 0, "is not an ancestor of")],
)
def test_ends_that_are_not_what_they_should_be(good: int, bad: int, told: str, world: World) -> None:
    with pytest.raises(BadInput, match=told):
        world.bisect(good=good, bad=bad)


def test_an_end_that_cannot_be_tested(world: World) -> None:
    world.image = lambda number: "" if number == COUNT else str(number)
    with pytest.raises(BadInput, match=r"the bad end .* cannot be tested: does not build"):
        world.bisect()
    world.image = str
    world.case = lambda number, run: result("x", Status.SKIP)
    with pytest.raises(BadInput, match="every case is skipped"):
        world.bisect()
    world.case = lambda number, run: result("x", Status.ERROR, Finding(kind="lost", message="gone"))
    with pytest.raises(BadInput, match="could not be told"):
        world.bisect()


def test_a_failure_that_comes_and_goes_needs_more_runs(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    world.case = lambda number, run: regressed(number, run) if run % 2 else result("x", Status.PASS)
    with pytest.raises(BadInput, match=r"flaky: .* fails in 1 of 2 runs\n  hint: --runs 5"):
        world.bisect()
    assert world.bisect("--runs", "6") == Exit.OK
    said = capsys.readouterr().out
    assert f"    {FIRST_BAD}\n" in said.partition("first bad commit:")[2]
    assert "flaky: fails in" in said


def test_a_good_end_that_fails_now_and_then_is_not_good(world: World) -> None:
    world.case = lambda number, run: regressed(FIRST_BAD if run == 2 else number, run)
    with pytest.raises(BadInput, match="the good end is flaky"):
        world.bisect()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--arch=all"], "a commit is judged on one architecture"),
        (["--commit=main"], "--commit names one commit"),
        (["--tree=/nowhere"], "the kernel tree /nowhere is not there"),
        (["--huge-pages=rubbish"], "'rubbish' is no pool"),
        (["--runs=0"], "'0' is no number from 1 on"),
        (["--tarball=x"], "--tarball has no commits"),
        (["--series=/nowhere"], "the series /nowhere is not there"),
        (["--kconfig=/nowhere"], "/nowhere is not there"),
        (["--bad=nowhere"], "there is no commit 'nowhere'"),
    ],
)
def test_requests_that_cannot_be_met(words: list[str], told: str, world: World) -> None:
    with pytest.raises(BadInput, match=told):
        world.bisect(*words)
    assert not world.built


def test_a_step_with_bad_input_tells_git_to_stop(world: World, capfd: pytest.CaptureFixture[str]) -> None:
    (world.place / "bad.config").write_text("CONFIG_FOO=y\nFOO=y\n")
    where = [f"--tree={world.tree}", f"--results={world.place / 'results'}"]
    assert verbs.step([*where, f"--kconfig={world.place / 'bad.config'}"]) == verbs.Told.USAGE
    assert "bad.config:2: 'FOO=y' is no kconfig line" in capfd.readouterr().err
    case = {"status": "fail"}
    for text in ("", "\xff", "[]", '{"schema": 2}', json.dumps({"schema": 2, "cases": [case]}), "[" * 100_000):
        (world.place / "r.json").write_text(text, encoding="latin-1")
        assert verbs.step([*where, f"--same-as={world.place / 'r.json'}"]) == verbs.Told.USAGE, text
        assert f"--same-as {world.place / 'r.json'} cannot be read" in capfd.readouterr().err


def test_options_of_runs_do_not_come_to_builds(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def build(arguments: Sequence[str], log: Path, cwd: Path) -> Built:
        assert "--kconfig" in str(arguments) and "--stress=9" not in arguments
        return world.build(arguments, log, cwd)

    def run_cases(arguments: Sequence[str | os.PathLike[str]], directory: Path, cwd: Path) -> RunResult:
        assert "--kconfig" in str(arguments) and {"--stress=9", "--huge-pages=2M=8", "--expect-hgm"} < {*arguments}
        return world.run_cases(arguments, directory, cwd)

    monkeypatch.setattr(trial, "build", build)
    monkeypatch.setattr(trial, "run_cases", run_cases)
    (world.place / "good.config").write_text("CONFIG_FOO=y\n")
    words = (f"--kconfig={world.place / 'good.config'}", "--stress=9", "--huge-pages=2M=8", "--expect-hgm")
    assert world.bisect(*words) == Exit.OK
    assert verbs.step([f"--tree={world.tree}", "--commit=main", f"--results={world.place / 'step'}", *words]) == 100


def test_what_argparse_refuses_is_bad_input_and_no_interrupt() -> None:
    with pytest.raises(BadInput, match="the following arguments are required: --bad"):
        verbs.main(["--good=main"])


@pytest.mark.parametrize("word", ["--fresh=run", "--repeat=3", "--expected-failures=list.toml", "--kselftest=mm"])
def test_an_option_that_would_be_passed_over_is_refused(word: str) -> None:
    with pytest.raises(BadInput, match="is not an option of a bisection"):
        verbs.main(["--tree=.", "--good=main", "--bad=HEAD", word])
