# SPDX-License-Identifier: MIT
"""ssh into a guest with paramiko: one connection, a pinned host key, and commands that always end."""

from __future__ import annotations

import base64
import contextlib
import math
import os
import select
import socket
import termios
import time
import tty
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import Enum

import paramiko

from harness.deadline import Deadline
from harness.errors import GuestFault
from harness.image import Image

CHUNK = 1 << 16
RESIZE_SECONDS = 0.5  # between two looks at the size of the terminal
PATIENCE_SECONDS = 0.5  # between two questions whether it is still worth while to wait
LAST_SECONDS = 5.0  # for the exit status that follows the end of output


class End(Enum):
    """How a command in the guest came to its end, as seen from the host."""

    EXITED = "exited"
    DEADLINE = "deadline"  # it ran longer than it may
    FLOOD = "flood"  # it printed more than it may
    LOST = "lost"  # the connection or QEMU went away under it


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What a command did; `status` is None unless it exited."""

    end: End
    status: int | None
    stdout: bytes
    stderr: bytes
    seconds: float


class Ssh:
    """A connection to a guest's dropbear on a port of 127.0.0.1."""

    def __init__(self, port: int, image: Image, qemu_fd: int, deadline: Deadline) -> None:
        """Connect and authenticate. `qemu_fd` can be read once QEMU has ended, or the guest in it.

        Raises GuestFault if the guest does not answer in time or shows another host key than its image's.
        """
        self._qemu_fd = qemu_fd
        kind, blob = image.host_key.split()[:2]
        pinned = paramiko.PKey.from_type_string(kind, base64.b64decode(blob))
        try:
            raw = socket.create_connection(("127.0.0.1", port), timeout=deadline.left)
            self._transport = paramiko.Transport(raw)
            self._transport.banner_timeout = self._transport.handshake_timeout = deadline.left
            self._transport.auth_timeout = deadline.left
            self._transport.connect(
                hostkey=pinned,
                username="root",
                pkey=paramiko.Ed25519Key.from_private_key_file(os.fspath(image.client_key)),
            )
        except (paramiko.SSHException, OSError, EOFError) as error:
            raise GuestFault(f"ssh to the guest failed: {error or type(error).__name__}") from error

    def run(
        self,
        command: str,
        deadline: Deadline,
        *,
        stdin: bytes = b"",
        limit: int = 4 << 20,
        patience: Callable[[bytes], float] | None = None,
    ) -> Outcome:
        """Run `command` by the guest's shell until it exits, or one of the other ends comes first.

        `limit` bounds stdout and stderr together, in bytes; what came before the end is always returned. `patience` is
        asked now and then, with stdout, how many seconds the command may still take; a wait that it has shortened
        does not become longer again.
        """
        try:
            channel = self._transport.open_session(timeout=max(deadline.left, 0.1))
            channel.settimeout(max(deadline.left, 0.1))
            channel.exec_command(command)
            if stdin:
                channel.sendall(stdin)
            channel.shutdown_write()
        except (paramiko.SSHException, OSError, EOFError):
            end = End.DEADLINE if deadline.over else End.LOST
            return Outcome(end=end, status=None, stdout=b"", stderr=b"", seconds=deadline.passed)
        with contextlib.closing(channel):
            return self._drain(channel, deadline, limit, patience)

    def _drain(
        self,
        channel: paramiko.Channel,
        deadline: Deadline,
        limit: int,
        patience: Callable[[bytes], float] | None,
    ) -> Outcome:
        out, err = bytearray(), bytearray()
        started = time.monotonic()
        granted = math.inf

        def outcome(end: End, status: int | None = None) -> Outcome:
            seconds = time.monotonic() - started
            return Outcome(end=end, status=status, stdout=bytes(out), stderr=bytes(err), seconds=seconds)

        while True:
            while channel.recv_ready():
                out += channel.recv(CHUNK)
            while channel.recv_stderr_ready():
                err += channel.recv_stderr(CHUNK)
            if patience and (grant := patience(bytes(out))) < granted:
                granted, deadline = grant, Deadline(min(deadline.left, grant))
            if len(out) + len(err) > limit:
                return outcome(End.FLOOD)
            if channel.eof_received and not channel.recv_ready() and not channel.recv_stderr_ready():
                # EOF may come before the exit status; dropbear sends both before it closes the channel.
                if not channel.status_event.wait(deadline.left):
                    return outcome(End.DEADLINE)
                if not self._transport.is_active():
                    return outcome(End.LOST)
                # paramiko knows no exit-signal: of a shell that was killed it only says -1.
                return outcome(End.EXITED, channel.exit_status if channel.exit_status >= 0 else None)
            if not self._transport.is_active():
                return outcome(End.LOST)
            if deadline.over:
                return outcome(End.DEADLINE)
            wait = min(deadline.left, PATIENCE_SECONDS) if patience else deadline.left
            ready, _, _ = select.select([channel.fileno(), self._qemu_fd], [], [], wait)
            if self._qemu_fd in ready and not channel.recv_ready() and not channel.recv_stderr_ready():
                return outcome(End.LOST)

    def attach(self, command: str) -> int:
        """Run `command` with this process's own stdin and stdout, until it exits; return its status.

        On a terminal it gets a terminal, too, which follows the size of ours. Raises GuestFault if the guest goes away.
        """
        terminal = os.isatty(0) and os.isatty(1)
        try:
            channel = self._transport.open_session()
            if terminal:
                size = os.get_terminal_size()
                channel.get_pty(os.environ.get("TERM", "dumb"), size.columns, size.lines)
            channel.exec_command(command)
        except (paramiko.SSHException, OSError, EOFError) as error:
            raise GuestFault(f"ssh to the guest failed: {error or type(error).__name__}") from error
        with contextlib.closing(channel), _raw() if terminal else contextlib.nullcontext():
            inputs = [0, channel.fileno(), self._qemu_fd]
            while not (channel.eof_received and not channel.recv_ready() and not channel.recv_stderr_ready()):
                if terminal and os.get_terminal_size() != size:
                    size = os.get_terminal_size()
                    channel.resize_pty(size.columns, size.lines)
                ready, _, _ = select.select(inputs, [], [], RESIZE_SECONDS if terminal else None)
                if 0 in ready:
                    if typed := os.read(0, CHUNK):
                        channel.sendall(typed)
                    else:
                        channel.shutdown_write()
                        inputs.remove(0)
                while channel.recv_ready():
                    _write(1, channel.recv(CHUNK))
                while channel.recv_stderr_ready():
                    _write(2, channel.recv_stderr(CHUNK))
                if self._qemu_fd in ready or not self._transport.is_active():
                    raise GuestFault("the guest went away")
            channel.status_event.wait(LAST_SECONDS)
            return channel.exit_status if channel.exit_status >= 0 else 255

    def close(self) -> None:
        """Drop the connection."""
        self._transport.close()


@contextlib.contextmanager
def _raw() -> Iterator[None]:
    """Within the block each key that is pressed is read as it is, Ctrl-C among them."""
    before = termios.tcgetattr(0)
    tty.setraw(0, termios.TCSADRAIN)  # what has been typed ahead stays
    try:
        yield
    finally:
        termios.tcsetattr(0, termios.TCSADRAIN, before)


def _write(fd: int, data: bytes) -> None:
    while data:
        data = data[os.write(fd, data) :]
