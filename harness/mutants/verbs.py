# SPDX-License-Identifier: MIT
"""`./hgm mutants`."""

from __future__ import annotations

import datetime
import re
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from harness import accel, doctor, trial
from harness.arch import Arch
from harness.errors import BadInput, Exit, GuestFault
from harness.guest.cases import Case, known_cases
from harness.mutants.header import FLAVOURS, SEEDED, Bug, choose, read_all, sample
from harness.mutants.outcome import Outcome, Record, exit_status, line, markdown, summary
from harness.mutants.verdict import Judgement, Word, judge, red
from harness.options import REFERENCE, Parser, at_least, expand, location, nonempty, writable
from harness.paths import GUEST_TESTS, ROOT, digest, sha256, sources
from harness.process import say
from harness.report.results import CaseResult, RunResult, Status

STAGES = ("named", "category", "all")  # which cases are run, fewest first


def main(arguments: Sequence[str]) -> int:
    """Seed one bug after the other into the reference series, and see whether the guest tests notice.

    Returns 0 if each was caught for the stated reason, 1 if one was missed or caught otherwise, 10 or 12 if all that is
    wrong is a kernel that does not boot or build; raises HarnessError.
    """
    parser = Parser(
        prog="hgm mutants",
        usage="hgm mutants [options] [NAME...]",
        description=(main.__doc__ or "").splitlines()[0],
        epilog="Without NAME it is every bug. Results in DIR of an earlier call are kept: the "
        "same command goes on where it was, and only what was not caught is tried again.",
        allow_abbrev=False,
    )
    _add_options(parser.add_argument)
    options = parser.parse_args(list(arguments))
    if options.whole and options.narrow:
        raise BadInput("--whole and --narrow exclude each other", hint="leave one of the two out")
    if options.restart and not options.results:
        raise BadInput("--restart without --results: there is nothing to forget", hint="--results DIR")
    cases = known_cases()
    everything = read_all(options.bugs, cases)
    chosen = [bug for bug in choose(everything, options.names) if options.flavour in (None, bug.flavour)]
    if options.sample:
        chosen = _sampled(chosen, options.sample, datetime.date.today())
    asked = list(_asked(chosen, options.arch))
    if not asked:
        raise BadInput("no bug is left to try", hint="see --arch, --flavour and the names; --list shows them all")
    if options.list:
        for bug, arch in asked:
            print(f"{bug.name:<44} {bug.category:<10} {arch.name:<7} {bug.flavour:<5}  {bug.title}")
        return Exit.OK
    arches = list(dict.fromkeys(arch for _, arch in asked))
    for arch in arches:
        accel.check(arch)
    doctor.ensure(arches)
    directory = trial.new_directory(options.results)
    kept = directory / "mutants.json"
    record = Record(kept) if options.restart else Record.load(kept)
    stages = STAGES[STAGES.index("all" if options.whole else options.cases) :]
    mutants = Mutants(record=record, cases=cases, stages=stages, widen=not options.narrow, workers=options.workers)
    outcomes = []
    try:
        for bug, arch in asked:
            outcomes.append(mutants.outcome(bug, arch))
            print(line(outcomes[-1]), flush=True)
    except KeyboardInterrupt:
        say(f"what was found out so far is kept: add --results {directory} to go on from here")
        raise
    finally:
        if options.markdown:
            bugs = {bug.name: bug for bug in everything}
            # What was found out of another patch, or by other cases, is no news of these.
            known = [one for one in record.outcomes.values() if one.bug in bugs]
            told = [one for one in known if one.key == _key(bugs[one.bug], cases, one.judgement)]
            if told:
                options.markdown.write_text(markdown(told, datetime.date.today()))
    print(f"\n{summary(outcomes)}\nresults: {directory / 'mutants.json'}")
    return exit_status(outcomes)


@dataclass(slots=True, kw_only=True)
class Mutants:
    """Tries bugs one by one."""

    record: Record
    cases: Sequence[Case]  # all there are
    stages: Sequence[str]  # the first that catches the bug is the last that is run
    widen: bool  # whether a miss makes it go on to the next stage
    workers: int

    def outcome(self, bug: Bug, arch: Arch) -> Outcome:
        """Return what becomes of `bug`; from the record, if it was caught before with all the same."""
        known = self.record.outcomes.get((bug.name, arch.name))
        if known and known.judgement.word is Word.CAUGHT and known.key == _key(bug, self.cases, known.judgement):
            return known
        place = self.record.path.parent / f"{bug.name}-{arch.name}"
        place.mkdir(exist_ok=True)
        made = Outcome(
            bug=bug.name,
            title=bug.title,
            category=bug.category,
            arch=arch.name,
            flavour=bug.flavour,
            stress_s=bug.stress_s,
            judgement=Judgement(word=Word.UNKNOWN, why="it was not tried", status=Exit.TESTS_FAILED),
            directory=place.name,
        )
        made = self._try(bug, arch, made, place)
        made = replace(made, key=_key(bug, self.cases, made.judgement))
        self.record.add(made)
        return made

    def _try(self, bug: Bug, arch: Arch, made: Outcome, place: Path) -> Outcome:
        say(f"{bug.name}: building for {arch.name}")
        words = [f"--arch={arch.name}", f"--flavour={bug.flavour}", f"--series={REFERENCE}"]
        began = time.monotonic()
        built = trial.build([*words, f"--series={bug.path.absolute()}"], place / "build.txt", ROOT)
        made = replace(made, build_s=round(time.monotonic() - began, 1))
        if not built.image:
            why = f"there is no kernel: {built.problem}"
            return replace(made, judgement=Judgement(word=Word.UNKNOWN, why=why, status=Exit.BUILD_FAILED))
        for stage in self.stages:
            selection = self._selection(bug, arch, stage)
            say(f"{bug.name}: running {len(selection)} {'case' if stage == 'named' else 'group'}(s) of {arch.name}")
            began, began_at = time.monotonic(), time.time()
            try:
                result = self._run(bug, [*words, f"--series={bug.path.absolute()}"], selection, place / stage)
            except GuestFault as error:
                told = Judgement(word=Word.UNKNOWN, why=error.message, status=Exit.GUEST_FAULT)
                return replace(made, judgement=told)
            told = judge(bug, result.cases, self._unsound(bug, arch, words, result.cases))
            ends = [_end(place / stage, case) - began_at for case in red(result.cases) if case.id in told.cases]
            made = replace(
                made,
                judgement=told,
                red_s=round(min(ends), 1) if ends else None,
                run_s=round(made.run_s + time.monotonic() - began, 1),
            )
            if told.word is not Word.MISSED or not self.widen:
                break
        return made

    def _run(self, bug: Bug, words: Sequence[str], selection: Sequence[str], place: Path) -> RunResult:
        stress = [f"--stress={bug.stress_s}"] if bug.stress_s else []
        return trial.run_cases(
            [*words, "--expect-hgm", "-n", str(self.workers), *stress, *selection], place, ROOT
        )  # fmt: skip

    def _selection(self, bug: Bug, arch: Arch, stage: str) -> list[str]:
        """Return the words by which pytest selects the cases of a stage."""
        if stage == "all":
            return [str(GUEST_TESTS.relative_to(ROOT))]
        named = [case for case in self.cases if bug.names(case.claim) and case.sizes_on(arch)]
        if stage == "category":
            beside = [case for case in named if case.category != bug.category]
            return [str(GUEST_TESTS.relative_to(ROOT) / bug.category), *map(_id, beside)]
        return list(map(_id, named))

    def _unsound(self, bug: Bug, arch: Arch, words: Sequence[str], cases: Sequence[CaseResult]) -> set[str]:
        """Return which of the cases that are red do not pass without the bug; each is tried once for each kernel."""
        kernel = digest(words, sources(REFERENCE), sources(GUEST_TESTS), bug.stress_s)
        known = self.record.baseline.setdefault(kernel, {})
        new = [case.id for case in red(cases) if case.id not in known]
        if new:
            say(f"{bug.name}: {len(new)} red; running the same without the bug")
            place = self.record.path.parent / f"baseline-{arch.name}-{bug.flavour}"
            known |= {case.id: case.status for case in self._run(bug, words, new, place).cases}
            self.record.save()
        return {case.id for case in red(cases) if known.get(case.id) is not Status.PASS}


def _add_options(add: Callable[..., object]) -> None:
    add("names", nargs="*", metavar="NAME", help="the name of a bug, which is that of its patch")
    help_text = "other bugs than those of patches/seeded-bugs"
    add("--bugs", type=Path, default=SEEDED, metavar="DIR", help=help_text)
    add("--arch", type=nonempty, metavar="ARCH", help="x86_64, arm64, or all (default: the first that each bug names)")
    add("--flavour", choices=FLAVOURS, help="only the bugs that show on this flavour")
    help_text = "so many of them, in turn by the date; or the K-th of N parts"
    add("--sample", type=nonempty, metavar="COUNT|K/N", help=help_text)
    add("--cases", choices=STAGES, default="category", help="what is run first: the cases that the header names, those "
        "of its category (the default), or all; if they miss the bug, then what comes next in this order")  # fmt: skip
    add("--whole", action="store_true", help="always run the whole suite")
    add("--narrow", action="store_true", help="no further cases if the first ones miss a bug")
    add("--list", action="store_true", help="only list what would be tried")
    add("--restart", action="store_true", help="with --results: forget what an earlier call has found out")
    add("--workers", type=at_least(1), default=2, metavar="N", help="guests at a time (default: 2)")
    add("--results", type=location, metavar="DIR", help="where the results go (default: a dated directory in results/)")
    add("--markdown", type=writable, metavar="FILE", help="write a page with the table of all results to FILE, too")


def _sampled(bugs: Sequence[Bug], text: str, today: datetime.date) -> list[Bug]:
    """Return the bugs that `--sample` asks for: COUNT, in turn by the date, or the K-th of N parts."""
    part, slash, parts = text.partition("/")
    if not re.fullmatch(r"[1-9]\d*(/[1-9]\d*)?", text, re.ASCII) or (slash and int(part) > int(parts)):
        raise BadInput(f"--sample {text} is none", hint="such as 6: six of them, others each day; or 1/4: a quarter")
    if not slash:
        return sample(bugs, int(part), today.toordinal())
    return list(bugs[int(part) - 1 :: int(parts)])


def _asked(bugs: Sequence[Bug], name: str | None) -> Iterator[tuple[Bug, Arch]]:
    """Yield what is to be tried: each bug on those of its architectures that are asked for, or on its first."""
    wanted = expand(name) if name else None
    for bug in bugs:
        for arch in bug.arches if wanted else bug.arches[:1]:
            if wanted is None or arch in wanted:
                yield bug, arch


def _key(bug: Bug, cases: Sequence[Case], told: Judgement) -> str:
    """Return what an outcome depends on: the patch, the series below it, and the guest tests.

    If it was caught they are the programs that caught it, with the library: what another one says changes nothing.
    """
    idle: set[Path] = set()
    if told.word is Word.CAUGHT:
        idle = {case.program for case in cases} - {ROOT / case.partition("::")[0] for case in told.cases}
    return digest(sha256(bug.path), sources(REFERENCE), sources(GUEST_TESTS, idle))


def _id(case: Case) -> str:
    return f"{case.program.relative_to(ROOT)}::{case.name}"


def _end(place: Path, case: CaseResult) -> float:
    """Return when the case had ended, in seconds since the epoch."""
    return (place / case.directory / "ktap.txt").stat().st_mtime
