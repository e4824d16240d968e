# SPDX-License-Identifier: MIT
"""Readers of /proc beside shared huge pages, whole and granular."""

from __future__ import annotations

import mmap
import sys
from pathlib import Path

# By hand, from the checkout; the harness sets PYTHONPATH itself.
sys.path.append(str(Path(__file__).resolve().parent.parent / "lib"))

import hgm


@hgm.stock_case(
    "smaps shows a huge page mapped twice as shared, once as private, and a hole as neither "
    "[fs/proc/task_mmu.c:smaps_hugetlb_range]"
)
def smaps_of_whole_pages(context: hgm.Context) -> None:
    area = hgm.Area(context, 2)
    kilobytes = context.huge >> 10
    hgm.expect_eq("Private_Hugetlb of the alias", hgm.smaps(area.alias, area.length)["Private_Hugetlb"], 2 * kilobytes)
    hgm.expect_eq("Private_Hugetlb of nothing", hgm.smaps(area.primary, area.length)["Private_Hugetlb"], 0)
    area.continue_(context.huge, context.huge)
    for at in (area.alias, area.primary):
        hgm.expect_eq("Shared_Hugetlb", hgm.smaps(at, area.length)["Shared_Hugetlb"], kilobytes)
    hgm.expect_eq("Private_Hugetlb of the alias", hgm.smaps(area.alias, area.length)["Private_Hugetlb"], kilobytes)
    area.close()


@hgm.stock_case(
    "pagemap of any part of a huge page shows page frame head + k of base page k "
    "[fs/proc/task_mmu.c:pagemap_hugetlb_range]"
)
def pagemap_at_odd_offsets(context: hgm.Context) -> None:
    area = hgm.Area(context, 1)
    area.continue_(0, context.huge)
    for first, count in ((0, 1), (1, 1), (3, 7), (context.pieces - 5, 5), (context.pieces // 2 - 1, 3)):
        seen = [entry & hgm.PFN for entry in hgm.pagemap(area.primary + first * context.base, count)]
        hgm.expect_eq(f"page frames from base page {first}", seen, [area.head[0] + first + i for i in range(count)])
    area.close()


@hgm.case(
    "smaps counts the mapped pieces of a granular mapping to the base page, whatever their sizes "
    "[RFC v1 patch 23; RFC v2 patch 39: fields no longer multiples of the huge page]"
)
def smaps_of_pieces(context: hgm.Context) -> None:
    area = hgm.Area(context, 1)
    mapped = 0
    for offset, length in ((context.base, 3 * context.base), (context.huge // 2, context.huge // 4)):
        area.continue_(offset, length)
        mapped += length >> 10
        fields = hgm.smaps(area.primary, area.length)
        both = fields["Shared_Hugetlb"] + fields["Private_Hugetlb"]
        hgm.expect_eq("Shared_Hugetlb and Private_Hugetlb", both, mapped)
    area.collapse(0, context.huge)
    fields = hgm.smaps(area.primary, area.length)
    both = fields["Shared_Hugetlb"] + fields["Private_Hugetlb"]
    hgm.expect_eq("both after the collapse", both, context.huge >> 10)
    area.close()


@hgm.case(
    "numa_maps counts a granular huge page once, as one huge page [RFC v2: one for each page, not for each entry]"
)
def numa_maps_counts_pages(context: hgm.Context) -> None:
    path = Path("/proc/self/numa_maps")
    if not path.exists():
        hgm.skip("not applicable: the kernel has no NUMA")
    area = hgm.Area(context, 1)
    area.continue_(0, 2 * context.base)
    area.continue_(5 * context.base, context.base)
    lines = [line for line in path.read_text().splitlines() if line.startswith(f"{area.primary:x} ")]
    hgm.expect_eq("lines of the mapping in numa_maps", len(lines), 1)
    words = dict(word.split("=", 1) for word in lines[0].split() if "=" in word)
    hgm.expect("huge" in lines[0].split(), f"the mapping is huge: {lines[0]}")
    nodes = sum(int(value) for key, value in words.items() if key[0] == "N" and key[1:].isdigit())
    hgm.expect_eq("pages on all nodes", nodes, 1)
    area.close()


@hgm.case(
    "two mappings with pieces beside each other: unmapping one leaves the other's pieces, count and contents "
    "[RFC v1 cover: one for each VMA that maps any piece]"
)
def two_granular_mappings(context: hgm.Context) -> None:
    area = hgm.Area(context, 1)
    other = hgm.Area.attach(area)
    area.continue_(context.base, context.base)
    other.continue_(context.base, 2 * context.base)
    shares = [first + second for first, second in zip(area.shares(0), other.shares(0), strict=True)]
    hgm.expect_count("the huge page", area.head[0], [1 + share for share in shares])
    area.expect_pieces()
    other.expect_pieces()
    other.unmap_primary()
    area.expect_pieces()
    area.expect_mapcount(1)
    area.unmap_primary()
    area.expect_mapcount(1)
    hgm.unmap(area.alias, area.length)
    hgm.expect_count("the huge page without mappings", area.head[0], [0] * (context.huge // mmap.PAGESIZE))


if __name__ == "__main__":
    hgm.main()
