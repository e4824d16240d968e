# SPDX-License-Identifier: MIT
"""A case that fails once and passes then is flaky: red, with every attempt kept."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.errors import Exit
from tests.vm.conftest import Ran, harness
from tests.vm.flaky import write

PATIENCE = (12, 40, 120)  # seconds until it turns; a slow host may need longer to begin the case


@pytest.mark.parametrize(("options", "statuses"), [((), "fail pass"), (("--repeat", "5"), "fail pass pass pass pass")])
def test_flaky_is_red_and_keeps_all_attempts(tmp_path: Path, options: tuple[str, ...], statuses: str) -> None:
    ran, results = _ran(tmp_path, options)
    assert ran.status == Exit.TESTS_FAILED, ran.output
    (case,) = ran.results["cases"]
    assert case["status"] == "flaky"
    assert [one["status"] for one in case["attempts"]] == statuses.split()
    for one in case["attempts"]:
        assert (results / one["directory"] / "ktap.txt").exists()
    report = (results / "report.html").read_text()
    assert "Red: 1 flaky" in report and '<div class="side fail">' in report and '<div class="side pass">' in report


def _ran(tmp_path: Path, options: tuple[str, ...]) -> tuple[Ran, Path]:
    """A run in which the case began before its turn."""
    for seconds in PATIENCE:
        results = tmp_path / f"results-{seconds}"
        program = write(tmp_path / str(seconds), seconds)
        ran = harness(results, "--stock", "--huge-pages", "2M=16", *options, program)
        if ran.status != Exit.OK:
            break
    return ran, results
