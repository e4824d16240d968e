# SPDX-License-Identifier: MIT
"""Both architectures in one run."""

from __future__ import annotations

from pathlib import Path

from harness.arch import ALL
from harness.errors import Exit
from tests.vm.conftest import harness


def test_one_run_and_one_table_for_all(tmp_path: Path) -> None:
    # The counts and every size of leaf, the contiguous ones of arm64 among them; both languages; HVO on.
    cases = "partial or collapse_keeps or leaves_of_each_size or near_and_far or chain_of_children or overlapping"
    ran = harness(tmp_path / "run", "--arch", "all", "-k", cases)
    assert ran.status == Exit.OK, ran.output
    passed = {(case["arch"], case["huge_page_size"]) for case in ran.results["cases"] if case["status"] == "pass"}
    assert passed == {(arch.name, size) for arch in ALL for size in arch.huge_page_sizes}
    for arch in ALL:
        assert f"{arch.name}: Linux 6.1." in ran.output
        assert ran.results["machines"][arch.name]["fresh"] == "test"
