# SPDX-License-Identifier: MIT
"""docs/seeded-bugs.md has every seeded bug on each of its architectures, caught by a case that its header names."""

from __future__ import annotations

import pytest

from harness.arch import Arch
from harness.guest.cases import known_cases
from harness.mutants.header import SEEDED, Bug, read_all
from harness.paths import ROOT

PAGE = (ROOT / "docs/seeded-bugs.md").read_text()
ROWS = [line.strip("| ").split(" | ") for line in PAGE.splitlines() if line.startswith("| ")]
ASKED = [(bug, arch) for bug in read_all(SEEDED, known_cases()) for arch in bug.arches]


@pytest.mark.parametrize(("bug", "arch"), ASKED, ids=lambda one: one.name)
def test_it_is_caught(bug: Bug, arch: Arch) -> None:
    kernel = arch.name if bug.flavour == "fast" else f"{arch.name} {bug.flavour}"
    rows = [row for row in ROWS if row[1] == f"`{bug.name}`: {bug.title}" and row[2].partition(",")[0] == kernel]
    assert [row[3] for row in rows] == ["caught"], "write the page anew: ./hgm mutants --arch all --markdown"


def test_there_are_enough_of_each_kind() -> None:
    bugs = {bug.name: bug for bug, _ in ASKED}.values()
    assert len(bugs) >= 40
    assert {bug.category for bug in bugs} == {"splitting", "collapsing", "mapcount", "fork", "vmemmap", "compat"}
    assert sum(bug.flavour == "debug" or bug.stress_s > 0 for bug in bugs) >= 8
