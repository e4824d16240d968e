# SPDX-License-Identifier: MIT
"""Runs cases in a guest: give it the tests, then for each case look, run, look again, and hand over what was seen."""

from __future__ import annotations

import math
import os
import shlex
import time
import uuid
from dataclasses import dataclass
from pathlib import Path

from harness.arch import size_name
from harness.deadline import Deadline
from harness.errors import GuestFault
from harness.guest import ktap, state
from harness.guest.build import PYTHON, WAKE, Bundle
from harness.guest.cases import STRESS, Case
from harness.guest.state import State
from harness.image import WORKDIR
from harness.pagetable import probe
from harness.verdict.judge import Observation, crashed
from harness.vm import evidence, memory
from harness.vm.machine import Machine
from harness.vm.ssh import End, Outcome
from harness.vm.template import Template

# What tests in Python start with.
WARM = (
    f"{PYTHON} -c 'import argparse, array, ctypes, dataclasses, fcntl, gzip, mmap, pathlib, platform, random, "
    "select, socket, traceback'"
)
LOOK_SECONDS = 5.0  # for a short command in a healthy guest
# For a program to exit, its huge pages freed with it, after its last word; or to say it after its kernel has crashed.
PARTING_SECONDS = 5.0
DYING_SECONDS = 1.0  # for both: a task that the kernel kills is gone at once, or stays for ever
REST_SECONDS = 10.0  # for a booted guest to have done all that clones shall not begin with
SETTLE_SECONDS = 2.0  # pages freed by a worker (mm/hugetlb.c:free_hpage_workfn) come back a little later
OUTPUT_LIMIT = 4 << 20  # bytes that a case may print


def settle(machine: Machine) -> str:
    """Make a booted guest ready to be left for clones; return its state, in the guest's words.

    What clones would read from the disk first, or start for the first time, is in memory by then, and no connection
    is left but the one that is used here. Raises GuestFault if the guest does not answer.
    """
    deadline = Deadline(REST_SECONDS * machine.spec.accelerator.slowness)
    position = machine.console_size()
    # The server's child for this connection is seen, too, so at first there are two of them.
    wait = "while [ $(pgrep dropbear | wc -l) -gt 1 ]; do sleep 0.05; done; echo 'hgm: settled' > /dev/kmsg"
    warm = f"{WARM}; {WARM}; {state.COMMAND}; ({wait}) > /dev/null 2>&1 < /dev/null &"
    outcome = machine.ssh.run(warm, deadline)
    machine.ssh.close()
    if outcome.end is not End.EXITED or not machine.wait_console("hgm: settled", position, deadline):
        raise GuestFault(
            f"the guest does not come to rest ({outcome.end.value})\n{outcome.stderr.decode(errors='replace')}"
        )
    return outcome.stdout.decode(errors="replace")


@dataclass(frozen=True, slots=True, kw_only=True)
class Keep:
    """What shall be kept of a guest in which a case went wrong."""

    memory: bool = False  # a dump of it, of a guest that hangs or whose kernel has crashed
    guest: bool = False  # itself, to be looked at


class Guest:
    """A machine with the guest tests in it: booted, or cloned from `template`."""

    def __init__(
        self,
        machine: Machine,
        bundle: Bundle,
        *,
        template: Template | None = None,
        stress_s: int = 0,
        keep: Keep = Keep(),
    ) -> None:
        """Mount the tests and look at the kernel; a stress case will run for `stress_s` seconds.

        Raises GuestFault if that fails or a pool is short.
        """
        self.machine = machine
        self._bundle = bundle
        self._stress_s = stress_s
        self._keep = keep
        self._slowness = machine.spec.accelerator.slowness
        if keep.memory or keep.guest:
            machine.stay()
        now = time.time_ns()
        wake = f"mount -t ext2 -o ro /dev/vdb {WORKDIR} && {WORKDIR}/{WAKE} {now // 10**9} {now % 10**9}"
        woken = self._quick(wake, stdin=os.urandom(64))
        if woken.end is not End.EXITED or woken.status != 0:
            words = woken.stderr.decode(errors="replace").strip() or woken.end.value
            raise GuestFault(f"the guest cannot be given its tests and its time: {words}")
        if template:
            # A clone's console is a new file, and its kernel is what it was when the template was left.
            self._position, self.boot_log = 0, template.console
            self.state = state.parse(template.notes)
        else:
            self._position = machine.console_size()
            self.boot_log = machine.console_since()
            self.state = self._look()
        for pool in machine.spec.pools:
            got = self.state.pools.get(pool.size, {}).get("nr", 0)
            if got != pool.count:
                words = f"the guest has {got} huge pages of {size_name(pool.size)}, {pool.count} were asked for"
                # It was given memory for all of them (harness/vm/command.py).
                raise GuestFault(words, hint="is the kernel at fault? ask for fewer with --huge-pages SIZE=COUNT")

    def run(self, case: Case, huge_page_size: int, directory: Path) -> Observation:
        """Run one case to its end and return everything seen. The guest is only fit for another if it passed.

        A dump of its memory, if one shall be kept, goes to `directory`.
        """
        program = self._bundle.commands[case.program]
        stress_s = self._stress_s if case.category == STRESS else 0
        arguments = f"--case {shlex.quote(case.name)} --huge-page-size {huge_page_size}"
        # What a case itself waits for, it waits for longer where it has more time.
        factor = self.machine.spec.accelerator.factor
        command = f"HGM_STRESS_SECONDS={stress_s} HGM_SLOWNESS={factor:g} {program} {arguments}"
        deadline = Deadline(case.deadline_s * self._slowness + stress_s)
        return self.observe(case.name, command, deadline, directory, spoils=case.spoils)

    def observe(
        self,
        name: str,
        command: str,
        deadline: Deadline,
        directory: Path,
        *,
        spoils: bool = False,
        one_stream: bool = True,
    ) -> Observation:
        """Run any command, called `name` in the kernel's log, from where the tests lie; else as `run`.

        If it prints `one_stream` of KTAP, it is not waited for much longer than that.
        """
        machine = self.machine
        mark = uuid.uuid4().hex[:12]
        # The shell stays, and so turns death by a signal into 128 + its number: ssh as spoken here has no word for it.
        command = f"cd {WORKDIR} && echo 'hgm: begin {mark} {name}' > /dev/kmsg && {command}; exit $?"
        with probe.answering(machine, machine.questions) as answers:
            waiting = Patience(machine, self._position, self._slowness, one_stream=one_stream)
            outcome = machine.ssh.run(command, deadline, limit=OUTPUT_LIMIT, patience=waiting.left)
        before, after = self.state, None
        if outcome.end is End.EXITED:
            after = self._settled(before, mark, patient=not spoils)
        complete = True
        if after:
            self.state = after
            patience = Deadline(LOOK_SECONDS * self._slowness)
            complete = machine.wait_console(f"hgm: end {mark}", self._position, patience)
        elif outcome.end is End.LOST:
            # A kernel that panics says so to the last line before QEMU ends; only then is the log whole.
            machine.wait_end(LOOK_SECONDS * self._slowness)
        start, self._position = self._position, machine.console_size()
        earlier, log = _split(machine.console_since(start, self._position), mark)
        hang, dumps = None, []

        def dump() -> None:
            if self._keep.memory:
                dumps.append(memory.dump(machine, directory / memory.NAME))

        if outcome.end is End.DEADLINE or (outcome.end is End.EXITED and after is None and machine.alive):
            hang = evidence.collect(machine, before_end=dump, nmi=not self._keep.guest)
        elif machine.alive and (machine.halted or crashed(log)):
            dump()
        return Observation(
            outcome=outcome,
            ktap=ktap.parse(outcome.stdout.decode(errors="replace"), needs_plan=True),
            log=log,
            log_complete=complete,
            earlier=earlier,
            spoils=spoils,
            stacks=hang.summary if hang else "",
            hang=hang,
            memory="; ".join(dumps),
            before=before,
            after=after,
            shapes=tuple(answers.shapes),
            unseen=tuple(answers.faults),
        )

    def _quick(self, command: str, stdin: bytes = b"") -> Outcome:
        return self.machine.ssh.run(command, Deadline(LOOK_SECONDS * self._slowness), stdin=stdin)

    def _look(self, mark: str = "") -> State:
        said = f"echo 'hgm: end {mark}' > /dev/kmsg; " if mark else ""
        outcome = self._quick(said + state.COMMAND)
        if outcome.end is not End.EXITED:
            raise GuestFault(f"the guest does not answer ({outcome.end.value})")
        found = state.parse(outcome.stdout.decode(errors="replace"))
        if outcome.status != 0:
            # What was cut off is not in what was read.
            words = outcome.stderr.decode(errors="replace").strip()
            raise GuestFault(f"the guest does not answer in full (status {outcome.status}): {words}")
        return found

    def _settled(self, before: State, mark: str, *, patient: bool) -> State | None:
        """The state once it is as before, or as it is when patience is over; None if the guest is gone."""
        deadline = Deadline(SETTLE_SECONDS * self._slowness)
        try:
            after = self._look(mark)
            while patient and after.pools != before.pools and not deadline.over:
                after = self._look()
        except GuestFault:
            # The verdict says so: a state that is None after a program that exited is a finding of its own.
            return None
        return after


class Patience:
    """How long a program need still be waited for, by what it has said, and its kernel on the console."""

    def __init__(self, machine: Machine, position: int, slowness: float, *, one_stream: bool = True) -> None:
        """What the kernel said before `position` on the console does not count.

        Only of a program that prints `one_stream` of KTAP, plan and all, can be told that it has said all.
        """
        self._machine, self._position, self._slowness = machine, position, slowness
        self._one_stream = one_stream
        self._heard = self._seen = 0  # bytes that have been looked at
        self._said_all = self._crashed = False

    def left(self, stdout: bytes) -> float:
        """Return the seconds that are left from when this answer first came; `stdout` is all of it so far."""
        if self._one_stream and len(stdout) > self._heard:
            self._heard = len(stdout)
            self._said_all = not ktap.parse(stdout.decode(errors="replace"), needs_plan=True).problems
        size = self._machine.console_size()
        if size > self._seen and not self._crashed:
            self._seen = size
            self._crashed = crashed(self._machine.console_since(self._position))
        match self._said_all, self._crashed:
            case False, False:
                return math.inf
            case True, True:
                return DYING_SECONDS * self._slowness
        return PARTING_SECONDS * self._slowness


def _split(console: str, mark: str) -> tuple[str, str]:
    """Split the console at a case's first mark: what was said before it, and what was said from it on.

    Marks are lines of their own, so neither part holds half a line of the kernel's.
    """
    lines = console.splitlines(keepends=True)
    begin = next((number for number, line in enumerate(lines) if f"hgm: begin {mark}" in line), 0)
    log = [line for line in lines[begin:] if mark not in line]
    return "".join(lines[:begin]), "".join(log)
