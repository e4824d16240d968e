# SPDX-License-Identifier: MIT
"""What everything that pytest runs for us shares: the run, where its results go, and how it is ended early."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import pytest

from harness.errors import HarnessError
from harness.paths import ROOT

if TYPE_CHECKING:
    from harness.report.results import CaseResult, RunResult
    from harness.session import Run

RUN: pytest.StashKey[Run] = pytest.StashKey()
UNREADABLE: pytest.StashKey[list[HarnessError]] = pytest.StashKey()  # what is wrong with test programs
OUTCOME: pytest.StashKey[tuple[Path, RunResult]] = pytest.StashKey()  # where results go, and all of them


def outcome(config: pytest.Config) -> tuple[Path, RunResult]:
    """Return where the results of the run go, and what holds them; made by the first who asks.

    A worker of pytest-xdist is told where, and hands its part over to the process that collects them all.
    """
    from harness.report.results import RunResult
    from harness.session import start

    if OUTCOME not in config.stash:
        told = getattr(config, "workerinput", {}).get("hgm_results")
        if told:
            config.stash[OUTCOME] = Path(told), RunResult(started="", command=[])
        else:
            chosen = config.getoption("results")
            base = Path(os.environ.get("HGM_RESULTS") or ROOT / "results")
            config.stash[OUTCOME] = start(Path(chosen).absolute() if chosen else None, base, sys.argv)
    return config.stash[OUTCOME]


def give_up(config: pytest.Config, error: HarnessError) -> NoReturn:
    """End the run: without a guest no later case can do better, and a run cut short must not look like a verdict."""
    from harness.report.results import Fault

    if hasattr(config, "workeroutput"):
        config.workeroutput["hgm_fault"] = error.message, str(error), int(error.exit_code)
    elif OUTCOME in config.stash:
        config.stash[OUTCOME][1].fault = Fault(exit_code=error.exit_code, message=error.message)
    pytest.exit(str(error), returncode=error.exit_code)


def evidence(result: CaseResult, directory: Path) -> str:
    """Return the text of a failure: status, claim, each finding with what it stands on, and where the files are."""
    from harness.report.results import distinct

    lines = [f"{result.status.upper()}: {result.id}", f"claim: {result.claim}"]
    if result.attempts:
        lines.append(f"run {len(result.attempts)} times: {', '.join(one.status for one in result.attempts)}")
    if result.status == "xpass":
        lines.append(f"- passes, but was {result.reason}; take it off the list of expected failures")
    for finding in distinct(result.findings):
        lines += [f"- {finding.message}", *(f"    {line}" for line in finding.evidence.splitlines()[:60])]
    lines.append(f"files: {directory / result.directory}")
    return "\n".join(lines)


@contextlib.contextmanager
def uncaptured(config: pytest.Config) -> Iterator[None]:
    """Let progress lines through to the terminal, which pytest would else keep for a failure report."""
    reporter = config.pluginmanager.getplugin("terminalreporter")
    if reporter:
        reporter.ensure_newline()  # pytest may stand in the middle of a line of dots
    capture = config.pluginmanager.getplugin("capturemanager")
    with capture.global_and_fixture_disabled() if capture else contextlib.nullcontext():
        yield
