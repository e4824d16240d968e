# SPDX-License-Identifier: MIT
"""Whether a run has caught a seeded bug, and for the stated reason. Pure: everything it looks at is handed in."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from enum import StrEnum

from harness.errors import Exit
from harness.mutants.header import Bug
from harness.report.results import CaseResult, Finding, Status

_PLACE = re.compile(r"[\w.-]+\.(?:c|py|sh):\d+: ")
RED = (Status.FAIL, Status.CRASH, Status.HANG)  # verdicts on the kernel; ERROR is none


class Word(StrEnum):
    """What became of a seeded bug."""

    CAUGHT = "caught"
    OTHERWISE = "caught otherwise"  # by a crash, a hang, or cases of another category: no case names the rule
    MISSED = "missed"
    UNKNOWN = "could not tell"


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """What became of a seeded bug, by which cases, and in whose words."""

    word: Word
    why: str
    cases: tuple[str, ...] = ()  # ids of those that are red; with CAUGHT only of those that are so for a stated reason
    named: bool = False  # whether one of them has a claim that the header names
    status: Exit = Exit.OK  # as an exit status


def red(cases: Sequence[CaseResult]) -> list[CaseResult]:
    """Return the cases that say no."""
    return [case for case in cases if case.status in RED]


def judge(bug: Bug, cases: Sequence[CaseResult], unsound: Collection[str] = ()) -> Judgement:
    """Return what became of `bug` in a run of `cases`.

    `unsound` are ids of cases that do not pass on the kernel without the bug: what they say is no evidence.
    """
    said_no = [case for case in red(cases) if case.id not in unsound]
    stated = [case for case in said_no if _is_asked(bug, case) and _telling(bug, case)]
    stated.sort(key=lambda case: not bug.names(case.claim))
    if stated:
        told = _telling(bug, stated[0])
        return Judgement(
            word=Word.CAUGHT,
            why=_first_words(told[0]),
            cases=tuple(case.id for case in stated),
            named=bug.names(stated[0].claim),
        )
    if said_no:
        asked = [case for case in said_no if _is_asked(bug, case)]
        first = (asked or said_no)[0]
        how = _first_words(first.findings[0]) if first.findings else first.status.value
        return Judgement(
            word=Word.OTHERWISE,
            why=how if asked else f"only in {', '.join(sorted({case.category for case in said_no}))}: {how}",
            cases=tuple(case.id for case in said_no),
            status=Exit.TESTS_FAILED,
        )
    if doubtful := next((case for case in cases if case.status is Status.ERROR or case.id in unsound), None):
        what = "does not pass without the bug, either" if doubtful.id in unsound else "could not be told"
        return Judgement(word=Word.UNKNOWN, why=f"{doubtful.id} {what}", status=Exit.TESTS_FAILED)
    if not any(case.status is Status.PASS for case in cases):
        reasons = "; ".join(dict.fromkeys(case.reason for case in cases)) or "there was none"
        return Judgement(word=Word.UNKNOWN, why=f"no case was carried out: {reasons}", status=Exit.TESTS_FAILED)
    return Judgement(word=Word.MISSED, why=f"all of {len(cases)} cases are green", status=Exit.TESTS_FAILED)


def _is_asked(bug: Bug, case: CaseResult) -> bool:
    return case.category == bug.category or bug.names(case.claim)


def _telling(bug: Bug, case: CaseResult) -> list[Finding]:
    """Return the findings that say which rule is broken; a crash says none, unless the header has it for the sign."""
    return [
        finding
        for finding in case.findings
        if (finding.kind == "ktap" and finding.message.startswith("not ok"))
        or finding.kind == "leak"
        or (bug.sign and bug.sign in finding.message)
    ]


def _first_words(finding: Finding) -> str:
    """Return what a finding says in a line: a case's own words, if there are any, tell more than its name.

    Of these the first that begin with a place in its source: others are notes.
    """
    lines = [line.strip() for line in finding.evidence.splitlines() if line.strip()]
    if finding.kind not in ("ktap", "leak") or not lines:
        return finding.message
    return next((line for line in lines if _PLACE.match(line)), lines[0])
