# SPDX-License-Identifier: MIT
"""Kernels broken on purpose: six of the seeded bugs, others each day, and what is no bug at all."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from harness.errors import Exit
from harness.paths import ROOT

SAMPLE = 6
HEADER = """\
From 0000000000000000000000000000000000000000 Mon Sep 17 00:00:00 2001
From: A <a@localhost>
Date: Thu, 26 Nov 2026 09:00:00 +0000
Subject: [PATCH] mm: hugetlb: SEEDED BUG: {title}

{title}

A user would not notice.

Category: splitting
Arch: x86_64
Notices: CONTINUE of a piece that is mapped is EEXIST and changes nothing
---
--- a/mm/hugetlb_hgm.c
+++ b/mm/hugetlb_hgm.c
@@ -1,3 +1,4 @@
 // SPDX-License-Identifier: GPL-2.0
+{line}
 /*
  * HugeTLB high-granularity mapping (HGM)
"""


def mutants(results: Path, *words: str | os.PathLike[str]) -> tuple[int, str, dict[str, dict[str, Any]]]:
    """Run `./hgm mutants` on the cases that the headers name; return status, output, and outcomes by name."""
    argv = [sys.executable, "-m", "harness", "mutants", "--cases=named", "--narrow", "--results", results, *words]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True)
    told = json.loads((results / "mutants.json").read_text())
    return done.returncode, done.stdout + done.stderr, {one["bug"]: one for one in told["bugs"]}


def test_a_sample_of_the_bugs_is_caught_by_the_cases_that_name_the_rule(tmp_path: Path) -> None:
    status, output, bugs = mutants(tmp_path, f"--sample={SAMPLE}", "--flavour=fast")
    assert status == Exit.OK, output
    assert len(bugs) == SAMPLE
    for one in bugs.values():
        assert one["judgement"]["word"] == "caught", one
        assert one["judgement"]["named"], one


def test_what_breaks_nothing_is_missed_and_what_does_not_build_is_neither(tmp_path: Path) -> None:
    directory = tmp_path / "bugs"
    directory.mkdir()
    for name, line in (("harmless", "/* Nothing is broken. */"), ("unbuildable", "#error no kernel")):
        (directory / f"{name}.patch").write_text(HEADER.format(title=name, line=line))
    table = tmp_path / "table.md"
    status, output, bugs = mutants(tmp_path / "run", "--bugs", directory, "--markdown", table)
    assert status == Exit.TESTS_FAILED, output
    assert bugs["harmless"]["judgement"]["word"] == "missed"
    assert bugs["unbuildable"]["judgement"]["word"] == "could not tell"
    assert "no kernel" in bugs["unbuildable"]["judgement"]["why"]
    assert "**missed**" in table.read_text()
