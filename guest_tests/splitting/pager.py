# SPDX-License-Identifier: MIT
"""Minor faults handled by a pager, as a live migration has them."""

from __future__ import annotations

import os
import select
import struct
import threading

import hgm

FLAG_MINOR = 1 << 2


def first_message(size: int, features: int, at: int) -> tuple[int, int]:
    """Let a thread read at `at` into a page that is in the cache; return offset and flags of the message it raises.

    The page is then mapped as a whole, and the thread must have read its tag.
    """
    fd = hgm.memfd(size, 1)
    alias, primary = hgm.map_file(fd, size), hgm.map_file(fd, size)
    hgm.fill(alias, size)
    uffd = hgm.Userfault(features)
    uffd.register(primary, size)
    seen: list[int] = []
    reader = threading.Thread(target=lambda: seen.append(hgm.read_waiting(primary + at)), daemon=True)
    reader.start()
    ready, _, _ = select.select([uffd.fd], [], [], 30)
    hgm.expect("a message came", bool(ready), True)
    # struct uffd_msg: event, then flags and address of a page fault
    message = os.read(uffd.fd, 32)
    flags, address = struct.unpack_from("QQ", message, 8)
    hgm.expect("CONTINUE", uffd.try_continue(primary, size), 0)
    reader.join(30)
    hgm.expect("what the reader read", seen, [hgm.tag(at // hgm.BASE)])
    hgm.expect("further messages", select.select([uffd.fd], [], [], 0)[0], [])
    uffd.close()
    for mapping in (primary, alias):
        hgm.unmap(mapping, size)
    os.close(fd)
    return address - primary, flags


@hgm.stock_case("one fault, one message, rounded to the huge page (mm/hugetlb.c:hugetlb_handle_userfault)")
def rounded_message(size: int) -> None:
    """A program that handles whole huge pages sees the same with HGM as without."""
    offset, flags = first_message(size, hgm.UFFD_MINOR_HUGETLBFS, 5 * hgm.BASE)
    hgm.expect("offset in the message", offset, 0)
    hgm.expect("minor", flags & FLAG_MINOR, FLAG_MINOR)


@hgm.stock_case("with EXACT_ADDRESS the message has the very address (fs/userfaultfd.c:userfault_msg)")
def exact_message(size: int) -> None:
    """That is what a pager needs to know which piece is wanted."""
    offset, _ = first_message(size, hgm.UFFD_MINOR_HUGETLBFS | hgm.UFFD_EXACT_ADDRESS, 5 * hgm.BASE)
    hgm.expect("offset in the message", offset, 5 * hgm.BASE)


@hgm.case("a pager fills random pieces until the page is full, each right at once (RFC v1 patch 20)", deadline_s=120,
          sizes="64K 2M 32M")  # fmt: skip
def random_until_full(size: int) -> None:
    """Each piece is read through the primary mapping as soon as it is there, and only then counted as mapped."""
    fd = hgm.memfd(size, 1)
    alias, primary = hgm.map_file(fd, size), hgm.map_file(fd, size)
    hgm.fill(alias, size)
    uffd = hgm.Userfault()
    uffd.register(primary, size)
    pieces = size // hgm.BASE
    order = [number * 7919 % pieces for number in range(pieces)]  # a prime step visits each piece once
    for done, piece in enumerate(order, 1):
        at = primary + piece * hgm.BASE
        hgm.expect(f"CONTINUE of piece {piece}", uffd.try_continue(at, hgm.BASE), 0)
        hgm.expect(f"tag of piece {piece}", hgm.read(at), hgm.tag(piece))
        if done % 64 == 0:
            hgm.expect("base pages mapped", hgm.present(primary, size), done)
    hgm.expect("base pages mapped", hgm.present(primary, size), pieces)
    uffd.close()
    for mapping in (primary, alias):
        hgm.unmap(mapping, size)
    os.close(fd)


if __name__ == "__main__":
    hgm.main()
