# SPDX-License-Identifier: MIT
"""Forks of a process with shared huge pages: chains, children beside a pager, exits in any order."""

from __future__ import annotations

import sys
from pathlib import Path

# By hand, from the checkout; the harness sets PYTHONPATH itself.
sys.path.append(str(Path(__file__).resolve().parent.parent / "lib"))

import hgm


def chain(area: hgm.Area, depth: int) -> None:
    """In a chain of children each touches the first page, checks the mapcount and its contents, and forks the next."""
    at = area.primary

    def link(parent: hgm.Child) -> None:
        hgm.expect_eq("base pages mapped at the start", hgm.present(at, area.huge), 0)
        hgm.expect_eq("what the child read", hgm.words(at, area.huge)[0], hgm.tag(0))
        hgm.expect_eq("base pages mapped after the touch", hgm.present(at, area.huge), area.pieces)
        head = hgm.pagemap(at)[0] & hgm.PFN
        hgm.expect_eq("page frame of the child's page", head, area.head[0])
        hgm.expect_one_leaf(at, area.huge, head * area.base)
        chain(area, depth - 1)

    before = hgm.kpagecount(area.head[0])[0]
    if depth:
        hgm.Child(link).join()
    hgm.expect_eq("mapcount after the children's end", hgm.kpagecount(area.head[0])[0], before)


@hgm.stock_case(
    "a chain of forks: each child starts empty, reads the page, and the count falls back as it exits "
    "[mm/memory.c:vma_needs_copy, mm/hugetlb.c:hugetlb_fault]"
)
def chain_of_children(context: hgm.Context) -> None:
    area = hgm.Area(context, 1, plain=True)
    hgm.expect_eq("what the parent read", hgm.words(area.primary, area.length)[0], hgm.tag(0))
    area.now_whole(0)
    chain(area, 3)
    area.expect_pieces()
    area.expect_mapcount(1)
    area.close()


@hgm.stock_case(
    "a child's mapping is not registered with its parent's userfaultfd: it faults the page in by itself, and no "
    "message is sent [fs/userfaultfd.c:dup_userfaultfd]"
)
def child_needs_no_pager(context: hgm.Context) -> None:
    area = hgm.Area(context, 1)

    def touch(_: hgm.Child) -> None:
        hgm.expect_eq("what the child read", hgm.words(area.primary, area.length)[0], hgm.tag(0))

    hgm.Child(touch).join()
    message = hgm.read_message(area.uffd)
    hgm.expect(message is None, f"no message to the parent's pager, {message} here")
    area.expect_pieces()
    area.expect_mapcount(1)
    area.close()


@hgm.case(
    "a chain of forks below a parent with pieces: each child starts empty and maps the whole page, the parent's pieces "
    "stay as they are [mm/memory.c:vma_needs_copy; RFC v1 cover]"
)
def chain_below_pieces(context: hgm.Context) -> None:
    area = hgm.Area(context, 1)
    area.continue_(0, context.base)
    area.continue_(9 * context.base, 2 * context.base)
    chain(area, 3)
    area.expect_pieces()
    area.expect_mapcount(1)
    area.close()


@hgm.case(
    "forks while a pager serves base pages: no child changes what its parent maps, and no reader is left asleep "
    "[RFC v1 patch 20; mm/memory.c:vma_needs_copy]",
    deadline_s=120,
)
def forks_beside_pager(context: hgm.Context) -> None:
    area = hgm.Area(context, 1)
    pager = hgm.Pager(area, context.base)
    numbers = [(7 * i + 1) % context.pieces for i in range(12)]

    def touch(_: hgm.Child) -> None:
        hgm.expect_eq("base pages mapped at the start", hgm.present(area.primary, area.length), 0)
        hgm.expect_eq("what the child read", hgm.words(area.primary, area.length)[0], hgm.tag(0))
        hgm.expect_eq("base pages mapped after it", hgm.present(area.primary, area.length), area.pieces)
        hgm.expect_one_leaf(area.primary, area.huge, area.head[0] * area.base)

    for number in dict.fromkeys(numbers):
        reader = hgm.Reader([area.primary + number * context.base])
        child = hgm.Child(touch)
        reader.finish()
        child.join()
        hgm.expect_eq("what the reader saw", reader.values, [hgm.tag(number)])
        area.leaf[number] = context.base
    pager.stop()
    area.expect_pieces()
    area.expect_mapcount(1)
    area.close()


if __name__ == "__main__":
    hgm.main()
