# SPDX-License-Identifier: MIT
"""fork of processes that share huge pages: tables are not copied, contents and counts stay right."""

from __future__ import annotations

import os

import hgm


@hgm.stock_case("a child of shared hugetlb starts with empty tables (mm/memory.c:vma_needs_copy)")
def child_starts_empty(size: int) -> None:
    """Only when the child touches the page is it mapped there, and counted."""
    fd = hgm.memfd(size, 1)
    memory = hgm.map_file(fd, size)
    hgm.fill(memory, size)
    frame = hgm.pfn(memory)
    hgm.expect("mapcount before the fork", hgm.mapcount(frame), 1)

    def child() -> None:
        hgm.expect("base pages mapped in the child", hgm.present(memory, size), 0)
        hgm.expect("mapcount before the child touches it", hgm.mapcount(frame), 1)
        hgm.expect("what the child reads", hgm.read(memory), hgm.tag(0))
        hgm.expect("base pages mapped in the child", hgm.present(memory, size), size // hgm.BASE)
        hgm.expect("mapcount after the child touched it", hgm.mapcount(frame), 2)

    hgm.in_child(child)
    hgm.expect("mapcount after the child's end", hgm.mapcount(frame), 1)
    hgm.unmap(memory, size)
    os.close(fd)


@hgm.stock_case("what a child writes, the parent reads (mm/hugetlb.c:hugetlb_fault)")
def writes_are_shared(size: int) -> None:
    """The last base page is written, so that a wrong offset would show."""
    fd = hgm.memfd(size, 1)
    memory = hgm.map_file(fd, size)
    hgm.fill(memory, size)
    last = memory + size - hgm.BASE
    hgm.in_child(lambda: hgm.write(last, 42))
    hgm.expect("what the parent reads", hgm.read(last), 42)
    hgm.expect("its neighbour", hgm.read(last - hgm.BASE), hgm.tag(size // hgm.BASE - 2))
    hgm.unmap(memory, size)
    os.close(fd)


@hgm.stock_case("a chain of forks counts each process once, and ends at one (fs/proc/page.c:kpagecount_read)")
def chain(size: int) -> None:
    """Each of three generations maps the page while its parents do."""
    fd = hgm.memfd(size, 1)
    memory = hgm.map_file(fd, size)
    hgm.write(memory, hgm.tag(0))
    frame = hgm.pfn(memory)

    def generation(number: int) -> None:
        hgm.expect("what it reads", hgm.read(memory), hgm.tag(0))
        hgm.expect(f"mapcount in generation {number}", hgm.mapcount(frame), number)
        if number < 4:
            hgm.in_child(lambda: generation(number + 1))
            hgm.expect(f"mapcount back in generation {number}", hgm.mapcount(frame), number)

    generation(1)
    hgm.unmap(memory, size)
    os.close(fd)


@hgm.case("fork leaves the parent's pieces as they are; the child starts empty (RFC v1 on 6.1)")
def parent_keeps_pieces(size: int) -> None:
    """The child reads a piece that the parent has mapped, and one that nobody has."""
    fd = hgm.memfd(size, 1)
    alias, primary = hgm.map_file(fd, size), hgm.map_file(fd, size)
    hgm.fill(alias, size)
    frame = hgm.pfn(alias)
    uffd = hgm.Userfault()
    uffd.register(primary, size)
    for piece in (0, 3):
        hgm.expect("CONTINUE", uffd.try_continue(primary + piece * hgm.BASE, hgm.BASE), 0)

    def child() -> None:
        hgm.expect("base pages mapped in the child", hgm.present(primary, size), 0)
        hgm.expect("what the child reads of piece 3", hgm.read(primary + 3 * hgm.BASE), hgm.tag(3))
        hgm.expect("what the child reads of piece 5", hgm.read(primary + 5 * hgm.BASE), hgm.tag(5))

    hgm.in_child(child)
    hgm.expect("base pages mapped in the parent", hgm.present(primary, size), 2)
    hgm.expect("mapcount", hgm.mapcount(frame), 2)
    hgm.expect("piece 3 in the parent", hgm.read(primary + 3 * hgm.BASE), hgm.tag(3))
    uffd.close()
    for address in (primary, alias):
        hgm.unmap(address, size)
    os.close(fd)


if __name__ == "__main__":
    hgm.main()
