# SPDX-License-Identifier: MIT
"""Programs that misbehave on purpose, in a real kernel: each is reported as what it is, and harms no later case."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from harness.errors import Exit
from harness.paths import ROOT
from tests.vm.conftest import Ran, harness

PROGRAMS = ROOT / "tests/guest_programs"

# case: status, kind of the finding that must be among those reported, a word of its message or evidence
EXPECTED = {
    "passes": ("pass", "", ""),
    "skips": ("skip", "", ""),
    "fails": ("fail", "ktap", "not ok: fails"),
    "warn": ("fail", "splat", "WARNING"),
    "bug": ("crash", "splat", "kernel BUG"),
    "panic": ("crash", "splat", "Kernel panic"),
    "hang": ("hang", "deadline", "did not end within"),
    "leak": ("fail", "leak", "free_hugepages"),
    "taint": ("fail", "taint", "taint changed"),
    "garbage": ("error", "ktap", "no KTAP version line"),
    "megabytes": ("error", "flood", "MiB"),
    "nothing": ("error", "ktap", "printed nothing"),
    "plan_short": ("error", "ktap", "plan 3, saw 1"),
    "exit_clash": ("fail", "exit", "exit status 1"),
    "lingers": ("hang", "ktap", "not ok: lingers"),
    "signal": ("error", "exit", "SIGSEGV"),
    "lockup": ("hang", "deadline", "did not end within"),
    "seen": ("pass", "", ""),
    "misjudged": ("fail", "ktap", "expected tables 1; 2M: 4K×512"),
    "asks_often": ("pass", "", ""),
}


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Ran:
    options = ("--stock", "--no-rerun", "--huge-pages", "2M=16", "-k", "2M")
    return harness(tmp_path_factory.mktemp("faults") / "run", *options, PROGRAMS)


def test_the_run_is_red(ran: Ran) -> None:
    assert ran.status == Exit.TESTS_FAILED, ran.output


def test_every_program_is_known_here(ran: Ran) -> None:
    names = {name.partition("[")[0] for name in ran.cases()}
    assert names == set(EXPECTED), ran.output


@pytest.mark.parametrize("name", EXPECTED)
def test_reported_as_what_it_is(ran: Ran, name: str) -> None:
    status, kind, words = EXPECTED[name]
    cases = [case for case in ran.results["cases"] if f"::{name}[" in case["id"]]
    assert cases, ran.output
    for case in cases:
        assert case["status"] == status, case
        assert kind in [finding["kind"] for finding in case["findings"]] or not kind, case
        assert words in said(case), case


def said(case: dict[str, Any]) -> str:
    return "\n".join(f"{finding['message']}\n{finding['evidence']}" for finding in case["findings"])


def test_the_evidence_stands_in_the_report(ran: Ran) -> None:
    for words in ("Kernel panic - not syncing", "WARNING: CPU", "pool 2M: free_hugepages was 16, is 15"):
        assert words in ran.output


def test_each_case_keeps_its_files(ran: Ran) -> None:
    directory = Path(ran.output.rpartition("results: ")[2].splitlines()[0])
    for case in ran.results["cases"]:
        for name in ("ktap.txt", "dmesg.txt", "console.txt"):
            assert (directory / case["directory"] / name).exists(), case
    (panic,) = (case for case in ran.results["cases"] if "::panic[" in case["id"])
    assert "Kernel panic" in (directory / panic["directory"] / "dmesg.txt").read_text()


def test_shapes_are_kept_in_the_order_asked(ran: Ran) -> None:
    assert ran.cases()["seen[x86_64-2M]"]["shapes"] == [["2M: 2M×1", "2M: hole×512"]]
    assert len(ran.cases()["asks_often[x86_64-2M]"]["shapes"]) == 1000
