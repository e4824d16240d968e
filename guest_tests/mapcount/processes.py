# SPDX-License-Identifier: MIT
"""Mapcounts of huge pages that several processes map, and the pool that they come from."""

from __future__ import annotations

import os

import hgm


@hgm.stock_case("three processes that map a page count as three, then two, then one (fs/proc/page.c:kpagecount_read)")
def processes_count(size: int) -> None:
    """Children map it while the parent looks."""
    fd = hgm.memfd(size, 1)
    memory = hgm.map_file(fd, size)
    hgm.write(memory, 1)
    frame = hgm.pfn(memory)

    def child(depth: int) -> None:
        hgm.read(memory)
        hgm.expect(f"mapcount with {depth} processes", hgm.mapcount(frame), depth)
        if depth < 3:
            hgm.in_child(lambda: child(depth + 1))
            hgm.expect(f"mapcount back with {depth} processes", hgm.mapcount(frame), depth)

    child(1)
    hgm.unmap(memory, size)
    hgm.expect("mapcount when only the file holds it", hgm.mapcount(frame), 0)
    os.close(fd)


@hgm.stock_case("a page is taken from the pool when it is touched, and is back when its file goes (mm/hugetlb.c)")
def pool_is_refilled(size: int) -> None:
    """Reservation at mmap, allocation at the first touch, both undone at the end."""
    free = hgm.pool(size)
    fd = hgm.memfd(size, 1)
    memory = hgm.map_file(fd, size)
    hgm.expect("reserved", (hgm.pool(size), hgm.pool(size, "resv")), (free, 1))
    hgm.write(memory, 1)
    hgm.expect("allocated", (hgm.pool(size), hgm.pool(size, "resv")), (free - 1, 0))
    hgm.unmap(memory, size)
    hgm.expect("held by the file", hgm.pool(size), free - 1)
    os.close(fd)
    hgm.expect("free again", hgm.pool(size), free)


@hgm.case("a page mapped only at its last piece goes back to the pool (RFC v1 refcount rule)")
def last_piece_returns(size: int) -> None:
    """A reference that is not dropped with the mapping would keep the page for ever."""
    free = hgm.pool(size)
    fd = hgm.memfd(size, 1)
    alias, primary = hgm.map_file(fd, size), hgm.map_file(fd, size)
    hgm.write(alias, 1)
    frame = hgm.pfn(alias)
    uffd = hgm.Userfault()
    uffd.register(primary, size)
    hgm.expect("CONTINUE", uffd.try_continue(primary + size - hgm.BASE, hgm.BASE), 0)
    hgm.expect("mapcount", hgm.mapcount(frame), 2)
    hgm.unmap(primary, size)
    hgm.expect("mapcount without the primary", hgm.mapcount(frame), 1)
    hgm.unmap(alias, size)
    uffd.close()
    os.close(fd)
    hgm.expect("free pages", hgm.pool(size), free)


if __name__ == "__main__":
    hgm.main()
