# SPDX-License-Identifier: MIT
"""The cache loses what nobody has used for so long, and nothing that a run may be using."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from harness import cache
from harness.errors import BadInput
from harness.paths import cache_to_oneself, used

DAY = 24 * 60 * 60
USER = "from harness.paths import cache_dir; cache_dir(); print('in use', flush=True); input()"


@pytest.fixture
def base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HGM_CACHE", str(tmp_path))
    return tmp_path


def entry(base: Path, place: str, days: int) -> Path:
    path = base / place
    path.mkdir(parents=True)
    (path / "file").write_bytes(b"x" * 10000)
    os.utime(path, (0, time.time() - days * DAY))
    return path


def left(base: Path) -> list[str]:
    return sorted(f"{path.parent.name}/{path.name}" for path in base.glob("*/*") if path.is_dir())


def test_what_is_old_goes(base: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for place, days in (("kernels/old", 8), ("kernels/new", 6), ("guest/old", 400), ("git/objects", 400)):
        entry(base, place, days)
    used(entry(base, "templates/arm64-used-again", 30))
    entry(base, "kernels/.half.written", 0)
    assert cache.main(["--drop-unused", "7"]) == 0
    assert left(base) == ["git/objects", "kernels/new", "templates/arm64-used-again"]
    assert capsys.readouterr().out.startswith("3 removed, 0.0 GiB; ")
    assert cache.main(["--drop-unused", "0"]) == 0
    assert left(base) == ["git/objects"]


def test_nothing_goes_while_a_run_goes_on(base: Path) -> None:
    entry(base, "kernels/old", 100)
    argv = [sys.executable, "-c", USER]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin
        assert process.stdout
        assert process.stdout.readline() == "in use\n"
        with pytest.raises(BadInput, match="is in use by another run"):
            cache.main(["--drop-unused", "7"])
        assert left(base) == ["kernels/old"]
        process.stdin.close()
        process.wait()
        # Who was refused uses the cache still.
        with pytest.raises(BlockingIOError), (base / "in-use").open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    assert cache.main(["--drop-unused", "7"]) == 0
    assert left(base) == []


def test_a_run_waits_until_it_is_cleared(base: Path) -> None:
    with cache_to_oneself():
        argv = [sys.executable, "-c", USER]
        process = subprocess.Popen(
            argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        assert process.stderr
        assert "is being cleared; waiting for the end of that" in process.stderr.readline()
    assert process.communicate()[0] == "in use\n"


def test_the_list(base: Path, capsys: pytest.CaptureFixture[str]) -> None:
    entry(base, "kernels/one", 0)
    entry(base, "kernels/two", 3)
    assert cache.main([]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == str(base)
    today = time.strftime("%Y-%m-%d")
    assert lines[2].split() == [
        "0.0",
        "GiB",
        "2",
        "last",
        "used",
        today,
        "kernels,",
        "with",
        "their",
        "debug",
        "information",
    ]
    assert left(base) == ["kernels/one", "kernels/two"]


def test_days_are_not_negative(base: Path) -> None:
    with pytest.raises(BadInput, match="--drop-unused -1"):
        cache.main(["--drop-unused", "-1"])
