# SPDX-License-Identifier: MIT
"""Interrupted in each phase, killed, twice at once, on a full disk: nothing is left, and the next run works."""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.errors import Exit
from harness.kernel.build import Kernel
from harness.paths import ROOT
from harness.report.results import read
from harness.report.whole import exit_status
from tests.namespaces import with_mounts
from tests.vm.conftest import command, finish, harness

LIMIT_S = 1800  # of host time, for any phase on a loaded machine; one may be the first build of a kernel there
ONE_CASE = ("--stock", "-k", "dontneed and 2M", "--huge-pages", "2M=16", "-p", "no:cacheprovider")


@contextlib.contextmanager
def started(argv: list[str], environment: dict[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    """A run of the harness in the background, which is over when the block is left."""
    process = subprocess.Popen(
        argv, cwd=ROOT, env={**os.environ, **environment}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        start_new_session=True,
    )  # fmt: skip
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()


def read_until(process: subprocess.Popen[bytes], words: str) -> str:
    """Read the output until `words` were said."""
    assert process.stdout
    os.set_blocking(process.stdout.fileno(), False)
    seen = b""
    end = time.monotonic() + LIMIT_S
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        while words.encode() not in seen:
            assert time.monotonic() < end, seen.decode()
            if selector.select(1):
                piece = process.stdout.read()
                assert piece != b"", f"it ended without {words!r}:\n{seen.decode()}"
                seen += piece or b""
    return seen.decode()


def descendants(pid: int) -> list[int]:
    """Process ids of all that descend from `pid`, less those that end while they are looked for."""
    found = []
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            for child in map(int, (task / "children").read_text().split()):
                found += [child, *descendants(child)]
    return found


def wait_for_family(pid: int, name: str) -> list[int]:
    """The same, once one of them is called `name`, or begins so."""
    end = time.monotonic() + LIMIT_S
    found = descendants(pid)
    while not any(_name(one).startswith(name) for one in found):
        found = descendants(pid)
        assert time.monotonic() < end
        time.sleep(0.01)  # the pace of looking, as the kernel tells nobody that a process has forked
    return found


def gone(pids: list[int]) -> bool:
    """Whether all processes end within the limit; a zombie whose parent was killed is init's to bury."""
    end = time.monotonic() + 20
    left = list(pids)
    while left and time.monotonic() < end:
        left = [pid for pid in left if (state := _state(pid)) and state != "Z"]
        time.sleep(0.05)  # the pace of looking; the condition above decides
    return not left


def _name(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return ""


def _state(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return ""


@pytest.mark.parametrize(
    ("phase", "program"),
    [("making the x86_64 guest image", ""), ("compiling guest_tests/", ""), ("booting x86_64", "qemu-system")],
)
def test_interrupted_before_the_cases(phase: str, program: str, kernel: Kernel, tmp_path: Path) -> None:
    environment = {"HGM_CACHE": str(tmp_path / "cache")}
    argv = command("--kernel", kernel.image, "--results", tmp_path / "run", *ONE_CASE)
    with started(argv, environment) as process:
        read_until(process, phase)
        family = wait_for_family(process.pid, program)
        process.send_signal(signal.SIGINT)
        assert process.wait(LIMIT_S) == Exit.INTERRUPTED
    assert gone(family)
    again = finish(argv, tmp_path / "run", environment)
    assert again.status == Exit.OK, again.output


def test_interrupted_while_the_kernel_is_built(tmp_path: Path) -> None:
    # A name of its own makes this a kernel that no cache has, and leaves the kept ones alone.
    fragment = tmp_path / "own.config"
    fragment.write_text(f'CONFIG_LOCALVERSION="-interrupted-{os.getpid()}"\n')
    argv = [sys.executable, "-m", "harness", "build", "--stock", "--kconfig", str(fragment)]
    with started(argv, {}) as process:
        read_until(process, "bzImage")
        family = wait_for_family(process.pid, "make")
        process.send_signal(signal.SIGINT)
        assert process.wait(LIMIT_S) == Exit.INTERRUPTED
    assert gone(family)
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == Exit.OK, done.stderr
    assert Path(done.stdout.strip()).exists()


@pytest.mark.parametrize("workers", ["0", "2"])
@pytest.mark.parametrize(("sent", "status"), [(signal.SIGINT, Exit.INTERRUPTED), (signal.SIGTERM, Exit.INTERRUPTED),
                                              (signal.SIGKILL, -signal.SIGKILL)])  # fmt: skip
def test_ended_while_a_case_runs(
    sent: signal.Signals, status: int, workers: str, kernel: Kernel, tmp_path: Path
) -> None:
    programs = ROOT / "tests/guest_programs"
    options = (
        "-v",
        "-n",
        workers,
        "--huge-pages",
        "2M=16",
        "-p",
        "no:cacheprovider",
        "-k",
        "hang and 2M",
        "--kernel",
        kernel.image,
    )
    argv = command("--results", tmp_path / "run", "--kernel", kernel.image, *options, programs)
    with started(argv, {}) as process:
        read_until(process, "faults.c::hang[x86_64-2M]")
        family = wait_for_family(process.pid, "qemu-system")
        process.send_signal(sent)
        assert process.wait(LIMIT_S) == status
    assert gone(family)
    result = read(tmp_path / "run/results.json")
    assert exit_status(result) == Exit.INTERRUPTED and result.not_run == result.selected != []


def test_two_runs_at_once_in_one_cache(kernel: Kernel, tmp_path: Path) -> None:
    environment = {"HGM_CACHE": str(tmp_path / "cache")}
    argv = [command("--kernel", kernel.image, "--results", tmp_path / name, *ONE_CASE) for name in ("a", "b")]
    with started(argv[0], environment) as first:
        second = finish(argv[1], tmp_path / "b", environment)
        first.communicate(timeout=LIMIT_S)
        assert first.returncode == Exit.OK
    assert second.status == Exit.OK, second.output


def test_a_full_disk_is_said_and_leaves_nothing_half(kernel: Kernel, tmp_path: Path) -> None:
    script = 'mount -t tmpfs -o size=8m tmpfs "$0" && HGM_CACHE="$0" "$@"; status=$?; ls -A "$0/images"; exit $status'
    argv = command("--kernel", kernel.image, "--results", tmp_path / "run", *ONE_CASE)
    (tmp_path / "small").mkdir()
    done = finish([*with_mounts(script, tmp_path / "small"), *argv], tmp_path / "run")
    assert done.status == Exit.HOST_FAULT, done.output
    assert "full" in done.output or "no space left" in done.output
    assert not [line for line in done.output.splitlines() if line.startswith((".x86_64-", "x86_64-"))]


def test_a_disk_that_is_full_of_results_is_no_verdict(kernel: Kernel, tmp_path: Path) -> None:
    script = 'mount -t tmpfs -o size=32k tmpfs "$0" && exec "$@"'
    (tmp_path / "run").mkdir()
    argv = command("--kernel", kernel.image, "--results", tmp_path / "run", *ONE_CASE)
    done = finish([*with_mounts(script, tmp_path / "run"), *argv], tmp_path / "run")
    assert done.status == Exit.HOST_FAULT, done.output
    assert "No space left" in done.output and "Traceback" not in done.output and "INTERNALERROR" not in done.output


def test_more_huge_pages_than_the_host_has(tmp_path: Path) -> None:
    ran = harness(tmp_path / "run", "--stock", "-k", "dontneed and 1G", "--huge-pages", "1G=4000")
    assert ran.status == Exit.BAD_INPUT
    assert "the huge pages asked for need 4096000 MiB" in ran.output


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--arch", "sparc"), "unknown architecture 'sparc'"),
        (("--huge-pages", "many"), "'many' is no pool"),
        (("--huge-pages", "2M=16,16M=3"), "there are no pages of 16M"),
        (("--tree", "/nowhere"), "/nowhere"),
        (("--kernel", "/nowhere/bzImage"), "/nowhere/bzImage"),
        (("--series", "/nowhere/series"), "/nowhere/series"),
    ],
)
def test_bad_options(arguments: tuple[str, ...], words: str, tmp_path: Path) -> None:
    ran = harness(tmp_path / "run", "-k", "dontneed and 2M", *arguments)
    assert ran.status == Exit.BAD_INPUT, ran.output
    assert words in ran.output
    assert "Traceback" not in ran.output
