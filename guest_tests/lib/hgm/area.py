# SPDX-License-Identifier: MIT
"""A file of huge pages, mapped twice: what each of its base pages holds, and how the kernel maps it."""

from __future__ import annotations

import copy
import itertools
import mmap
import os
from array import array
from collections.abc import Iterator
from pathlib import Path

from hgm.cases import Context
from hgm.dialects import Dialect, dialect, mapcount_rule
from hgm.memory import MADV_COLLAPSE, MADV_SPLIT, madvise, map_memory, unmap, words
from hgm.outside import frames, shape
from hgm.proc import PFN, expect_count, pagemap, smaps
from hgm.uffd import FEATURE_EXACT_ADDRESS, FEATURE_HGM, REGISTER_MINOR, open_uffd, register, uffd_continue
from hgm.verdicts import error_name, expect_errno, fail, size_name

_TAG_STEP = 0x100003


def tag(base_page: int) -> int:
    """The tag of a base page of an area, by its number; never 0 and never that of a neighbour. As in area.c."""
    return 0x48474D0000000000 + (base_page + 1) * _TAG_STEP


def tags(first: int, behind: int) -> tuple[range, range]:
    """The first and the last words of base pages: their tags, and the same with all bits turned."""
    turned = (1 << 64) - 1
    return (
        range(tag(first), tag(behind), _TAG_STEP),
        range(turned - tag(first), turned - tag(behind), -_TAG_STEP),
    )


def _all_sizes(context: Context) -> list[int]:
    names = [path.name for path in Path("/sys/kernel/mm/hugepages").iterdir()]
    sizes = [int(name.removeprefix("hugepages-").removesuffix("kB")) << 10 for name in names]
    return [*sorted(sizes, reverse=True), context.base]


class Area:
    """A file of huge pages, mapped twice; what hgm.h says of struct hgm_area holds here too.

    `plain`: no userfaultfd, faults are filled from the page cache. `rounded`: without UFFD_FEATURE_EXACT_ADDRESS.
    """

    def __init__(self, context: Context, pages: int, *, plain: bool = False, rounded: bool = False) -> None:
        self.context, self.pages, self.length = context, pages, pages * context.huge
        self.base, self.huge, self.pieces = context.base, context.huge, context.pieces
        self.leaf = [0] * (pages * self.pieces)
        self._sizes = [size for size in _all_sizes(context) if size <= context.huge]
        context.need_pages(pages)
        self.fd = context.file(pages)
        self.alias = map_memory(0, self.length, mmap.MAP_SHARED, self.fd)
        self.primary = map_memory(0, self.length, mmap.MAP_SHARED, self.fd)
        self._write_tags()
        self.head = [pagemap(self.alias + page * self.huge)[0] & PFN for page in range(pages)]
        if not all(self.head):
            fail("pagemap hides page frame numbers: CAP_SYS_ADMIN is needed")
        self.uffd = -1 if plain else self._open(rounded)

    @classmethod
    def attach(cls, other: Area) -> Area:
        """Another area on the file and the alias of one: only the primary mapping and its userfaultfd are its own."""
        area = copy.copy(other)
        area.leaf = [0] * len(other.leaf)
        area.primary = map_memory(0, area.length, mmap.MAP_SHARED, area.fd)
        area.uffd = area._open(rounded=False)
        return area

    def _open(self, rounded: bool) -> int:
        spoken = dialect(self.context) if self.context.hgm else Dialect.NONE
        if spoken in (Dialect.V1, Dialect.V2):
            expect_errno("MADV_SPLIT", madvise(self.primary, self.length, MADV_SPLIT), 0)
        features = (0 if rounded else FEATURE_EXACT_ADDRESS) | (FEATURE_HGM if spoken is Dialect.RFC2 else 0)
        uffd = open_uffd(features)
        error = register(uffd, self.primary, self.length, REGISTER_MINOR)
        expect_errno("UFFDIO_REGISTER for minor faults", error, 0)
        return uffd

    def _write_tags(self) -> None:
        view, stride = words(self.alias, self.length), self.base // 8
        first_words, last_words = tags(0, len(self.leaf))
        view[::stride] = memoryview(array("Q", first_words))
        view[stride - 1 :: stride] = memoryview(array("Q", last_words))

    def close(self) -> None:
        """Unmap everything and close the file."""
        if self.primary:
            self.unmap_primary()
        unmap(self.alias, self.length)
        if self.uffd >= 0:
            os.close(self.uffd)
        os.close(self.fd)

    def unmap_primary(self) -> None:
        """Unmap the primary mapping."""
        unmap(self.primary, self.length)
        self.primary = 0
        self.now_empty(0, self.length)

    def step(self, offset: int, length: int) -> int:
        """The largest size that the kernel may use for a leaf at `offset` with `length` left to map."""
        return next(size for size in self._sizes if offset % size == 0 and size <= length)

    def _steps(self, offset: int, length: int) -> Iterator[tuple[slice, int]]:
        end = offset + length
        while offset < end:
            size = self.step(offset, end - offset)
            yield self._slice(offset, size), size
            offset += size

    def _slice(self, offset: int, length: int) -> slice:
        return slice(offset // self.base, (offset + length) // self.base)

    def try_continue(self, offset: int, length: int) -> tuple[int, int]:
        """UFFDIO_CONTINUE of a part of the primary: 0 or errno, and what the kernel says it has mapped."""
        return uffd_continue(self.uffd, self.primary + offset, length)

    def continue_(self, offset: int, length: int) -> None:
        """The same where it must work; the largest size that is aligned and fits is used at each step."""
        error, mapped = self.try_continue(offset, length)
        if error or mapped != length:
            fail(f"CONTINUE of 0x{length:x} bytes at 0x{offset:x}: expected success, saw {error_name(error)}, {mapped}")
        for part, size in self._steps(offset, length):
            self.leaf[part] = [size] * (size // self.base)

    def collapse(self, offset: int, length: int) -> None:
        """MADV_COLLAPSE that must work: entries with pieces below become leaves, holes and all; empty ones stay so."""
        error = madvise(self.primary + offset, length, MADV_COLLAPSE)
        expect_errno(f"MADV_COLLAPSE of 0x{length:x} bytes at 0x{offset:x}", error, 0)
        for part, size in self._steps(offset, length):
            if 0 < max(self.leaf[part]) < size:
                self.leaf[part] = [size] * (size // self.base)

    def now_empty(self, offset: int, length: int) -> None:
        """Note that a part of the primary is mapped no more."""
        self.leaf[self._slice(offset, length)] = [0] * (length // self.base)

    def now_whole(self, page: int) -> None:
        """Note that a fault without a pager, or a collapse, has mapped a whole huge page."""
        self.leaf[self._slice(page * self.huge, self.huge)] = [self.huge] * self.pieces

    def expect_pieces(self) -> None:
        """Exactly the mapped pieces are present in pagemap, with the right page frames, and read right twice."""
        told = shape(self.primary, self.length, self.huge)
        entries = pagemap(self.primary, len(self.leaf))
        seen = [entry & PFN if entry >> 63 else 0 for entry in entries]
        if told is not None:
            self._expect_same_story(told, seen)
        runs = list(self.mapped_runs())
        whole = [frame for head in self.head for frame in range(head, head + self.pieces)]
        expected = [0] * len(whole)
        for start, end in runs:
            expected[start:end] = whole[start:end]
        if seen != expected:
            number = next(i for i, pair in enumerate(zip(seen, expected, strict=True)) if pair[0] != pair[1])
            fail(
                f"page frame of base page {number}: expected 0x{expected[number]:x}, saw 0x{seen[number]:x} (0: a hole)"
            )
        for start, end in runs:
            self._expect_tags(self.alias, start, end)
            self._expect_tags(self.primary, start, end)
        if told is not None and told != (wanted := self._expected_shape()):
            fail(f"page tables of the primary mapping: expected {wanted}, the hardware has {told}")

    def _expect_same_story(self, told: str, seen: list[int]) -> None:
        """Expect of pagemap, in frames, and of smaps what the hardware's tables have."""
        outside = frames(told, self.base)
        if seen != outside:
            for number, (story, frame) in enumerate(zip(seen, outside, strict=True)):
                if frame not in (None, story):
                    fail(
                        f"the kernel's story differs: pagemap has base page {number} at frame 0x{story:x}, "
                        f"the hardware's tables at 0x{frame:x} (0: a hole)"
                    )
        fields = smaps(self.primary, self.length)
        said = fields["Shared_Hugetlb"] + fields["Private_Hugetlb"]
        mapped = (len(outside) - outside.count(0)) * self.base >> 10
        if said != mapped:
            fail(f"the kernel's story differs: smaps has {said} kB mapped, the hardware's tables {mapped} kB")

    def _expected_shape(self) -> str:
        """What the harness must see of the primary, in its words (harness/pagetable/shape.py)."""
        entries = self.base // 8
        tables = 0
        for span in (self.base * entries, self.base * entries**2):
            if span <= self.huge:
                for start in range(0, len(self.leaf), span // self.base):
                    tables += 0 < max(self.leaf[start : start + span // self.base]) < span
        words = [f"tables {tables}"]
        for page in range(self.pages):
            leaf = self.leaf[page * self.pieces : (page + 1) * self.pieces]
            runs = [(size, len(list(run))) for size, run in itertools.groupby(leaf)]
            shown = (f"{size_name(s)}×{n * self.base // s}" if s else f"hole×{n}" for s, n in runs)
            head = self.head[page] * self.base if any(leaf) else 0
            words.append(f"{size_name(self.huge)}: {' '.join(shown)}@{head:x}")
        return "; ".join(words)

    def mapped_runs(self) -> Iterator[tuple[int, int]]:
        """Runs of mapped base pages, as first and behind the last."""
        mapped = bytes(map(bool, self.leaf)) + b"\0"
        start = mapped.find(1)
        while start >= 0:
            end = mapped.find(0, start)
            yield start, end
            start = mapped.find(1, end)

    def _expect_tags(self, at: int, start: int, end: int) -> None:
        stride = self.base // 8
        view = words(at + start * self.base, (end - start) * self.base)
        first_words, last_words = tags(start, end)
        for words_seen, expected in ((view[::stride], first_words), (view[stride - 1 :: stride], last_words)):
            seen = words_seen.tolist()
            if seen != list(expected):
                number = next(i for i, pair in enumerate(zip(seen, expected, strict=True)) if pair[0] != pair[1])
                fail(
                    f"content of base page {start + number} at 0x{at + (start + number) * self.base:x}: "
                    f"expected 0x{expected[number]:x}, saw 0x{seen[number]:x}"
                )

    def shares(self, page: int) -> list[int]:
        """What a mapping that looks like the primary adds to the mapcount of each base page of a huge page."""
        leaf = self.leaf[page * self.pieces : (page + 1) * self.pieces]
        return mapcount_rule(dialect(self.context), leaf, self.base)

    def expect_mapcount(self, others: int) -> None:
        """kpagecount of every base page: `others` for whole pages mapped elsewhere, plus the primary's share."""
        for page, head in enumerate(self.head):
            expect_count(f"huge page {page}", head, [others + share for share in self.shares(page)])
