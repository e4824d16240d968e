# SPDX-License-Identifier: MIT
"""A failed case's guest stays, and its user is told how to look at it; the run goes on when he says so."""

from __future__ import annotations

import contextlib
import os
import select
import shlex
from collections.abc import Iterator
from pathlib import Path

from harness.arch import native
from harness.errors import HostFault
from harness.kernel.build import Kernel
from harness.process import say
from harness.report.results import CaseResult
from harness.vm.machine import Machine

TERMINAL = Path("/dev/tty")  # stdin is pytest's while a case runs
# The guest has a host key of its image's, and every guest has it on another port.
SSH_OPTIONS = ("StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null", "LogLevel=ERROR", "IdentitiesOnly=yes")


def wait(machine: Machine, kernel: Kernel, result: CaseResult) -> None:
    """Say how to reach the guest, and wait until the user presses Enter or the guest's QEMU ends.

    Where there is no terminal, only its end or a signal to the run ends the wait, and that is said.
    """
    if not machine.alive:
        say(f"{result.id}: {result.status}; its guest has ended with it, so there is nothing to look at")
        return
    state = "has ended, and stands still" if machine.halted else "lives"
    say("\n  ".join([f"{result.id}: {result.status}; its guest {state}", *ways(machine, kernel)]))
    with _terminal() as terminal:
        end = f"kill {machine.process.pid} ends the guest, and the run goes on"
        say(f"Enter goes on, Ctrl-C ends the run (and {end})" if terminal is not None else f"no terminal to ask: {end}")
        inputs = [machine.pidfd] if terminal is None else [machine.pidfd, terminal]
        ready, _, _ = select.select(inputs, [], [])
        if terminal in ready and terminal is not None:
            os.read(terminal, 1 << 12)


def ways(machine: Machine, kernel: Kernel) -> list[str]:
    """Return the commands by which to look at a guest that is alive, and open the door for those that need one."""
    lines = [] if machine.halted else [f"ssh:     {shlex.join(ssh(machine))}"]
    door = machine.console.parent / "gdb"
    try:
        machine.qmp.monitor(f"gdbserver unix:{door},server=on,wait=off")
    except HostFault as error:
        lines.append(f"gdb:     cannot be had: {error.message}")
    else:
        program = "gdb" if native(machine.spec.arch) else "gdb-multiarch"
        vmlinux = [os.fspath(kernel.vmlinux)] if kernel.vmlinux else []
        lines.append(f"gdb:     {shlex.join([program, *vmlinux, '-ex', f'target remote {door}'])}")
    return [*lines, f"console: tail -n +1 -F {shlex.quote(os.fspath(machine.console))}"]


def ssh(machine: Machine) -> list[str]:
    """Return the command line of ssh that leads into a guest."""
    options = [word for option in SSH_OPTIONS for word in ("-o", option)]
    key = os.fspath(machine.spec.image.client_key)
    return ["ssh", "-i", key, "-p", str(machine.forwarded_port()), *options, "root@127.0.0.1"]


@contextlib.contextmanager
def _terminal() -> Iterator[int | None]:
    """The terminal whose foreground this process has; None if there is none, or somebody else has it."""
    try:
        terminal = os.open(TERMINAL, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        yield None
        return
    try:
        # Who reads from the background is stopped.
        yield terminal if os.tcgetpgrp(terminal) == os.getpgrp() else None
    finally:
        os.close(terminal)
