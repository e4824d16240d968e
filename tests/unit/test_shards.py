# SPDX-License-Identifier: MIT
"""Shards: every case in exactly one of them, whatever the order; and their results as one."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import xml.etree.ElementTree as ET
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from harness import shards
from harness.errors import BadInput, Exit
from harness.guest.ktap import parse
from harness.paths import ROOT
from harness.report.merge import copy_files, merged
from harness.report.results import Fault, RunResult, Status, read
from harness.report.whole import cut_short, exit_status
from tests.runs import KERNEL, MACHINE, case, run

IDS = [f"p{number % 7}.c::c{number}" for number in range(60)]
SECONDS = {name: 1.0 + number for number, name in enumerate(IDS[:40])}


@pytest.mark.parametrize("count", [1, 2, 3, 7, 100])
def test_every_case_is_in_one_shard_whatever_the_order(count: int) -> None:
    hands = shards.deal(IDS, count, SECONDS)
    assert len(hands) == count
    assert sorted(name for hand in hands for name in hand) == sorted(IDS)
    mixed = random.Random(1).sample(IDS, len(IDS))
    assert shards.deal(mixed, count, SECONDS) == hands


def test_shards_take_the_same_time() -> None:
    loads = [sum(SECONDS[name] for name in hand) for hand in shards.deal(IDS[:40], 4, SECONDS)]
    assert max(loads) - min(loads) <= max(SECONDS.values()) / 10


def test_what_is_not_recorded_counts_as_the_median_of_its_program_or_of_all() -> None:
    seconds = {"a.c::1": 9.0, "a.c::2": 9.0, "b.c::1": 1.0, "b.c::2": 1.0, "b.c::3": 1.0}
    # Two of a program that takes long, against six of one that does not: 9 + 9 s against 6 s, and so one is moved.
    hands = shards.deal(["a.c::new", "b.c::new1", "b.c::new2", "c.c::new"], 2, seconds)
    assert hands == [{"a.c::new"}, {"b.c::new1", "b.c::new2", "c.c::new"}]
    assert shards.deal(["x::1", "x::2"], 2, {}) == [{"x::1"}, {"x::2"}]


@pytest.mark.parametrize("words", ["0/2", "3/2", "1", "a/b", "1/0", "-1/2", "1/2/3", "1 / 2", "1.5/2"])
def test_a_shard_that_cannot_be_is_bad_input(words: str) -> None:
    with pytest.raises(BadInput, match="--shard"):
        shards.parse(words)


def test_no_option_no_shard() -> None:
    assert shards.parse("") is None
    assert shards.parse("2/3") == (2, 3)


def test_durations_are_written_as_they_are_read(tmp_path: Path) -> None:
    result = run(case("x"), case("y", "skip", seconds=0.5))
    shards.write(tmp_path / "d.json", shards.recorded(result))
    # The median of the clones is half a second.
    assert shards.read(tmp_path / "d.json") == {case("x").id: 2.0, case("y").id: 1.0}
    assert json.loads((tmp_path / "d.json").read_text())[shards.LICENCE] == "MIT"


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"seconds": []}', '{"seconds": {"a": "b"}}'])
def test_a_file_without_durations_is_bad_input(tmp_path: Path, text: str) -> None:
    (tmp_path / "d.json").write_text(text)
    with pytest.raises(BadInput, match="holds no durations"):
        shards.read(tmp_path / "d.json")


def test_the_recorded_durations_can_be_read() -> None:
    assert shards.read()


def collected(*words: str) -> list[str]:
    argv = [sys.executable, "-m", "harness", "run", "--collect-only", "-q", "-k", "fork", "-p", "no:cacheprovider"]
    done = subprocess.run([*argv, *words], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode in (Exit.OK, Exit.NO_TESTS), done.stdout + done.stderr
    return [line for line in done.stdout.splitlines() if "::" in line]


def test_the_option_deals_what_is_selected() -> None:
    parts = [collected("--shard", f"{number}/3") for number in (1, 2, 3)]
    assert all(parts)
    assert sorted(name for part in parts for name in part) == sorted(collected())
    # With more shards than cases, each case still is in one of them.
    assert len(collected("--shard", "1/1000")) == 1
    assert collected("--shard", "1000/1000") == []


def harness(place: Path, *words: str) -> tuple[int, str]:
    """Run the guest tests where it does not come to a guest, and return the status and what was said."""
    argv = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", f"--results={place}", *words]
    done = subprocess.run(
        argv, cwd=ROOT, capture_output=True, text=True, env={**os.environ, "HGM_CACHE": os.fspath(place / "cache")}
    )
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize("more", [(), ("-n", "1")])
def test_a_shard_with_nothing_to_do_is_well(tmp_path: Path, more: tuple[str, ...]) -> None:
    status, words = harness(tmp_path / "run", "-k", "fork", "--shard=1000/1000", *more)
    assert status == Exit.OK, words
    data = json.loads((tmp_path / "run/results.json").read_text())
    assert (data["shard"], data["cases"], data["selected"]) == ("1000/1000", [], [])
    assert data["dealt"] == sorted(collected()) != []


def test_no_selection_is_none_in_a_shard_either(tmp_path: Path) -> None:
    assert harness(tmp_path / "run", "-k", "nothing_is_called_so", "--shard=1/2")[0] == Exit.NO_TESTS


def test_the_option_complains_at_once(tmp_path: Path) -> None:
    status, words = harness(tmp_path / "run", "--shard=3/2")
    assert status == Exit.BAD_INPUT
    assert "--shard 3/2" in words and "hint: K/N" in words


@pytest.mark.parametrize("more", [(), ("-n", "1")])
def test_a_run_that_cannot_begin_leaves_reports_that_say_so(tmp_path: Path, more: tuple[str, ...]) -> None:
    status, words = harness(tmp_path / "run", "-k", "scenario", "--kernel=/no/image", *more)
    assert status == Exit.BAD_INPUT, words
    result = read(tmp_path / "run/results.json")
    assert result.fault and "/no/image" in result.fault.message
    assert result.not_run == result.selected != []
    assert exit_status(result) == Exit.BAD_INPUT
    root = ET.parse(tmp_path / "run/junit.xml").getroot()
    assert int(root.get("errors", "0")) == len(result.selected) + 1
    assert parse((tmp_path / "run/run.ktap").read_text()).status == "fail"


def empty() -> RunResult:
    return RunResult(started="", command=["hgm", "report", "--merge"])


def together(*parts: RunResult) -> RunResult:
    return merged([(f"run{number}", part) for number, part in enumerate(parts, start=1)], started=empty())


def shard(number: int, count: int, names: str, all_names: str, arch: str = "x86_64", **more: Any) -> RunResult:
    cases = [case(name, arch=arch) for name in names.split()]
    dealt = [case(name, arch=arch).id for name in all_names.split()]
    return run(*cases, shard=f"{number}/{count}", dealt=dealt, **more)


def test_shards_and_architectures_become_one_run() -> None:
    whole = together(
        shard(1, 2, "a b", "a b c"),
        shard(2, 2, "c", "a b c", started="2025-12-31T00:00:00+00:00"),
        shard(1, 2, "a", "a", arch="arm64"),
        shard(2, 2, "", "a", arch="arm64"),
    )
    assert exit_status(whole) == Exit.OK
    assert cut_short(whole) == "" and whole.shard == ""
    assert sorted(one.id for one in whole.cases) == sorted(whole.selected) and len(whole.cases) == 4
    assert list(whole.kernels) == ["x86_64", "arm64"]
    assert whole.machines["x86_64"]["clone_seconds"] == [0.25, 0.75, 0.25, 0.75]
    assert whole.started == "2025-12-31T00:00:00+00:00"


def test_a_shard_that_is_missing_is_no_green() -> None:
    whole = together(shard(1, 3, "a", "a b c"), shard(3, 3, "c", "a b c"))
    assert cut_short(whole) == "shard 2/3 is missing"
    assert whole.not_run == [case("b").id]
    assert exit_status(whole) == Exit.HOST_FAULT


def test_a_case_that_no_shard_took_up_is_no_green() -> None:
    whole = together(shard(1, 2, "a", "a b c"), shard(2, 2, "b", "a b c"))
    assert whole.not_run == [case("c").id]
    assert exit_status(whole) == Exit.TESTS_FAILED


def test_a_killed_shard_need_not_know_what_was_dealt() -> None:
    known: dict[str, Any] = {"selected": [case("a").id, case("b").id], "not_run": [case("b").id]}
    whole = together(shard(1, 2, "a", "", finished="", **known), shard(2, 2, "c", "a b c"))
    assert cut_short(whole) == "the run has not come to its end" and exit_status(whole) == Exit.INTERRUPTED
    assert (sorted(whole.selected), whole.not_run) == ([case(name).id for name in "abc"], [case("b").id])


@pytest.mark.parametrize(
    ("more", "status"),
    [
        ({"fault": Fault(exit_code=10, message="no guest")}, Exit.GUEST_FAULT),
        ({"interrupted": True}, Exit.INTERRUPTED),
        ({"finished": ""}, Exit.INTERRUPTED),
        ({"not_run": [case("z").id]}, Exit.TESTS_FAILED),
    ],
)
def test_what_cut_a_shard_short_cuts_the_whole(more: dict[str, Any], status: int) -> None:
    whole = together(shard(1, 2, "a", "a b", **more), shard(2, 2, "b", "a b"))
    assert exit_status(whole) == status
    assert cut_short(whole)


def test_what_a_shard_met_says_more_than_that_another_is_missing() -> None:
    whole = together(shard(1, 2, "a", "a b", fault=Fault(exit_code=10, message="no guest")))
    assert whole.fault == Fault(exit_code=10, message="no guest; shard 2/2 is missing")


def test_one_red_case_makes_the_whole_red() -> None:
    red = replace(case("b"), status=Status.FAIL)
    assert exit_status(together(run(case("a")), run(red))) == Exit.TESTS_FAILED
    assert exit_status(together(run(), run())) == Exit.NO_TESTS


@pytest.mark.parametrize("key", ["tree", "config_sha256", "flavour", "key", "release"])
def test_different_kernels_are_not_one_result(key: str) -> None:
    other = run(case("b"), kernels={"x86_64": KERNEL | {key: "other"}})
    with pytest.raises(BadInput, match=f"x86_64 kernels: {key}: .* in run1, 'other' in run2"):
        together(run(case("a")), other)


def test_different_harnesses_are_not_one_result() -> None:
    with pytest.raises(BadInput, match=r"made by harness: '0\.1\.0' in run1, '0\.2\.0' in run2"):
        together(run(case("a")), run(case("b"), harness="0.2.0"))


def test_the_files_of_every_attempt_are_copied(tmp_path: Path) -> None:
    for name in ("x", "x-2", "other"):
        (tmp_path / "from/cases" / name).mkdir(parents=True)
        (tmp_path / "from/cases" / name / "ktap.txt").write_text(name)
    copy_files(run(case("x", "flaky")), tmp_path / "from", tmp_path / "to")
    assert {file.parent.name: file.read_text() for file in tmp_path.glob("to/*/*/*")} == {"x": "x", "x-2": "x-2"}


def test_the_same_case_twice_is_bad_input() -> None:
    with pytest.raises(BadInput, match=r"run1 and run2 both have a result of .*::a\["):
        together(run(case("a")), run(case("a")))


def test_the_same_shard_twice_or_of_another_number_is_bad_input() -> None:
    with pytest.raises(BadInput, match="is there already"):
        together(shard(2, 2, "", "a"), shard(2, 2, "", "a"))
    with pytest.raises(BadInput, match="between 2"):
        together(shard(1, 2, "a", "a"), shard(3, 3, "", "a"))


def test_machines_that_differ_are_all_named() -> None:
    machine = MACHINE | {"accelerator": "kvm"}
    whole = together(run(case("a")), run(case("b"), machines={"x86_64": machine}))
    assert whole.machines["x86_64"]["accelerator"] == "tcg, kvm"
    assert whole.machines["x86_64"]["image"] == "i1"
