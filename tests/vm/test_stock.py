# SPDX-License-Identifier: MIT
"""The guest tests on the default kernel, and what a run says and leaves."""

from __future__ import annotations

import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from harness.errors import Exit
from harness.paths import ROOT
from tests.vm.conftest import Ran, command, harness

CATEGORIES = {"splitting", "collapsing", "mapcount", "fork", "vmemmap"}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Ran:
    place = tmp_path_factory.mktemp("whole")
    return harness(place / "run", "--stock", "-n", "2", "--junitxml", place / "junit.xml")


def test_stock_cases_pass_in_both_languages(whole: Ran) -> None:
    assert whole.status == Exit.OK, whole.output
    passed = [case for case in whole.results["cases"] if case["status"] == "pass"]
    assert len(passed) >= 10
    assert {Path(case["id"].partition("::")[0]).suffix for case in passed} == {".c", ".py"}
    assert {case["category"] for case in passed} >= CATEGORIES


def test_hgm_cases_are_skipped_with_their_reason(whole: Ran) -> None:
    skipped = [case for case in whole.results["cases"] if case["status"] == "skip"]
    assert {case["category"] for case in skipped} >= CATEGORIES
    for case in skipped:
        assert case["reason"].startswith(("kernel has no HGM", "not applicable: ")), case


def test_the_table_and_the_place_of_the_results_are_shown(whole: Ran) -> None:
    for words in ("category", "mapcount", "kernel has no HGM", "results: ", "x86_64: Linux 6.1."):
        assert words in whole.output


def test_what_was_run_stands_in_the_results(whole: Ran) -> None:
    kernel = whole.results["kernels"]["x86_64"]
    assert kernel["release"].startswith("6.1.")
    assert kernel["tree"]
    assert whole.results["machines"]["x86_64"]["accelerator"] in ("kvm", "tcg")
    clones = whole.results["machines"]["x86_64"]["clone_seconds"]
    assert len(clones) == len(whole.results["cases"]) and all(seconds > 0 for seconds in clones)


def test_junit_has_every_case(tmp_path: Path) -> None:
    ran = harness(tmp_path / "run", "--junitxml", tmp_path / "junit.xml", "--stock", "-k", "fork and stock and 2M")
    cases = ET.parse(tmp_path / "junit.xml").getroot().findall(".//testcase")
    assert len(cases) == len(ran.results["cases"]) > 0


def test_expecting_hgm_of_a_kernel_without_it_is_red(tmp_path: Path) -> None:
    ran = harness(tmp_path / "run", "--stock", "--expect-hgm", "-k", "mapcount and 2M")
    assert ran.status == Exit.TESTS_FAILED
    assert "HGM was expected, but the kernel has no HGM" in ran.output


def test_collecting_builds_and_boots_nothing(tmp_path: Path) -> None:
    argv = [sys.executable, "-X", "importtime", "-m", "pytest", "--collect-only", "-q"]
    done = subprocess.run(argv, cwd=ROOT, env={"HGM_CACHE": str(tmp_path)}, capture_output=True, text=True)
    assert done.returncode == Exit.OK, done.stdout
    assert "guest_tests/" in done.stdout
    assert list(tmp_path.iterdir()) == []
    # These alone take longer to import than all cases take to collect.
    assert not {"paramiko", "cryptography", "qemu.qmp"} & {
        line.rpartition("|")[2].strip() for line in done.stderr.splitlines()
    }


def test_from_another_directory_it_is_the_same_run(tmp_path: Path) -> None:
    done = subprocess.run(
        [*command("--collect-only", "-q")], cwd=tmp_path, env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True
    )
    assert done.returncode == Exit.OK and "guest_tests/" in done.stdout, done.stdout + done.stderr
