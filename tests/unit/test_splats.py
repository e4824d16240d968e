# SPDX-License-Identifier: MIT
"""Each directory of splats/ is a case: a kernel log, and what must be found in it. Adding one needs no code."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.verdict import splats

CASES = sorted(path for path in (Path(__file__).parent / "splats").iterdir())


@pytest.mark.parametrize("directory", CASES, ids=lambda path: path.name)
def test_splats(directory: Path) -> None:
    found = splats.find((directory / "dmesg.txt").read_text())
    lines = [f"{splat.kind}: {splat.title} ({len(splat.text.splitlines())} lines)" for splat in found]
    assert lines == (directory / "expected.txt").read_text().splitlines()
