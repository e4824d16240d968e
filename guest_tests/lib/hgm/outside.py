# SPDX-License-Identifier: MIT
"""The page tables as the hardware sees them: questions to the harness, which looks from outside, and its answers."""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import mmap
import os
import platform
import select
import threading
import time
from pathlib import Path

from hgm.memory import map_memory
from hgm.verdicts import expect_eq, fail, note, size_name, size_of

_SHAPE_PORT = "hgm.shape"  # harness/image.py
_SHAPE_QUESTIONS = 40  # per case: each one stops the machine for some milliseconds
_SHAPE_S = 120
_SPINS = 100_000
# void spin(cookie, count): stays in user mode with the cookie in a register. By that the harness knows who asks.
_SPIN = {
    "x86_64": bytes.fromhex("48ffce 75fb c3"),  # dec rsi; jnz to it; ret
    "aarch64": bytes.fromhex("210400f1 e1ffff54 c0035fd6"),  # subs x1, x1, #1; b.ne to it; ret
}


class Outside:
    """The harness's virtio-serial port."""

    def __init__(self, port: int) -> None:
        self.port, self.questions, self._lock = port, 0, threading.Lock()
        code = os.memfd_create("spin", os.MFD_CLOEXEC)
        os.write(code, _SPIN[platform.machine()])
        where = map_memory(0, mmap.PAGESIZE, mmap.MAP_PRIVATE, code, prot=mmap.PROT_READ | mmap.PROT_EXEC)
        os.close(code)
        self._spin = ctypes.CFUNCTYPE(None, ctypes.c_uint64, ctypes.c_uint64)(where)

    def ask(self, at: int, length: int, huge: int, cookie: int | None = None) -> str:
        """The harness's words, or "long". With `cookie`, another process is in user mode with that in a register."""
        number = int.from_bytes(os.urandom(8), "little") if cookie is None else cookie
        answer, end = b"", time.monotonic() + _SHAPE_S
        with self._lock:
            fcntl.lockf(self.port, fcntl.LOCK_EX)  # against children, which have the same port
            os.write(self.port, f"shape {number:x} {at:x} {length:x} {huge:x}\n".encode())
            while not answer.endswith(b"\n"):
                if cookie is None:
                    self._spin(number, _SPINS)
                else:
                    select.select([self.port], [], [], 1)
                with contextlib.suppress(BlockingIOError):
                    answer += os.read(self.port, 1 << 16)
                if time.monotonic() > end:
                    fail("the harness does not say how the memory is mapped")
            fcntl.lockf(self.port, fcntl.LOCK_UN)
        asked, _, words = answer.decode().strip().partition(" ")
        if asked != f"{number:x}" or words.startswith("error"):
            fail(f"the harness could not look at the page tables: {answer.decode().strip()}")
        return words


here: Outside | None = None  # set anew for each case by the frame, so reach it as `outside.here`


def shape_port() -> Outside | None:
    """Find the harness's port. By hand, on a machine of one's own, there is none."""
    for name in Path("/sys/class/virtio-ports").glob("*/name"):
        if name.read_text().strip() == _SHAPE_PORT:
            return Outside(os.open(f"/dev/{name.parent.name}", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC))
    return None


def shape(at: int, length: int, huge: int) -> str | None:
    """How the hardware's page tables map a range of huge pages of `huge` bytes, as hgm_shape in hgm.h has it.

    None where nobody can tell, and after so many questions that a case would take too long.
    """
    if here is None:
        return None
    here.questions += 1
    if here.questions > _SHAPE_QUESTIONS:
        if here.questions == _SHAPE_QUESTIONS + 1:
            note(f"not checked: page tables from outside, after the first {_SHAPE_QUESTIONS} questions")
        return None
    answer = here.ask(at, length, huge)
    if answer == "long":
        note("not checked: page tables from outside, since there are too many pieces to be told")
        return None
    return answer


def expect_one_leaf(at: int, huge: int, physical: int) -> None:
    """Expect the hardware to map the huge page at `at` by one leaf, to the memory at a physical address."""
    told = shape(at, huge, huge)
    if told is not None:
        name = size_name(huge)
        expect_eq("page tables of a huge page", told, f"tables 0; {name}: {name}×1@{physical:x}")


def frames(answer: str, base: int) -> list[int | None]:
    """The page frame of each base page as an answer of `shape` has it: 0 for a hole, None where it does not tell."""
    found: list[int | None] = []
    for page in answer.partition(" !! ")[0].split("; ")[1:]:
        runs, _, head = page.partition("@")
        huge, *words = runs.split()
        frame, total = int(head, 16) // base, size_of(huge.rstrip(":")) // base
        pieces: list[int | None] = []
        for word in words:
            what, _, count = word.partition("×")
            if what in ("hole", "mark"):
                pieces += [0] * int(count)
                continue
            first, length = frame + len(pieces), int(count) * min(size_of(what.rstrip("!")) // base, total)
            pieces += [None] * length if what.endswith("!") else range(first, first + length)
        found += pieces
    return found
