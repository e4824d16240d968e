# SPDX-License-Identifier: MIT
"""What a run leaves, and its exit status, which says what its results say; the guests are left out."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from harness.errors import Exit
from harness.paths import ROOT
from harness.report.results import read
from harness.report.whole import cut_short, exit_status

SOURCE = "".join(f'STOCK_CASE({name}, "a claim", .sizes = "2M")\n{{\n}}\n' for name in ("passes", "kills"))
PLAIN = 'import pytest\n@pytest.mark.parametrize("arch", ["x86_64"])\ndef test_it(arch): pytest.skip("not here")\n'


def harness(place: Path, *words: str) -> tuple[int, str]:
    """Run the cases passes and kills in a directory of their own, the results going to `place`/run."""
    (place / "guest_programs").mkdir(exist_ok=True)
    (place / "guest_programs/a.c").write_text(SOURCE)
    (place / "test_plain.py").write_text(PLAIN)
    argv = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-p", "no:randomly", "-p", "tests.no_guests"]
    argv += [f"--rootdir={place}", "--results=run", *words]
    done = subprocess.run(
        argv, cwd=place, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": os.fspath(ROOT)}
    )
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize("workers", ["0", "1"])
@pytest.mark.parametrize(
    ("words", "status"),
    [
        (("-k", "passes"), Exit.OK),
        (("-k", "passes", "--setup-only"), Exit.TESTS_FAILED),
        (("-k", "passes", "--setup-plan"), Exit.TESTS_FAILED),
        (("--kselftest=mm",), Exit.BAD_INPUT),
        (("-k", "passes or plain"), Exit.OK),
    ],
)
def test_the_exit_status_is_what_the_results_say(
    tmp_path: Path, words: tuple[str, ...], status: Exit, workers: str
) -> None:
    ended, said = harness(tmp_path, "-n", workers, *words)
    result = read(tmp_path / "run/results.json")
    assert (ended, exit_status(result)) == (status, status), said
    assert cut_short(result) in said
    assert not any("plain" in name for name in result.selected)


@pytest.mark.parametrize("workers", ["0", "1"])
@pytest.mark.parametrize("words", [("-k", "plain"), ("--collect-only",)])
def test_no_case_no_verdict(tmp_path: Path, words: tuple[str, ...], workers: str) -> None:
    assert harness(tmp_path, "-n", workers, *words)[0] == Exit.OK
