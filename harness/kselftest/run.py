# SPDX-License-Identifier: MIT
"""Runs the programs of a collection, each in a guest of its own, as the kernel's runner and scripts would run it."""

from __future__ import annotations

import os
import re
import shlex
from collections import Counter
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from harness.arch import Arch
from harness.deadline import Deadline
from harness.errors import BadInput, GuestFault
from harness.guest.run import Guest
from harness.kselftest import verdict
from harness.kselftest.build import Suite
from harness.kselftest.verdict import Program
from harness.kselftest.wanted import Wanted
from harness.process import say
from harness.report.results import CaseResult
from harness.verdict.judge import Observation
from harness.vm.ssh import End

if TYPE_CHECKING:
    from harness.session import Run

# The script that runs most programs of mm, with arguments and surroundings that stand nowhere else.
SCRIPT = "run_vmtests.sh"
# Newer trees call that script by one more script for each of its categories.
WRAPPER = re.compile(r"ksft_\w+\.sh")
# For all that is done besides running one program, on an accelerator of slowness 1: without the script, and by it.
START_SECONDS, SCRIPT_SECONDS = 2, 30
LONGEST_SECONDS = 3600  # for a program whose collection sets no limit
PROGRAMS_SHOWN = 60


def run(run: Run, wanted: Wanted, arch: Arch, earlier: Sequence[Wanted] = ()) -> list[CaseResult]:
    """Run what `wanted` names, less what `earlier` ones of its collection do, and return the results.

    Raises BadInput for an unknown program, else as Run.watch.
    """
    suite = run.suites[arch.name, wanted.collection]
    found: list[CaseResult] = []
    if (arch.name, wanted.collection) not in run.listed:
        run.listed[arch.name, wanted.collection] = _listed(run, suite, arch)
    known = programs(suite, run.listed[arch.name, wanted.collection])
    for program in chosen(known, suite, wanted, earlier):
        if program.words[0] in suite.failed:
            why = suite.failed[program.words[0]]
            found.append(verdict.not_built(program, wanted.collection, arch, why))
            continue
        results = run.settled(arch, partial(_once, run, suite, arch, program))
        say(f"{results[-1].id}: {results[-1].status}")
        found += results
    return found


def _once(run: Run, suite: Suite, arch: Arch, program: Program, number: int) -> list[CaseResult]:
    place = run.place(f"kselftest_{suite.collection}_{program.name}_{arch.name}", number)
    seen = _watch(run, suite, arch, run.directory / place, program.name, program.command, program.turn)
    *points, own = verdict.results(program, suite.collection, arch, os.fspath(place), seen)
    return [*points, run.told(own, seen)]


def programs(suite: Suite, listed: Sequence[str]) -> list[Program]:
    """Return every program of the collection: those of `listed`, which its script runs, and those that it does not."""
    called = Counter(line.partition(" ")[0] for line in listed)
    found: list[Program] = []
    for turn, line in enumerate(listed, start=1):
        words = tuple(line.split())
        name = line if called[words[0]] > 1 else words[0]
        again = sum(program.name.partition(" #")[0] == name for program in found)
        name = f"{name} #{again + 1}" if again else name
        found.append(Program(words=words, name=name, command=f"bash ./{SCRIPT}", turn=turn))
    script_is_there = (suite.files / SCRIPT).exists()
    for entry in suite.entries:
        if called[entry] or (script_is_there and (entry == SCRIPT or WRAPPER.fullmatch(entry))):
            continue
        found.append(Program(words=(entry,), name=entry, command=f"./{entry}"))
    # What does not build may be called by a script that looks first whether it is there, or by none.
    known = {program.words[0] for program in found}
    return found + [
        Program(words=(name,), name=name, command=f"./{name}") for name in suite.failed if name not in known
    ]


def chosen(known: Sequence[Program], suite: Suite, wanted: Wanted, earlier: Sequence[Wanted] = ()) -> list[Program]:
    """Return the programs that are wanted, less those of `earlier` ones. Raises BadInput if it names none."""
    taken = {program.name for one in earlier for program in _named(known, suite, one)}
    return [program for program in _named(known, suite, wanted) if program.name not in taken]


def _named(known: Sequence[Program], suite: Suite, wanted: Wanted) -> list[Program]:
    found = [program for program in known if program.name == " ".join(wanted.words)]
    found = found or [program for program in known if wanted.includes(program.words)]
    if found or not wanted.words:
        return found
    path = suite.files / wanted.words[0]
    if path.is_file() and os.access(path, os.X_OK):
        # Installed, but only for people to run.
        words = " ".join(wanted.words)
        return [Program(words=wanted.words, name=words, command=f"./{shlex.join(wanted.words)}")]
    names = list(dict.fromkeys(program.words[0] for program in known))
    raise BadInput(
        f"--kselftest: {wanted.collection} has no program {' '.join(wanted.words)}",
        hint=f"it has {', '.join(names[:PROGRAMS_SHOWN])}",
    )


def _listed(run: Run, suite: Suite, arch: Arch) -> list[str]:
    """Return how the collection's script would run each program, in its order; asked of the script itself."""
    if not (suite.files / SCRIPT).exists():
        return []
    name = f"{suite.collection}/{SCRIPT}"
    place = run.directory / "cases" / f"kselftest_{suite.collection}_{SCRIPT}_{arch.name}"
    seen = _watch(run, suite, arch, place, name, f"bash ./{SCRIPT}", 0)
    if seen.outcome.end is not End.EXITED or seen.outcome.status:
        words = (seen.outcome.stderr or seen.outcome.stdout).decode(errors="replace").strip()
        raise GuestFault(f"{name} does not say what it would run ({seen.outcome.end.value}): {words}")
    return seen.outcome.stdout.decode(errors="replace").splitlines()


def _watch(run: Run, suite: Suite, arch: Arch, place: Path, name: str, command: str, turn: int) -> Observation:
    """Start `command` in a fresh guest with the program whose `turn` it is."""
    argv = f"python3 -S kselftest/start.py kselftest/{suite.directory} {turn} {command}"
    seconds = SCRIPT_SECONDS if SCRIPT in command else START_SECONDS
    seconds += (suite.timeout_s or LONGEST_SECONDS) if turn else 0
    label = re.sub(r"[^\w.:=/ -]", "_", name)

    def look(guest: Guest) -> Observation:
        slowness = guest.machine.spec.accelerator.slowness
        # As the kernel's runner has it, both streams become one. TAP in it may be that of one program among others.
        return guest.observe(label, f"{argv} 2>&1", Deadline(seconds * slowness), place, one_stream=False)

    return run.watch(arch, f"kselftest {name}", place, look)
