# SPDX-License-Identifier: MIT
"""The list of expected failures in a real run: what it turns green, and what red."""

from __future__ import annotations

from pathlib import Path

from harness.errors import Exit
from harness.paths import ROOT
from tests.vm.conftest import Ran, harness

PROGRAMS = ROOT / "tests/guest_programs"
LIST = """
[[expected]]
case = "tests/guest_programs/faults.c::fails[*]"
finding = "not ok: fails"
reason = "it fails on purpose"
revisit = 9999-12-31
"""


def run(tmp_path: Path, text: str, cases: str) -> Ran:
    listed = tmp_path / "expected.toml"
    listed.write_text(text)
    options = ("--stock", "--huge-pages=2M=16", f"--expected-failures={listed}", "-k", f"2M and ({cases})")
    return harness(tmp_path / "run", *options, PROGRAMS / "faults.c")


def test_a_listed_failure_is_no_failure_and_stays_visible(tmp_path: Path) -> None:
    ran = run(tmp_path, LIST, "fails or passes")
    assert ran.status == Exit.OK, ran.output
    assert {name: case["status"] for name, case in ran.cases().items()} == {
        "fails[x86_64-2M]": "xfail",
        "passes[x86_64-2M]": "pass",
    }
    assert "failed as expected 1: until 9999-12-31: it fails on purpose" in ran.output


def test_a_listed_pass_a_listed_crash_of_another_kind_and_a_day_that_has_come_are_red(tmp_path: Path) -> None:
    text = LIST.replace("fails[*]", "passes[*]") + LIST.replace("fails[*]", "warn[*]")
    ran = run(tmp_path, text + LIST.replace("9999-12-31", "2026-01-01"), "fails or passes or warn")
    assert ran.status == Exit.TESTS_FAILED, ran.output
    assert {name: case["status"] for name, case in ran.cases().items()} == {
        "fails[x86_64-2M]": "fail",
        "passes[x86_64-2M]": "xpass",
        "warn[x86_64-2M]": "fail",
    }
    assert "take it off the list of expected failures" in ran.output
    assert "was expected until 2026-01-01, which has come" in ran.output
