# SPDX-License-Identifier: MIT
"""Nothing half-written is ever found under its final name, and one cache serves many runs."""

from __future__ import annotations

import errno
import subprocess
import sys
from pathlib import Path

import pytest

from harness.errors import HostFault
from harness.paths import cache_dir, digest, locked, written_whole


def test_cache_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    monkeypatch.setenv("HGM_CACHE", "")
    assert cache_dir() == tmp_path / "xdg/hgm-harness"
    monkeypatch.setenv("HGM_CACHE", str(tmp_path / "own"))
    assert cache_dir() == tmp_path / "own"
    assert cache_dir().is_dir()


def test_cache_that_cannot_be_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("HGM_CACHE", str(tmp_path / "file/cache"))
    with pytest.raises(HostFault, match="cannot be made: Not a directory") as caught:
        cache_dir()
    assert "HGM_CACHE" in caught.value.hint


def test_digest_depends_on_content_only() -> None:
    assert digest({"a": 1, "b": 2}) == digest({"b": 2, "a": 1})
    assert digest("a", "b") != digest("ab")
    assert len(digest()) == 16


def test_written_whole(tmp_path: Path) -> None:
    target = tmp_path / "deep/target"
    for text in ("first", "second"):
        with written_whole(target) as work:
            (work / "file").write_text(text)
        assert (target / "file").read_text() == text
    assert list(target.parent.iterdir()) == [target]
    assert target.stat().st_mode & 0o777 == 0o755


def test_nothing_is_left_of_a_failure(tmp_path: Path) -> None:
    target = tmp_path / "target"

    def fail(error: BaseException) -> None:
        with written_whole(target) as work:
            (work / "file").touch()
            raise error

    with pytest.raises(KeyboardInterrupt):
        fail(KeyboardInterrupt())
    with pytest.raises(HostFault, match="no space left for") as caught:
        fail(OSError(errno.ENOSPC, "No space left on device"))
    assert "HGM_CACHE" in caught.value.hint
    with pytest.raises(PermissionError):
        fail(PermissionError())
    assert list(tmp_path.iterdir()) == []


def test_a_lock_keeps_another_run_waiting_until_it_is_free(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HGM_CACHE", str(tmp_path))
    script = "from harness.paths import locked\nwith locked('kernel'): print('mine', flush=True)"
    with locked("kernel"):
        other = subprocess.Popen(
            [sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        assert other.stderr
        assert other.stderr.readline() == "hgm: another run holds kernel; waiting for it\n"
        assert other.poll() is None
    out, _ = other.communicate(timeout=20)
    assert (other.returncode, out) == (0, "mine\n")


def test_a_lock_ends_with_its_holder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HGM_CACHE", str(tmp_path))
    script = (
        "import os, signal\nfrom harness.paths import locked\nwith locked('k'): os.kill(os.getpid(), signal.SIGKILL)"
    )
    assert subprocess.run([sys.executable, "-c", script]).returncode == -9
    with locked("k"):
        pass
