# SPDX-License-Identifier: MIT
"""The KTAP reader against the kernel's own, on every sample that the kernel's tree keeps for its own.

kunit_parser.py is imported from the default source, brought here as the harness brings any source. Where the two say
the same in other words:

- Theirs has three ways to say that a stream cannot be told: the statuses "crashed", "no tests" and "failure to parse",
  and a count of errors beside any status. Ours has one, "error", and lists the problems.
- A test that was begun, and whose result or results did not come, is "crashed" or "no tests" there, "missing" here.
- For each result that was planned and did not come, theirs adds a nameless crashed test, and ours says "plan N, saw M".
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

import pytest

from harness.guest.ktap import Point, parse
from harness.kernel.repo import KernelRepo
from harness.kernel.source import SourceSpec, resolve

Tree = list[tuple[str, str, "Tree"]]

POINT = {"SUCCESS": "pass", "FAILURE": "fail", "SKIPPED": "skip", "TEST_CRASHED": "missing", "NO_TESTS": "missing"}
SAMPLES = 23  # in Linux 6.1


@pytest.fixture(scope="module")
def kunit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of the kernel's reader and its samples."""
    place = tmp_path_factory.mktemp("tree") / "kunit"
    KernelRepo.open().materialize(f"{resolve(SourceSpec()).tree}:tools/testing/kunit", place)
    return place


def test_agrees_with_the_kernels_own_reader(kunit: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(kunit)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    theirs = importlib.import_module("kunit_parser")
    samples = sorted((kunit / "test_data").iterdir())
    assert len(samples) >= SAMPLES
    for sample in samples:
        text = sample.read_text()
        test, ktap = theirs.parse_run_tests(text.splitlines()), parse(text)
        assert (ktap.status, _ours(ktap.points)) == (_status(test), _theirs(test)), (sample.name, ktap.problems)
        assert _counts(_ours(ktap.points)) == _counts(_theirs(test)), sample.name
        assert _short(test) == any(problem.startswith("plan ") for problem in ktap.problems), sample.name


def _status(test: Any) -> str:
    verdict = POINT.get(test.status.name, "missing")
    return "error" if test.counts.errors or verdict == "missing" else verdict


def _theirs(test: Any) -> Tree:
    tests = [one for one in test.subtests if one.name]
    return [(one.name, POINT[one.status.name], _theirs(one)) for one in tests]


def _ours(points: list[Point]) -> Tree:
    return [(point.name, point.status, _ours(point.points)) for point in points]


def _counts(tree: Tree) -> dict[str, int]:
    """How many points without points under them there are of each status."""
    counts: dict[str, int] = {}
    for _, status, below in tree:
        for name, number in (_counts(below) if below else {status: 1}).items():
            counts[name] = counts.get(name, 0) + number
    return counts


def _short(test: Any) -> bool:
    """Whether a planned result did not come."""
    return any(not one.name or _short(one) for one in test.subtests)
