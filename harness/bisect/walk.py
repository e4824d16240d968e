# SPDX-License-Identifier: MIT
"""One bisection: both ends are tried, git chooses the commits between them, and each is judged by its own run."""

from __future__ import annotations

import hashlib
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from harness import trial
from harness.bisect import failure as failures
from harness.bisect.failure import Failure, Judgement, Word
from harness.bisect.memory import Ends, Memory, Trial
from harness.bisect.search import History
from harness.errors import BadInput, Exit, GuestFault
from harness.paths import ROOT
from harness.process import say
from harness.report.results import CaseResult, Status
from harness.verdict import splats

END_RUNS = 2  # of each end, at least: a failure that comes and goes leads anywhere


@dataclass(slots=True, kw_only=True)
class Bisection:
    """One bisection, from the check of both ends to its report."""

    tree: Path
    words: list[str]  # options of every build and run
    running: list[str]  # and of every run besides
    selection: list[str]  # pytest's arguments for the ends
    runs: int  # of each step
    history: History
    memory: Memory
    directory: Path
    _began: float = field(default_factory=time.monotonic)
    _number: int = 0

    def run(self, good: str, bad: str) -> int:
        """Check the ends, walk, report. Raises BadInput if the ends are not what they are said to be."""
        if known := len(self.memory.trials):
            say(f"going on where an earlier bisection stopped: {known} commits are known (--restart forgets them)")
        if not self.memory.ends:
            self._check_ends(good, bad)
        ends = self.memory.ends
        assert ends
        print(f"follows  {ends.failure}", flush=True)
        while commit := self.history.current():
            known_trial = self.memory.trials.get(commit)
            result = known_trial or self._try(commit, ends.failure)
            if not known_trial:
                self.memory.add(result)
            self.history.tell(result.judgement.word, commit)
            self._print(result, known=known_trial is not None)
            self._keep_log()
        return self._report(ends)

    def _check_ends(self, good: str, bad: str) -> None:
        """Find the failure to follow, and see that it is there at the bad end and not at the good one."""
        at_bad = self._end(bad, "bad", self.selection)
        failed = [(found, case) for case in at_bad.cases if (found := failures.failure_of(case))]
        if not failed:
            raise _not_bad(bad, at_bad.cases)
        at_good = self._end(good, "good", [case.id for _, case in failed])
        passed = {case.id: case.seconds for case in at_good.cases if case.status is Status.PASS}
        followed = [(found, case) for found, case in failed if found.case in passed]
        if not followed:
            told = "; ".join(f"{case.id}: {case.status} {case.reason}".rstrip() for case in at_good.cases[:4])
            raise BadInput(f"the good end {good[:12]} is not good: what fails at the bad end does not pass: {told}")
        found, case = min(followed, key=lambda one: passed[one[0].case])
        failed_runs, runs = self._check_flaky(found, good, bad)
        self.memory.ends = Ends(
            failure=found,
            failed_runs=failed_runs,
            runs=runs,
            others=tuple(other.case for other, _ in followed if other != found),
        )
        for commit, end, cases in ((bad, at_bad, [case]), (good, at_good, at_good.cases)):
            judgement = failures.judge(found, cases)
            image, new, place = end.built.digest, end.built.new, os.fspath(end.place)
            self.memory.trials[commit] = Trial(
                commit=commit, judgement=judgement, image=image, built=new, directory=place
            )
        self.memory.save()
        for commit in (bad, good):
            self._print(self.memory.trials[commit])

    def _end(self, commit: str, name: str, selection: Sequence[str]) -> End:
        say(f"checking the {name} end, {commit[:12]}")
        place = self._place(commit)
        built = self._build(commit, place)
        if not built.digest:
            raise BadInput(f"the {name} end {commit[:12]} cannot be tested: {built.problem}")
        # What the user selects is relative to where the user is; ids of cases are relative to the project.
        cwd = Path.cwd() if selection is self.selection else ROOT
        try:
            cases = trial.run_cases([*self._where(commit), *self.running, *selection], place / "cases", cwd).cases
        except GuestFault as error:
            raise BadInput(f"the {name} end {commit[:12]} cannot be tested: {error.message}") from error
        return End(built=built, cases=cases, place=place / "cases")

    def _check_flaky(self, found: Failure, good: str, bad: str) -> tuple[int, int]:
        """Run both ends again. Returns how often the bad one failed, and of how many runs; raises BadInput if flaky."""
        runs = max(END_RUNS, self.runs)
        again = {commit: [self._once(commit, found) for _ in range(runs - 1)] for commit in (bad, good)}
        failed = 1 + sum(one.word is Word.BAD for one in again[bad])
        if self.runs < (needed := failures.runs_needed(failed, runs)):
            raise BadInput(
                f"the bad end is flaky: {found.case} fails in {failed} of {runs} runs",
                hint=f"--runs {needed}: then a step misses it in no more than {failures.MISSED:.0%} of all cases",
            )
        if wrong := next((one for one in again[good] if one.word is not Word.GOOD), None):
            raise BadInput(f"the good end is flaky: a second run of {found.case} says {wrong.word}: {wrong.why}")
        return failed, runs

    def _try(self, commit: str, found: Failure) -> Trial:
        began = time.monotonic()
        place = self._place(commit)
        say(f"trying {commit[:12]} {self.history.subject(commit)}")
        built = self._build(commit, place)
        made = Trial(
            commit=commit,
            judgement=Judgement(word=Word.SKIP, why=built.problem),
            image=built.digest,
            built=built.new,
            directory=os.fspath(place),
        )
        if built.digest:
            if same := self.memory.by_image(built.digest):
                made = replace(made, judgement=same.judgement, same_image_as=same.commit, directory=same.directory)
            else:
                made = replace(made, judgement=self._runs(commit, found, place))
        return replace(made, seconds=round(time.monotonic() - began, 1))

    def _runs(self, commit: str, found: Failure, place: Path) -> Judgement:
        judged: list[Judgement] = []
        while len(judged) < self.runs:
            judged.append(self._once(commit, found, place / f"run-{len(judged) + 1}"))
            if judged[-1].word is Word.BAD:
                break
        return failures.together(judged)

    def _once(self, commit: str, found: Failure, place: Path | None = None) -> Judgement:
        place = place or self._place(commit)
        try:
            result = trial.run_cases([*self._where(commit), *self.running, found.case], place, ROOT)
        except GuestFault as error:
            return no_guest(error, place)
        return failures.judge(found, result.cases)

    def _build(self, commit: str, place: Path) -> Image:
        return build(self._where(commit), place)

    def _where(self, commit: str) -> list[str]:
        return [f"--tree={self.tree}", f"--commit={commit}", *self.words]

    def _place(self, commit: str) -> Path:
        self._number += 1
        place = self.directory / f"{self._number:02d}-{commit[:12]}"
        place.mkdir(exist_ok=True)
        return place

    def _print(self, result: Trial, *, known: bool = False) -> None:
        time_taken = "known" if known else f"{result.seconds:.0f} s" if result.seconds else ""
        print(
            f"{result.judgement.word:<5}  {result.commit[:12]}  {time_taken:>6}  {self.history.subject(result.commit)}"
        )
        if result.same_image_as:
            print(f"       the image is identical to that of {result.same_image_as[:12]}")
        elif result.judgement.word is not Word.GOOD:
            print(f"       {_first_lines(result.judgement.why)}")
        sys.stdout.flush()

    def _keep_log(self) -> None:
        for name, text in (("bisect.log", self.history.log()), ("bisect.json", self.memory.path.read_text())):
            work = self.directory / f".{name}"
            work.write_text(text)
            work.replace(self.directory / name)

    def _report(self, ends: Ends) -> int:
        self._keep_log()
        found = self.history.found()
        print()
        if len(found) == 1:
            print(f"first bad commit:\n{self.history.about(found[0])}\n")
            bad = self.memory.trials[found[0]]
            print(f"{ends.failure.case}\n{bad.judgement.evidence}")
            print(f"files: {bad.directory}")
        else:
            print(f"only skipped commits are left; the first bad one is one of these {len(found)}:")
            for commit in found:
                print(f"  {commit[:12]}  {self.history.subject(commit)}")
                if told := self.memory.trials.get(commit):
                    print(f"       {told.judgement.word}: {_first_lines(told.judgement.why)}")
        trials = self.memory.trials.values()
        if ends.others:
            print(f"{len(ends.others)} other cases fail at the bad end only, such as {ends.others[0]}")
        if ends.failed_runs < ends.runs:
            chance = (1 - ends.failed_runs / ends.runs) ** self.runs
            rate = f"{ends.failed_runs} of {ends.runs}"
            print(f"flaky: fails in {rate} runs; a step called good is bad by a chance of {chance:.1%}")
        skipped = sum(one.judgement.word is Word.SKIP for one in trials)
        reused = sum(bool(one.same_image_as) for one in trials)
        print(
            f"commits tried: {len(trials)}, both ends among them; kernels built: {sum(one.built for one in trials)}; "
            f"skipped: {skipped}; identical images: {reused}; {time.monotonic() - self._began:.0f} s"
        )
        print(f"log for `git bisect replay`: {self.directory / 'bisect.log'}")
        return Exit.OK if len(found) == 1 else Exit.TESTS_FAILED


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """What building one commit came to."""

    digest: str = ""  # sha256; "": there is none
    problem: str = ""
    new: bool = False  # it was not in the cache


@dataclass(frozen=True, slots=True, kw_only=True)
class End:
    """What came of one end."""

    built: Image
    cases: list[CaseResult]
    place: Path  # of the run's files


def _not_bad(commit: str, cases: Sequence[CaseResult]) -> BadInput:
    """Return the error for a bad end at which nothing has failed."""
    end = f"the bad end {commit[:12]}"
    if errors := [case.id for case in cases if case.status is Status.ERROR]:
        return BadInput(f"what {end} does could not be told: {', '.join(errors)}")
    if all(case.status is Status.SKIP for case in cases):
        return BadInput(f"at {end} every case is skipped: {cases[0].reason}")
    return BadInput(f"{end} is good: no case fails there", hint="select the case that fails, as in -- -k mapcount")


def build(words: Sequence[str], place: Path) -> Image:
    """Build the kernel that `words` ask for, and keep what is said in `place`. Raises as `trial.build`."""
    began = time.time()
    built = trial.build(words, place / "build.txt", Path.cwd())
    if not built.image:
        return Image(problem=built.problem)
    with built.image.open("rb") as file:
        checksum = hashlib.file_digest(file, "sha256").hexdigest()
    return Image(digest=checksum, new=built.image.stat().st_ctime >= began)


def no_guest(error: GuestFault, place: Path) -> Judgement:
    """Return the judgement of a kernel on which no case could run: its own first complaint says more than ours."""
    logs = (path.read_text(errors="replace") for path in sorted(place.rglob("*.console.txt")))
    complaint = next((splat.title for log in logs for splat in splats.find(log)), error.message)
    return Judgement(word=Word.SKIP, why=f"cannot be run: {complaint}")


def _first_lines(text: str, count: int = 3) -> str:
    return "\n       ".join(line.strip() for line in text.splitlines()[:count])
