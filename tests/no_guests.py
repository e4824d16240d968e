# SPDX-License-Identifier: MIT
"""A plugin for pytest that runs each case without a guest: what it comes to is its name."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from harness import collector, session
from harness.arch import Arch
from harness.deadline import Deadline
from harness.guest.cases import Case
from harness.guest.ktap import Ktap
from harness.guest.run import Guest
from harness.guest.state import State
from harness.kselftest.build import Suite
from harness.report.results import CaseResult, RunResult, Status
from harness.verdict.judge import Observation
from harness.vm.ssh import End, Outcome
from tests.runs import FAILED, KERNEL, MACHINE

FAILING: dict[str, Any] = {"status": Status.FAIL, "findings": (FAILED,)}


class Run:
    """The run's part that prepares and uses guests."""

    def __init__(self, *, result: RunResult, directory: Path, **_: Any) -> None:
        self.result = result
        self.directory = directory
        empty = Suite(collection="mm", directory="mm", files=directory, entries=(), failed={}, timeout_s=1, lacking=())
        full = replace(empty, collection="net", entries=("fails", "passes"))
        self.suites = {("x86_64", suite.collection): suite for suite in (empty, full)}
        self.listed: dict[tuple[str, str], list[str]] = {}

    def prepare(self, arch: Arch, *_: object) -> None:
        """Know a kernel."""
        self.result.kernels[arch.name], self.result.machines[arch.name] = dict(KERNEL), dict(MACHINE)

    def boots_for(self, *_: object) -> bool:
        """There is nothing to boot."""
        return False

    def run(self, case: Case, arch: Arch, huge_page_size: int, case_id: str) -> CaseResult:
        """Return a result, break, or kill the whole run at once."""
        if case.name == "breaks":
            raise RuntimeError("a fault of the harness")
        if case.name == "kills":
            # Whoever collects is a worker's parent.
            os.kill(os.getppid() if "PYTEST_XDIST_WORKER" in os.environ else os.getpid(), signal.SIGKILL)
        return CaseResult(
            id=case_id, category=case.category, arch=arch.name, huge_page_size=huge_page_size, claim=case.claim,
            **(FAILING if case.name == "fails" else {"status": Status.PASS}),
        )  # fmt: skip

    def settled(self, arch: Arch, once: Callable[[int], list[CaseResult]]) -> list[CaseResult]:
        """Call `once`, once."""
        return once(1)

    def place(self, name: str, number: int) -> Path:
        """Return any directory."""
        return Path(name)

    def watch(self, arch: Arch, name: str, directory: Path, look: Callable[[Guest], Observation]) -> Observation:
        """Return what a selftest comes to."""
        return look(cast(Guest, Selftested()))

    def told(self, result: CaseResult, seen: Observation) -> CaseResult:
        """There is nothing more to tell."""
        return result

    def close(self) -> None:
        """There is nothing to close."""


class Selftested:
    """A guest in which a selftest comes to what its name says."""

    machine = SimpleNamespace(spec=SimpleNamespace(accelerator=SimpleNamespace(slowness=1.0)))

    def observe(
        self, name: str, command: str, deadline: Deadline, directory: Path, *, one_stream: bool = True
    ) -> Observation:
        """Return what was seen. What is TAP in it may be that of one program among others."""
        assert not one_stream
        text = f"hgm-kselftest: begin {name}\nhgm-kselftest: end {int(name == 'fails')}\n"
        outcome = Outcome(end=End.EXITED, status=0, stdout=text.encode(), stderr=b"", seconds=1.0)
        return Observation(outcome=outcome, ktap=Ktap(), log="", before=State(tainted=0), after=State(tainted=0))


vars(session)["Run"] = Run
vars(collector)["SHARE"] = 0  # each result is kept at once
