# SPDX-License-Identifier: MIT
"""How a range is mapped, in words short enough to be compared in a failure, such as "2M: 4K×1 hole×511"."""

from __future__ import annotations

from itertools import groupby

from harness.arch import size_name
from harness.pagetable.walk import Hole, Leaf, Walk


def shape(found: Walk, huge: int, base: int) -> list[str]:
    """Return the notation of each huge page of `huge` bytes in the walk's range, which is aligned to them.

    Runs of leaves of one size are counted, holes in base pages of `base` bytes; a hole whose entry is not empty (a swap
    entry, a marker) is `mark`, and a leaf larger than the huge page stands for itself in each that it covers. Leaves
    that are not where the first one of their huge page puts them are marked with `!`: another page shows through.
    """
    return [_page(found, start, huge, base) for start in range(found.start, found.end, huge)]


def _page(found: Walk, start: int, huge: int, base: int) -> str:
    inside = [piece for piece in found.pieces if piece.virtual < start + huge and piece.end > start]
    leaves = [piece for piece in inside if isinstance(piece, Leaf)]
    offset = leaves[0].physical - leaves[0].virtual if leaves else 0
    words: list[tuple[str, int]] = []
    for piece in inside:
        size = min(piece.end, start + huge) - max(piece.virtual, start)
        if isinstance(piece, Hole):
            words.append(("mark" if piece.entry else "hole", size // base))
        else:
            stray = "!" if piece.physical - piece.virtual != offset else ""
            words.append((f"{size_name(piece.size)}{stray}", max(1, size // piece.size)))
    runs = [(word, sum(count for _, count in run)) for word, run in groupby(words, key=lambda pair: pair[0])]
    return f"{size_name(huge)}: " + " ".join(f"{word}×{count}" for word, count in runs)
