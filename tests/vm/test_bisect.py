# SPDX-License-Identifier: MIT
"""A bisection of real kernels over a short history, killed on its way; tests/history.py has the long one."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

from harness.errors import Exit
from harness.kernel.source import SourceSpec, resolve
from harness.paths import ROOT, cache_dir, digest, locked, written_whole
from tests.history import NO_COMPILE, REGRESSION, write
from tests.vm.test_interruptions import gone, read_until, started, wait_for_family

COMMITS = 6
SEEDS = {3: (NO_COMPILE, 1), 5: (REGRESSION, 0)}  # git looks at the third first
CASES = ("--huge-pages=2M=16", "--", "-k", "each_mapping_counts and 2M")


def verb(name: str, *words: str | Path) -> list[str]:
    return [sys.executable, "-P", "-m", "harness", name, *(os.fspath(word) for word in words)]


def short_history() -> tuple[Path, dict[str, str]]:
    """The history, and its commits by what they were seeded with: in one place, so that its kernels are kept."""
    place = cache_dir() / f"test-history-{digest(resolve(SourceSpec()).tree)}"
    with locked(place.name):
        if not place.exists():
            with written_whole(place) as work:
                (work / "seeded.json").write_text(json.dumps(write(work / "linux", COMMITS, SEEDS)))
    return place / "linux", json.loads((place / "seeded.json").read_text())


def test_it_finds_the_commit_goes_on_after_a_kill_and_gives_a_log(tmp_path: Path) -> None:
    tree, seeded = short_history()
    before = {path: path.stat().st_mtime_ns for path in tree.rglob("*")}
    ends = ("--tree", tree, "--good", f"main~{COMMITS}", "--bad", "main")

    argv = verb("bisect", *ends, "--restart", "--results", tmp_path / "killed", *CASES)
    with started(argv, {}) as process:
        read_until(process, f"trying {seeded['no-compile'][:12]}")
        family = wait_for_family(process.pid, "make")
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
    assert gone(family)

    argv = verb("bisect", *ends, "--results", tmp_path / "bisect", *CASES)
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == Exit.OK, done.stdout + done.stderr
    assert "going on where an earlier bisection stopped: 2 commits are known" in done.stderr
    assert "checking the bad end" not in done.stderr
    assert f"first bad commit:\ncommit {seeded['regression']}\n" in done.stdout
    assert "not ok: each_mapping_counts" in done.stdout
    assert {path: path.stat().st_mtime_ns for path in tree.rglob("*")} == before

    trials = {one["commit"]: one for one in json.loads((tmp_path / "bisect/bisect.json").read_text())["trials"]}
    skipped = trials[seeded["no-compile"]]["judgement"]
    assert skipped["word"] == "skip" and "does not build" in skipped["why"]
    assert trials[seeded["regression"]]["judgement"]["word"] == "bad"
    assert trials[seeded["last"]]["image"] != trials[seeded["first"]]["image"]

    subprocess.run(["git", "clone", "--quiet", "--bare", "--shared", tree, tmp_path / "clone"], check=True)
    log = tmp_path / "bisect/bisect.log"
    replayed = subprocess.run(["git", "bisect", "replay", log], cwd=tmp_path / "clone", capture_output=True, text=True)
    assert f"{seeded['regression']} is the first bad commit" in replayed.stdout, replayed.stderr

    bad = verb("bisect-step", "--tree", tree, "--commit", "main", "--results", tmp_path / "step", *CASES)
    # What the launcher makes 1, see tests/unit/test_trial.py.
    assert subprocess.run(bad, cwd=ROOT, capture_output=True).returncode == 100
    known = ("--same-as", tmp_path / "step/run-1", "--results", tmp_path / "good", "--huge-pages=2M=16")
    good = verb("bisect-step", "--tree", tree, "--commit", f"main~{COMMITS}", *known)
    assert subprocess.run(good, cwd=ROOT, capture_output=True).returncode == 0


def test_a_series_names_the_first_patch_at_which_a_case_changed(tmp_path: Path) -> None:
    tree, seeded = short_history()
    patch = subprocess.run(
        ["git", "-C", tree, "format-patch", "--stdout", "-1", seeded["regression"]], capture_output=True, check=True
    ).stdout
    (tmp_path / "one.mbox").write_bytes(patch)
    kernel = ("--tree", tree, "--commit", seeded["first"], "--series", tmp_path / "one.mbox")
    argv = verb("series", *kernel, "--results", tmp_path / "run", "--json", tmp_path / "table.json", *CASES)
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == Exit.TESTS_FAILED, done.stdout + done.stderr
    assert "     1  pass -> fail: 1\n          guest_tests/mapcount/partial.c::each_mapping" in done.stdout
    steps = json.loads((tmp_path / "table.json").read_text())
    assert [(step["number"], list(step["cases"].values())) for step in steps] == [(0, ["pass"]), (1, ["fail"])]
