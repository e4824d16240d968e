# SPDX-License-Identifier: MIT
"""The walk of arm64, stage 1, with granules of 4K and 64K: Arm ARM (DDI 0487), "The AArch64 Virtual Memory System
Architecture", VMSAv8-64 translation table format descriptors. Names of fields are that manual's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from harness.pagetable.walk import ENTRY, Leaf, Ram, Read, Walk, entries, indices

VALID, TABLE = 1 << 0, 1 << 1  # bits[1:0]: 0b11 a table, or a page at level 3; 0b01 a block, or nothing at level 3
AP_EL0, AP_RO, AF, DBM, CONTIGUOUS, UXN = 1 << 6, 1 << 7, 1 << 10, 1 << 51, 1 << 52, 1 << 54
TABLE_UXN, TABLE_AP_EL0, TABLE_AP_RO = 1 << 60, 1 << 61, 1 << 62  # UXNTable and APTable of a table descriptor
OUTPUT = ((1 << 48) - 1) & ~0xFFF
NT = 1 << 16  # of a block descriptor
TCR_EPD0 = 1 << 7
# What need not be the same in all entries of a contiguous group: their addresses, and what hardware updates in one of
# them only ("Hardware management of the Access flag" and "of dirty state").
VARIES = OUTPUT | AF
LAST = 3  # level of the last table


@dataclass(frozen=True, slots=True, kw_only=True)
class Granule:
    """What depends on the size of a base page."""

    shift: int  # of a base page
    blocks: tuple[int, ...]  # levels at which a block descriptor maps memory (without 52-bit addresses)
    contiguous: dict[int, int]  # entries of a contiguous group, by level ("Contiguous bit", tables of its sizes)

    @property
    def page(self) -> int:
        """Bytes of a base page, and of a table."""
        return 1 << self.shift

    @property
    def count(self) -> int:
        """Entries of a table."""
        return self.page // ENTRY

    def span(self, level: int) -> int:
        """Bytes that one entry of `level` covers."""
        return 1 << (self.shift + (self.shift - 3) * (LAST - level))


# By TCR_EL1.TG0.
GRANULES = {
    0: Granule(shift=12, blocks=(1, 2), contiguous={1: 16, 2: 16, 3: 16}),
    1: Granule(shift=16, blocks=(2,), contiguous={2: 32, 3: 32}),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Rights:
    """What table descriptors on the way have taken away (hierarchical permissions)."""

    user: bool = True
    writable: bool = True
    executable: bool = True

    def under(self, entry: int) -> Rights:
        """What is left of it below a table descriptor."""
        return Rights(
            user=self.user and not entry & TABLE_AP_EL0,
            writable=self.writable and not entry & TABLE_AP_RO,
            executable=self.executable and not entry & TABLE_UXN,
        )


def walk(read: Read, ram: Ram, start: int, end: int, *, ttbr0: int, tcr: int) -> Walk:
    """Return what a processor with these registers finds for the virtual addresses from `start` to `end`.

    Those are of the lower half, which TTBR0_EL1 translates. Never raises for what stands in the tables or registers:
    what is wrong there is among the findings.
    """
    found = Walk(start=start, end=end)
    granule = GRANULES.get(tcr >> 14 & 3)
    bits = 64 - (tcr & 0x3F)
    if granule is None or tcr & TCR_EPD0 or not 16 <= bits <= 48 or end > 1 << bits:
        found.findings.append(f"TCR_EL1 {tcr:#x} does not translate the addresses up to {end:#x} by 4K or 64K granules")
        found.hole(start, end - start)
        return found
    # The first level is the one whose table, perhaps a part of one, holds all address bits that are left.
    level = LAST - (bits - granule.shift - 1) // (granule.shift - 3)
    count = 1 << (bits - granule.shift - (granule.shift - 3) * (LAST - level))
    root = ttbr0 & ((1 << 48) - 1) & ~(count * ENTRY - 1) & ~0x3F
    if ram.holds(root, count * ENTRY):
        _table(read, ram, found, granule, root, count, level, 0, Rights(), ())
    else:
        found.findings.append(f"TTBR0_EL1 {ttbr0:#x} points outside of memory")
        found.hole(start, end - start)
    return found


def _table(
    read: Read, ram: Ram, found: Walk, granule: Granule, table: int, count: int, level: int, base: int, rights: Rights,
    above: tuple[int, ...],
) -> None:  # fmt: skip
    found.tables[LAST + 1 - level] = found.tables.get(LAST + 1 - level, 0) + 1
    values = entries(read, table, count)
    if level == LAST and not any(values):
        found.empty.append(table)
    span = granule.span(level)
    group = granule.contiguous.get(level, 1)
    skip = -1
    for index, virtual in indices(found.start, found.end, base, span, count):
        entry = values[index]
        if index < skip:
            continue
        if not entry & VALID:
            found.hole(virtual, span, entry)
        elif level == LAST or not entry & TABLE:
            first = index - index % group
            if entry & CONTIGUOUS and _is_whole(found, granule, values, first, level, virtual - (index - first) * span):
                skip = first + group
                _leaf(ram, found, granule, values[first:skip], level, virtual - (index - first) * span, rights)
            else:
                _leaf(ram, found, granule, [entry], level, virtual, rights)
        else:
            below = entry & OUTPUT & ~(granule.page - 1)
            if not ram.holds(below, granule.page):
                problem = f"refers to a table at {below:#x}, outside of memory"
            elif below in (*above, table):
                problem = f"refers to the table at {below:#x}, through which the walk has come"
            else:
                under = rights.under(entry)
                _table(read, ram, found, granule, below, granule.count, level + 1, virtual, under, (*above, table))
                continue
            found.wrong(virtual, LAST + 1 - level, entry, problem)
            found.hole(virtual, span, entry)


def _is_whole(found: Walk, granule: Granule, values: Sequence[int], first: int, level: int, virtual: int) -> bool:
    """Whether the entries from `first` on make a contiguous group; what is wrong with one that does not is a finding.

    "Misprogramming of the Contiguous bit": all have the bit and the same attributes, and lie side by side, aligned.
    """
    count = granule.contiguous.get(level, 1)
    span, name = granule.span(level), LAST + 1 - level
    members = values[first : first + count]
    lead = members[0]
    with_bit = sum(bool(entry & VALID and entry & CONTIGUOUS) for entry in members)
    if with_bit < count:
        words = f"part of a contiguous group: {with_bit} of {count} entries have the bit"
    elif lead & OUTPUT & (count * span - 1) & ~(span - 1):
        words = f"a contiguous group at {lead & OUTPUT:#x}, which is not aligned to it"
    elif any((entry & OUTPUT) != (lead & OUTPUT) + i * span for i, entry in enumerate(members)):
        words = "a contiguous group whose pages do not lie side by side"
    elif any(_attributes(entry) != _attributes(lead) for entry in members):
        words = "a contiguous group whose attributes differ"
    else:
        return True
    # Once for the group, though each of its entries leads here.
    if not any(finding.startswith(f"{virtual:#x}: level {name} ") for finding in found.findings):
        found.wrong(virtual, name, lead, words)
    return False


def _attributes(entry: int) -> int:
    """What must agree; with DBM set, AP[2] is clear in those entries only that were written to."""
    return entry & ~VARIES & ~(AP_RO if entry & DBM else 0)


def _leaf(
    ram: Ram, found: Walk, granule: Granule, members: Sequence[int], level: int, virtual: int, rights: Rights
) -> None:
    entry, span, name = members[0], granule.span(level), LAST + 1 - level
    size = span * len(members)
    physical = entry & OUTPUT & ~(span - 1)
    if level == LAST and not entry & TABLE:
        found.wrong(virtual, name, entry, "bits[1:0] are 0b01, which is reserved at level 3")
        found.hole(virtual, size, entry)
        return
    if level < LAST and level not in granule.blocks:
        found.wrong(virtual, name, entry, "a block where this granule has none")
        found.hole(virtual, size, entry)
        return
    if entry & OUTPUT & (span - 1) & ~NT:
        found.wrong(virtual, name, entry, "reserved address bits are set")
    if not ram.holds(physical, size):
        found.wrong(virtual, name, entry, f"maps {physical:#x}, outside of memory")
    found.pieces.append(
        Leaf(
            virtual=virtual, size=size, level=name, contiguous=len(members) > 1, physical=physical,
            user=rights.user and bool(entry & AP_EL0),
            # DBM makes a read-only entry one that hardware makes writable at the first write.
            writable=rights.writable and bool(not entry & AP_RO or entry & DBM),
            executable=rights.executable and not entry & UXN,
            accessed=any(member & AF for member in members),
            dirty=any(not member & AP_RO for member in members),
        )
    )  # fmt: skip
