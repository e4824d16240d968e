# SPDX-License-Identifier: MIT
"""Kernels broken on purpose in what they themselves do not show: the page tables, read from outside, tell."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.errors import Exit
from harness.options import REFERENCE
from harness.paths import ROOT
from tests.vm.conftest import harness

SEEDED = ROOT / "patches/seeded-bugs"


@pytest.mark.parametrize(
    ("bug", "arch", "case", "words"),
    [
        ("contiguous-group-half-written", "arm64", "each_size_and_one and arm64-2M", "the hardware has tables 1; 2M: "),
        ("continue-maps-2m-by-base-pages", "x86_64", "each_size_and_one and 1G", "the hardware has tables 3; 1G: "),
        ("collapse-leaves-empty-table", "x86_64", "empty_parts and 1G", "the hardware has tables 3; 1G: "),
        (
            "pagemap-adds-offset-twice",
            "x86_64",
            "one_piece and x86_64-2M",
            "the kernel's story differs: pagemap has ",
        ),
    ],
)
def test_what_a_kernel_does_not_show_is_red(bug: str, arch: str, case: str, words: str, tmp_path: Path) -> None:
    series = ("--series", REFERENCE, "--series", SEEDED / f"{bug}.patch")
    ran = harness(tmp_path / "run", "--arch", arch, *series, "--expect-hgm", "--no-rerun", "-k", case)
    assert ran.status == Exit.TESTS_FAILED, ran.output
    (failed,) = ran.results["cases"]
    assert words in failed["diagnostics"][0], failed
    assert failed["diagnostics"][0].startswith(failed["id"].partition("::")[0].rpartition("/")[2] + ":"), failed
