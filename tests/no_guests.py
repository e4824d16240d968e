# SPDX-License-Identifier: MIT
"""A plugin for pytest that runs each case without a guest: what it comes to is its name."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

from harness import collector, session
from harness.arch import Arch
from harness.guest.cases import Case
from harness.kselftest.build import Suite
from harness.report.results import CaseResult, RunResult, Status
from tests.runs import KERNEL, MACHINE


class Run:
    """The run's part that prepares and uses guests."""

    def __init__(self, *, result: RunResult, directory: Path, **_: Any) -> None:
        self.result = result
        empty = Suite(collection="mm", directory="mm", files=directory, entries=(), failed={}, timeout_s=1, lacking=())
        self.suites = {("x86_64", "mm"): empty}
        self.listed: dict[tuple[str, str], list[str]] = {}

    def prepare(self, arch: Arch, *_: object) -> None:
        """Know a kernel."""
        self.result.kernels[arch.name], self.result.machines[arch.name] = dict(KERNEL), dict(MACHINE)

    def boots_for(self, *_: object) -> bool:
        """There is nothing to boot."""
        return False

    def run(self, case: Case, arch: Arch, huge_page_size: int, case_id: str) -> CaseResult:
        """Return a result, or kill the whole run at once."""
        if case.name == "kills":
            # Whoever collects is a worker's parent.
            os.kill(os.getppid() if "PYTEST_XDIST_WORKER" in os.environ else os.getpid(), signal.SIGKILL)
        return CaseResult(
            id=case_id, category=case.category, arch=arch.name, huge_page_size=huge_page_size, claim=case.claim,
            status=Status.PASS,
        )  # fmt: skip

    def close(self) -> None:
        """There is nothing to close."""


vars(session)["Run"] = Run
vars(collector)["SHARE"] = 0  # each result is kept at once
