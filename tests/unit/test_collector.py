# SPDX-License-Identifier: MIT
"""What a run leaves, and its exit status, which says what its results say; the guests are left out."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from harness.errors import Exit
from harness.paths import ROOT
from harness.report import files
from harness.report.results import read
from harness.report.whole import cut_short, exit_status
from tests.runs import case, run

NAMES = ("passes", "fails", "breaks", "kills")
SOURCE = "".join(f'STOCK_CASE({name}, "a claim", .sizes = "2M")\n{{\n}}\n' for name in NAMES)
PLAIN = 'import pytest\n@pytest.mark.parametrize("arch", ["x86_64"])\ndef test_it(arch): pytest.skip("not here")\n'
REPORTS = ("results.json", "junit.xml", "run.ktap", "kcidb.json", "report.html")


def harness(place: Path, *words: str) -> tuple[int, str]:
    """Run cases that come to what their names say in a directory of their own, the results going to `place`/run."""
    (place / "guest_programs").mkdir(exist_ok=True)
    (place / "guest_programs/a.c").write_text(SOURCE)
    (place / "test_plain.py").write_text(PLAIN)
    argv = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-p", "no:randomly", "-p", "tests.no_guests"]
    argv += [f"--rootdir={place}", "--results=run", *words]
    # It is no worker, even if the one that calls it is.
    env = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_XDIST")}
    env["PYTHONPATH"] = os.fspath(ROOT)
    done = subprocess.run(argv, cwd=place, capture_output=True, text=True, env=env)
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
def test_what_failed_is_told_from_what_has_no_result(tmp_path: Path, workers: str) -> None:
    ended, said = harness(tmp_path, "-n", workers, "-k", "passes or fails or breaks")
    result = read(tmp_path / "run/results.json")
    assert ended == exit_status(result) == Exit.TESTS_FAILED and "2 failed, 1 passed" in said, said
    names = [f"guest_programs/a.c::{name}[x86_64-2M]" for name in NAMES[:3]]
    assert {one.id: one.status.value for one in result.cases} == {names[0]: "pass", names[1]: "fail"}
    assert result.not_run == names[2:] and list(result.kernels) == list(result.machines) == ["x86_64"]


@pytest.mark.parametrize("workers", ["0", "1"])
@pytest.mark.parametrize(
    ("kind", "status"), [("RuntimeError", Exit.OUR_FAULT), ("KeyboardInterrupt", Exit.INTERRUPTED)]
)
def test_an_end_in_the_midst_of_it_is_told(tmp_path: Path, kind: str, status: Exit, workers: str) -> None:
    # In the process that collects.
    hook = f"def pytest_runtest_logreport(): 'PYTEST_XDIST_WORKER' in os.environ or _end({kind}())"
    (tmp_path / "conftest.py").write_text(f"import os\ndef _end(error): raise error\n{hook}\n")
    ended, said = harness(tmp_path, "-n", workers, "-k", "passes")
    result = read(tmp_path / "run/results.json")
    assert (ended, exit_status(result)) == (status, status), said
    assert (result.fault and result.fault.exit_code, result.interrupted) == (
        (status, False) if status == Exit.OUR_FAULT else (None, True)
    )


def test_a_selftest_has_one_result_however_often_it_is_asked_for(tmp_path: Path) -> None:
    ended, said = harness(tmp_path, "--kselftest=net:fails", "--kselftest=net")
    result = read(tmp_path / "run/results.json")
    assert [(one.id, one.status.value) for one in result.cases] == [
        ("kselftest/net:fails[x86_64]", "fail"),
        ("kselftest/net:passes[x86_64]", "pass"),
    ]
    assert ended == exit_status(result) == Exit.TESTS_FAILED and "1 failed, 1 passed" in said, said


@pytest.mark.parametrize("workers", ["0", "1"])
@pytest.mark.parametrize("words", [("-k", "plain"), ("--collect-only",)])
def test_no_case_no_verdict(tmp_path: Path, words: tuple[str, ...], workers: str) -> None:
    assert harness(tmp_path, "-n", workers, *words)[0] == Exit.OK


@pytest.mark.parametrize("workers", ["0", "1"])
def test_a_program_that_cannot_be_read_is_bad_input(tmp_path: Path, workers: str) -> None:
    (tmp_path / "guest_programs").mkdir()
    (tmp_path / "guest_programs/b.c").write_text("STOCK_CASE(x, ")
    ended, said = harness(tmp_path, "-n", workers, "-k", "passes")
    assert ended == Exit.BAD_INPUT and "b.c:1" in said and "KeyError" not in said, said
    result = read(tmp_path / "run/results.json")
    assert not result.cases and "b.c:1" in cut_short(result) and exit_status(result) == Exit.BAD_INPUT
    ended, said = harness(tmp_path, "-n", workers, "-k", "passes", "--continue-on-collection-errors")
    assert ended == Exit.TESTS_FAILED, said
    assert [one.id for one in read(tmp_path / "run/results.json").cases] == ["guest_programs/a.c::passes[x86_64-2M]"]


def earlier(place: Path) -> None:
    """Leave in `place` what a run that hung has left, and a file that is the user's."""
    directory = place / "cases/old"
    directory.mkdir(parents=True)
    (directory / "hang.txt").write_text("the earlier run")
    (place / "boot-x86_64.console.txt").write_text("the earlier run")
    files.write(place, run(case("old")))
    (place / "notes.txt").write_text("the user's")


@pytest.mark.parametrize("workers", ["0", "1"])
def test_a_killed_run_leaves_what_it_had_and_is_cut_short(tmp_path: Path, workers: str) -> None:
    earlier(tmp_path / "run")
    ended, said = harness(tmp_path, "-n", workers, "-k", "passes or kills")
    assert ended == -signal.SIGKILL, said
    result = read(tmp_path / "run/results.json")
    assert exit_status(result) == Exit.INTERRUPTED and cut_short(result) == "the run has not come to its end"
    names = [f"guest_programs/a.c::{name}[x86_64-2M]" for name in ("passes", "kills")]
    assert result.selected == names
    assert result.not_run == [name for name in names if name not in [one.id for one in result.cases]]
    if workers == "0":
        assert [one.id for one in result.cases] == names[:1] and result.kernels
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == ["notes.txt", "results.json"]
    files.write(tmp_path / "run", result)


@pytest.mark.parametrize(
    ("words", "status", "left"),
    [
        (("-k", "nothing"), Exit.NO_TESTS, False),
        (("-k", "passes", "--huge-pages=1G=1"), Exit.NO_TESTS, False),
        (("no_such_file",), Exit.BAD_INPUT, False),
        # Neither of these begins a run.
        (("--arch=sparc",), Exit.BAD_INPUT, True),
        (("--collect-only",), Exit.OK, True),
    ],
)
def test_a_run_that_began_leaves_no_report_of_an_earlier_one(
    tmp_path: Path, words: tuple[str, ...], status: Exit, left: bool
) -> None:
    earlier(tmp_path / "run")
    assert harness(tmp_path, *words)[0] == status
    assert [(tmp_path / "run" / name).exists() for name in REPORTS] == [left] * len(REPORTS)
    assert (tmp_path / "run/cases").exists() == left and (tmp_path / "run/notes.txt").exists()
