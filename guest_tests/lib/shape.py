# SPDX-License-Identifier: MIT
"""Pictures of how the huge pages of a running process are mapped, by the hardware's tables: `./hgm shape --pid PID`.

In a guest of `./hgm shell`, whose harness answers. The process is stopped, made to run in a circle with a cookie in a
register, by which the harness knows its page tables, and then goes on where it was. A sleep that it was in begins anew.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import errno
import os
import platform
import signal
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import hgm

CELLS = 64  # of a picture
SHADES = "█▓▒░:"  # of leaves: the huge page's own size, and smaller ones
HOLE, MIXED = "·", "+"

_CONT, _SETREGSET, _GETREGSET, _DETACH = 7, 0x4205, 0x4204, 17
_SETSIGMASK, _SEIZE, _INTERRUPT = 0x420B, 0x4206, 0x4207
_NT_PRSTATUS = 1
_WALL = 0x40000000  # of waitpid
_ALL_SIGNALS = (1 << 64) - 1


@dataclass(frozen=True)
class _Cpu:
    """Where things are in what PTRACE_GETREGSET gives: words of 64 bits."""

    words: int
    cookie: int  # a general register
    counter: int  # the program counter
    no_restart: int | None  # set to all ones: no system call is begun anew while it runs in a circle
    circle: bytes  # an instruction that jumps to itself


_CPUS = {
    "x86_64": _Cpu(27, 0, 16, 15, bytes.fromhex("ebfe")),  # struct user_regs_struct: r15, rip, orig_rax; jmp
    "aarch64": _Cpu(34, 28, 32, None, bytes.fromhex("00000014")),  # struct user_pt_regs: x28, pc; b
}


class _Iovec(ctypes.Structure):
    _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))


def _ptrace(request: int, pid: int, address: int = 0, data: int = 0) -> None:
    arguments = (ctypes.c_long(request), ctypes.c_long(pid), ctypes.c_void_p(address), ctypes.c_void_p(data))
    if hgm.libc.ptrace(*arguments) < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def _registers(pid: int, count: int, words: list[int] | None = None) -> list[int]:
    """Read the registers of a stopped process, or write `words` to them."""
    room = (ctypes.c_uint64 * count)(*(words or ()))
    vector = _Iovec(ctypes.addressof(room), ctypes.sizeof(room))
    _ptrace(_SETREGSET if words else _GETREGSET, pid, _NT_PRSTATUS, ctypes.addressof(vector))
    return list(room)


def _stop(pid: int) -> None:
    _ptrace(_INTERRUPT, pid)
    os.waitpid(pid, _WALL)


@contextlib.contextmanager
def circling(pid: int) -> Iterator[int]:
    """Within the block a process runs in a circle, in user mode, with the cookie that is returned in a register."""
    cpu = _CPUS[platform.machine()]
    cookie = int.from_bytes(os.urandom(8), "little")
    with contextlib.ExitStack() as stack:
        # If this program ended half way, the process would run in its circle for good.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM, signal.SIGHUP})
        stack.callback(signal.pthread_sigmask, signal.SIG_SETMASK, before)
        memory = os.open(f"/proc/{pid}/mem", os.O_RDWR | os.O_CLOEXEC)
        stack.callback(os.close, memory)
        _ptrace(_SEIZE, pid)
        stack.callback(_ptrace, _DETACH, pid)
        _stop(pid)
        saved = _registers(pid, cpu.words)
        stack.callback(_registers, pid, cpu.words, saved)
        place = saved[cpu.counter]
        stack.callback(os.pwrite, memory, os.pread(memory, len(cpu.circle), place), place)
        stack.callback(_set_mask, pid, int(_status(pid)["SigBlk"], 16))
        words = list(saved)
        words[cpu.cookie] = cookie
        if cpu.no_restart is not None:
            words[cpu.no_restart] = _ALL_SIGNALS
        _set_mask(pid, _ALL_SIGNALS)
        os.pwrite(memory, cpu.circle, place)
        _registers(pid, cpu.words, words)
        _ptrace(_CONT, pid)
        stack.callback(_stop, pid)
        yield cookie


def _set_mask(pid: int, signals: int) -> None:
    mask = ctypes.c_uint64(signals)
    _ptrace(_SETSIGMASK, pid, ctypes.sizeof(mask), ctypes.addressof(mask))


def _status(pid: int) -> dict[str, str]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


@dataclass
class Mapping:
    """A mapping of huge pages."""

    start: int
    end: int
    name: str
    huge: int = 0  # bytes; 0: its pages are no huge pages


def mappings(smaps: str) -> list[Mapping]:
    """The mappings of huge pages in the text of a /proc/PID/smaps."""
    found: list[Mapping] = []
    size = 0
    for line in smaps.splitlines():
        first, *rest = line.split()
        start, dash, end = first.partition("-")
        if dash:
            found.append(Mapping(int(start, 16), int(end, 16), " ".join(rest[4:])))
        elif first == "KernelPageSize:":
            size = int(rest[0]) << 10
        elif first == "VmFlags:" and "ht" in rest:
            found[-1].huge = size
    return [one for one in found if one.huge]


def picture(notation: str, cells: int = CELLS) -> str:
    """A line of `cells` signs for a huge page in the harness's notation, such as "2M: 4K×1 hole×511".

    Each sign stands for an equal part: the shade of the smallest leaf in it if all of it is mapped, else a sign for a
    part that is mapped in parts, or not at all.
    """
    huge, runs = _runs(notation)
    shades = _shades(huge, {size for size, _, leaf in runs if leaf})
    part = huge // cells
    smallest = [huge] * cells  # leaf of each part
    mapped = [0] * cells  # bytes
    at = 0
    for size, count, leaf in runs:
        end = at + size * count
        for cell in range(at // part, -(-end // part)) if leaf else ():
            mapped[cell] += min(end, (cell + 1) * part) - max(at, cell * part)
            smallest[cell] = min(smallest[cell], size)
        at = end
    return "".join(
        HOLE if not covered else MIXED if covered < part else shades[size]
        for size, covered in zip(smallest, mapped, strict=True)
    )


def legend(notation: str) -> str:
    """What the shades of a huge page's picture mean."""
    huge, runs = _runs(notation)
    sizes = {size for size, _, leaf in runs if leaf}
    shades = _shades(huge, sizes)
    return "  ".join(f"{shades[size]} {hgm.size_name(size)}" for size in sorted(sizes, reverse=True))


def _runs(notation: str) -> tuple[int, list[tuple[int, int, bool]]]:
    """The size of a huge page, and its runs: bytes of each of so many alike, and whether they are leaves."""
    name, *words = notation.split()
    huge = hgm.size_of(name.rstrip(":"))
    counts = [(what.rstrip("!"), int(count)) for what, _, count in (word.partition("×") for word in words)]
    leaves = {what: min(hgm.size_of(what), huge) for what, _ in counts if what not in ("hole", "mark")}
    # Holes are counted in base pages, of which there are as many as all leaves leave.
    left = huge - sum(leaves[what] * count for what, count in counts if what in leaves)
    base = left // max(1, sum(count for what, count in counts if what not in leaves))
    return huge, [(leaves.get(what, base), count, what in leaves) for what, count in counts]


def _shades(huge: int, sizes: set[int]) -> dict[int, str]:
    smaller = sorted((size for size in sizes if size < huge), reverse=True)
    return {huge: SHADES[0]} | {size: SHADES[1:][min(i, len(SHADES) - 2)] for i, size in enumerate(smaller)}


def show(mapping: Mapping, answer: str) -> None:
    """Print the pictures of one mapping."""
    pages, *findings = answer.split(" !! ")
    tables, *told = pages.split("; ")
    print(f"{mapping.start:x}-{mapping.end:x} {hgm.size_name(mapping.huge)} {mapping.name}  {tables}")
    for number, page in enumerate(told):
        notation, _, physical = page.partition("@")
        print(f"  {mapping.start + number * mapping.huge:x} {picture(notation)} {legend(notation)}  at {physical}")
        print(f"  {'':{len(f'{mapping.start:x}')}} {notation}")
    for finding in findings:
        print(f"  wrong: {finding}")


def main() -> int:
    """Run the tool."""
    parser = argparse.ArgumentParser(prog="hgm shape", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--pid", type=int, required=True, help="of the process to look at")
    pid = parser.parse_args().pid
    outside = hgm.shape_port()
    if outside is None:
        parser.error("no harness is there to look: this is for guests of ./hgm shell")
    try:
        found = mappings(Path(f"/proc/{pid}/smaps").read_text())
        if not found:
            print(f"process {pid} ({_status(pid)['Name']}) maps no huge pages")
            return 0
        with circling(pid) as cookie:
            answers = [outside.ask(one.start, one.end - one.start, one.huge, cookie) for one in found]
    except OSError as error:
        what = "no such process" if error.errno in (errno.ESRCH, errno.ENOENT) else error.strerror
        parser.error(f"process {pid} cannot be looked at: {what}")
    for one, answer in zip(found, answers, strict=True):
        show(one, answer)
    return 0


if __name__ == "__main__":
    sys.exit(main())
