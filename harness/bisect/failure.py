# SPDX-License-Identifier: MIT
"""Which failure a bisection follows, and what a run says of it. Pure: everything it looks at is handed in."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from harness.report.results import SECONDARY, CaseResult, Finding, Status

FAILED = (Status.FAIL, Status.CRASH, Status.HANG)  # verdicts on the kernel; ERROR is none
MISSED = 0.05  # the chance we take that a flaky failure hides in every run of one step


class Word(StrEnum):
    """What git bisect is told of a commit."""

    GOOD = "good"
    BAD = "bad"
    SKIP = "skip"


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """A failure as it can be recognised in another kernel: the same case, the same kind, the same words."""

    case: str  # its id
    kind: str  # as in Finding
    fingerprint: str  # without numbers, addresses and line numbers; for a splat its title and the function it is in

    def __str__(self) -> str:
        return f"{self.case}: {self.kind}: {self.fingerprint}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """A word for git, and why."""

    word: Word
    why: str
    evidence: str = ""


def failure_of(result: CaseResult) -> Failure | None:
    """Return the failure that a bisection would follow: the first that is no consequence; None if it has not failed."""
    if result.status not in FAILED or not result.findings:
        return None
    first = next((finding for finding in result.findings if _decides(finding)), result.findings[0])
    return Failure(case=result.id, kind=first.kind, fingerprint=first.fingerprint)


def judge(failure: Failure, cases: Iterable[CaseResult]) -> Judgement:
    """Return the word for a kernel on which `cases` ran. Only the very same failure is bad, only a pass is good."""
    result = next((case for case in cases if case.id == failure.case), None)
    if result is None:
        return Judgement(word=Word.SKIP, why="the case was not run")
    if result.status is Status.PASS:
        return Judgement(word=Word.GOOD, why="the case passes")
    if result.status is Status.SKIP:
        return Judgement(word=Word.SKIP, why=f"the case is skipped: {result.reason}")
    found = [finding for finding in result.findings if finding.kind == failure.kind]
    same = next((finding for finding in found if finding.fingerprint == failure.fingerprint), None)
    if result.status in FAILED and same:
        return Judgement(word=Word.BAD, why=same.message, evidence=evidence(result))
    what = "could not be told" if result.status is Status.ERROR else "fails otherwise"
    return Judgement(word=Word.SKIP, why=f"{what}: {_messages(result)}", evidence=evidence(result))


def judge_any(cases: Sequence[CaseResult]) -> Judgement:
    """Return the word for a kernel of which nothing is known to compare with: any failure of a case is bad."""
    if failed := next((case for case in cases if case.status in FAILED), None):
        return Judgement(word=Word.BAD, why=f"{failed.id}: {_messages(failed)}", evidence=evidence(failed))
    if untold := next((case for case in cases if case.red), None):
        return Judgement(word=Word.SKIP, why=f"could not be told: {untold.id}: {untold.status}: {_messages(untold)}")
    if any(case.status is Status.PASS for case in cases):
        return Judgement(word=Word.GOOD, why="no case fails")
    reasons = dict.fromkeys(case.reason for case in cases)
    return Judgement(word=Word.SKIP, why=f"every case is skipped: {'; '.join(reasons) or 'there was none'}")


def together(judgements: Sequence[Judgement]) -> Judgement:
    """Return the one judgement of repeated runs: bad if one is bad, good only if all are good."""
    for word in (Word.BAD, Word.SKIP):
        if found := next((one for one in judgements if one.word is word), None):
            return found
    return judgements[0]


def runs_needed(failed: int, runs: int) -> int:
    """Return how often one step must run so that a failure seen in `failed` of `runs` escapes in at most MISSED of all.

    The chance that a failure of rate r is missed n times is (1 - r) ** n. `failed` is at least 1.
    """
    if failed >= runs:
        return 1
    return math.ceil(math.log(MISSED) / math.log(1 - failed / runs))


def evidence(result: CaseResult) -> str:
    """Return a failed case's findings and what they stand on, as text."""
    lines = []
    for finding in result.findings:
        lines.append(f"- {finding.message}")
        lines += [f"    {line}" for line in finding.evidence.splitlines()[:20]]
    return "\n".join(lines)


def _decides(finding: Finding) -> bool:
    return finding.kind not in SECONDARY and not (finding.kind == "ktap" and not finding.message.startswith("not ok"))


def _messages(result: CaseResult) -> str:
    return "; ".join(finding.message for finding in result.findings)
