# SPDX-License-Identifier: MIT
"""The use that HGM was made for: memory arrives in pieces, and is folded back when all of it is there."""

from __future__ import annotations

import errno
import os

import hgm


@hgm.stock_case("MADV_COLLAPSE of a range that is not mapped is ENOMEM (mm/madvise.c:do_madvise)")
def unmapped_range(size: int) -> None:
    """Whatever the kernel does for hugetlb, the range is checked first."""
    fd = hgm.memfd(size, 1)
    memory = hgm.map_file(fd, size)
    hgm.unmap(memory, size)
    hgm.expect("COLLAPSE", hgm.advise(memory, size, hgm.MADV_COLLAPSE), errno.ENOMEM)
    os.close(fd)


@hgm.stock_case("MADV_COLLAPSE of a misaligned range is EINVAL (mm/madvise.c:do_madvise)")
def misaligned_range(size: int) -> None:
    """Half a base page is no range for any madvise."""
    fd = hgm.memfd(size, 1)
    memory = hgm.map_file(fd, size)
    hgm.expect("COLLAPSE", hgm.advise(memory + hgm.BASE // 2, hgm.BASE, hgm.MADV_COLLAPSE), errno.EINVAL)
    hgm.unmap(memory, size)
    os.close(fd)


@hgm.case("pieces in any order, then COLLAPSE: the page is whole, nothing small is left (RFC v1)", deadline_s=120)
def pieces_then_whole(size: int) -> None:
    """Page tables grow with the first piece and are gone at the end; the data is right all the time."""
    fd = hgm.memfd(size, 1)
    alias, primary = hgm.map_file(fd, size), hgm.map_file(fd, size)
    hgm.fill(alias, size)
    frame = hgm.pfn(alias)
    uffd = hgm.Userfault()
    uffd.register(primary, size)
    tables = hgm.status_kb("VmPTE")
    step = size // 128 // hgm.BASE * hgm.BASE or hgm.BASE
    for offset in range(0, size, 2 * step):
        hgm.expect("CONTINUE", uffd.try_continue(primary + offset, hgm.BASE), 0)
    hgm.expect("page tables have grown", hgm.status_kb("VmPTE") > tables, True)
    hgm.expect("COLLAPSE", hgm.advise(primary, size, hgm.MADV_COLLAPSE), 0)
    hgm.expect("page tables afterwards", hgm.status_kb("VmPTE"), tables)
    hgm.expect("base pages mapped", hgm.present(primary, size), size // hgm.BASE)
    hgm.expect("mapcount", hgm.mapcount(frame), 2)
    for piece in range(0, size // hgm.BASE, 127):
        hgm.expect(f"tag of piece {piece}", hgm.read(primary + piece * hgm.BASE), hgm.tag(piece))
    uffd.close()
    for mapping in (primary, alias):
        hgm.unmap(mapping, size)
    os.close(fd)


if __name__ == "__main__":
    hgm.main()
