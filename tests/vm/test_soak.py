# SPDX-License-Identifier: MIT
"""`./hgm soak`: runs that are green, one that is not, and one that goes on where it was."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from harness.errors import Exit
from harness.paths import ROOT


def soak(results: Path, *words: str | os.PathLike[str], cases: str) -> tuple[int, str]:
    program = os.fspath(ROOT / "tests/guest_programs/faults.c")
    argv = [sys.executable, "-m", "harness", "soak", "--arch=x86_64", "--results", results, *words]
    argv += ["--", program, "--huge-pages=2M=16", "-k", cases]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True)
    return done.returncode, done.stdout + done.stderr


def test_runs_add_up_and_a_red_case_is_an_alarm(tmp_path: Path) -> None:
    status, output = soak(tmp_path, "--runs=1", "--load=1", cases="passes or skips")
    assert status == Exit.OK, output
    status, output = soak(tmp_path, "--runs=2", "--markdown", tmp_path / "table.md", cases="passes or skips")
    assert status == Exit.OK, output
    assert output.count("in the order of seed") == 1
    laps = json.loads((tmp_path / "soak.json").read_text())["laps"]
    assert [lap["counts"] for lap in laps] == [{"x86_64": {"pass": 1, "skip": 1}}] * 2
    assert len({lap["seed"] for lap in laps}) == 2
    assert "2 runs, 2 clean; 4 results of cases, 0 false alarms" in (tmp_path / "table.md").read_text()
    # Another selection is another soak.
    status, output = soak(tmp_path, "--runs=1", cases="passes or fails")
    assert status == Exit.TESTS_FAILED, output
    assert "faults.c::fails[x86_64-2M]: fail: not ok: fails" in output
    assert "1 runs, 0 clean; 2 results of cases, 1 false alarms" in output
