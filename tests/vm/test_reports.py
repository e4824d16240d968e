# SPDX-License-Identifier: MIT
"""Reports of real runs: one whole, one in shards that are joined again, and the two compared."""

from __future__ import annotations

import json
import os
import sys
import xml.etree.ElementTree as ET
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from harness.errors import Exit
from harness.guest import ktap
from harness.paths import ROOT
from tests.vm.conftest import Ran, finish, harness

FAULTS = ROOT / "tests/guest_programs/faults.c"
STATUSES = {"passes": "pass", "skips": "skip", "fails": "fail", "warn": "fail"}
EXPECTED = '[[expected]]\ncase = "*::{}[x86_64-2M]"\nreason = "on purpose"\nrevisit = 2999-01-01\n'


@dataclass(frozen=True)
class Runs:
    """A whole run without a list of expected failures, and two shards of the same with one, joined."""

    place: Path
    whole: Ran
    shards: list[Ran]
    merged: Ran


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    place = tmp_path_factory.mktemp("reports")
    (place / "expected.toml").write_text("".join(EXPECTED.format(name) for name in ("fails", "warn")))
    common: list[str | Path] = [
        "--stock",
        "--huge-pages",
        "2M=16",
        "--no-rerun",
        FAULTS,
        "-k",
        " or ".join(f"{n}[" for n in STATUSES),
    ]
    github = {"GITHUB_ACTIONS": "true", "GITHUB_STEP_SUMMARY": os.fspath(place / "summary.md")}
    whole = harness(place / "whole", *common, "--junitxml", place / "pytest.xml", environment=github)
    listed = [*common, "--expected-failures", place / "expected.toml"]
    shards = [harness(place / f"part{n}", *listed, "--shard", f"{n}/2") for n in (1, 2)]
    return Runs(place, whole, shards, report(place, "--merge", "part1", "part2", "--results", "merged"))


def report(place: Path, *words: str) -> Ran:
    """Run `./hgm report` with the results of the runs in `place`."""
    where = [word if word.startswith("--") else os.fspath(place / word) for word in words]
    return finish([sys.executable, "-m", "harness", "report", *where], place / "merged")


def statuses(ran: Ran) -> dict[str, str]:
    return {name.partition("[")[0]: case["status"] for name, case in ran.cases().items()}


def properties(element: ET.Element) -> dict[str, Any]:
    return {one.get("name", ""): one.get("value") for one in element.findall("properties/property")}


def test_the_shards_together_are_the_whole(runs: Runs) -> None:
    assert statuses(runs.whole) == STATUSES, runs.whole.output
    parts = [set(statuses(ran)) for ran in runs.shards]
    assert all(parts) and not parts[0] & parts[1]
    assert [ran.status for ran in [*runs.shards, runs.merged]] == [Exit.OK] * 3, runs.merged.output
    assert statuses(runs.merged) == STATUSES | {"fails": "xfail", "warn": "xfail"}
    assert runs.merged.results["shard"] == "" and runs.merged.results["not_run"] == []
    for case in runs.merged.results["cases"]:
        assert (runs.place / "merged" / case["directory"] / "dmesg.txt").exists()
    clones = [len(ran.results["machines"]["x86_64"]["clone_seconds"]) for ran in [*runs.shards, runs.merged]]
    assert clones[0] + clones[1] == clones[2]


def test_half_of_the_shards_is_red(runs: Runs) -> None:
    half = report(runs.place, "--merge", "part1", "--results", "half")
    assert half.status == Exit.HOST_FAULT
    assert "shard 2/2 is missing" in half.output


def test_what_broke_is_shown_and_gates(runs: Runs) -> None:
    worse = report(runs.place, "whole", "--against", "merged")
    assert worse.status == Exit.TESTS_FAILED, worse.output
    assert "broke: 2" in worse.output and "::fails[x86_64-2M]: xfail -> fail" in worse.output
    assert "WARNING: CPU" in worse.output
    lost = report(runs.place, "part1/results.json", "--against", "merged/results.json")
    assert lost.status == Exit.TESTS_FAILED and "missing now: " in lost.output
    same = report(runs.place, "merged", "--against", "merged", "--json")
    assert (same.status, json.loads(same.output)["broke"]) == (Exit.OK, [])


def test_junit_says_what_each_case_ran_on(runs: Runs) -> None:
    kernel = runs.whole.results["kernels"]["x86_64"]
    for path in (runs.place / "whole/junit.xml", runs.place / "pytest.xml"):
        cases = ET.parse(path).getroot().findall(".//testcase")
        assert {str(case.get("name")).partition("[")[0] for case in cases} == set(STATUSES)
        for case in cases:
            known = properties(case)
            assert known["kernel_release"] == kernel["release"] and known["kernel_tree"] == kernel["tree"]
            assert known["kernel_config_sha256"] == kernel["config_sha256"]
            assert known["architecture"] == "x86_64" and known["huge_page_size"] == "2M"
            assert known["qemu"].startswith("QEMU") and known["image"] and known["accelerator"]


def test_the_run_is_ktap(runs: Runs) -> None:
    stream = ktap.parse((runs.place / "whole/run.ktap").read_text())
    assert (stream.status, stream.problems) == ("fail", [])
    (program,) = stream.points[0].points
    assert {point.name.partition("[")[0]: point.status for point in program.points} == STATUSES
    assert ktap.parse((runs.place / "merged/run.ktap").read_text()).status == "pass"


def test_github_is_told(runs: Runs) -> None:
    lines = [line for line in runs.whole.output.splitlines() if line.startswith("::error ")]
    assert len(lines) == 2
    assert any(line.endswith("::not ok: fails") and "file=tests/guest_programs/faults.c" in line for line in lines)
    assert "| total | 1 | 2 | 1 |" in (runs.place / "summary.md").read_text()


def test_every_key_is_documented(runs: Runs) -> None:
    document = (ROOT / "docs/results.md").read_text()
    results = runs.whole.results
    for part in (results, results["kernels"]["x86_64"], results["machines"]["x86_64"], results["cases"][0]):
        assert [key for key in part if f"| `{key}` |" not in document] == []
