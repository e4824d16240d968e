# SPDX-License-Identifier: MIT
"""What high-granularity mapping is for: memory that arrives piece by piece while in use, and is whole in the end."""

from __future__ import annotations

import errno
import random
import sys
from pathlib import Path

# By hand, from the checkout; the harness sets PYTHONPATH itself.
sys.path.append(str(Path(__file__).resolve().parent.parent / "lib"))

import hgm


@hgm.stock_case(
    "memory that arrives by whole huge pages: a pager and a background fetcher fill two pages, each mapped once, and a "
    "collapse has nothing to do [fs/userfaultfd.c:userfaultfd_continue; mm/khugepaged.c:madvise_collapse]"
)
def postcopy_by_whole_pages(context: hgm.Context) -> None:
    area = hgm.Area(context, 2)
    pager = hgm.Pager(area, context.huge)
    reader = hgm.Reader([area.primary + context.huge + 3 * context.base])
    reader.finish()
    hgm.expect_eq("what the reader saw", reader.values, [hgm.tag(context.pieces + 3)])
    area.now_whole(1)
    area.continue_(0, context.huge)
    messages = pager.stop()
    hgm.expect_eq("number of messages", len(messages), 1)
    expected = errno.EINVAL if hgm.dialect(context) is hgm.Dialect.NONE else 0
    hgm.expect_errno("MADV_COLLAPSE", hgm.madvise(area.primary, area.length, hgm.MADV_COLLAPSE), expected)
    area.expect_pieces()
    area.expect_mapcount(1)
    area.close()


@hgm.stock_case(
    "MADV_COLLAPSE of addresses that nothing is mapped at is ENOMEM, and a mapping elsewhere stays as it is "
    "[mm/madvise.c:madvise_walk_vmas]"
)
def nothing_is_mapped(context: hgm.Context) -> None:
    area = hgm.Area(context, 1)
    area.continue_(0, context.huge)
    # Addresses that hold nothing: what was reserved for a moment. Above them is a wider gap, which the kernel takes
    # first for what Python itself may map meanwhile.
    reserved = 3 * context.huge + (64 << 20)
    at = hgm.map_memory(0, reserved, 0x22, -1, prot=0)  # MAP_PRIVATE | MAP_ANONYMOUS
    start = -(-at // context.huge) * context.huge
    hgm.unmap(start + 2 * context.huge, at + reserved - (start + 2 * context.huge))
    hgm.unmap(start, context.huge)
    for length in (context.huge, context.base):
        error = hgm.madvise(start, length, hgm.MADV_COLLAPSE)
        hgm.expect_errno(f"MADV_COLLAPSE of 0x{length:x} bytes of nothing", error, errno.ENOMEM)
    area.expect_pieces()
    area.close()


@hgm.case(
    "post-copy: a pager, a fetcher in random order and readers, then one collapse: contents right all the way, nothing "
    "left small (VmPTE falls by every table, a piece is EEXIST), mapcount that of one mapping [RFC v1 cover, patch 18]",
    deadline_s=120,
    sizes="64K 2M 32M",
)
def postcopy(context: hgm.Context) -> None:
    area = hgm.Area(context, 2)
    pager = hgm.Pager(area, context.base)
    choose = random.Random(3)
    numbers = choose.sample(range(len(area.leaf)), min(200, context.pieces))
    readers = [hgm.Reader([area.primary + number * context.base for number in numbers[i::2]]) for i in range(2)]
    order = list(range(len(area.leaf)))
    choose.shuffle(order)
    for number in order:
        error, _ = area.try_continue(number * context.base, context.base)
        hgm.expect(error in (0, errno.EEXIST), f"CONTINUE of base page {number} gives 0 or EEXIST, {error} here")
        area.leaf[number] = context.base
    for i, reader in enumerate(readers):
        reader.finish()
        hgm.expect_eq(f"what reader {i} saw", reader.values, [hgm.tag(number) for number in numbers[i::2]])
    pager.stop()
    area.expect_pieces()
    # Tables of the lowest level; a huge page that is itself a row of entries in one (64K) has none.
    reach = context.base * (context.base // 8)
    tables_kb = area.length // reach * (context.base >> 10) if context.huge >= reach else 0
    mapped_before = hgm.status_kb("HugetlbPages")
    # Nothing else in between, for what Python allocates has tables too.
    before = hgm.status_kb("VmPTE")
    error = hgm.madvise(area.primary, area.length, hgm.MADV_COLLAPSE)
    after = hgm.status_kb("VmPTE")
    hgm.expect_errno("MADV_COLLAPSE of both pages", error, 0)
    for page in range(2):
        area.now_whole(page)
    hgm.expect_eq("kB of tables that the collapse freed", before - after, tables_kb)
    hgm.expect_eq("HugetlbPages after the collapse in kB", hgm.status_kb("HugetlbPages"), mapped_before)
    area.expect_pieces()
    area.expect_mapcount(1)
    for page in range(2):
        error, _ = area.try_continue(page * context.huge + context.base, context.base)
        hgm.expect_errno(f"CONTINUE inside page {page} after the collapse", error, errno.EEXIST)
    area.close()


@hgm.case(
    "a collapse of what has arrived so far, hole by hole from the page cache, lets readers who wait for the rest go on "
    "[RFC v2 patch 36: holes are filled]"
)
def collapse_wakes_readers(context: hgm.Context) -> None:
    area = hgm.Area(context, 1)
    area.continue_(context.base, context.base)
    reader = hgm.Reader([area.primary + 6 * context.base])
    hgm.expect_eq("message", hgm.wait_message(area.uffd).address, area.primary + 6 * context.base)
    area.collapse(0, context.huge)
    # Posted versions leave the waking to the caller, which is what post-copy users do at the end.
    hgm.wake(area.uffd, area.primary, area.length)
    reader.finish()
    hgm.expect_eq("what the reader saw", reader.values, [hgm.tag(6)])
    area.expect_pieces()
    area.expect_mapcount(1)
    area.close()


if __name__ == "__main__":
    hgm.main()
