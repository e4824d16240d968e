# SPDX-License-Identifier: MIT
"""The files that a run leaves in its directory, each made from the one result model."""

from __future__ import annotations

from pathlib import Path

from harness.report.results import RunResult


def write(directory: Path, result: RunResult) -> None:
    """Write every report of `result` into the directory of its run; results.json first, since it is the source."""
    result.write(directory / "results.json")
