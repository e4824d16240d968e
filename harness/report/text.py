# SPDX-License-Identifier: MIT
"""What a run says at its end, on a terminal."""

from __future__ import annotations

from collections.abc import Iterable

from harness.report.results import RED, Finding, RunResult, crashes, table
from harness.report.whole import cut_short


def summary(result: RunResult) -> list[str]:
    """Return the lines: each kernel, the table by category, the reasons of skips, and each splat that was seen."""
    lines = []
    for name, kernel in result.kernels.items():
        accelerator = result.machines.get(name, {}).get("accelerator", "")
        lines.append(f"{name}: Linux {kernel['release']} {kernel['flavour']}, {accelerator}")
    lines += table(result.cases)
    for status, words in (("skip", "skipped"), ("xfail", "failed as expected"), ("xpass", "passed although")):
        reasons = [case.reason for case in result.cases if case.status == status]
        lines += [f"{words} {reasons.count(reason)}: {reason}" for reason in dict.fromkeys(reasons)]
    return lines + crashes(result.cases)


def failures(result: RunResult) -> list[str]:
    """Return a paragraph for each red case, the worst first, and what ended the run early."""
    lines = []
    for case in sorted((case for case in result.cases if case.red), key=lambda case: RED.index(case.status)):
        lines.append(f"{case.status.upper()}: {case.id}")
        for finding, more in distinct(case.findings):
            lines += [f"- {finding.message}", *again(more)]
        lines += [f"- passes, but was {case.reason}"] if case.status == "xpass" else []
    reason = cut_short(result)
    return lines + ([f"cut short: {reason}"] if reason else [])


def distinct(findings: Iterable[Finding]) -> list[tuple[Finding, int]]:
    """Return the findings, of complaints of the kernel that are alike the first one only, and how many more there are.

    A kernel that has lost its way says the same for each base page of a huge page.
    """
    first: dict[str, tuple[Finding, int]] = {}
    for number, finding in enumerate(findings):
        # What has no fingerprint is like nothing else.
        alike = finding.fingerprint if finding.kind == "splat" and finding.fingerprint else f"{number}"
        before = first.get(alike)
        first[alike] = (before[0], before[1] + 1) if before else (finding, 0)
    return list(first.values())


def again(more: int) -> list[str]:
    """Return what is said below a finding that has so many more like it."""
    return [f"  and {more} more like it"] if more > 0 else []
