# SPDX-License-Identifier: MIT
"""Pools of huge pages that a guest reserves when it boots."""

from __future__ import annotations

import re
from dataclasses import dataclass

from harness.arch import GIB, KIB, MIB, Arch
from harness.errors import BadInput

_UNITS = {"K": KIB, "M": MIB, "G": GIB}


@dataclass(frozen=True, slots=True, kw_only=True)
class Pool:
    """Huge pages of one size."""

    size: int  # bytes
    count: int


def of(arch: Arch, text: str) -> tuple[Pool, ...]:
    """Read --huge-pages, or if nothing was given the pools that guests of `arch` have. Raises BadInput as `parse`."""
    return parse(text or arch.huge_pages)


def parse(text: str) -> tuple[Pool, ...]:
    """Read --huge-pages, such as "2M=128,1G=2". Raises BadInput for what is no pool."""
    found = []
    for word in text.split(","):
        match = re.fullmatch(r"(\d+)([KMG])=(\d+)", word.strip())
        if not match:
            raise BadInput(f"--huge-pages: {word!r} is no pool", hint="a pool is SIZE=COUNT, such as 2M=128")
        found.append(Pool(size=int(match[1]) * _UNITS[match[2]], count=int(match[3])))
    return tuple(found)
