# SPDX-License-Identifier: MIT
"""What users wait for, measured as they would: whole commands, side by side with a baseline in the same run."""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.errors import Exit, HostFault
from harness.paths import ROOT
from harness.process import say, tail

PYTEST = (sys.executable, "-m", "pytest")


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One measured figure; `seconds` is None when it could not be measured, and `note` says why."""

    key: str
    what: str
    seconds: float | None
    goal: float | None = None  # seconds, on two cores without KVM
    note: str = ""


def main(arguments: Sequence[str]) -> int:
    """Measure, print a table, and with --json write the figures too. Exit status 0 also where a goal is missed."""
    parser = argparse.ArgumentParser(prog="hgm bench", description=main.__doc__)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures to FILE")
    parser.add_argument("--runs", type=int, default=3, metavar="N", help="times each is measured; the median counts")
    parser.add_argument("--build", action="store_true", help="also build the kernel in an empty cache (minutes)")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="hgm-bench-") as scratch:
        figures = _measure(Path(scratch), options.runs, options.build)
    for figure in figures:
        value = "-" if figure.seconds is None else f"{figure.seconds:.2f} s"
        goal = f"goal {figure.goal:g} s" if figure.goal else ""
        print(f"{figure.what:<52} {value:>10}  {goal:<12} {figure.note}".rstrip())
    if options.json:
        known = {figure.key: {"value": figure.seconds, "note": figure.note} for figure in figures}
        options.json.write_text(json.dumps(known, indent=1) + "\n")
    return Exit.OK


def _measure(scratch: Path, runs: int, build: bool) -> list[Figure]:
    results = ["--results", os.fspath(scratch / "results")]
    one = ["-k", "dontneed", "-q"]
    _time([*PYTEST, *results, *one])  # fills the caches, so that what follows is what a second run costs
    start = _median(runs, [sys.executable, "-c", "import pytest"])
    collect = _median(runs, [*PYTEST, "--collect-only", "-q"])
    one_case = _median(runs, [*PYTEST, *results, *one])
    whole = _time([*PYTEST, *results, "-q"])
    report = json.loads((scratch / "results/results.json").read_text())
    boots = [seconds for machine in report["machines"].values() for seconds in machine["boot_seconds"]]
    ran = len(report["cases"])
    figures = [
        Figure(key="python_s", what="python and pytest, started and nothing else (baseline)", seconds=start),
        Figure(key="collect_s", what="pytest --collect-only", seconds=collect, goal=2,
               note=f"{collect / start:.1f} x baseline"),
        Figure(key="boot_s", what="cold boot until ssh works", seconds=statistics.median(boots)),
        Figure(key="cached_one_case_s", what="cached pytest -k dontneed", seconds=one_case),
        Figure(key="run_s", what=f"cached run of all {ran} cases", seconds=whole, goal=60,
               note=f"{60 * ran / whole:.0f} cases a minute"),
    ]  # fmt: skip
    if build:
        environment = {**os.environ, "HGM_CACHE": os.fspath(scratch / "cache")}
        seconds = _time([sys.executable, "-m", "harness", "build"], environment)
        figures.append(Figure(key="build_s", what="kernel source and build, empty cache", seconds=seconds, goal=300))
    return figures


def _median(runs: int, argv: Sequence[str]) -> float:
    return statistics.median(_time(argv) for _ in range(runs))


def _time(argv: Sequence[str], environment: Mapping[str, str] | None = None) -> float:
    """Seconds that a command took. Raises HostFault if it failed, for then its time says nothing."""
    started = time.perf_counter()
    done = subprocess.run(argv, cwd=ROOT, env=environment, capture_output=True, text=True)
    seconds = time.perf_counter() - started
    say(f"{seconds:7.2f} s  {' '.join(argv[1:])}")
    if done.returncode not in (Exit.OK, Exit.NO_TESTS):
        raise HostFault(f"{' '.join(argv)} failed\n{tail(done.stdout + done.stderr)}", hint="mend that first")
    return seconds
