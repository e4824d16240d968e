# SPDX-License-Identifier: MIT
"""Pools of huge pages that a guest reserves when it boots."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from harness.arch import GIB, KIB, MIB, Arch, size_name
from harness.errors import BadInput

_UNITS = {"K": KIB, "M": MIB, "G": GIB}


@dataclass(frozen=True, slots=True, kw_only=True)
class Pool:
    """Huge pages of one size."""

    size: int  # bytes
    count: int

    def __str__(self) -> str:
        return f"{size_name(self.size)}={self.count}"


def of(arch: Arch, text: str) -> tuple[Pool, ...]:
    """Return the pools of guests of `arch`: those of --huge-pages that it has, or if nothing was given the usual ones.

    What only another architecture of the run has is left out, hence `check`. Raises BadInput as `parse`, and if none
    is left.
    """
    found = tuple(pool for pool in parse(text or arch.huge_pages) if pool.size in arch.huge_page_sizes)
    if not found:
        raise BadInput(f"--huge-pages {text}: no pool is for {arch.name}", hint=_sizes(arch))
    return found


def check(arches: Sequence[Arch], text: str) -> None:
    """Raise BadInput as `of`, or if a size of --huge-pages is one that no architecture of the run has."""
    known = {pool.size for arch in arches for pool in of(arch, text)}
    for pool in parse(text) if text else ():
        if pool.size not in known:
            hint = "; ".join(map(_sizes, arches))
            raise BadInput(f"--huge-pages {text}: there are no pages of {size_name(pool.size)}", hint=hint)


def parse(text: str) -> tuple[Pool, ...]:
    """Read --huge-pages, such as "2M=128,1G=2". Raises BadInput for what is no pool."""
    found: dict[int, Pool] = {}
    for word in text.split(","):
        match = re.fullmatch(r"(\d+)([KMG])=(\d+)", word.strip(), re.ASCII)
        if not match or not int(match[3]):
            hint = "a pool is SIZE=COUNT, such as 2M=128, and has one page or more"
            raise BadInput(f"--huge-pages: {word!r} is no pool", hint=hint)
        size = int(match[1]) * _UNITS[match[2]]
        if size in found:
            raise BadInput(f"--huge-pages {text}: {size_name(size)} is there twice", hint="one pool for each size")
        found[size] = Pool(size=size, count=int(match[3]))
    return tuple(found.values())


def _sizes(arch: Arch) -> str:
    return f"{arch.name} has {', '.join(map(size_name, arch.huge_page_sizes))}"
