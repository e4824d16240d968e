# SPDX-License-Identifier: MIT
"""The guest tests on the kernel with the project's own series, which is what a run without options tests."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from harness import pools
from harness.arch import X86_64
from harness.errors import Exit
from harness.vm import places
from tests.vm.conftest import Ran, harness


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Ran:
    return harness(tmp_path_factory.mktemp("whole") / "run")


def test_every_case_passes_or_does_not_apply(whole: Ran) -> None:
    assert whole.status == Exit.OK, whole.output
    assert {case["status"] for case in whole.results["cases"]} == {"pass", "skip"}
    for case in whole.results["cases"]:
        assert case["status"] == "pass" or case["reason"].startswith("not applicable: "), case


def test_all_cases_use_all_places_of_the_host(whole: Ran) -> None:
    assert f"created: {(count := places.number(pools.of(X86_64, '')))}/{count} worker" in whole.output


def test_the_five_categories_are_there_at_both_sizes(whole: Ran) -> None:
    passed = Counter(
        (case["category"], case["huge_page_size"]) for case in whole.results["cases"] if case["status"] == "pass"
    )
    assert passed.total() >= 120
    for category in ("splitting", "collapsing", "mapcount", "fork", "vmemmap"):
        for size in (2 << 20, 1 << 30):
            assert passed[category, size] >= 3, (category, size)


def test_hgm_is_expected_without_being_asked_for(tmp_path: Path) -> None:
    off = tmp_path / "off.config"
    off.write_text("# CONFIG_HUGETLB_HIGH_GRANULARITY_MAPPING is not set\n")
    ran = harness(tmp_path / "run", "--kconfig", off, "-k", "only_the_first_piece and 2M")
    assert ran.status == Exit.TESTS_FAILED, ran.output
    assert "HGM was expected, but the kernel has no HGM" in ran.output
    assert "workers" not in ran.output


def test_stress_runs_only_when_asked_for(tmp_path: Path, whole: Ran) -> None:
    assert "everything[x86_64-2M]" not in whole.cases()
    ran = harness(tmp_path / "run", "--stress", "5", "-k", "stress and 2M")
    assert ran.status == Exit.OK, ran.output
    case = ran.cases()["everything[x86_64-2M]"]
    assert case["seconds"] >= 5
    assert any(line.startswith("collapse: ") for line in case["diagnostics"])
