# SPDX-License-Identifier: MIT
"""The files that a run leaves in its directory, each made from the one result model."""

from __future__ import annotations

from pathlib import Path

from harness.report import junit, kcidb, ktap
from harness.report.results import RunResult


def write(directory: Path, result: RunResult) -> None:
    """Write every report of `result` into the directory of its run; results.json first, since it is the source."""
    result.write(directory / "results.json")
    (directory / "junit.xml").write_text(junit.document(result), encoding="utf-8")
    (directory / "run.ktap").write_text(ktap.document(result), encoding="utf-8")
    (directory / "kcidb.json").write_text(kcidb.text(result), encoding="utf-8")
