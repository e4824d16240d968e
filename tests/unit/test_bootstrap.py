# SPDX-License-Identifier: MIT
"""The launcher and the virtual environment it makes: faults end in one message, and nothing is done twice."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from venv import create as create_venv

import pytest

from harness import bootstrap
from harness.errors import Exit
from harness.paths import ROOT
from tests.namespaces import with_mounts

Start = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A copy of what a start touches, with a harness that has nothing to install and only says what it got."""
    copy = tmp_path / "checkout"
    (copy / "harness").mkdir(parents=True)
    shutil.copy2(ROOT / "hgm", copy)
    shutil.copy2(ROOT / "harness/bootstrap.py", copy / "harness")
    (copy / "harness/__main__.py").write_text("import sys\nprint('started', *sys.argv[1:])\n")
    (copy / "pyproject.toml").write_text((ROOT / "pyproject.toml").read_text())
    return copy


@pytest.fixture
def start(checkout: Path, tmp_path: Path) -> Start:
    """Run `./hgm` of the copy from another directory, with a package index where nobody listens."""

    def run(*arguments: str, prefix: Sequence[str] = (), **environment: str) -> subprocess.CompletedProcess[str]:
        offline = {
            "PIP_INDEX_URL": "http://127.0.0.1:9/simple",
            "PIP_CONFIG_FILE": os.devnull,
            "PIP_RETRIES": "0",
            "PIP_NO_CACHE_DIR": "1",
            "HGM_PYTHON": sys.executable,
        }
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("PIP_", "HGM_"))}
        return subprocess.run(
            [*prefix, str(checkout / "hgm"), *arguments],
            cwd=tmp_path,
            env={**kept, **offline, **environment},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
        )

    return run


def installed(venv: Path, root: Path) -> str:
    """Make `venv` look installed for the checkout `root`, and return its key."""
    (venv / "bin").mkdir(parents=True)
    for name in bootstrap.PROGRAMS:
        (venv / "bin" / name).symlink_to(sys.executable)
    (venv / "pyvenv.cfg").write_text("home = nowhere\n")
    key = bootstrap.fingerprint((root / "pyproject.toml").read_bytes(), bootstrap.base_interpreter(), root)
    (venv / bootstrap.STAMP).write_text(key)
    return key


def fake_python(path: Path, version: str) -> Path:
    """Write a Python that is too old for us: it cannot be caused otherwise on a machine that has none."""
    path.write_text(f'#!/bin/sh\n[ "$1" = --version ] && {{ echo "Python {version}"; exit 0; }}\nexit 1\n')
    path.chmod(0o755)
    return path


def only(directory: Path) -> dict[str, str]:
    """Return an environment whose PATH leads to the tools of the launcher and, of Pythons, to those in `directory`."""
    for tool in ("sh", "dirname", "readlink", "head"):
        where = shutil.which(tool)
        assert where
        (directory / tool).symlink_to(where)
    return {"PATH": str(directory), "HGM_PYTHON": ""}


def test_exit_codes_are_those_of_the_harness() -> None:
    assert bootstrap.HOST_FAULT == Exit.HOST_FAULT


def test_old_python_is_named_with_its_version(start: Start, tmp_path: Path) -> None:
    bin_dir = tmp_path / "bin"
    bin_dir.mkdir()
    fake_python(bin_dir / "python3", "3.9.2")
    done = start("run", **only(bin_dir))
    assert done.returncode == Exit.HOST_FAULT
    assert "needs Python 3.11 or newer; on PATH there is python3 (Python 3.9.2)" in done.stderr
    assert "HGM_PYTHON" in done.stderr


def test_no_python_at_all(start: Start, tmp_path: Path) -> None:
    bin_dir = tmp_path / "bin"
    bin_dir.mkdir()
    done = start("run", **only(bin_dir))
    assert done.returncode == Exit.HOST_FAULT
    assert "on PATH there is no python3\n" in done.stderr


def test_hgm_python_that_is_too_old(start: Start, tmp_path: Path) -> None:
    old = fake_python(tmp_path / "old", "3.10.1")
    done = start("run", HGM_PYTHON=str(old))
    assert done.returncode == Exit.HOST_FAULT
    assert f"HGM_PYTHON is {old}, which is no Python 3.11 or newer: Python 3.10.1" in done.stderr


def test_newer_python_under_another_name_is_taken(start: Start, checkout: Path, tmp_path: Path) -> None:
    bin_dir = tmp_path / "bin"
    bin_dir.mkdir()
    fake_python(bin_dir / "python3", "3.9.2")
    newer = bin_dir / "python3.12"
    newer.write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    newer.chmod(0o755)
    installed(checkout / ".venv", checkout)
    done = start("run", "-k", "a b", PYTHONPATH=str(checkout), **only(bin_dir))
    assert (done.returncode, done.stdout) == (0, "started run -k a b\n"), done.stderr


def test_an_installed_environment_is_used_in_silence(start: Start, checkout: Path) -> None:
    installed(checkout / ".venv", checkout)
    done = start("run", PYTHONPATH=str(checkout))
    assert (done.stdout, done.stderr) == ("started run\n", "")


def test_launcher_may_be_reached_through_a_link(start: Start, checkout: Path, tmp_path: Path) -> None:
    installed(checkout / ".venv", checkout)
    link = tmp_path / "elsewhere"
    link.symlink_to(checkout / "hgm")
    done = start("run", prefix=["sh", "-c", 'shift; exec "$0" "$@"', str(link)], PYTHONPATH=str(checkout))
    assert (done.returncode, done.stdout) == (0, "started run\n"), done.stderr


@pytest.mark.parametrize("harm", ["stamp", "python", "tox", "pyproject"])
def test_what_makes_an_environment_unsound(harm: str, checkout: Path) -> None:
    venv = checkout / ".venv"
    key = installed(venv, checkout)
    assert bootstrap.sound(venv, key)
    if harm == "stamp":
        (venv / bootstrap.STAMP).unlink()
    elif harm == "python":  # the base Python was removed
        (venv / "bin/python").unlink()
        (venv / "bin/python").symlink_to("/nonexistent/python3")
    elif harm == "tox":
        (venv / "bin/tox").unlink()
    else:
        key = bootstrap.fingerprint(b"[project]\n", bootstrap.base_interpreter(), checkout)
    assert not bootstrap.sound(venv, key)


def test_an_upgraded_base_python_makes_another_key() -> None:
    keys = {bootstrap.fingerprint(b"", f"/usr/bin/python3.{minor}", ROOT) for minor in (11, 12)}
    assert len(keys) == 2


def test_no_network_is_one_message(start: Start, checkout: Path) -> None:
    # Making pip anew for the environment takes most of the time of a start, so it borrows ours.
    borrowed = find_spec("pip")
    assert borrowed and borrowed.origin
    create_venv(checkout / ".venv")
    packages = next((checkout / ".venv/lib").glob("python*/site-packages"))
    (packages / "borrowed.pth").write_text(str(Path(borrowed.origin).parent.parent))
    (checkout / ".venv" / bootstrap.STAMP).write_text("of an older pyproject.toml")
    done = start("run")
    assert done.returncode == Exit.HOST_FAULT
    assert done.stderr.count("the Python package index cannot be reached") == 1
    assert "Traceback" not in done.stderr
    log = checkout / ".venv" / bootstrap.LOG
    assert f"whole log: {log}" in done.stderr and log.stat().st_size
    assert not (checkout / ".venv" / bootstrap.STAMP).exists()


def steps(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Record the steps of an installation instead of running them, which would need the network."""
    taken: list[list[str]] = []

    def command(words: Sequence[str], log: Path, lock: int) -> None:
        taken.append(list(words))

    monkeypatch.setattr(bootstrap, "command", command)
    return taken


def test_an_interrupted_installation_is_made_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    taken = steps(monkeypatch)
    venv = tmp_path / "venv"
    installed(venv, ROOT)
    (venv / bootstrap.STAMP).unlink()
    (venv / "half-written").touch()
    bootstrap.install(venv, "key", 0)
    assert [words[1:3] for words in taken] == [["-m", "venv"], ["-m", "pip"]]
    assert not (venv / "half-written").exists()
    assert (venv / bootstrap.STAMP).read_text() == "key"
    assert "repairing the virtual environment" in capsys.readouterr().err


def test_a_changed_project_is_installed_over_a_sound_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken = steps(monkeypatch)
    monkeypatch.setattr(bootstrap, "runs", lambda venv: True)
    venv = tmp_path / "venv"
    installed(venv, ROOT)
    bootstrap.install(venv, "key", 0)
    assert [words[1:3] for words in taken] == [["-m", "pip"]]
    assert (venv / bootstrap.STAMP).read_text() == "key"


def test_a_failed_step_leaves_no_stamp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bootstrap, "runs", lambda venv: True)
    venv = tmp_path / "venv"
    installed(venv, ROOT)
    with pytest.raises(bootstrap.BootstrapError, match="ended with status 3\\n  \\| why"):
        bootstrap.command(["sh", "-c", "echo why; exit 3"], venv / bootstrap.LOG, 1)

    def fail(words: Sequence[str], log: Path, lock: int) -> None:
        raise bootstrap.BootstrapError("no", "none")

    monkeypatch.setattr(bootstrap, "command", fail)
    with pytest.raises(bootstrap.BootstrapError):
        bootstrap.install(venv, "key", 0)
    assert not (venv / bootstrap.STAMP).exists()


def test_a_venv_of_another_python_does_not_run(tmp_path: Path) -> None:
    venv = tmp_path / "venv"
    (venv / "bin").mkdir(parents=True)
    assert not bootstrap.runs(venv)
    fake_python(venv / "bin/python", "3.9.2")
    assert not bootstrap.runs(venv)


def test_read_only_checkout(start: Start, checkout: Path, tmp_path: Path) -> None:
    # Permission bits do not bind root, so the checkout is mounted read-only, for this one command.
    prefix = with_mounts('mount --bind "$0" "$0" && mount -o remount,bind,ro "$0" && exec "$@"', checkout)
    done = start("run", prefix=prefix)
    assert done.returncode == Exit.HOST_FAULT
    assert "Read-only file system" in done.stderr and "set HGM_VENV to a directory you may write" in done.stderr
    elsewhere = tmp_path / "venv"
    installed(elsewhere, checkout)
    done = start("run", prefix=prefix, HGM_VENV=str(elsewhere), PYTHONPATH=str(checkout))
    assert (done.returncode, done.stdout) == (0, "started run\n"), done.stderr


def test_directory_of_something_else_is_left_alone(start: Start, tmp_path: Path) -> None:
    precious = tmp_path / "thesis" / "chapter"
    precious.parent.mkdir()
    precious.write_text("words")
    done = start("run", HGM_VENV=str(precious.parent))
    assert done.returncode == Exit.HOST_FAULT
    assert "is no virtual environment" in done.stderr
    assert precious.read_text() == "words"


def test_second_start_waits_and_then_finds_it_done(checkout: Path, tmp_path: Path) -> None:
    venv = checkout / ".venv"
    with (checkout / ".venv.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        second = subprocess.Popen(
            [str(checkout / "hgm"), "run"],
            env={**os.environ, "HGM_PYTHON": sys.executable, "HGM_VENV": "", "PYTHONPATH": str(checkout)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert second.stderr
        assert second.stderr.readline() == f"hgm: another start is installing into {venv}; waiting for it\n"
        # What the first one does while the second waits.
        installed(venv, checkout)
    out, err = second.communicate(timeout=20)
    assert (second.returncode, out, err) == (0, "started run\n", "")


def test_without_ensurepip_says_what_to_type(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    monkeypatch.setattr(bootstrap, "privilege", lambda: None)
    monkeypatch.setattr(bootstrap, "find_program", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr(bootstrap, "apt_lists", lambda: False)
    with pytest.raises(bootstrap.BootstrapError, match=r"as root, type: apt-get .*update && apt-get .*-venv"):
        bootstrap.need_ensurepip()


def test_without_ensurepip_and_apt_names_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    monkeypatch.setattr(bootstrap, "find_program", lambda name: None)
    with pytest.raises(bootstrap.BootstrapError, match="install your system's package"):
        bootstrap.need_ensurepip()


def test_environment_is_that_of_an_activated_one() -> None:
    inside = bootstrap.environment_for(Path("/v"), {"PATH": "/usr/bin:/sbin", "PYTHONHOME": "/x", "LC_ALL": "C"})
    assert inside == {"PATH": "/v/bin:/usr/bin:/sbin:/usr/sbin", "VIRTUAL_ENV": "/v", "LC_ALL": "C"}
