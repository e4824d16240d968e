# SPDX-License-Identifier: MIT
"""Walks over page tables made by hand, whole ones and broken ones, of both architectures."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from harness.arch import GIB, KIB, MIB
from harness.pagetable import arm64, x86_64
from harness.pagetable.shape import shape
from harness.pagetable.walk import ENTRY, Hole, Ram, Walk

RAM = Ram(stretches=((0, 2 * GIB), (4 * GIB, 8 * GIB)))
HUGE = 6 * GIB  # physical address of the huge page that tests map
AT = 0x7F00_0000_0000  # and where they map it


class Memory:
    """Physical memory with tables in it; the first one is the root."""

    def __init__(self, page: int = 4 * KIB) -> None:
        self.page = page
        self.tables: dict[int, list[int]] = {}
        self.root = self.table()

    def table(self) -> int:
        """Make an empty table and return its physical address."""
        address = MIB + len(self.tables) * self.page
        self.tables[address] = [0] * (self.page // ENTRY)
        return address

    def read(self, physical: int, length: int) -> bytes:
        whole = b"".join(entry.to_bytes(ENTRY, "little") for entry in self.tables[physical])
        assert length <= len(whole)
        return whole[:length]


# x86_64

P, RW, US, A, D, PS, XD = x86_64.P, x86_64.RW, x86_64.US, x86_64.A, x86_64.D, x86_64.PS, x86_64.XD
X_TABLE, X_LEAF = P | RW | US | A, P | RW | US | A | D | XD


def x86_put(memory: Memory, virtual: int, level: int, entry: int, top: int = 4) -> int:
    """Write an entry at `level`, with the tables above it; return the table that it is in."""
    table = memory.root
    for above in range(top, level, -1):
        index = virtual // x86_64.span(above) % 512
        if not memory.tables[table][index]:
            memory.tables[table][index] = memory.table() | X_TABLE
        table = memory.tables[table][index] & x86_64.ADDRESS
    memory.tables[table][virtual // x86_64.span(level) % 512] = entry
    return table


def x86_walk(memory: Memory, length: int = 2 * MIB, cr4: int = 0) -> Walk:
    return x86_64.walk(memory.read, RAM, AT, AT + length, cr3=memory.root | 0x18, cr4=cr4)


@pytest.mark.parametrize(("cr4", "top"), [(0, 4), (x86_64.CR4_LA57, 5)])
@pytest.mark.parametrize(("level", "size"), [(1, 4 * KIB), (2, 2 * MIB), (3, GIB)])
def test_x86_64_leaf_of_each_size(cr4: int, top: int, level: int, size: int) -> None:
    memory = Memory()
    x86_put(memory, AT, level, HUGE | X_LEAF | (PS if level > 1 else 0), top)
    found = x86_walk(memory, size, cr4)
    (leaf,) = found.leaves
    assert (leaf.virtual, leaf.size, leaf.level, leaf.physical, leaf.contiguous) == (AT, size, level, HUGE, False)
    assert (leaf.user, leaf.writable, leaf.executable, leaf.accessed, leaf.dirty) == (True, True, False, True, True)
    assert found.findings == []
    assert found.tables == dict.fromkeys(range(level, top + 1), 1)


@pytest.mark.parametrize(("taken", "right"), [(RW, "writable"), (US, "user")])
def test_x86_64_rights_are_those_of_all_levels(taken: int, right: str) -> None:
    memory = Memory()
    x86_put(memory, AT, 1, HUGE | X_LEAF)
    memory.tables[memory.root][AT >> 39] &= ~taken
    assert not getattr(x86_walk(memory, 4 * KIB).leaves[0], right)


def test_x86_64_pieces_and_holes() -> None:
    memory = Memory()
    for piece in (0, 1, 7):
        x86_put(memory, AT + piece * 4 * KIB, 1, HUGE + piece * 4 * KIB | X_LEAF)
    x86_put(memory, AT + 9 * 4 * KIB, 1, 0xABC0)  # not present, and not empty
    found = x86_walk(memory, 4 * MIB)
    assert shape(found, 2 * MIB, 4 * KIB) == ["2M: 4K×2 hole×5 4K×1 hole×1 mark×1 hole×502", "2M: hole×512"]
    assert found.pieces[-1] == Hole(virtual=AT + 10 * 4 * KIB, size=502 * 4 * KIB + 2 * MIB)
    assert found.tables == {4: 1, 3: 1, 2: 1, 1: 1}


def test_the_same_in_pieces_is_another_shape_where_another_page_shows_through() -> None:
    memory = Memory()
    for piece in range(4):
        wrong = 4 * KIB if piece == 2 else 0
        x86_put(memory, AT + piece * 4 * KIB, 1, HUGE + piece * 4 * KIB + wrong | X_LEAF)
    assert shape(x86_walk(memory), 2 * MIB, 4 * KIB) == ["2M: 4K×2 4K!×1 4K×1 hole×508"]


def test_a_leaf_larger_than_the_huge_page_is_named() -> None:
    memory = Memory()
    x86_put(memory, AT, 3, HUGE | X_LEAF | PS)
    assert shape(x86_walk(memory, 4 * MIB), 2 * MIB, 4 * KIB) == ["2M: 1G×1", "2M: 1G×1"]
    assert shape(x86_walk(memory, GIB), GIB, 4 * KIB) == ["1G: 1G×1"]


def test_an_empty_table_is_told() -> None:
    memory = Memory()
    table = x86_put(memory, AT, 1, 0)
    found = x86_walk(memory)
    assert (found.empty, found.findings, shape(found, 2 * MIB, 4 * KIB)) == ([table], [], ["2M: hole×512"])


@pytest.mark.parametrize(
    ("level", "entry", "words"),
    [
        (4, HUGE | X_TABLE | PS, "PML4E has PS set, which is reserved there"),
        (3, HUGE | X_LEAF | PS | 1 << 21, "PDPTE has reserved address bits set"),
        (2, HUGE | X_LEAF | PS | 1 << 13, "PDE has reserved address bits set"),
        (2, 3 * GIB | X_TABLE, "refers to a table at 0xc0000000, outside of memory"),
        (2, MIB | X_TABLE, "through which the walk has come"),
        (1, 3 * GIB | X_LEAF, "PTE maps 0xc0000000, outside of memory"),
        (2, 10 * GIB | X_LEAF | PS, "PDE maps 0x280000000, outside of memory"),
    ],
)
def test_x86_64_what_no_table_should_hold(level: int, entry: int, words: str) -> None:
    memory = Memory()
    x86_put(memory, AT, level, entry)
    (first, *_) = x86_walk(memory).findings
    assert words in first and f"{AT & ~(x86_64.span(level) - 1):#x}" in first


def test_x86_64_pat_of_a_huge_page_is_no_address_bit() -> None:
    memory = Memory()
    x86_put(memory, AT, 2, HUGE | X_LEAF | PS | 1 << 12)
    found = x86_walk(memory)
    assert found.findings == [] and found.leaves[0].physical == HUGE


def test_x86_64_root_outside_of_memory() -> None:
    found = x86_64.walk(Memory().read, RAM, AT, AT + MIB, cr3=3 * GIB, cr4=0)
    assert "CR3 0xc0000000 points outside" in found.findings[0]
    assert found.pieces == [Hole(virtual=AT, size=MIB)]


# arm64

TCR_4K, TCR_64K = 16, 1 << 14 | 16  # 48-bit addresses
A_TABLE = 3
A_PAGE = arm64.AF | arm64.AP_EL0 | arm64.UXN | 3
A_BLOCK = A_PAGE & ~arm64.TABLE
CONT = arm64.CONTIGUOUS


def arm_put(memory: Memory, granule: arm64.Granule, virtual: int, level: int, *values: int) -> int:
    """Write entries from the one for `virtual` on at `level`, with the tables above; return their table."""
    table = memory.root
    top = 0 if granule.shift == 12 else 1
    for above in range(top, level):
        index = virtual // granule.span(above) % granule.count
        if not memory.tables[table][index]:
            memory.tables[table][index] = memory.table() | A_TABLE
        table = memory.tables[table][index] & arm64.OUTPUT
    index = virtual // granule.span(level) % granule.count
    memory.tables[table][index : index + len(values)] = values
    return table


def arm_walk(memory: Memory, length: int, tcr: int = TCR_4K) -> Walk:
    return arm64.walk(memory.read, RAM, AT, AT + length, ttbr0=memory.root | 1 << 48, tcr=tcr)


@pytest.fixture(params=[0, 1], ids=["4K", "64K"])
def granule(request: pytest.FixtureRequest) -> arm64.Granule:
    return arm64.GRANULES[request.param]


def tcr_of(granule: arm64.Granule) -> int:
    return TCR_4K if granule.shift == 12 else TCR_64K


def contiguous(granule: arm64.Granule, level: int, physical: int = HUGE) -> list[int]:
    """The entries of a whole contiguous group."""
    kind = A_PAGE if level == 3 else A_BLOCK
    count = granule.contiguous[level]
    return [physical + i * granule.span(level) | kind | CONT for i in range(count)]


@pytest.mark.parametrize("level", [1, 2, 3])
def test_arm64_leaf_of_each_level(granule: arm64.Granule, level: int) -> None:
    memory = Memory(granule.page)
    arm_put(memory, granule, AT, level, HUGE | (A_PAGE if level == 3 else A_BLOCK))
    found = arm_walk(memory, granule.span(level), tcr_of(granule))
    if level == 1 and granule.shift == 16:
        assert "a block where this granule has none" in found.findings[0]
        return
    (leaf,) = found.leaves
    assert (leaf.virtual, leaf.size, leaf.physical) == (AT, granule.span(level), HUGE)
    assert (leaf.user, leaf.writable, leaf.executable, leaf.accessed, leaf.dirty) == (True, True, False, True, True)
    assert found.findings == []
    assert len(found.tables) == (level + 1 if granule.shift == 12 else level)


@pytest.mark.parametrize(("tg0", "level"), [(0, 2), (0, 3), (1, 3)])
def test_arm64_contiguous_group_is_one_leaf(tg0: int, level: int) -> None:
    granule = arm64.GRANULES[tg0]
    memory = Memory(granule.page)
    arm_put(memory, granule, AT, level, *contiguous(granule, level))
    size = granule.contiguous[level] * granule.span(level)
    found = arm_walk(memory, size, tcr_of(granule))
    (leaf,) = found.leaves
    assert (leaf.size, leaf.contiguous, found.findings) == (size, True, [])
    # Also where the walk begins or ends in the middle of the group.
    middle = AT + size // 2
    part = arm64.walk(memory.read, RAM, middle, middle + granule.span(level), ttbr0=memory.root, tcr=tcr_of(granule))
    assert part.leaves == [leaf]


def test_arm64_sizes_of_contiguous_groups() -> None:
    small, large = arm64.GRANULES[0], arm64.GRANULES[1]
    assert [small.contiguous[level] * small.span(level) for level in (3, 2)] == [64 * KIB, 32 * MIB]
    assert [large.contiguous[3] * large.span(3), large.span(2)] == [2 * MIB, 512 * MIB]


def test_arm64_ladder_in_notation() -> None:
    small = arm64.GRANULES[0]
    memory = Memory()
    arm_put(memory, small, AT, 3, HUGE | A_PAGE)
    arm_put(memory, small, AT + 64 * KIB, 3, *contiguous(small, 3, HUGE + 64 * KIB))
    arm_put(memory, small, AT + 2 * MIB, 2, HUGE + 2 * MIB | A_BLOCK)
    arm_put(memory, small, AT + 32 * MIB, 2, *contiguous(small, 2, HUGE + 32 * MIB))
    found = arm_walk(memory, GIB)
    words = f"1G: 4K×1 hole×15 64K×1 hole×480 2M×1 hole×{28 * 256} 32M×1 hole×{960 * 256}"
    assert (shape(found, GIB, 4 * KIB), found.findings) == ([words], [])


def half(group: list[int]) -> list[int]:
    return group[: len(group) // 2] + [entry & ~CONT for entry in group[len(group) // 2 :]]


def one_gone(group: list[int]) -> list[int]:
    return [*group[:-1], 0]


def one_astray(group: list[int]) -> list[int]:
    return [*group[:-1], group[0]]


def one_read_only(group: list[int]) -> list[int]:
    return [*group[:-1], group[-1] | arm64.AP_RO]


def not_aligned(group: list[int]) -> list[int]:
    return [entry + 64 * KIB for entry in group]


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (half, "part of a contiguous group: 8 of 16"),
        (one_gone, "part of a contiguous group: 15 of 16"),
        (one_astray, "do not lie side by side"),
        (one_read_only, "attributes differ"),
        (not_aligned, "not aligned"),
    ],
)
def test_arm64_broken_contiguous_group(damage: Callable[[list[int]], list[int]], words: str) -> None:
    small = arm64.GRANULES[0]
    memory = Memory()
    level = 2 if damage is not_aligned else 3
    group = contiguous(small, level)
    group = [entry + 2 * MIB for entry in group] if damage is not_aligned else damage(group)
    arm_put(memory, small, AT, level, *group)
    found = arm_walk(memory, 16 * small.span(level))
    assert len(found.findings) == 1 and words in found.findings[0]
    assert not any(leaf.contiguous for leaf in found.leaves)


def test_arm64_hardware_may_update_one_entry_of_a_group() -> None:
    small = arm64.GRANULES[0]
    memory = Memory()
    group = [entry & ~arm64.AF | arm64.DBM | arm64.AP_RO for entry in contiguous(small, 3)]
    group[5] = (group[5] | arm64.AF) & ~arm64.AP_RO
    arm_put(memory, small, AT, 3, *group)
    found = arm_walk(memory, 64 * KIB)
    (leaf,) = found.leaves
    assert (leaf.contiguous, leaf.accessed, leaf.dirty, leaf.writable, found.findings) == (True, True, True, True, [])


@pytest.mark.parametrize(
    ("level", "entry", "words"),
    [
        (3, HUGE | A_BLOCK, "reserved at level 3"),
        (0, HUGE & ~(512 * GIB - 1) | A_BLOCK, "a block where this granule has none"),
        (2, HUGE | A_BLOCK | 1 << 13, "reserved address bits"),
        (3, 3 * GIB | A_PAGE, "maps 0xc0000000, outside of memory"),
        (2, 3 * GIB | A_TABLE, "refers to a table at 0xc0000000, outside of memory"),
        (2, MIB | A_TABLE, "through which the walk has come"),
    ],
)
def test_arm64_what_no_table_should_hold(level: int, entry: int, words: str) -> None:
    memory = Memory()
    arm_put(memory, arm64.GRANULES[0], AT, level, entry)
    assert words in arm_walk(memory, 4 * KIB).findings[0]


def test_arm64_rights_taken_away_by_a_table() -> None:
    memory = Memory()
    arm_put(memory, arm64.GRANULES[0], AT, 3, HUGE | A_PAGE)
    memory.tables[memory.root][AT >> 39] |= arm64.TABLE_AP_RO
    assert not arm_walk(memory, 4 * KIB).leaves[0].writable


@pytest.mark.parametrize("tcr", [2 << 14 | 16, TCR_4K | arm64.TCR_EPD0, 12, 25])
def test_arm64_registers_that_do_not_translate(tcr: int) -> None:
    found = arm_walk(Memory(), 4 * KIB, tcr)
    assert "TCR_EL1" in found.findings[0] and found.pieces == [Hole(virtual=AT, size=4 * KIB)]
