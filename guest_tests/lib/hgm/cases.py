# SPDX-License-Identifier: MIT
"""The cases of a program, and what a case runs at."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass

from hgm.proc import read_number
from hgm.verdicts import fail, size_name


@dataclass(frozen=True)
class Context:
    """What a case runs at."""

    huge: int  # bytes of a huge page
    base: int  # bytes of a base page
    hgm: bool  # the case needs HGM, so areas switch it on

    @property
    def pieces(self) -> int:
        """Base pages in a huge page."""
        return self.huge // self.base

    def pool(self, counter: str) -> int:
        """A counter of the pool of this size: "nr", "free", "resv", "surplus"."""
        return read_number(f"/sys/kernel/mm/hugepages/hugepages-{self.huge >> 10}kB/{counter}_hugepages")

    def need_pages(self, pages: int) -> None:
        """Fail in words if the pool has not so many free pages."""
        available = self.pool("free") - self.pool("resv")
        if available < pages:
            fail(f"huge page pool of {size_name(self.huge)} has {available} free pages, {pages} needed")

    def file(self, pages: int, name: str = "hgm") -> int:
        """A file of huge pages, as a descriptor."""
        fd = os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_HUGETLB | (self.huge.bit_length() - 1) << os.MFD_HUGE_SHIFT)
        os.ftruncate(fd, pages * self.huge)
        return fd


_Body = Callable[[Context], None]


@dataclass(frozen=True)
class Case:
    name: str
    claim: str
    needs_hgm: bool
    sizes: str
    arch: str
    body: _Body


cases: list[Case] = []


def case(
    claim: str, *, deadline_s: int = 60, sizes: str = "", arch: str = "", spoils: int = 0
) -> Callable[[_Body], _Body]:
    """Declare a case that needs a kernel with high-granularity mapping; see hgm.h for what the attributes mean."""
    return _declare(claim, True, sizes, arch)


def stock_case(
    claim: str, *, deadline_s: int = 60, sizes: str = "", arch: str = "", spoils: int = 0
) -> Callable[[_Body], _Body]:
    """Declare a case that holds on kernels without high-granularity mapping too."""
    return _declare(claim, False, sizes, arch)


def _declare(claim: str, needs_hgm: bool, sizes: str, arch: str) -> Callable[[_Body], _Body]:
    def add(body: _Body) -> _Body:
        cases.append(Case(body.__name__, claim, needs_hgm, sizes, arch, body))
        return body

    return add
