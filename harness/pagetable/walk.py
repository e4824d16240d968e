# SPDX-License-Identifier: MIT
"""What a walk of page tables finds, whatever the architecture: leaves, holes, tables, and what is wrong with them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

# Bytes of physical memory: (address, length).
Read = Callable[[int, int], bytes]
ENTRY = 8  # bytes, on both architectures


@dataclass(frozen=True, slots=True, kw_only=True)
class Leaf:
    """One translation of the hardware's: an entry that maps memory, or a group of them that it may take for one."""

    virtual: int
    size: int  # bytes; of the whole group if it is contiguous
    level: int  # of its entries: 1 is the last, as the x86_64 manual counts
    contiguous: bool
    physical: int
    user: bool
    writable: bool
    executable: bool  # in user mode
    accessed: bool
    dirty: bool

    @property
    def end(self) -> int:
        """The address after its last byte."""
        return self.virtual + self.size


@dataclass(frozen=True, slots=True, kw_only=True)
class Hole:
    """A stretch that maps nothing."""

    virtual: int
    size: int  # bytes
    entry: int = 0  # what stands in a single entry that is not empty: a swap entry, a marker; 0 for empty ones

    @property
    def end(self) -> int:
        """The address after its last byte."""
        return self.virtual + self.size


@dataclass(frozen=True, slots=True, kw_only=True)
class Ram:
    """Where the guest's memory lies: half-open stretches of physical addresses."""

    stretches: tuple[tuple[int, int], ...]

    def holds(self, physical: int, size: int) -> bool:
        """Whether all of these bytes are memory."""
        return any(start <= physical and physical + size <= end for start, end in self.stretches)


@dataclass(slots=True, kw_only=True)
class Walk:
    """All that was found between two virtual addresses."""

    start: int
    end: int
    pieces: list[Leaf | Hole] = field(default_factory=list)  # in order, without gaps; they may reach beyond both ends
    tables: dict[int, int] = field(default_factory=dict)  # pages of tables for the range, by level of their entries
    empty: list[int] = field(default_factory=list)  # physical addresses of last-level tables with no entry at all
    findings: list[str] = field(default_factory=list)  # what no page table should hold

    @property
    def leaves(self) -> list[Leaf]:
        """What maps memory."""
        return [piece for piece in self.pieces if isinstance(piece, Leaf)]

    def hole(self, virtual: int, size: int, entry: int = 0) -> None:
        """Add a hole, to the one before it if both are empty."""
        last = self.pieces[-1] if self.pieces else None
        if isinstance(last, Hole) and not last.entry and not entry and last.end == virtual:
            self.pieces[-1] = Hole(virtual=last.virtual, size=last.size + size)
        else:
            self.pieces.append(Hole(virtual=virtual, size=size, entry=entry))

    def wrong(self, virtual: int, level: int, entry: int, words: str) -> None:
        """Add a finding about one entry."""
        self.findings.append(f"{virtual:#x}: level {level} entry {entry:#018x}: {words}")


def entries(read: Read, table: int, count: int) -> Sequence[int]:
    """Return the `count` entries of the table at a physical address."""
    return memoryview(read(table, count * ENTRY)).cast("Q")


def indices(start: int, end: int, base: int, span: int, count: int) -> Iterator[tuple[int, int]]:
    """Yield (index, virtual address) of those of `count` entries of `span` bytes each, from `base` on, in a range."""
    first = max(0, (start - base) // span)
    last = min(count, -(-(end - base) // span))
    for index in range(first, last):
        yield index, base + index * span
