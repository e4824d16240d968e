# SPDX-License-Identifier: MIT
"""The walk of x86_64, 4 or 5 levels: Intel SDM volume 3, chapter "Paging", and AMD APM volume 2, "Long-Mode Page
Translation". Names of bits and entries are those manuals'."""

from __future__ import annotations

from dataclasses import dataclass

from harness.pagetable.walk import Leaf, Ram, Read, Walk, entries, indices

PAGE = 4096
COUNT = 512  # entries of a table
CR4_LA57 = 1 << 12
P, RW, US, A, D, PS, XD = 1 << 0, 1 << 1, 1 << 2, 1 << 5, 1 << 6, 1 << 7, 1 << 63
ADDRESS = ((1 << 52) - 1) & ~(PAGE - 1)
# Which entries are at a level: the last is 1.
NAMES = {1: "PTE", 2: "PDE", 3: "PDPTE", 4: "PML4E", 5: "PML5E"}
HUGE = (2, 3)  # levels at which PS means a page of 2 MiB or 1 GiB; above, it is reserved (must be 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rights:
    """What all entries on the way allow: the most restrictive one counts (SDM "Determination of Access Rights")."""

    user: bool = True
    writable: bool = True
    executable: bool = True

    def under(self, entry: int) -> Rights:
        """What is left of it below `entry`."""
        return Rights(
            user=self.user and bool(entry & US),
            writable=self.writable and bool(entry & RW),
            executable=self.executable and not entry & XD,
        )


def walk(read: Read, ram: Ram, start: int, end: int, *, cr3: int, cr4: int) -> Walk:
    """Return what a processor with these registers finds for the virtual addresses from `start` to `end`.

    Never raises for what stands in the tables: what is wrong there is among the findings.
    """
    found = Walk(start=start, end=end)
    root = cr3 & ADDRESS
    level = 5 if cr4 & CR4_LA57 else 4
    if ram.holds(root, PAGE):
        _table(read, ram, found, root, level, 0, Rights(), ())
    else:
        found.findings.append(f"CR3 {cr3:#x} points outside of memory")
        found.hole(start, end - start)
    return found


def span(level: int) -> int:
    """Return the bytes that one entry of `level` covers: 4096, 2 MiB, 1 GiB, 512 GiB, 256 TiB."""
    return PAGE << 9 * (level - 1)


def _table(
    read: Read, ram: Ram, found: Walk, table: int, level: int, base: int, rights: Rights, above: tuple[int, ...]
) -> None:
    found.tables[level] = found.tables.get(level, 0) + 1
    values = entries(read, table, COUNT)
    if level == 1 and not any(values):
        found.empty.append(table)
    for index, virtual in indices(found.start, found.end, base, span(level), COUNT):
        entry = values[index]
        if not entry & P:
            # All other bits are the kernel's own while P is clear.
            found.hole(virtual, span(level), entry)
        elif level == 1 or (entry & PS and level in HUGE):
            _leaf(ram, found, entry, level, virtual, rights.under(entry))
        else:
            below = entry & ADDRESS
            problem = _problem(ram, entry, level, below, (*above, table))
            if problem:
                found.wrong(virtual, level, entry, f"{NAMES[level]} {problem}")
                found.hole(virtual, span(level), entry)
            else:
                _table(read, ram, found, below, level - 1, virtual, rights.under(entry), (*above, table))


def _problem(ram: Ram, entry: int, level: int, below: int, above: tuple[int, ...]) -> str:
    """Why the table that an entry refers to cannot be walked, or nothing."""
    if entry & PS:
        return "has PS set, which is reserved there"
    if not ram.holds(below, PAGE):
        return f"refers to a table at {below:#x}, outside of memory"
    if below in above:
        return f"refers to the table at {below:#x}, through which the walk has come"
    return ""


def _leaf(ram: Ram, found: Walk, entry: int, level: int, virtual: int, rights: Rights) -> None:
    size = span(level)
    physical = entry & ADDRESS & ~(size - 1)
    # Of a huge page's address bits the lowest is PAT; those between it and the page's size are reserved.
    if level > 1 and entry & ADDRESS & (size - 1) & ~PAGE:
        found.wrong(virtual, level, entry, f"{NAMES[level]} has reserved address bits set")
    if not ram.holds(physical, size):
        found.wrong(virtual, level, entry, f"{NAMES[level]} maps {physical:#x}, outside of memory")
    found.pieces.append(
        Leaf(
            virtual=virtual, size=size, level=level, contiguous=False, physical=physical, user=rights.user,
            writable=rights.writable, executable=rights.executable, accessed=bool(entry & A), dirty=bool(entry & D),
        )
    )  # fmt: skip
