# SPDX-License-Identifier: MIT
"""What the kernel shows of itself, of a process and of page frames, in files of /proc and /sys."""

from __future__ import annotations

import mmap
import os
from array import array
from pathlib import Path

from hgm.verdicts import fail

PFN = (1 << 55) - 1


def read_number(path: str) -> int:
    """A number in a file of /proc or /sys."""
    return int(Path(path).read_text())


def write_number(path: str, value: int) -> None:
    """Write a number to a file of /proc or /sys."""
    Path(path).write_text(f"{value}\n")


def status_kb(field: str) -> int:
    """A field of /proc/self/status in kB, such as "VmPTE"."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1])
    fail(f"/proc/self/status has no {field}")


def smaps(at: int, length: int) -> dict[str, int]:
    """Fields of smaps in kB, summed over the mappings that lie in a range."""
    fields: dict[str, int] = {}
    inside = False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        start, dash, end = line.split(maxsplit=1)[0].partition("-")
        name, _, value = line.partition(":")
        if dash:
            inside = at <= int(start, 16) and int(end, 16) <= at + length
        elif inside and value.endswith("kB"):
            fields[name] = fields.get(name, 0) + int(value.split()[0])
    if not fields:
        fail(f"/proc/self/smaps has no mapping in 0x{length:x} bytes at 0x{at:x}")
    return fields


def _entries(path: str, first: int, count: int) -> array[int]:
    """64-bit entries of a file of /proc; pagemap is that of the process that opens it."""
    raw = bytearray()
    fd = os.open(path, os.O_RDONLY)
    try:
        while len(raw) < count * 8:
            got = os.pread(fd, count * 8 - len(raw), first * 8 + len(raw))
            if not got:
                fail(f"{path}: ended at entry {first + len(raw) // 8}")
            raw += got
    finally:
        os.close(fd)
    return array("Q", bytes(raw))


def pagemap(at: int, count: int = 1) -> array[int]:
    """pagemap of this process for `count` base pages from address `at`."""
    return _entries("/proc/self/pagemap", at // mmap.PAGESIZE, count)


def present(at: int, length: int) -> int:
    """How many base pages of a range are mapped."""
    return sum(entry >> 63 for entry in pagemap(at, length // mmap.PAGESIZE))


def kpagecount(pfn: int, count: int = 1) -> array[int]:
    """How often each of `count` page frames is mapped."""
    return _entries("/proc/kpagecount", pfn, count)


def kpageflags(pfn: int, count: int = 1) -> array[int]:
    """Flags of `count` page frames, as Documentation/admin-guide/mm/pagemap.rst numbers them."""
    return _entries("/proc/kpageflags", pfn, count)


def expect_count(what: str, head: int, expected: list[int]) -> None:
    """Expect these counts of the base pages of a huge page."""
    seen = kpagecount(head, len(expected)).tolist()
    if seen != expected:
        number = next(i for i, pair in enumerate(zip(seen, expected, strict=True)) if pair[0] != pair[1])
        fail(f"kpagecount of base page {number} of {what}: expected {expected[number]}, saw {seen[number]}")
