# SPDX-License-Identifier: MIT
"""As much of gdb's remote protocol as it takes to read registers and physical memory from QEMU's stub."""

from __future__ import annotations

import re
import socket
from collections.abc import Sequence
from pathlib import Path

from harness.errors import HostFault

CHUNK = 2048  # bytes of memory in one packet: QEMU's packets hold 4096 hex digits


class Stub:
    """A connection to a gdb stub on a unix socket. While it is open the guest stands still; use as a context manager.

    Every call raises HostFault when the stub does not answer, or answers with an error.
    """

    def __init__(self, path: Path, seconds: float) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(seconds)
        self._buffer = b""
        try:
            self._socket.connect(str(path))
        except OSError as error:
            raise HostFault(f"QEMU's gdb stub at {path} does not let itself be reached: {error}") from error
        # That the guest has stopped may be told unasked, before or after the first question; this has an answer like
        # no other, so what follows it is in step.
        answer = self.ask("qSupported")
        while not answer.startswith("PacketSize="):
            answer = self._answer("qSupported")
        # Single registers are only to be had by one who has read what there are.
        self._includes = re.findall(r'<xi:include href="([^"]+)"', self._description("target.xml"))

    def __enter__(self) -> Stub:
        return self

    def __exit__(self, *_: object) -> None:
        """Let the guest go on."""
        try:
            self.ask("D")
        finally:
            self._socket.close()

    def ask(self, packet: str) -> str:
        """Send one packet and return the answer."""
        data = packet.encode()
        try:
            self._socket.sendall(b"$%s#%02x" % (data, sum(data) & 0xFF))
        except OSError as error:
            raise HostFault(f"QEMU's gdb stub does not take {packet!r}: {error}") from error
        return self._answer(packet)

    def _answer(self, packet: str) -> str:
        try:
            while not (match := re.search(rb"\$([^#]*)#[0-9a-f]{2}", self._buffer)):
                piece = self._socket.recv(1 << 16)
                if not piece:
                    raise HostFault(f"QEMU's gdb stub closed the connection at {packet!r}")
                self._buffer += piece
            self._socket.sendall(b"+")
        except OSError as error:
            raise HostFault(f"QEMU's gdb stub did not answer {packet!r}: {error}") from error
        self._buffer = self._buffer[match.end() :]
        answer = match[1].decode("latin-1")
        if re.fullmatch(r"(E[0-9a-f]{2})?", answer):
            raise HostFault(f"QEMU's gdb stub refused {packet!r}: {answer or 'it does not know that'}")
        return answer

    def threads(self) -> list[str]:
        """Return the names of all processors."""
        found: list[str] = []
        answer = self.ask("qfThreadInfo")
        while answer.startswith("m"):
            found += answer[1:].split(",")
            answer = self.ask("qsThreadInfo")
        return found

    def register_numbers(self) -> dict[str, int]:
        """Return the number of each register, by the names in the stub's target description."""
        numbers: dict[str, int] = {}
        next_number = 0
        for included in self._includes:
            for attributes in re.findall(r"<reg\s([^>]*)/?>", self._description(included)):
                words = dict(re.findall(r'(\w+)="([^"]*)"', attributes))
                next_number = int(words.get("regnum", next_number))
                numbers[words["name"]] = next_number
                next_number += 1
        return numbers

    def _description(self, name: str) -> str:
        text = ""
        while True:
            answer = self.ask(f"qXfer:features:read:{name}:{len(text):x},7ff")
            text += answer[1:]
            if answer.startswith("l"):
                return text

    def registers(self, thread: str, numbers: Sequence[int]) -> list[int]:
        """Return the values of some registers of one processor."""
        self.ask(f"Hg{thread}")
        return [int.from_bytes(bytes.fromhex(self.ask(f"p{number:x}")), "little") for number in numbers]

    def read_physically(self) -> None:
        """Let `read` take physical addresses."""
        self.ask("Qqemu.PhyMemMode:1")

    def read(self, address: int, length: int) -> bytes:
        """Return `length` bytes of memory."""
        parts = []
        for at in range(address, address + length, CHUNK):
            parts.append(bytes.fromhex(self.ask(f"m{at:x},{min(CHUNK, address + length - at):x}")))
        return b"".join(parts)
