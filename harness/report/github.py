# SPDX-License-Identifier: MIT
"""What GitHub Actions shows beside a change: annotations, and the summary of a step."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from harness.report.results import RED, RunResult, Status, distinct
from harness.report.text import failures
from harness.report.whole import cut_short, facts, split

SHOWN = 10  # annotations of one step and kind; GitHub drops further ones without a word


def publish(result: RunResult, *, cases: bool = True) -> list[str]:
    """Return the lines that make annotations, and add the table to the step's summary; nothing outside of Actions.

    Without `cases`, only what ended the run early is annotated: for cases that were annotated where they ran.
    """
    place = os.environ.get("GITHUB_STEP_SUMMARY")
    if place:
        with Path(place).open("a", encoding="utf-8") as file:
            file.write(summary(result))
    if os.environ.get("GITHUB_ACTIONS") != "true":
        return []
    return list(errors(result))[: None if cases else bool(cut_short(result))]


def errors(result: RunResult) -> Iterator[str]:
    """Yield a line for each red case, the worst first, and for what ended the run early."""
    if reason := cut_short(result):
        yield _error(reason, title="the run was cut short")
    red = sorted((case for case in result.cases if case.red), key=lambda case: RED.index(case.status))
    room = SHOWN - bool(reason)
    shown = red if len(red) <= room else red[: room - 1]
    for case in shown:
        said = [finding.message for finding in distinct(case.findings)] or [case.reason]
        yield _error("\n".join(said), title=f"{case.status}: {case.id}", file=split(case.id)[0])
    if len(red) > len(shown):
        yield _error("they stand in the report", title=f"{len(red) - len(shown)} further cases are red")


def summary(result: RunResult) -> str:
    """Return the result as Markdown: what was tested, a table by category, and the red cases."""
    lines = ["## Guest tests", ""]
    for arch in result.kernels:
        known = facts(result, arch)
        names = ("kernel_release", "kernel_flavour", "kernel_source", "accelerator")
        lines.append(f"- {arch}: {', '.join(known[name] for name in names if name in known)}")
    columns = [status for status in Status if any(case.status == status for case in result.cases)]
    if columns:
        lines += ["", f"| category | {' | '.join(columns)} |", f"| --- |{' ---: |' * len(columns)}"]
        categories = [*dict.fromkeys(case.category for case in result.cases), "total"]
        for name in categories:
            row = [case.status for case in result.cases if name in (case.category, "total")]
            lines.append(f"| {name} | {' | '.join(str(row.count(status) or '-') for status in columns)} |")
    said = failures(result)
    if said:
        # Four spaces and not a fence: evidence may hold anything, backticks too.
        lines += ["", *(f"    {line}" for text in said for line in text.splitlines())]
    return "\n".join(lines) + "\n\n"


def _error(message: str, **properties: str) -> str:
    # The rules of escaping are those of @actions/core, toolkit/packages/core/src/command.ts.
    message = message.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")
    words = []
    for name, value in properties.items():
        value = value.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")
        words.append(f"{name}={value.replace(':', '%3A').replace(',', '%2C')}")
    return f"::error {','.join(words)}::{message}"
