# SPDX-License-Identifier: MIT
"""The part of a console that a report shows: around the kernel's complaints, which are marked, and no more. Pure."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from harness.verdict import splats

BEFORE = 40  # lines before the first complaint
MOST_LINES = 260
MOST_COLUMNS = 300  # of a line


@dataclass(frozen=True, slots=True)
class Line:
    """A line of a console."""

    text: str
    look: str = ""  # "title" for the one by which a splat was known, "splat" for the rest of it


@dataclass(frozen=True, slots=True, kw_only=True)
class Excerpt:
    """Lines of a console, and how many were left out."""

    lines: tuple[Line, ...]
    before: int = 0  # lines left out
    after: int = 0

    @property
    def marked_at(self) -> int | None:
        """The number of the first line that is marked, if one is."""
        return next((number for number, line in enumerate(self.lines) if line.look), None)

    @property
    def size(self) -> int:
        """How many characters it has."""
        return sum(len(line.text) for line in self.lines)


def excerpt(console: str, titles: Collection[str]) -> Excerpt:
    """Return the part of `console` around the first splat with one of `titles`, or its end if there is none.

    Stacks that the harness asked for look like complaints, too; hence the titles of those that count.
    """
    looks: dict[int, str] = {}
    for splat, place in splats.located(console):
        if splat.title in titles:
            looks |= dict.fromkeys(place, "splat") | {place.start: "title"}
    lines = console.splitlines()
    first = max(0, min(looks) - BEFORE) if looks else max(0, len(lines) - MOST_LINES)
    last = min(len(lines), first + MOST_LINES)
    shown = tuple(Line(_cut(lines[number]), looks.get(number, "")) for number in range(first, last))
    return Excerpt(lines=shown, before=first, after=len(lines) - last)


def _cut(text: str) -> str:
    return text if len(text) <= MOST_COLUMNS else text[:MOST_COLUMNS] + " …"
