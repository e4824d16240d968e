# SPDX-License-Identifier: MIT
"""What --kselftest asks for. Nothing of a tree is looked at here."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from harness.errors import BadInput

# pytest collects files, and these tests are in none of ours; this one stands in for each of them in the guest, too.
ANCHOR = Path(__file__).parent / "guest/shim.sh"
PREFIX = "kselftest/"
_ID = re.compile(rf"{PREFIX}(?P<name>.+)\[(?P<arch>[\w-]+)\]", re.DOTALL)
_NAME = re.compile(r"\w[\w.-]*(/\w[\w.-]*)*")
# Linux 6.3 renamed the directory.
_ALIASES = {"mm": "vm", "vm": "mm"}


@dataclass(frozen=True, slots=True)
class Wanted:
    """A collection, or one program of it."""

    collection: str  # as the user calls it
    words: tuple[str, ...] = ()  # the program, and perhaps the first of its arguments; empty: the whole collection
    arch: str = ""  # the one architecture that is meant; empty: all of the run

    @property
    def name(self) -> str:
        """As it is asked for: "mm", or "mm:hugetlb-madvise"."""
        return f"{self.collection}:{' '.join(self.words)}" if self.words else self.collection

    @property
    def directories(self) -> tuple[str, ...]:
        """Where a tree may have it, below tools/testing/selftests."""
        other = _ALIASES.get(self.collection)
        return (self.collection, other) if other else (self.collection,)

    def includes(self, words: tuple[str, ...]) -> bool:
        """Whether a program that is run as `words` is meant."""
        return words[: len(self.words)] == self.words


def result_id(collection: str, program: str, arch: str, line: str = "") -> str:
    """Return the id of the result of a program, or of one line of its output; `read` takes it, too."""
    return f"{PREFIX}{collection}:{program}{'::' if line else ''}{line}[{arch}]"


def read(values: Iterable[str]) -> list[Wanted]:
    """Read the values of --kselftest: COLLECTION or COLLECTION:PROGRAM,... Ids of items and of results will do as well.

    Raises BadInput for anything else.
    """
    found: list[Wanted] = []
    for value in values:
        if match := _ID.fullmatch(value):
            collection, _, program = match["name"].partition("::")[0].partition(":")
            found.append(Wanted(collection, tuple(program.split()), match["arch"]))
            continue
        collection, colon, programs = value.partition(":")
        if not _NAME.fullmatch(collection) or (colon and not all(map(str.split, programs.split(",")))):
            raise BadInput(
                f"--kselftest: {value!r} names no collection",
                hint="COLLECTION or COLLECTION:PROGRAM,..., such as mm or mm:hugetlb-madvise,hugepage-mmap",
            )
        found += [Wanted(collection, tuple(one.split())) for one in (programs.split(",") if colon else [""])]
    return [one for one in dict.fromkeys(found) if not one.arch or replace(one, arch="") not in found]
