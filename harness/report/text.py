# SPDX-License-Identifier: MIT
"""What a run says at its end, on a terminal."""

from __future__ import annotations

from harness.report.results import RED, RunResult, crashes, distinct, table
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
        lines += [f"- {finding.message}" for finding in distinct(case.findings)]
        lines += [f"- passes, but was {case.reason}"] if case.status == "xpass" else []
    reason = cut_short(result)
    return lines + ([f"cut short: {reason}"] if reason else [])
