# SPDX-License-Identifier: MIT
"""The memory that optimised vmemmap (HVO) saves, and pools that change while it is on."""

from __future__ import annotations

import gzip
import sys
from pathlib import Path

# By hand, from the checkout; the harness sets PYTHONPATH itself.
sys.path.append(str(Path(__file__).resolve().parent.parent / "lib"))

import hgm

SYSCTL = "/proc/sys/vm/hugetlb_optimize_vmemmap"
STRUCT_PAGE = 64  # bytes; with any other size the kernel leaves HVO off


def need_hvo(context: hgm.Context) -> None:
    """HVO must be on, where the kernel has it at all: `sysctl_is_a_switch` sees to it that one built with it does."""
    if saving(context) < 1:
        hgm.skip("not applicable: all struct pages of such a huge page lie in one base page")
    if not Path(SYSCTL).exists():
        hgm.skip("not applicable: kernel has no HVO")
    hgm.expect_eq("the sysctl", hgm.read_number(SYSCTL), 1)


def free_memory() -> int:
    """Free base pages, those on the lists of each processor included, and what each has not yet added to the count."""
    hgm.write_number("/proc/sys/vm/stat_refresh", 1)
    free = 0
    for line in Path("/proc/zoneinfo").read_text().splitlines():
        match line.split():
            case ["pages", "free", count] | ["count:", count]:
                free += int(count)
    return free


def saving(context: hgm.Context) -> int:
    """Base pages of struct pages that HVO saves for a huge page: all but the first."""
    return context.pieces * STRUCT_PAGE // context.base - 1


def pool_path(context: hgm.Context) -> str:
    """The file that sets the size of the pool."""
    return f"/sys/kernel/mm/hugepages/hugepages-{context.huge >> 10}kB/nr_hugepages"


def set_pool(context: hgm.Context, size: int) -> int:
    """Set the size of the pool, and return by how many base pages free memory grew."""
    before = free_memory()
    hgm.write_number(pool_path(context), size)
    hgm.expect_eq(f"size of the pool of {hgm.size_name(context.huge)} pages", context.pool("nr"), size)
    return free_memory() - before


@hgm.stock_case(
    "with HVO on a 2M page costs 7 base pages less of free memory than with HVO off, over 64 pages, and freeing them "
    "gives back just as much [mm/hugetlb_vmemmap.c:hugetlb_vmemmap_optimize, hugetlb_vmemmap_restore]",
    sizes="2M",
)
def saves_seven_of_eight(context: hgm.Context) -> None:
    need_hvo(context)
    count, size = 64, context.pool("nr")
    hgm.expect_eq("base pages saved for each huge page", saving(context), 7)
    costs = {}
    for switch in (0, 1):
        hgm.write_number(SYSCTL, switch)
        # The middle one of three: now and then something else gives memory back, such as KASAN's quarantine.
        rounds = [(-set_pool(context, size + count), set_pool(context, size)) for _ in range(3)]
        grown, shrunk = (sorted(amounts)[1] for amounts in zip(*rounds, strict=True))
        hgm.note(f"HVO {switch}: {count} huge pages took {grown} base pages and gave back {shrunk}")
        costs[switch] = grown, shrunk
    for what, off, on in zip(("taken", "given back"), costs[0], costs[1], strict=True):
        # Half a base page for each huge page: what else the kernel allocates in between.
        difference = off - on - count * saving(context)
        hgm.expect(abs(difference) <= count // 2, f"base pages {what}: {off} without HVO, {on} with it")


@hgm.stock_case(
    "with HVO on a 1G page that leaves the pool gives back 4095 base pages less than it has, which its struct pages "
    "take [mm/hugetlb_vmemmap.c:hugetlb_vmemmap_restore]",
    sizes="1G",
)
def saves_nearly_all(context: hgm.Context) -> None:
    need_hvo(context)
    size = context.pool("nr")
    context.need_pages(1)
    hgm.expect_eq("base pages saved for each huge page", saving(context), 4095)
    given = set_pool(context, size - 1)
    hgm.note(f"a huge page less gave back {given} base pages")
    hgm.expect(abs(context.pieces - saving(context) - given) <= 256, f"{given} base pages given back")
    taken = -set_pool(context, size)
    hgm.note(f"a huge page more took {taken} base pages")
    hgm.expect(abs(context.pieces - saving(context) - taken) <= 256, f"{taken} base pages taken")


@hgm.stock_case(
    "vm.hugetlb_optimize_vmemmap is on since boot, and keeps the 0 or 1 that it is given "
    "[mm/hugetlb_vmemmap.c:hugetlb_vmemmap_sysctls]",
    sizes="2M 32M 512M 1G",
)
def sysctl_is_a_switch(context: hgm.Context) -> None:
    if b"CONFIG_HUGETLB_PAGE_OPTIMIZE_VMEMMAP=y" not in gzip.decompress(Path("/proc/config.gz").read_bytes()):
        hgm.skip("not applicable: kernel has no HVO")
    hgm.expect_eq("the sysctl at the start", hgm.read_number(SYSCTL), 1)
    for value in (0, 1):
        hgm.write_number(SYSCTL, value)
        hgm.expect_eq("the sysctl", hgm.read_number(SYSCTL), value)
    hgm.expect_eq("the sysctl at the end", hgm.read_number(SYSCTL), 1)


@hgm.case(
    "the pool grows and shrinks, with HVO and without, while pieces of its pages are mapped: counts, contents and "
    "holes stay [mm/hugetlb.c:set_max_huge_pages; RFC v1 cover: no struct page from 64 on is written]",
    sizes="2M",
)
def pool_changes_under_pieces(context: hgm.Context) -> None:
    need_hvo(context)
    size, pieces = context.pool("nr"), (3, 100, context.pieces - 1)
    area = hgm.Area(context, 2)
    for page, piece in ((page, piece) for page in range(2) for piece in pieces):
        area.continue_(page * context.huge + piece * context.base, context.base)
    for switch, grown in ((0, 16), (1, 16)):
        hgm.write_number(SYSCTL, switch)
        set_pool(context, size + grown)
        area.expect_pieces()
        area.expect_mapcount(1)
        set_pool(context, size)
        area.expect_pieces()
        area.expect_mapcount(1)
    area.collapse(0, area.length)
    area.expect_pieces()
    area.expect_mapcount(1)
    area.close()


@hgm.case(
    "pages that were granular leave the pool with no struct page left that is a huge page's; the pool grows back to "
    "its size, and if they are in it again they can be taken and mapped in pieces anew "
    "[mm/hugetlb_vmemmap.c:hugetlb_vmemmap_restore]",
    sizes="2M",
)
def granular_page_leaves_pool(context: hgm.Context) -> None:
    need_hvo(context)
    size, count = context.pool("nr"), 4
    area = hgm.Area(context, count)
    heads = area.head
    for page in range(count):
        area.continue_(page * context.huge + 100 * context.base, 2 * context.base)
    area.expect_mapcount(1)
    area.close()
    # All free pages leave the pool, these four with them.
    set_pool(context, size - context.pool("free"))
    for head in heads:
        flags = hgm.kpageflags(head, context.pieces)
        huge = [piece for piece, bits in enumerate(flags) if bits >> 17 & 1]  # KPF_HUGE
        hgm.expect_eq(f"base pages from frame 0x{head:x} on that are part of a huge page still", huge, [])
    set_pool(context, size)
    # All of the pool, for those that are the same memory as before to be among them.
    again = hgm.Area(context, context.pool("free"))
    same = [page for page, head in enumerate(again.head) if head in heads]
    hgm.note(f"{len(same)} of {count} pages are in the pool again")
    for page in same or range(count):
        again.continue_(page * context.huge + 100 * context.base, context.base)
    again.expect_pieces()
    for page in same or range(count):
        hgm.expect_count(f"huge page {page}", again.head[page], [1 + share for share in again.shares(page)])
    again.close()


if __name__ == "__main__":
    hgm.main()
