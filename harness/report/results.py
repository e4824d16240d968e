# SPDX-License-Identifier: MIT
"""The one model of a result. Every report is made from it, and from nothing else."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

SCHEMA = 1  # version of results.json; raised when a key changes its meaning or goes


class Status(StrEnum):
    """What a case came to. Only PASS is green; a SKIP carries its reason."""

    PASS = "pass"
    FAIL = "fail"  # the case, or the state it left the kernel in, says no
    CRASH = "crash"  # the kernel panicked or oopsed
    HANG = "hang"  # it did not end in time
    ERROR = "error"  # could not tell: garbage, an incomplete stream, a lost guest
    SKIP = "skip"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One reason for a status, and the words it stands on."""

    kind: str  # "ktap", "exit", "splat", "taint", "leak", "lockdep", "deadline", "flood", "lost", "expect-hgm"
    message: str
    evidence: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class CaseResult:
    """One case on one architecture at one huge page size."""

    id: str
    category: str
    arch: str
    huge_page_size: int  # bytes
    claim: str
    status: Status
    reason: str = ""  # of a skip
    findings: tuple[Finding, ...] = ()
    diagnostics: tuple[str, ...] = ()  # the program's own words
    seconds: float = 0.0
    shapes: tuple[tuple[str, ...], ...] = ()  # how each huge page was mapped, by the hardware's tables, in order asked
    directory: str = ""  # of its files, relative to the run's directory

    def to_json(self) -> str:
        """Return it as text, to be handed from one process to another."""
        return json.dumps(asdict(self))

    @staticmethod
    def from_json(text: str) -> CaseResult:
        """Return what `to_json` has made into text."""
        return case_from(json.loads(text))


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """What ended a run before every case had its turn: no verdict on any of them."""

    exit_code: int  # as in harness.errors
    message: str


@dataclass(slots=True, kw_only=True)
class RunResult:
    """A whole run."""

    started: str  # ISO 8601, UTC
    command: list[str]
    kernels: dict[str, dict[str, object]] = field(default_factory=dict)  # by architecture
    machines: dict[str, dict[str, object]] = field(default_factory=dict)  # by architecture
    cases: list[CaseResult] = field(default_factory=list)
    interrupted: bool = False
    fault: Fault | None = None

    def write(self, path: Path) -> None:
        """Write results.json: whole or not at all."""
        work = path.with_suffix(".tmp")
        work.write_text(json.dumps({"schema": SCHEMA, **asdict(self)}, indent=1) + "\n")
        work.rename(path)


def read(path: Path) -> RunResult:
    """Return the run that `write` wrote. Raises ValueError if the file is none of this schema."""
    data = json.loads(path.read_text())
    if data.pop("schema", None) != SCHEMA:
        raise ValueError(f"{path} is not of schema {SCHEMA}")
    data["cases"] = [case_from(case) for case in data["cases"]]
    data["fault"] = Fault(**data["fault"]) if data.get("fault") else None
    return RunResult(**data)


def case_from(data: dict[str, Any]) -> CaseResult:
    """Return the case result that was made plain data by `asdict`, and perhaps went through JSON."""
    findings = tuple(Finding(**finding) for finding in data["findings"])
    plain = {"status": Status(data["status"]), "findings": findings, "diagnostics": tuple(data["diagnostics"])}
    plain["shapes"] = tuple(map(tuple, data["shapes"]))
    return CaseResult(**data | plain)


def table(cases: Iterable[CaseResult]) -> list[str]:
    """Return the lines of a table: one row per category, one column per status that occurs."""
    rows: dict[str, dict[Status, int]] = {}
    for case in cases:
        row = rows.setdefault(case.category, dict.fromkeys(Status, 0))
        row[case.status] += 1
    if not rows:
        return []
    total = {status: sum(row[status] for row in rows.values()) for status in Status}
    columns = [status for status in Status if total[status]]
    width = max(len("category"), *map(len, rows))
    lines = ["  ".join(["category".ljust(width), *(status.rjust(6) for status in columns)])]
    for name, row in [*rows.items(), ("total", total)]:
        lines.append("  ".join([name.ljust(width), *(str(row[s] or "-").rjust(6) for s in columns)]))
    return lines
