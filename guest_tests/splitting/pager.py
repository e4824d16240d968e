# SPDX-License-Identifier: MIT
"""Pagers: programs that answer minor faults, page by page as today, or piece by piece."""

from __future__ import annotations

import errno
import random
import sys
from pathlib import Path

# By hand, from the checkout; the harness sets PYTHONPATH itself.
sys.path.append(str(Path(__file__).resolve().parent.parent / "lib"))

import hgm


@hgm.stock_case(
    "an unmodified pager that CONTINUEs whole huge pages sees one message for each, with the huge page's address "
    "[fs/userfaultfd.c:userfault_msg; Peter Xu on RFC v1: users who did not opt in]"
)
def whole_page_pager(context: hgm.Context) -> None:
    area = hgm.Area(context, 2, rounded=True)
    pager = hgm.Pager(area, context.huge)
    numbers = [5, 3, context.pieces + 7, 0, 2 * context.pieces - 1, context.pieces]
    reader = hgm.Reader([area.primary + number * context.base for number in numbers])
    reader.finish()
    hgm.expect_eq("what the reader saw", reader.values, [hgm.tag(number) for number in numbers])
    addresses = [message.address for message in pager.stop()]
    hgm.expect_eq("addresses of the messages", addresses, [area.primary, area.primary + context.huge])
    area.now_whole(0)
    area.now_whole(1)
    area.expect_pieces()
    area.expect_mapcount(1)
    area.close()


@hgm.stock_case(
    "a page that is mapped sends no message, one that was dropped with MADV_DONTNEED sends one again "
    "[mm/hugetlb.c:hugetlb_no_page]"
)
def dropped_page_faults_again(context: hgm.Context) -> None:
    area = hgm.Area(context, 1)
    pager = hgm.Pager(area, context.huge)
    at = area.primary + 9 * context.base
    for _ in range(2):
        for _ in range(2):
            reader = hgm.Reader([at])
            reader.finish()
            hgm.expect_eq("what the reader saw", reader.values, [hgm.tag(9)])
        hgm.expect_errno("MADV_DONTNEED", hgm.madvise(area.primary, context.huge, hgm.MADV_DONTNEED), 0)
        hgm.expect_eq("base pages mapped after MADV_DONTNEED", hgm.present(area.primary, context.huge), 0)
    messages = pager.stop()
    hgm.expect_eq("messages", messages, [hgm.Message(at, hgm.FLAG_MINOR)] * 2)
    area.expect_pieces()
    area.close()


@hgm.case(
    "a pager that CONTINUEs base pages serves readers in random order: one message for each piece, with the address "
    "touched, and exactly those pieces mapped [RFC v1 patches 14 and 20]",
    deadline_s=90,
)
def base_page_pager(context: hgm.Context) -> None:
    area = hgm.Area(context, 1)
    pager = hgm.Pager(area, context.base)
    numbers = random.Random(1).sample(range(context.pieces), min(200, context.pieces // 2))
    readers = [hgm.Reader([area.primary + n * context.base + 8 * (n % 3) for n in numbers[i::3]]) for i in range(3)]
    for i, reader in enumerate(readers):
        reader.finish()
        first_words = [hgm.tag(n) if n % 3 == 0 else 0 for n in numbers[i::3]]
        hgm.expect_eq(f"what reader {i} saw", reader.values, first_words)
    messages = pager.stop()
    expected = sorted(area.primary + n * context.base + 8 * (n % 3) for n in numbers)
    hgm.expect_eq("addresses of the messages", sorted(message.address for message in messages), expected)
    for number in numbers:
        area.leaf[number] = context.base
    area.expect_pieces()
    area.expect_mapcount(1)
    area.close()


@hgm.case(
    "a fetcher that maps every piece in order while readers fault on random ones: each piece is mapped once, by one of "
    "them, until the page is full [RFC v1 cover: on-demand and background fetch]",
    deadline_s=120,
    sizes="64K 2M 32M",
)
def pager_and_fetcher(context: hgm.Context) -> None:
    area = hgm.Area(context, 2)
    pager = hgm.Pager(area, context.base)
    numbers = random.Random(2).sample(range(len(area.leaf)), min(300, context.pieces))
    readers = [hgm.Reader([area.primary + number * context.base for number in numbers[i::2]]) for i in range(2)]
    for number in range(len(area.leaf)):
        error, _ = area.try_continue(number * context.base, context.base)
        hgm.expect(error in (0, errno.EEXIST), f"CONTINUE of base page {number} gives 0 or EEXIST, {error} here")
        area.leaf[number] = context.base
    for i, reader in enumerate(readers):
        reader.finish()
        hgm.expect_eq(f"what reader {i} saw", reader.values, [hgm.tag(number) for number in numbers[i::2]])
    pager.stop()
    area.expect_pieces()
    area.expect_mapcount(1)
    area.close()


if __name__ == "__main__":
    hgm.main()
