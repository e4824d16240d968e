# SPDX-License-Identifier: MIT
"""The VMEMMAP optimisation (HVO): what it saves, and that it can be switched while pages are in use."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import hgm

SWITCH = Path("/proc/sys/vm/hugetlb_optimize_vmemmap")
STRUCT_PAGE = 64  # bytes; HVO rules itself out for any other size (mm/hugetlb_vmemmap.c)


@contextmanager
def switched(value: str) -> Iterator[None]:
    """Set HVO for pages allocated from now on, and set it back."""
    before = SWITCH.read_text()
    SWITCH.write_text(value)
    try:
        yield
    finally:
        SWITCH.write_text(before)


def free_pages() -> int:
    """Free base pages, with those on the lists of each processor, which MemFree leaves out."""
    counts = [line.split() for line in Path("/proc/zoneinfo").read_text().splitlines()]
    return sum(int(words[-1]) for words in counts if words[:2] == ["pages", "free"] or words[:1] == ["count:"])


def pages_taken(size: int, low: int, high: int) -> float:
    """Base pages of free memory that each huge page costs when the pool grows from `low` to `high`."""
    hgm.set_pool(size, low)
    hgm.expect("pages in the pool", hgm.pool(size, "nr"), low)
    before = free_pages()
    hgm.set_pool(size, high)
    hgm.expect("pages in the grown pool", hgm.pool(size, "nr"), high)
    return (before - free_pages()) / (high - low)


@hgm.stock_case(
    "HVO saves 7 pages for each 2M page and 4095 for each 1G page (mm/hugetlb_vmemmap.c)", arch="x86_64", deadline_s=60
)
def saves_memory(size: int) -> None:
    """Growing the pool takes less free memory with HVO on than with it off, by all vmemmap pages but one."""
    saved = size // hgm.BASE * STRUCT_PAGE // hgm.BASE - 1
    pool = hgm.pool(size, "nr")
    # A gigantic page is freed and allocated again; of small ones there must be many, or other traffic would show.
    low, high = (pool - 1, pool) if saved > 1000 else (pool, pool + 128)
    try:
        with switched("0"):
            whole = pages_taken(size, low, high)
        with switched("1"):
            optimised = pages_taken(size, low, high)
    finally:
        hgm.set_pool(size, pool)
    hgm.note(f"base pages for each huge page: {whole:.2f} without HVO, {optimised:.2f} with it")
    # Free memory moves with whatever else the kernel does: half a page in seven, forty in 4095.
    near = abs(whole - optimised - saved) <= max(0.5, saved / 100)
    hgm.expect(f"HVO saves {saved} pages (saw {whole - optimised:.2f})", near, True)


@hgm.stock_case("pages in use keep their data while HVO is switched (mm/hugetlb_vmemmap.c)", arch="x86_64")
def switched_in_use(size: int) -> None:
    """What is switched is what happens to pages allocated later."""
    fd = hgm.memfd(size, 1)
    memory = hgm.map_file(fd, size)
    hgm.fill(memory, size)
    frame = hgm.pfn(memory)
    with switched("0"):
        hgm.expect("mapcount", hgm.mapcount(frame), 1)
        hgm.expect("first tag", hgm.read(memory), hgm.tag(0))
    hgm.expect("last tag", hgm.read(memory + size - hgm.BASE), hgm.tag(size // hgm.BASE - 1))
    hgm.expect("mapcount of piece 100", hgm.mapcount(frame + 100), 1)
    hgm.unmap(memory, size)
    os.close(fd)


@hgm.case("pieces behind the first vmemmap page map and count as any other under HVO (RFC v1)", arch="x86_64")
def far_pieces(size: int) -> None:
    """Struct pages 64 and up are read-only aliases: a kernel that writes to them dies here."""
    hgm.expect("HVO", SWITCH.read_text().strip(), "1")
    fd = hgm.memfd(size, 1)
    alias, primary = hgm.map_file(fd, size), hgm.map_file(fd, size)
    hgm.fill(alias, size)
    frame = hgm.pfn(alias)
    uffd = hgm.Userfault()
    uffd.register(primary, size)
    for piece in (3, 67, 100):
        hgm.expect(f"CONTINUE of piece {piece}", uffd.try_continue(primary + piece * hgm.BASE, hgm.BASE), 0)
        hgm.expect(f"tag of piece {piece}", hgm.read(primary + piece * hgm.BASE), hgm.tag(piece))
        hgm.expect("mapcount", hgm.mapcount(frame + piece), 2)
    hgm.expect("COLLAPSE", hgm.advise(primary, size, hgm.MADV_COLLAPSE), 0)
    hgm.expect("mapcount", hgm.mapcount(frame), 2)
    uffd.close()
    for address in (primary, alias):
        hgm.unmap(address, size)
    os.close(fd)


if __name__ == "__main__":
    hgm.main()
