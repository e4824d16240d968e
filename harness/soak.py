# SPDX-License-Identifier: MIT
"""`./hgm soak`: does the suite ever say no to a kernel that is right? Each red case is a false alarm, and is kept."""

from __future__ import annotations

import contextlib
import datetime
import os
import random
import shlex
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from harness import accel, doctor, interrupts, record, trial
from harness.errors import BadInput, Exit
from harness.guest.cases import known_cases
from harness.options import REFERENCE, Parser, at_least, expand, location, nonempty, writable
from harness.paths import GUEST_TESTS, ROOT, digest, sha256, sources
from harness.process import end_group, say
from harness.report.results import RED, RunResult, Status

SCHEMA = 3  # of soak.json: raised when a key changes its meaning or goes
RUNS = 20
WORKERS = 2
SEEDS = 1 << 32  # what pytest-randomly takes


@dataclass(frozen=True, slots=True, kw_only=True)
class Lap:
    """One run of the whole suite."""

    number: int
    seed: int  # of the order: --randomly-seed
    started: str  # ISO 8601, UTC
    seconds: float
    load: float  # of the host over the last 15 minutes, at the end
    counts: dict[str, dict[str, int]]  # cases by architecture and status
    red: tuple[str, ...] = ()  # "id: status: first finding"
    key: str = ""  # of what all cases have in common: the reference series and the library of the guest tests
    programs: dict[str, str] = field(default_factory=dict)  # SHA-256 of each that has cases in it, by its path
    options: tuple[str, ...] = ()  # pytest's, without those for the kernel and the order
    release: str = ""  # of the kernel

    @property
    def cases(self) -> int:
        """How many cases it had."""
        return sum(sum(count.values()) for count in self.counts.values())

    def alarms(self) -> list[str]:
        """Return what is red, but for cases of programs that are others now."""
        others = {program for program, content in self.programs.items() if content != _content(program)}
        return [one for one in self.red if one.partition("::")[0] not in others]


@dataclass(slots=True)
class _Kept:
    """soak.json."""

    laps: list[Lap] = field(default_factory=list)


@dataclass(slots=True)
class Laps:
    """All laps so far, on disk after each of them."""

    path: Path
    laps: list[Lap] = field(default_factory=list)

    @classmethod
    def load(cls, path: Path) -> Laps:
        """Return what is kept in `path`; nothing, if it is not there. Raises what `record.load` does."""
        return cls(path, record.load(path, SCHEMA, _Kept).laps)

    def add(self, lap: Lap) -> None:
        """Keep a lap."""
        self.laps.append(lap)
        record.save(self.path, SCHEMA, _Kept(self.laps))

    def of(self, key: str, options: tuple[str, ...] | None = None) -> list[Lap]:
        """Return the laps with just this series and this library, and, where they are given, these options."""
        return [lap for lap in self.laps if lap.key == key and options in (None, lap.options)]


def main(arguments: Sequence[str]) -> int:
    """Run the guest tests again and again, in random order, on the reference kernel, and count false alarms.

    Returns 0 if there were as many runs as asked for and none had a red case, 1 if one had; raises HarnessError.
    """
    parser = Parser(
        prog="hgm soak",
        usage="hgm soak [options] [-- PYTEST...]",
        description=(main.__doc__ or "").splitlines()[0],
        epilog="Runs in DIR of an earlier call count if series, library and options are the same: so the same command "
        "goes on where it was. Of a program that was changed since, the page says so; `-- PROGRAM` runs it alone. What "
        "follows -- goes to pytest, such as -k mapcount.",
        allow_abbrev=False,
    )
    _add_options(parser.add_argument)
    words = list(arguments)
    at = words.index("--") if "--" in words else len(words)
    options, rest = parser.parse_args(words[:at]), words[at + 1 :]
    arches = expand(options.arch)
    for arch in arches:
        accel.check(arch)
    doctor.ensure(arches)
    directory = trial.new_directory(options.results)
    laps = Laps.load(directory / "soak.json")
    key = _key()
    how = (f"--arch={options.arch}", f"-n{options.workers}", *rest)
    with _busy(options.load):
        try:
            while len(laps.of(key, how)) < options.runs:
                before = sources(GUEST_TESTS)
                lap = _lap(len(laps.laps) + 1, directory, key, how)
                if (_key(), sources(GUEST_TESTS)) != (key, before):
                    raise BadInput(f"series or guest tests were changed during run {lap.number}, so it does not count")
                laps.add(lap)
                print(line(laps.laps[-1]), flush=True)
        except KeyboardInterrupt:
            say(f"what was run so far is kept: add --results {directory} to go on from here")
            raise
        finally:
            if options.markdown and laps.of(key):
                options.markdown.write_text(markdown(laps.of(key), datetime.date.today()))
    mine = laps.of(key, how)
    print("\n".join(["", summary(mine), *changed(mine), f"results: {laps.path}"]))
    return Exit.TESTS_FAILED if any(lap.alarms() for lap in mine) else Exit.OK


def line(lap: Lap) -> str:
    """Return what a terminal shows of a lap."""
    order = f"seed {lap.seed}  load {lap.load:.1f}  {lap.seconds:.0f} s"
    words = f"run {lap.number:<3} {lap.cases} cases, {len(lap.red)} red  {order}"
    return "\n".join([words, *(f"    {one}" for one in lap.red)])


def markdown(laps: Sequence[Lap], day: datetime.date) -> str:
    """Return all laps as a page in Markdown, with a table for each set of options; `day` is when it was made."""
    text = [
        "<!-- SPDX-License-Identifier: MIT -->",
        "# Soak: runs on a kernel that is right",
        "",
        f"Written by `./hgm soak --markdown` on {day}. {summary(laps)}.",
        "",
        "*seed*: of the order, for `./hgm run -p randomly --randomly-seed`. *red*: false alarms. *load*: of the",
        "host over the last 15 minutes of the run. *s*: how long it took, in seconds.",
    ]
    for options in dict.fromkeys(lap.options for lap in laps):
        some = [lap for lap in laps if lap.options == options]
        text += ["", f"## `{shlex.join(options)}`", "", *_table(some), *(f"\n{one}" for one in changed(some))]
    return "\n".join(text) + "\n"


def summary(laps: Sequence[Lap]) -> str:
    """Return all laps in a line."""
    alarms, clean = sum(len(lap.red) for lap in laps), sum(not lap.red for lap in laps)
    return f"{len(laps)} runs, {clean} clean; {sum(lap.cases for lap in laps)} results of cases, {alarms} false alarms"


def changed(laps: Sequence[Lap]) -> list[str]:
    """Return a line for each program that was not in all these laps what it is now."""
    programs = sorted({program for lap in laps for program in lap.programs if _content(program)})
    same = {program: sum(lap.programs.get(program) == _content(program) for lap in laps) for program in programs}
    return [f"{one} as it is now: {many} of {len(laps)} runs" for one, many in same.items() if many < len(laps)]


def lap_of(
    result: RunResult, *, number: int, seed: int, seconds: float, load: float, key: str, options: tuple[str, ...]
) -> Lap:
    """Return what a run came to."""
    counts: dict[str, Counter[str]] = {}
    red = []
    for case in result.cases:
        counts.setdefault(case.arch, Counter())[case.status.value] += 1
        if case.status in RED:
            said = f": {case.findings[0].message}" if case.findings else ""
            red.append(f"{case.id}: {case.status}{said}")
    # What was selected and has no result, since a worker died or the run was cut short, was not seen to be green.
    red += [f"{case}: has no result" for case in result.not_run]
    if not any(case.status is Status.PASS for case in result.cases):
        red.append("no case has passed")
    names = [*(case.id for case in result.cases), *result.not_run]
    programs = sorted({name.partition("::")[0] for name in names})
    return Lap(
        number=number,
        seed=seed,
        started=result.started,
        seconds=round(seconds, 1),
        load=round(load, 2),
        counts={arch: dict(sorted(count.items())) for arch, count in sorted(counts.items())},
        red=tuple(red),
        key=key,
        programs={program: _content(program) for program in programs},
        options=options,
        release=", ".join(sorted({str(kernel.get("release", "")) for kernel in result.kernels.values()})),
    )


def _key() -> str:
    """Return what all cases depend on: the series, and of guest_tests what is no program with cases."""
    return digest(sources(REFERENCE), sources(GUEST_TESTS, {case.program for case in known_cases()}))


def _content(program: str) -> str:
    """Return the SHA-256 of a program as it is now; nothing if there is no such file."""
    return sha256(ROOT / program) if (ROOT / program).is_file() else ""


def _table(laps: Sequence[Lap]) -> Iterator[str]:
    arches = list(dict.fromkeys(arch for lap in laps for arch in lap.counts))
    yield f"| run | started (UTC) | seed | {' | '.join(arches)} | red | load | s |"
    yield f"| --- | --- | --- | {' | '.join('---' for _ in arches)} | --- | --- | --- |"
    for number, lap in enumerate(laps, 1):
        counts = [", ".join(f"{many} {status}" for status, many in lap.counts.get(arch, {}).items()) for arch in arches]
        red = "<br>".join(lap.red).replace("|", "\\|") or "none"
        cells = [str(number), lap.started[:16].replace("T", " "), str(lap.seed), *counts, red]
        yield f"| {' | '.join([*cells, f'{lap.load:.1f}', f'{lap.seconds:.0f}'])} |"


def _lap(number: int, directory: Path, key: str, options: tuple[str, ...]) -> Lap:
    seed = random.randrange(SEEDS)
    say(f"run {number}, in the order of seed {seed}")
    argv = ["-p", "randomly", f"--randomly-seed={seed}", f"--series={REFERENCE}", "--expect-hgm"]
    began = time.monotonic()
    result = trial.run_cases([*argv, *options], directory / f"run-{number:02}", ROOT, partial=True)
    seconds, load = time.monotonic() - began, os.getloadavg()[2]
    return lap_of(result, number=number, seed=seed, seconds=seconds, load=load, key=key, options=options)


@contextlib.contextmanager
def _busy(count: int) -> Iterator[None]:
    """Keep `count` processors of the host busy within the block."""
    with contextlib.ExitStack() as stack:
        for _ in range(count):
            with interrupts.held():
                argv = ["setpriv", "--pdeathsig", "KILL", "--", sys.executable, "-c", "while True: pass"]
                stack.callback(end_group, subprocess.Popen(argv, start_new_session=True), 0)
        yield


def _add_options(add: Callable[..., object]) -> None:
    add("--runs", type=at_least(1), default=RUNS, metavar="N", help=f"how many runs in all (default: {RUNS})")
    add("--arch", default="all", type=nonempty, metavar="ARCH", help="as in hgm run (default: all)")
    add("--workers", type=at_least(1), default=WORKERS, metavar="N", help=f"guests at a time (default: {WORKERS})")
    add("--load", type=at_least(0), default=0, metavar="N", help="processors to keep busy besides (default: 0)")
    add("--results", type=location, metavar="DIR", help="where the results go (default: a dated directory in results/)")
    add("--markdown", type=writable, metavar="FILE", help="write the table of all runs to FILE, too")
