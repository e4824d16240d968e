# SPDX-License-Identifier: MIT
"""Collects the results of a run, from its one process or from pytest-xdist's workers, and writes the reports.

results.json is there from the start and is kept up to date, so that a run that is killed leaves what it had.
"""

from __future__ import annotations

import datetime
import json
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from harness.errors import HarnessError
from harness.kernel.repo import disk_faults
from harness.running import OUTCOME, give_up, outcome

if TYPE_CHECKING:
    from harness.report.results import RunResult

TRAVELS = "hgm_result"  # attribute of a report; pytest-xdist carries it from a worker to the process that collects
SHARE = 20  # between two times that results.json is written while cases run, so many times as long as writing took
DEALT = pytest.StashKey[list[str]]()  # of a shard: ids of all the cases that the shards share


class Collector:
    """Collects the results: in the one process there is, or in the one that gives work to pytest-xdist's workers."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._ended: set[str] = set()  # ids of what has a result
        self._unwritten = ""  # why the results could not be written
        self._due = 0.0  # when results.json shall be written again, by the monotonic clock

    def pytest_sessionstart(self) -> None:
        """Remove the reports of an earlier run in the same place: whatever becomes of this one, they are not its."""
        chosen = self._config.getoption("results")
        if chosen and not self._config.option.collectonly:
            from harness.report import files

            try:
                files.remove(Path(chosen))
            except OSError as error:
                raise pytest.UsageError(f"an earlier run's {error.filename} stays: {error.strerror}") from error

    def keep(self) -> None:
        """Write down what is known so far: a run that is killed now leaves it, without the time of an end.

        Ends the run if the disk is full.
        """
        began = time.monotonic()
        directory, result = outcome(self._config)
        self._complete(result)
        try:
            with disk_faults():
                result.write(directory / "results.json")
        except HarnessError as error:
            give_up(self._config, error)
        ended = time.monotonic()
        self._due = ended + SHARE * (ended - began)

    def _complete(self, result: RunResult) -> None:
        result.not_run = [name for name in result.selected if name not in self._ended]
        result.shard, result.dealt = self._config.getoption("shard"), self._config.stash.get(DEALT, [])

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Take the results of an item over."""
        from harness.report.results import CaseResult

        if report.when == "call" and (report.passed or hasattr(report, TRAVELS)):
            self._ended.add(report.nodeid)
        for text in getattr(report, TRAVELS, ()):
            outcome(self._config)[1].cases.append(CaseResult.from_json(text))
        if hasattr(report, TRAVELS) and time.monotonic() >= self._due:
            self.keep()

    @pytest.hookimpl(optionalhook=True)
    def pytest_configure_node(self, node: Any) -> None:
        """Tell a worker where results go."""
        node.workerinput["hgm_results"] = os.fspath(outcome(self._config)[0])

    @pytest.hookimpl(optionalhook=True)
    def pytest_xdist_node_collection_finished(self, node: Any, ids: list[str]) -> None:
        """Learn what was selected; every worker selects the same."""
        from harness.report.whole import arch_of

        outcome(self._config)[1].selected = [name for name in ids if arch_of(name)]
        self.keep()

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any) -> None:
        """Take over what a worker knows besides its results; end the run if it knows that no guest is to be had."""
        from harness.report.results import Fault

        told = getattr(node, "workeroutput", {})
        _, result = outcome(self._config)
        kernels, machines, interrupted = json.loads(told.get("hgm", "[{}, {}, false]"))
        # Some id of another test may look like a case's. A worker that has crashed tells nothing.
        result.selected = told.get("hgm_selected", result.selected)
        result.kernels.update(kernels)
        result.interrupted |= interrupted
        for name, machine in machines.items():
            known = result.machines.setdefault(name, machine)
            for key in ("boot_seconds", "clone_seconds") if known is not machine else ():
                known[key] += machine[key]
        if "hgm_dealt" in told:
            self._config.stash[DEALT] = told["hgm_dealt"]
        if "hgm_fault" in told:
            message, words, status = told["hgm_fault"]
            result.fault = Fault(exit_code=status, message=message)
            pytest.exit(words, returncode=status)

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Write the reports."""
        dealt = self._config.stash.get(DEALT, [])
        if dealt and session.exitstatus == pytest.ExitCode.NO_TESTS_COLLECTED and not self._config.option.collectonly:
            # More shards than cases: there is nothing to do in this one, which must not fail the fleet.
            session.exitstatus = pytest.ExitCode.OK
            outcome(self._config)
        if OUTCOME in self._config.stash:
            from harness.report.results import Fault

            directory, result = self._config.stash[OUTCOME]
            self._complete(result)
            result.interrupted |= session.exitstatus == pytest.ExitCode.INTERRUPTED
            if session.exitstatus == pytest.ExitCode.INTERNAL_ERROR:
                result.fault = Fault(exit_code=pytest.ExitCode.INTERNAL_ERROR, message="pytest met an internal error")
            result.finished = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
            if session.exitstatus == pytest.ExitCode.OK and result.selected:
                # What pytest takes for well may be no result: with --setup-only, it calls no case.
                from harness.report.whole import exit_status

                session.exitstatus = exit_status(result)
            from harness.report import files

            try:
                with disk_faults():
                    files.write(directory, result)
            except HarnessError as error:
                self._unwritten = f"the results cannot be written to {directory}: {error}"
                session.exitstatus = error.exit_code

    @pytest.hookimpl(trylast=True)
    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Say what cut the run short: pytest itself may know of nothing."""
        if self._unwritten:
            terminalreporter.write_line(self._unwritten)
        if OUTCOME in self._config.stash:
            from harness.report.whole import cut_short

            if reason := cut_short(self._config.stash[OUTCOME][1]):
                terminalreporter.write_line(f"cut short: {reason}")
