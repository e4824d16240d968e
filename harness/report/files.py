# SPDX-License-Identifier: MIT
"""The files that a run leaves in its directory, each made from the one result model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.report import html, junit, kcidb, ktap
from harness.report.results import RunResult

REPORTS = ("results.json", "junit.xml", "run.ktap", "kcidb.json", "report.html")
OF_A_CASE = ("console.txt", "dmesg.txt", "ktap.txt", "stderr.txt", "hang.txt", "memory.dump")
MOST_TEXT = 4 << 20  # bytes of a file that are looked at, from its end


@dataclass(frozen=True, slots=True)
class CaseFiles:
    """What the cases of a run left in their directories."""

    directory: Path  # of the run

    def names(self, directory: str) -> Sequence[str]:
        """Return the names of the files in a directory (relative to the run's), none if there is no such directory."""
        place = self.directory / directory
        return sorted(path.name for path in place.iterdir() if path.is_file()) if place.is_dir() else ()

    def text(self, directory: str, name: str) -> str:
        """Return the text of a file, or its end if it is long."""
        with (self.directory / directory / name).open("rb") as file:
            file.seek(max(0, file.seek(0, 2) - MOST_TEXT))
            return file.read().decode(errors="replace")


def write(directory: Path, result: RunResult) -> None:
    """Write every report of `result` into the directory of its run; results.json first, since it is the source."""
    result.write(directory / "results.json")
    (directory / "junit.xml").write_text(junit.document(result), encoding="utf-8")
    (directory / "run.ktap").write_text(ktap.document(result), encoding="utf-8")
    (directory / "kcidb.json").write_text(kcidb.text(result), encoding="utf-8")
    (directory / "report.html").write_text(html.render(result, CaseFiles(directory)), encoding="utf-8")


def remove(directory: Path) -> None:
    """Remove what runs have left in `directory`, as far as it has the names that they give; the rest is the user's."""
    for pattern in (*REPORTS, "results.*.tmp", "boot-*.console.txt"):
        _remove(directory, pattern)
    for place in directory.glob("cases/*/"):
        remove_case(place)
    _remove_empty(directory / "cases")


def remove_case(directory: Path) -> None:
    """Do the same in the directory of a case."""
    for name in OF_A_CASE:
        _remove(directory, name)
    _remove_empty(directory)


def _remove(directory: Path, pattern: str) -> None:
    for path in directory.glob(pattern):
        path.unlink()


def _remove_empty(directory: Path) -> None:
    if directory.is_dir() and not any(directory.iterdir()):
        directory.rmdir()
