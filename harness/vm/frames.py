# SPDX-License-Identifier: MIT
"""Where each processor of a guest is and how it came there, read from outside: the kernel in it need not answer.

A kernel with frame pointers links its frames: at the frame pointer lie the caller's and the address to return to.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from harness.arch import Arch
from harness.errors import HostFault
from harness.vm.qmp import Qmp

MOST = 40  # frames of one processor
BIT_55 = 1 << 55  # tells kernel from user addresses on both architectures
ADDRESS = (1 << 48) - 1  # bits of an address that are no signature


@dataclass(frozen=True, slots=True, kw_only=True)
class Processor:
    """One processor of a guest that stood still for a moment."""

    number: int
    registers: str  # as QEMU prints them
    frames: tuple[int, ...]  # program counter first, then addresses to return to; only the kernel's

    def __str__(self) -> str:
        """Text in the form of a kernel's call trace, with addresses where it has names."""
        if not self.frames:
            return f"CPU {self.number}: in user mode"
        lines = [f"  {'' if number else 'pc '}[<{address:016x}>]" for number, address in enumerate(self.frames)]
        return "\n".join([f"CPU {self.number}: call trace, read from outside:", *lines])


def look(qmp: Qmp, arch: Arch, cpus: int) -> list[Processor]:
    """Stop the guest for some milliseconds and return where its processors are.

    A guest that stands still already is left so. Raises HostFault if QEMU does not answer.
    """
    status = qmp.execute("query-status")
    running = isinstance(status, dict) and status.get("running") is True
    if running:
        qmp.execute("stop")
    try:
        return [_look(qmp, arch, cpu) for cpu in range(cpus)]
    finally:
        if running:
            qmp.execute("cont")


def _look(qmp: Qmp, arch: Arch, cpu: int) -> Processor:
    text = qmp.monitor("info registers", cpu=cpu).replace("\r\n", "\n").strip()

    def read(address: int) -> tuple[int, int] | None:
        answer = qmp.monitor(f"x/2xg {address:#x}", cpu=cpu)
        words = re.findall(r"0x([0-9a-f]{16})\b", answer.partition(":")[2])
        return (int(words[0], 16), int(words[1], 16)) if len(words) == 2 else None

    return Processor(number=cpu, registers=text, frames=tuple(walk(parse(text), arch, read)))


def parse(text: str) -> dict[str, int]:
    """Return the registers in QEMU's text by name. Raises HostFault if there are none."""
    found = {name: int(value, 16) for name, value in re.findall(r"\b([A-Z][A-Z0-9]*) ?=([0-9a-f]+)\b", text)}
    if not found:
        raise HostFault(f"QEMU's 'info registers' shows none:\n{text[:200]}")
    return found


def walk(registers: Mapping[str, int], arch: Arch, read: Callable[[int], tuple[int, int] | None]) -> list[int]:
    """Return the program counter and the addresses to return to, innermost first; empty in user mode.

    `read` returns two words of memory that follow each other, or None where there are none. What looks damaged ends
    the walk, so it may be cut short, but it never fails.
    """
    pc, frame = registers[arch.pc], registers[arch.frame]
    frames: list[int] = []
    # A function that calls no other may have made no frame, and its caller is known to the link register alone.
    link = registers.get(arch.link, 0)
    while _of_kernel(pc) and len(frames) < MOST:
        frames.append(_bare(pc))
        if arch.saved and frame & 1:
            place = frame - 1
            saved_frame, saved_pc = (read(place + offset) for offset in arch.saved)
            if not saved_frame or not saved_pc:
                break
            frame, pc = saved_frame[0], saved_pc[0]
        else:
            pair = read(frame) if _of_kernel(frame) and frame % 8 == 0 else None
            if not pair:
                break
            frame, pc = pair
        if len(frames) == 1 and _of_kernel(link) and _bare(link) != _bare(pc) and _bare(link) != frames[0]:
            frames.append(_bare(link))
    return frames


def _of_kernel(address: int) -> bool:
    return bool(address & BIT_55)


def _bare(address: int) -> int:
    """The address without a signature of pointer authentication."""
    return address & ADDRESS | 0xFFFF << 48
