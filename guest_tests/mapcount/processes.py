# SPDX-License-Identifier: MIT
"""The mapcount of a huge page that several processes map, whole or in pieces, and that they leave in any order."""

from __future__ import annotations

import itertools
import mmap
import os
import sys
from pathlib import Path

# By hand, from the checkout; the harness sets PYTHONPATH itself.
sys.path.append(str(Path(__file__).resolve().parent.parent / "lib"))

import hgm


def expect_everywhere(area: hgm.Area, count: int, when: str) -> None:
    """Expect this mapcount at each base page of the area's first huge page."""
    hgm.expect_count(f"the huge page {when}", area.head[0], [count] * area.pieces)


@hgm.stock_case(
    "two and three processes that touch one shared huge page make its mapcount 2 and 3 at every base page, and it "
    "falls again as they exit [fs/proc/page.c:kpagecount_read, mm/util.c:__page_mapcount]"
)
def each_process_counts(context: hgm.Context) -> None:
    area = hgm.Area(context, 1, plain=True)

    def touch(parent: hgm.Child) -> None:
        hgm.expect_eq("base pages mapped before the touch", hgm.present(area.alias, area.length), 0)
        hgm.expect_eq("what the child read", hgm.words(area.alias, area.length)[0], hgm.tag(0))
        parent.tell()
        parent.wait()

    expect_everywhere(area, 1, "of one process")
    children = []
    for count in (2, 3):
        children.append(hgm.Child(touch))
        children[-1].wait()
        expect_everywhere(area, count, f"of {count} processes")
    for count, child in zip((2, 1), children, strict=True):
        child.tell()
        child.join()
        expect_everywhere(area, count, f"after an exit, of {count} processes")
    area.close()


@hgm.stock_case(
    "the pool has its page back when the last of three processes is gone, in whatever order they exit "
    "[mm/hugetlb.c:free_huge_page]",
    deadline_s=90,
)
def pool_is_full_again(context: hgm.Context) -> None:
    context.need_pages(1)
    before = context.pool("free"), context.pool("resv")
    for order in itertools.permutations(range(3)):
        fd = context.file(1)
        at = hgm.map_memory(0, context.huge, mmap.MAP_SHARED, fd)

        def touch(parent: hgm.Child, at: int = at) -> None:
            hgm.expect_eq("what the child read", hgm.words(at, 8)[0], 4711)
            parent.tell()
            parent.wait()

        hgm.words(at, 8)[0] = 4711
        head = hgm.pagemap(at)[0] & hgm.PFN
        ends = head, head + context.pieces - 1
        children = {number: hgm.Child(touch) for number in (1, 2)}
        for child in children.values():
            child.wait()
        for left, number in zip((2, 1, 0), order, strict=True):
            what = f"before process {number} goes, in the order {order}"
            counts = [hgm.kpagecount(pfn)[0] for pfn in ends]
            hgm.expect_eq(f"mapcounts of the first and the last base page {what}", counts, [left + 1] * 2)
            hgm.expect_eq(f"free pages {what}", context.pool("free"), before[0] - 1)
            if number == 0:  # this one, which lives on without the page
                hgm.unmap(at, context.huge)
                os.close(fd)
            else:
                children[number].tell()
                children[number].join()
        hgm.expect_eq(f"mapcounts without processes, gone in the order {order}", hgm.kpagecount(head)[0], 0)
        now = context.pool("free"), context.pool("resv")
        hgm.expect_eq(f"free and reserved pages after exits in the order {order}", now, before)


def piece_holder(area: hgm.Area, piece: int) -> hgm.Child:
    """A process that maps one piece of the area's first page and nothing else, until it is told to end."""

    def hold(parent: hgm.Child) -> None:
        # The child's copy of the parent's mapping is not registered; it makes one of its own.
        mine = hgm.Area.attach(area)
        mine.continue_(piece * area.base, area.base)
        mine.expect_pieces()
        hgm.unmap(mine.alias, mine.length)  # looked at for its tags; it must not count here
        parent.tell()
        parent.wait()

    child = hgm.Child(hold)
    child.wait()
    return child


@hgm.case(
    "processes that each map another piece of one page count as the dialect says, and the count falls as each exits, "
    "whichever piece it had [RFC v1 cover: one for each VMA that maps any piece]"
)
def pieces_of_three_processes(context: hgm.Context) -> None:
    area = hgm.Area(context, 1)
    pieces = [0, 1, context.pieces - 1]
    children = [piece_holder(area, piece) for piece in pieces]
    spoken = hgm.dialect(context)

    def expect(held: list[int]) -> None:
        alike = spoken is not hgm.Dialect.V2
        counts = [1 + (len(held) if alike else held.count(piece)) for piece in range(context.pieces)]
        hgm.expect_count(f"the huge page with pieces {held} held", area.head[0], counts)

    expect(pieces)
    for child, left in zip((children[1], children[0], children[2]), ([0, pieces[2]], [pieces[2]], []), strict=True):
        child.tell()
        child.join()
        expect(left)
    area.close()


@hgm.case(
    "one process maps pieces, one the whole page: each leaves the other's count and contents alone "
    "[RFC v1 cover: one for each VMA that maps any piece]"
)
def pieces_beside_whole_page(context: hgm.Context) -> None:
    free_before = context.pool("free")
    area = hgm.Area(context, 1)
    area.continue_(0, context.huge)
    area.expect_mapcount(1)
    child = piece_holder(area, 2)
    hgm.expect_eq("mapcount of the piece", hgm.kpagecount(area.head[0] + 2)[0], 3)
    area.expect_pieces()
    area.unmap_primary()
    hgm.expect_eq("mapcount of the piece without the whole page", hgm.kpagecount(area.head[0] + 2)[0], 2)
    child.tell()
    child.join()
    expect_everywhere(area, 1, "after the child's exit")
    area.close()
    hgm.expect_eq("free pages", context.pool("free"), free_before)


if __name__ == "__main__":
    hgm.main()
