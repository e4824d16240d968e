# SPDX-License-Identifier: MIT
"""The one model of a result. Every report is made from it, and from nothing else."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from enum import StrEnum
from pathlib import Path

import msgspec

SCHEMA = 2  # version of results.json; raised when a key changes its meaning or goes


class Status(StrEnum):
    """What a case came to. PASS and XFAIL are green; SKIP, which carries its reason, is neither green nor red."""

    PASS = "pass"
    FAIL = "fail"  # the case, or the state it left the kernel in, says no
    CRASH = "crash"  # the kernel panicked or oopsed
    HANG = "hang"  # it did not end in time
    ERROR = "error"  # could not tell: garbage, an incomplete stream, a lost guest
    SKIP = "skip"
    FLAKY = "flaky"  # it was run more than once, and did not always come to the same
    XFAIL = "xfail"  # it fails, crashes, hangs or flakes as the list of expected failures has it
    XPASS = "xpass"  # it passes although that list says that it does not


RED = (Status.CRASH, Status.HANG, Status.FAIL, Status.ERROR, Status.FLAKY, Status.XPASS)  # the worst first
_BADNESS = (*RED, Status.SKIP, Status.XFAIL, Status.PASS)
# Kinds of findings that follow from something else, or say only that nothing could be told.
SECONDARY = ("taint", "lost", "lockdep", "flood", "dump", "probe")


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One reason for a status, and the words it stands on."""

    kind: str  # such as "ktap", "splat" or "leak"; docs/results.md has all of them
    message: str
    evidence: str = ""
    fingerprint: str = ""  # what is the same of it in every case and kernel that has the same fault


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One time that a case was run, and what it came to."""

    status: Status
    reason: str = ""  # of a skip, or why a failure was expected
    findings: tuple[Finding, ...] = ()
    diagnostics: tuple[str, ...] = ()  # the program's own words
    seconds: float = 0.0
    shapes: tuple[tuple[str, ...], ...] = ()  # how each huge page was mapped, by the hardware's tables, in order asked
    directory: str = ""  # of its files, relative to the run's directory


@dataclass(frozen=True, slots=True, kw_only=True)
class CaseResult(Attempt):
    """One case on one architecture at one huge page size: the worst attempt's result, and what all came to."""

    id: str
    category: str
    arch: str
    huge_page_size: int  # bytes
    claim: str
    attempts: tuple[Attempt, ...] = ()  # all, in order, if it was run more than once

    @property
    def red(self) -> bool:
        """Whether it keeps the run from being green."""
        return self.status in RED

    def to_json(self) -> str:
        """Return it as text, to be handed from one process to another."""
        return json.dumps(asdict(self))

    @staticmethod
    def from_json(text: str) -> CaseResult:
        """Return what `to_json` has made into text."""
        return msgspec.json.decode(text, type=CaseResult)


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
    harness: str = ""  # its version
    finished: str = ""  # ISO 8601, UTC; empty while it is going on
    shard: str = ""  # such as 2/3: the part of the cases that was run here
    kernels: dict[str, dict[str, object]] = field(default_factory=dict)  # by architecture
    machines: dict[str, dict[str, object]] = field(default_factory=dict)  # by architecture
    cases: list[CaseResult] = field(default_factory=list)
    selected: list[str] = field(default_factory=list)  # ids of the cases that were to run, as pytest names them
    not_run: list[str] = field(default_factory=list)  # of which have no result
    dealt: list[str] = field(default_factory=list)  # of a shard: ids of all the cases that the shards share
    interrupted: bool = False
    fault: Fault | None = None

    def write(self, path: Path) -> None:
        """Write results.json: whole or not at all."""
        # A name of its own: `report` may write the same file while the run goes on.
        work = path.with_suffix(f".{os.getpid()}.tmp")
        work.write_text(json.dumps({"schema": SCHEMA, **asdict(self)}, indent=1) + "\n")
        work.rename(path)


def read(path: Path) -> RunResult:
    """Return the run that `write` wrote. Raises ValueError if the file is none of this schema, OSError.

    Keys that this version does not know are passed over: a later one of the same schema may have added them.
    """
    data = json.loads(path.read_bytes())
    if not isinstance(data, dict) or data.get("schema") != SCHEMA:
        raise ValueError(f"{path} is not of schema {SCHEMA}")
    return msgspec.convert(data, RunResult)


def together(results: Sequence[CaseResult]) -> CaseResult:
    """Return the one result of a case that was run once or more often, which is the worst one unless it varies.

    A pass among others is flaky, whatever the others are.
    """
    if len(results) == 1:
        return results[0]
    worst = min(results, key=lambda result: _BADNESS.index(result.status))
    statuses = {result.status for result in results}
    status = Status.FLAKY if Status.PASS in statuses and len(statuses) > 1 else worst.status
    names = [item.name for item in fields(Attempt)]
    attempts = tuple(Attempt(**{name: getattr(result, name) for name in names}) for result in results)
    return replace(worst, status=status, attempts=attempts)


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


def distinct(findings: Iterable[Finding]) -> list[Finding]:
    """Return the findings, but of complaints of the kernel that are alike the first only, with how many more there are.

    A kernel that has lost its way says the same of each base page of a huge page.
    """
    alike: dict[str, list[Finding]] = {}
    for number, finding in enumerate(findings):
        # What has no fingerprint is like nothing else.
        known = finding.kind == "splat" and finding.fingerprint
        alike.setdefault(finding.fingerprint if known else f"{number}", []).append(finding)
    return [
        replace(first, message=f"{first.message} (and {len(more)} more like it)") if more else first
        for first, *more in alike.values()
    ]


def by_fingerprint(cases: Iterable[CaseResult]) -> dict[str, list[str]]:
    """Return each splat that was seen, by its fingerprint, with the ids of the cases; the most frequent first."""
    seen: dict[str, dict[str, None]] = {}
    for case in cases:
        for attempt in case.attempts or (case,):
            for finding in attempt.findings:
                if finding.kind == "splat":
                    seen.setdefault(finding.fingerprint, {})[case.id] = None
    return {name: list(ids) for name, ids in sorted(seen.items(), key=lambda item: -len(item[1]))}


def crashes(cases: Iterable[CaseResult]) -> list[str]:
    """Return a line for each splat that was seen: its fingerprint and in how many cases, the most frequent first."""
    lines = []
    for fingerprint, ids in by_fingerprint(cases).items():
        where = f"{len(ids)} cases, such as {ids[0]}" if len(ids) > 1 else ids[0]
        lines.append(f"{fingerprint}: {where}")
    return lines
