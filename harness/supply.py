# SPDX-License-Identifier: MIT
"""Guests of one architecture, each as fresh as asked for: cloned from a template, or booted where QEMU has none."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from harness.errors import GuestFault
from harness.guest.build import Bundle
from harness.guest.cases import Case
from harness.guest.run import Guest, Keep, settle
from harness.process import say
from harness.verdict import splats
from harness.verdict.expected import BOOT, Expected, at_boot
from harness.vm import machine, template
from harness.vm.command import VmSpec
from harness.vm.machine import Machine
from harness.vm.template import NoTemplate, Template


class Fresh(StrEnum):
    """What a guest is used for; never again once a case has failed in it, or has taken pages for good."""

    TEST = "test"  # one case
    FILE = "file"  # the cases of one program, as long as they come one after the other
    RUN = "run"  # all


@dataclass(slots=True, kw_only=True)
class Supply:
    """The guests of one architecture in a run, one at a time. Close it at the end."""

    spec: VmSpec
    bundle: Bundle
    fresh: Fresh | None  # None: a guest for each test where that costs little, else one for all
    directory: Path  # for the consoles of boots
    stress_s: int = 0
    keep: Keep = field(default_factory=Keep)
    expected: tuple[Expected, ...] = ()
    release: str = ""  # of the kernel, for the entries of `expected`
    template: Template | None = None
    boot_seconds: list[float] = field(default_factory=list)  # of each guest that was booted, until ssh worked
    clone_seconds: list[float] = field(default_factory=list)  # and of each that was cloned
    notes: list[str] = field(default_factory=list)  # on how its kernel boots, beside what was expected of that
    _guest: Guest | None = None
    _used_for: Path | None = None  # the program of the last case
    _stack: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)

    def prepare(self) -> None:
        """Take the template, or find it in the cache; says so if this QEMU has none, and guests will boot instead.

        Raises HarnessError if no guest comes up, or if its kernel complains while it boots.
        """
        try:
            self.template = template.prepare(self.spec, settle)
        except NoTemplate as error:
            self.template = None
            self.fresh = self.fresh or Fresh.RUN
            say(f"{error.message}; a guest boots for each {self.fresh}")
            return
        self.fresh = self.fresh or Fresh.TEST
        if self.template.fresh:
            self.boot_seconds.append(round(self.template.boot_seconds, 3))
        console = self.directory / f"boot-{self.spec.arch.name}.console.txt"
        console.write_text(self.template.console)
        self._trust(self.template.console, console)

    def boots_for(self, case: Case) -> bool:
        """Whether a guest must boot before `case` can run."""
        return self.template is None and not self._fits(case)

    def take(self, case: Case) -> Guest:
        """Return a healthy guest for `case`, as fresh as it shall be. Raises HarnessError if none can be had."""
        guest = self._guest if self._fits(case) else None
        guest = guest or self.renew()
        self._used_for = case.program
        return guest

    def renew(self) -> Guest:
        """Return a guest that nobody has had, in place of the one in use. Raises HarnessError if none can be had."""
        self.drop()
        if self.template and not self.template.intact:
            say(f"the {self.spec.arch.name} template has been changed or removed")
            self.prepare()
        with contextlib.ExitStack() as stack:
            self._guest = self._cloned(self.template, stack) if self.template else self._booted(stack)
            self._stack = stack.pop_all()
        return self._guest

    @property
    def genuine(self) -> bool:
        """Whether what the guest in use read of its template's RAM was what had been written there."""
        return self.template is None or self.template.intact

    @property
    def machine(self) -> Machine | None:
        """The machine of the guest in use, if there is one."""
        return self._guest.machine if self._guest else None

    def done(self) -> None:
        """The case is over: a guest that no other case may have is killed."""
        if self.fresh is Fresh.TEST:
            self.drop()

    def drop(self) -> None:
        """Kill the guest in use, if there is one."""
        self._guest = None
        self._stack.close()

    def _fits(self, case: Case) -> bool:
        if self._guest is None or not self._guest.machine.alive or self.fresh is Fresh.TEST:
            return False
        return self.fresh is Fresh.RUN or self._used_for == case.program

    def _cloned(self, source: Template, stack: contextlib.ExitStack) -> Guest:
        started = stack.enter_context(source.clone())
        self.clone_seconds.append(round(started.ready_seconds, 3))
        return Guest(started, self.bundle, template=source, stress_s=self.stress_s, keep=self.keep)

    def _booted(self, stack: contextlib.ExitStack) -> Guest:
        spec, number = self.spec, len(self.boot_seconds) + 1
        say(f"booting {spec.arch.name} ({spec.accelerator.name}, {spec.memory >> 20} MiB)")
        console = self.directory / f"boot-{spec.arch.name}-{number}.console.txt"
        started = stack.enter_context(machine.booted(spec, console))
        guest = Guest(started, self.bundle, stress_s=self.stress_s, keep=self.keep)
        say(f"guest ready after {guest.machine.ready_seconds:.1f} s")
        self.boot_seconds.append(round(guest.machine.ready_seconds, 3))
        self._trust(guest.boot_log, console)
        return guest

    def _trust(self, log: str, console: Path) -> None:
        arch = self.spec.arch.name
        strange, notes = at_boot(splats.find(log), self.expected, arch=arch, release=self.release)
        if strange:
            raise GuestFault(
                f"the {arch} kernel complains while it boots, so no case on it can be trusted: {strange[0].title}",
                hint=f"its console: {console}; other pools (--huge-pages) or options (--kconfig) may avoid it, and "
                f'--expected-failures may list it as the case "{BOOT}[{arch}]"',
            )
        for note in dict.fromkeys(notes):
            if note not in self.notes:
                say(note)
                self.notes.append(note)
