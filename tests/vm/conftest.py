# SPDX-License-Identifier: MIT
"""Runs the harness as its users do, in a process of its own, and reads what it leaves."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from harness.arch import X86_64
from harness.kernel.build import Kernel, KernelRequest
from harness.paths import ROOT


@dataclass(frozen=True)
class Ran:
    """A finished run of the harness."""

    status: int
    output: str
    results: dict[str, Any]

    def cases(self) -> dict[str, dict[str, Any]]:
        """Its case results by name of the case and size, such as `warn[x86_64-2M]`."""
        return {case["id"].partition("::")[2]: case for case in self.results.get("cases", [])}


def command(*arguments: str | os.PathLike[str]) -> list[str]:
    """The argv of `./hgm run`, less the launcher."""
    return [sys.executable, "-m", "harness", "run", *(os.fspath(argument) for argument in arguments)]


def harness(results: Path, *arguments: str | os.PathLike[str], environment: Mapping[str, str] | None = None) -> Ran:
    """Run the guest tests with `arguments`, the results going to `results`."""
    argv = command("--results", results, "-p", "no:cacheprovider", *arguments)
    return finish(argv, results, environment)


def finish(argv: Sequence[str], results: Path, environment: Mapping[str, str] | None = None) -> Ran:
    """Run a command line of the harness to its end."""
    done = subprocess.run(argv, cwd=ROOT, env={**os.environ, **(environment or {})}, capture_output=True, text=True)
    written = results / "results.json"
    return Ran(done.returncode, done.stdout + done.stderr, json.loads(written.read_text()) if written.exists() else {})


@pytest.fixture(scope="session")
def kernel() -> Kernel:
    """The default kernel, built if the cache has none."""
    from harness.kernel.build import prepare

    return prepare(KernelRequest(arch=X86_64))
