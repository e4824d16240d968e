# SPDX-License-Identifier: MIT
"""The life of one QEMU: boot or clone a guest, wait until it is ready, use it, kill it. Nothing is left behind."""

from __future__ import annotations

import contextlib
import os
import re
import select
import shlex
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

from harness import interrupts
from harness.deadline import Deadline
from harness.errors import BadInput, GuestFault, HostFault
from harness.process import end_group, tail
from harness.vm.command import Ram, VmSpec, command
from harness.vm.qmp import Qmp
from harness.vm.ssh import Ssh

# Migration leaves shared RAM where it is: in files that the other side has, too.
IGNORE_SHARED = {"capability": "x-ignore-shared", "state": True}
BOOT_SECONDS = 15.0  # on an accelerator of slowness 1


class Machine:
    """A running guest: `ssh` to work in it, `qmp` to control it, `console` for all that its kernel says."""

    def __init__(self, spec: VmSpec, directory: Path, process: subprocess.Popen[bytes], qmp: Qmp) -> None:
        self.spec = spec
        self.console = directory / "console"
        self.serial = directory / "serial"  # a socket that leads to the same port, both ways
        self.stderr = directory / "stderr"
        self.process = process
        self.qmp = qmp
        self.ready_seconds = 0.0  # from QEMU's start until ssh worked
        self.ssh: Ssh
        self.questions: socket.socket  # the host's end of the port on which guest tests ask
        self.pidfd = os.pidfd_open(process.pid)
        # Can be read when QEMU has ended, or the guest in it has: see `stay`.
        self.gone = select.epoll()
        self.gone.register(self.pidfd, select.EPOLLIN)
        self._halt: int | None = None

    @property
    def alive(self) -> bool:
        """Whether QEMU still runs; it ends when the guest panics or powers off, unless told to `stay`."""
        return self.process.poll() is None

    def stay(self) -> None:
        """From now on a guest that panics or powers off stands still in its QEMU, to be looked at, until it is killed.

        To those who wait for its end it has ended. Raises HostFault if QEMU cannot do that.
        """
        self._halt = self.qmp.watch("SHUTDOWN")
        self.gone.register(self._halt, select.EPOLLIN)
        self.qmp.execute("set-action", shutdown="pause")

    @property
    def halted(self) -> bool:
        """Whether the guest has ended and stands still in a QEMU that was told to `stay`."""
        return self._halt is not None and bool(select.select([self._halt], [], [], 0)[0])

    def close(self) -> None:
        """Close what belongs to this object alone. QEMU itself is left alone."""
        self.gone.close()
        os.close(self.pidfd)

    def complaints(self) -> str:
        """What QEMU itself has said."""
        return tail(self.stderr.read_text(errors="replace"))

    def console_size(self) -> int:
        """Bytes the serial console has seen so far: a position to read from later."""
        return self.console.stat().st_size

    def console_since(self, position: int = 0, end: int | None = None) -> str:
        """What the serial console has seen since `position`, up to `end` if given."""
        with self.console.open("rb") as file:
            file.seek(position)
            data = file.read() if end is None else file.read(end - position)
        return data.decode(errors="replace").replace("\r\n", "\n")

    def wait_end(self, seconds: float) -> bool:
        """Wait until QEMU, or the guest in it, has ended by itself; False if it has not within `seconds`."""
        return bool(select.select([self.gone], [], [], seconds)[0])

    def wait_console(self, text: str, position: int, deadline: Deadline) -> bool:
        """Wait until `text` stands on the console behind `position`; False if time or QEMU ends first.

        The kernel may print a message later than the call that logged it returns, and QEMU writes it later still.
        """
        while text not in self.console_since(position):
            if deadline.over or self.wait_end(0.01):
                return text in self.console_since(position)
        return True

    def save(self, state: Path, seconds: float) -> None:
        """Write the state of the guest, which stands still, to a file. Raises HostFault if QEMU cannot."""
        self.qmp.execute("migrate", uri=f"exec:cat > {shlex.quote(os.fspath(state))}")
        self.wait_migration(Deadline(seconds * self.spec.accelerator.slowness))

    def wait_migration(self, deadline: Deadline) -> None:
        """Wait until the state has gone out or come in as a whole. Raises HostFault if it has not."""
        while (status := self._migration()) != "completed":
            if status == "failed" or deadline.over or self.wait_end(0.002):
                raise HostFault(f"the guest's state did not pass: {status}\n{self.complaints()}")

    def _migration(self) -> str:
        answer = self.qmp.execute("query-migrate")
        return str(answer.get("status", "none")) if isinstance(answer, dict) else "none"

    def forwarded_port(self) -> int:
        """The port of 127.0.0.1 that leads to the guest's ssh."""
        text = self.qmp.monitor("info usernet")
        match = re.search(r"TCP\[HOST_FORWARD\]\s+\d+\s+127\.0\.0\.1\s+(\d+)", text)
        if not match:
            raise HostFault(f"QEMU forwards no port; 'info usernet' says:\n{text}")
        return int(match[1])


@contextlib.contextmanager
def booted(spec: VmSpec, console: Path | None = None, ram: Ram | None = None) -> Iterator[Machine]:
    """Boot a guest, give it when ssh works, and kill it at the end, however the block is left.

    `console` receives a copy of the whole serial console, also when the boot fails.

    Raises BadInput if the host has too little memory, HostFault if QEMU does not start, GuestFault if the guest
    does not come up; the message carries the end of the console.
    """
    with _started(spec, console, ram) as (machine, ready, deadline):
        _wait_ready(machine, ready, deadline)
        with _reached(machine, deadline):
            yield machine


@contextlib.contextmanager
def cloned(spec: VmSpec, ram: Ram, state: Path) -> Iterator[Machine]:
    """Start a guest where the one left off whose RAM and `state` were kept; else as `booted`.

    Its clock stands where that guest's stood, and so do its random numbers.
    """
    with _started(spec, None, ram) as (machine, _, deadline):
        machine.qmp.execute("migrate-set-capabilities", capabilities=[IGNORE_SHARED])
        # QEMU runs it by /bin/sh; from QEMU 8.2 on there is file:, too.
        machine.qmp.execute("migrate-incoming", uri=f"exec:cat {shlex.quote(os.fspath(state))}")
        machine.wait_migration(deadline)
        machine.qmp.execute("cont")
        with _reached(machine, deadline):
            yield machine


@contextlib.contextmanager
def _started(spec: VmSpec, console: Path | None, ram: Ram | None) -> Iterator[tuple[Machine, socket.socket, Deadline]]:
    """A QEMU that answers on QMP, the socket on which its guest will say that it is ready, and the time it has."""
    _check_memory(spec)
    with contextlib.ExitStack() as stack:
        # A unix socket's path holds 107 bytes at most, so it must not lie deep in somebody's home.
        directory = Path(tempfile.mkdtemp(prefix="hgm-", dir=os.environ.get("XDG_RUNTIME_DIR") or None))
        stack.callback(shutil.rmtree, directory, ignore_errors=True)
        if console:
            console.parent.mkdir(parents=True, exist_ok=True)
            stack.callback(_copy, directory / "console", console)
        ready = stack.enter_context(_listening(directory / "ready"))
        shape = stack.enter_context(_listening(directory / "shape"))
        qmp = Qmp(directory / "qmp")
        stack.callback(qmp.close)
        with (directory / "stderr").open("wb") as sink, interrupts.held():
            process = subprocess.Popen(
                command(spec, directory, ram),
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=sink,
                start_new_session=True,
            )
            # At once: there is nothing in it that would be worth a polite end.
            stack.callback(end_group, process, 0)
        machine = Machine(spec, directory, process, qmp)
        stack.callback(machine.close)
        deadline = Deadline(BOOT_SECONDS * spec.accelerator.slowness)
        try:
            qmp.accept(10)
        except HostFault as error:
            raise HostFault(f"QEMU did not start: {machine.complaints() or error.message}") from error
        # QEMU opens its sockets before it answers on QMP.
        machine.questions, _ = shape.accept()
        stack.enter_context(machine.questions)
        yield machine, ready, deadline


@contextlib.contextmanager
def _reached(machine: Machine, deadline: Deadline) -> Iterator[None]:
    """Within the block ssh works."""
    machine.ssh = Ssh(machine.forwarded_port(), machine.spec.image, machine.gone.fileno(), deadline)
    with contextlib.closing(machine.ssh):
        machine.ready_seconds = deadline.passed
        yield


def _listening(path: Path) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(os.fspath(path))
    listener.listen(1)
    listener.settimeout(10)
    return listener


def _wait_ready(machine: Machine, ready: socket.socket, deadline: Deadline) -> None:
    ready.settimeout(deadline.left)
    connection, _ = ready.accept()
    with connection:
        readable, _, _ = select.select([connection.fileno(), machine.pidfd], [], [], deadline.left)
        if connection.fileno() in readable and connection.recv(5) == b"ready":
            return
    end = tail(machine.console_since()) or "(the console is empty)"
    if machine.pidfd in readable:
        raise GuestFault(f"the guest ended while it booted\n{end}", hint="the kernel panicked, or lacks an option")
    raise GuestFault(
        f"the guest was not ready after {deadline.seconds:.0f} s\n{end}",
        hint="HGM_SLOWNESS=2 doubles every deadline, for a loaded machine",
    )


def _check_memory(spec: VmSpec) -> None:
    """Refuse a guest whose RAM the host does not have, before the host starts to swap or kill.

    The RAM is not touched until the guest uses it, but a test may use all of its pools.
    """
    text = Path("/proc/meminfo").read_text()
    match = re.search(r"MemAvailable:\s+(\d+) kB", text)
    available = int(match[1]) * 1024 if match else 0
    pools = sum(pool.size * pool.count for pool in spec.pools)
    if pools + (512 << 20) > available:
        raise BadInput(
            f"the huge pages asked for need {pools >> 20} MiB, and this host has {available >> 20} MiB available",
            hint="ask for fewer with --huge-pages SIZE=COUNT, such as --huge-pages 1G=1",
        )


def _copy(source: Path, target: Path) -> None:
    if source.exists():
        shutil.copyfile(source, target)
