# SPDX-License-Identifier: MIT
"""Answers a guest's question how a range of its memory is mapped: stop, find who asks, read tables, let go on.

A guest test writes one line to a virtio-serial port, and waits for the answer in user mode with a cookie of its choice
in a register. So the processor that runs it, and with it its page tables, can be told from all others, whatever the
kernel says or does.
"""

from __future__ import annotations

import contextlib
import re
import select
import socket
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from harness.arch import Arch
from harness.deadline import Deadline
from harness.errors import GuestFault, HarnessError, HostFault
from harness.pagetable import arm64, x86_64
from harness.pagetable.gdb import Stub
from harness.pagetable.shape import shape
from harness.pagetable.walk import Ram, Walk
from harness.vm.machine import Machine

SECONDS = 5.0  # for one answer, on an accelerator of slowness 1
PAUSE_SECONDS = 0.001  # between two looks at a guest that was not in user mode
MOST_TEXT = 60_000  # bytes of an answer; longer ones are cut, and say so


@dataclass(frozen=True, slots=True, kw_only=True)
class Registers:
    """What is read of a processor, and how a walk starts from it."""

    general: Sequence[int]  # numbers of those in which a cookie may be
    mode: int  # the number of the one that tells user mode
    user: tuple[int, int]  # mask, and value in user mode
    names: Sequence[str]  # of those that the walk needs
    numbers: Mapping[str, int] | None  # of these; None: the stub's description tells
    walk: Callable[..., Walk]
    keywords: Sequence[str]  # of the walk, for the values of `names`
    required: Mapping[str, int] = field(default_factory=dict)  # bits that must be set, or the numbers are wrong


MODELS = {
    # QEMU numbers them so (target/i386/gdbstub.c); its description has three more than it counts.
    "x86_64": Registers(
        general=range(16), mode=18, user=(3, 3), names=("cr3", "cr4", "cr0", "efer"),
        numbers={"cr0": 27, "cr3": 29, "cr4": 30, "efer": 32}, walk=x86_64.walk, keywords=("cr3", "cr4"),
        required={"cr0": 1 << 31 | 1, "efer": 1 << 10 | 1 << 8},  # PG, PE; LMA, LME
    ),
    "arm64": Registers(
        general=range(31), mode=33, user=(0xF, 0), names=("TTBR0_EL1", "TCR_EL1"), numbers=None, walk=arm64.walk,
        keywords=("ttbr0", "tcr"),
    ),
}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """One answer."""

    start: int  # virtual address
    length: int  # bytes
    pages: tuple[str, ...]  # notation of each huge page
    frames: tuple[int, ...]  # physical address of each huge page as its first leaf has it; 0 where nothing is mapped
    tables: int  # pages of tables of which each belongs to one huge page alone
    findings: tuple[str, ...]
    seconds: float  # that the guest stood still

    def __str__(self) -> str:
        """The line that the guest reads."""
        pages = "; ".join(f"{page}@{frame:x}" for page, frame in zip(self.pages, self.frames, strict=True))
        return f"tables {self.tables}; {pages}" + "".join(f" !! {finding}" for finding in self.findings)


@dataclass(slots=True)
class Answers:
    """What a case was told, in order."""

    shapes: list[Shape] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)  # why it could not be told


class Prober:
    """Looks into one machine's guest."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self._arch: Arch = machine.spec.arch
        self._path: Path = machine.console.parent / "gdb"
        self._ram: Ram | None = None

    def look(self, cookie: int, start: int, length: int, huge: int) -> Shape:
        """Return how the asker, who has `cookie` in a register, has mapped `length` bytes from `start` on.

        Raises GuestFault if no processor is seen with it in user mode, HostFault if QEMU does not let itself be asked.
        """
        if self._ram is None:
            self._ram = parse_ram(self._machine.qmp.monitor("info mtree -f"))
            self._machine.qmp.monitor(f"gdbserver unix:{self._path},server=on,wait=off")
        deadline = Deadline(SECONDS * self._machine.spec.accelerator.slowness)
        while not deadline.over:
            with Stub(self._path, deadline.left) as stub:
                began = time.monotonic()
                values = self._registers_of(stub, cookie)
                if values is not None:
                    stub.read_physically()
                    found = MODELS[self._arch.kernel_arch].walk(stub.read, self._ram, start, start + length, **values)
                    return _shape(found, huge, self._arch.base_page, time.monotonic() - began)
            # It was in the kernel for a moment: interrupted, or scheduled away.
            time.sleep(PAUSE_SECONDS)
        raise GuestFault(f"no processor of the guest was seen in user mode with {cookie:#x} in a register")

    def _registers_of(self, stub: Stub, cookie: int) -> dict[str, int] | None:
        """The walk's registers of the processor on which the asker runs in user mode; None if there is none now."""
        model = MODELS[self._arch.kernel_arch]
        mask, user = model.user
        for thread in stub.threads():
            (mode,) = stub.registers(thread, [model.mode])
            if mode & mask == user and cookie in stub.registers(thread, model.general):
                numbers = model.numbers or stub.register_numbers()
                values = dict(zip(model.names, stub.registers(thread, [numbers[n] for n in model.names]), strict=True))
                for name, bits in model.required.items():
                    if values[name] & bits != bits:
                        raise HostFault(f"QEMU's gdb stub has another register where {name} should be")
                return {keyword: values[name] for keyword, name in zip(model.keywords, model.names, strict=False)}
        return None


def parse_ram(text: str) -> Ram:
    """Read where the guest's memory lies from QEMU's "info mtree -f"."""
    pattern = r"^\s+([0-9a-f]{16})-([0-9a-f]{16}) \(prio -?\d+, ram\): node\d+\b"
    stretches = sorted({(int(a, 16), int(b, 16) + 1) for a, b in re.findall(pattern, text, re.MULTILINE)})
    joined: list[tuple[int, int]] = []
    for start, end in stretches:
        if joined and start <= joined[-1][1]:
            joined[-1] = joined[-1][0], max(end, joined[-1][1])
        else:
            joined.append((start, end))
    if not joined:
        raise HostFault("QEMU's 'info mtree -f' shows no memory")
    return Ram(stretches=tuple(joined))


def _shape(found: Walk, huge: int, base: int, seconds: float) -> Shape:
    frames = []
    for start in range(found.start, found.end, huge):
        inside = [leaf for leaf in found.leaves if leaf.virtual < start + huge and leaf.end > start]
        frames.append(inside[0].physical - inside[0].virtual + start if inside else 0)
    entries = base // 8
    # A table belongs to one huge page alone if all that its entries can map is a part of one.
    tables = sum(count for level, count in found.tables.items() if base * entries**level <= huge)
    return Shape(
        start=found.start, length=found.end - found.start, pages=tuple(shape(found, huge, base)), frames=tuple(frames),
        tables=tables, findings=tuple(found.findings), seconds=round(seconds, 6),
    )  # fmt: skip


@contextlib.contextmanager
def answering(machine: Machine, port: socket.socket) -> Iterator[Answers]:
    """Answer questions that come from `port` until the block is left; what is yielded holds the answers."""
    answers = Answers()
    ours, its = socket.socketpair()
    with ours, its, ThreadPoolExecutor(1, "shapes") as threads:
        served = threads.submit(_serve, machine, port, its, answers)
        try:
            yield answers
        finally:
            ours.shutdown(socket.SHUT_WR)
        served.result()  # a fault of ours is raised here, and blames no kernel


def _serve(machine: Machine, port: socket.socket, stop: socket.socket, answers: Answers) -> None:
    prober = Prober(machine)
    text = b""
    while True:
        ready, _, _ = select.select([port, stop], [], [])
        if stop in ready:
            return
        try:
            piece = port.recv(4096)
        except OSError:
            return  # QEMU is gone; whoever runs the case sees that for himself
        if not piece:
            return
        text += piece
        while b"\n" in text:
            line, text = text.split(b"\n", 1)
            with contextlib.suppress(OSError):  # the same
                port.sendall(_answer(prober, line.decode(errors="replace"), answers).encode())


def _answer(prober: Prober, line: str, answers: Answers) -> str:
    """Return the line that answers "shape COOKIE START LENGTH HUGE", numbers in hexadecimal."""
    match = re.fullmatch(r"shape ([0-9a-f]+) ([0-9a-f]+) ([0-9a-f]+) ([0-9a-f]+)", line.strip())
    if not match:
        return f"error: no question: {line[:80]!r}\n"
    cookie, start, length, huge = (int(word, 16) for word in match.groups())
    try:
        found = prober.look(cookie, start, length, huge)
    except HarnessError as error:
        # The case says no, with these words, and its verdict is that it could not be told.
        answers.faults.append(error.message)
        return f"{cookie:x} error: {error.message}\n"
    answers.shapes.append(found)
    text = f"{cookie:x} {found}"
    return f"{text}\n" if len(text.encode()) < MOST_TEXT else f"{cookie:x} long\n"
