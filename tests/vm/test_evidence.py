# SPDX-License-Identifier: MIT
"""Kernels that hang or crash in several ways: what comes back of them, within which time, and who can open it."""

from __future__ import annotations

import os
import pty
import re
import select
import shlex
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import drgn
import pytest
from drgn.helpers.linux.pid import for_each_task

from harness import accel
from harness.arch import ARM64, X86_64, Arch
from harness.errors import Exit
from harness.guest.run import PARTING_SECONDS
from harness.pagetable.gdb import Stub
from harness.paths import ROOT
from harness.vm import evidence
from tests.vm.conftest import Ran, command, harness

PROGRAM = ROOT / "tests/hangs/guest_programs/hangs.c"
USUAL = ("--no-rerun", "--huge-pages", "2M=16", PROGRAM)
ARCHES = (X86_64, ARM64)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[Arch, Ran]:
    place = tmp_path_factory.mktemp("evidence")
    return {arch: harness(place / arch.name, "--arch", arch.name, "--dump-memory", *USUAL) for arch in ARCHES}


def case_of(ran: Ran, arch: Arch, name: str) -> dict[str, Any]:
    return ran.cases()[f"{name}[{arch.name}-2M]"]


def files(ran: Ran, arch: Arch, name: str) -> Path:
    place = ran.output.rpartition("results: ")[2].splitlines()[0]
    return Path(place) / str(case_of(ran, arch, name)["directory"])


def said(case: dict[str, Any]) -> str:
    return "\n".join(f"{finding['message']}\n{finding['evidence']}" for finding in case["findings"])


def line_of(function: str, kernel: str = r"drivers/misc/lkdtm/bugs\.c") -> str:
    """A pattern: the function with its line of source, a path in the kernel's tree."""
    return rf"\b{function}\+0x[0-9a-f]+/0x[0-9a-f]+ \((?:[\w/.-]+:\d+ )*{kernel}:\d+\)"


@pytest.mark.parametrize("arch", ARCHES, ids=lambda arch: arch.name)
def test_a_blocked_task_is_shown_where_it_waits(runs: dict[Arch, Ran], arch: Arch) -> None:
    case = case_of(runs[arch], arch, "blocked")
    assert case["status"] == "hang", runs[arch].output
    assert re.search(r"blocked tasks:\n(?:.*\n)*?task:hangs ", said(case))
    assert re.search(line_of("lkdtm_HUNG_TASK"), said(case))
    text = (files(runs[arch], arch, "blocked") / "hang.txt").read_text()
    positions = [text.index(f"sysrq {letter}: ") for letter in "wtml"]
    assert positions == sorted(positions)
    assert "no answer" not in text and "Mem-Info" in text


@pytest.mark.parametrize("arch", ARCHES, ids=lambda arch: arch.name)
def test_a_program_that_has_said_all_on_a_crashed_kernel_is_not_waited_for(runs: dict[Arch, Ran], arch: Arch) -> None:
    case = case_of(runs[arch], arch, "undead")
    assert case["status"] == "crash", runs[arch].output
    waited = re.search(r"did not end within (\d+) s", said(case))
    # It would have a minute by itself, and half of its parting time is not over.
    assert waited and int(waited[1]) < PARTING_SECONDS / 2 * accel.choose(arch).slowness


@pytest.mark.parametrize("arch", ARCHES, ids=lambda arch: arch.name)
def test_without_ssh_the_serial_line_tells(runs: dict[Arch, Ran], arch: Arch) -> None:
    case = case_of(runs[arch], arch, "deaf")
    assert case["status"] == "hang", runs[arch].output
    # The other processor is stuck with interrupts off, and yet its stack is there.
    assert re.search(r"CPU 1: call trace, read from outside:\n  pc " + line_of("lkdtm_HARDLOCKUP"), said(case))
    text = (files(runs[arch], arch, "deaf") / "hang.txt").read_text()
    assert all(f"sysrq {letter}: " in text for letter in "wtml") and "over ssh" not in text


@pytest.mark.parametrize("arch", ARCHES, ids=lambda arch: arch.name)
def test_a_dead_kernel_is_looked_at_from_outside(runs: dict[Arch, Ran], arch: Arch) -> None:
    case = case_of(runs[arch], arch, "dead")
    assert case["status"] == "hang", runs[arch].output
    for cpu in (0, 1):
        assert re.search(rf"CPU {cpu}: call trace, read from outside:\n  pc {line_of('lkdtm_HARDLOCKUP')}", said(case))
    text = (files(runs[arch], arch, "dead") / "hang.txt").read_text()
    for cpu in (0, 1):
        registers = text.partition(f"== registers of CPU {cpu} ==")[2]
        assert re.search(rf"\b{arch.pc} ?=ffff[0-9a-f]{{12}}\b", registers), text
    for way in ("the serial line", "ssh"):
        assert re.search(rf"sysrq w, t, m, l over {way}: no answer within \d+\.\d s", text)
    nmi = text.partition("== NMI ==")[2].partition("== registers")[0]
    if arch.nmi:
        assert "Kernel panic - not syncing: NMI" in nmi and re.search(line_of("lkdtm_HARDLOCKUP"), nmi)
    else:
        assert not nmi


@pytest.mark.parametrize("arch", ARCHES, ids=lambda arch: arch.name)
def test_a_panic_has_lines_of_source(runs: dict[Arch, Ran], arch: Arch) -> None:
    case = case_of(runs[arch], arch, "panic")
    assert case["status"] == "crash", runs[arch].output
    assert re.search(line_of("lkdtm_do_action", r"drivers/misc/lkdtm/core\.c"), said(case))
    assert not (files(runs[arch], arch, "panic") / "hang.txt").exists()


@pytest.mark.parametrize("arch", ARCHES, ids=lambda arch: arch.name)
@pytest.mark.parametrize(("name", "function"), [("blocked", "lkdtm_HUNG_TASK"), ("panic", "lkdtm_PANIC")])
def test_drgn_opens_the_memory(runs: dict[Arch, Ran], arch: Arch, name: str, function: str) -> None:
    path = files(runs[arch], arch, name) / "memory.dump"
    assert path.stat().st_blocks * 512 < 400 << 20
    told = runs[arch].results["kernels"][arch.name]
    program = drgn.Program()
    program.set_core_dump(path)
    program.load_debug_info([told["vmlinux"]])
    assert program["init_uts_ns"].name.release.string_().decode() == told["release"]
    (task,) = (task for task in for_each_task(program) if task.comm.string_() == b"hangs")
    frames = [frame.name for frame in program.stack_trace(task)]
    assert function in frames, frames


@pytest.mark.parametrize("arch", ARCHES, ids=lambda arch: arch.name)
def test_evidence_is_bounded_in_time(arch: Arch, runs: dict[Arch, Ran]) -> None:
    """The kernel that tells nothing costs the most: all waits to their end."""
    text = (files(runs[arch], arch, "dead") / "hang.txt").read_text()
    waited = sum(float(seconds) for seconds in re.findall(r"no answer within (\d+\.\d) s", text))
    assert waited <= evidence.SECONDS * accel.choose(arch).slowness


def wait_for(master: int, words: str, seconds: float) -> str:
    """All that a terminal shows until `words` are among it."""
    text, end = "", time.monotonic() + seconds
    while words not in text:
        left = end - time.monotonic()
        assert left > 0 and select.select([master], [], [], left)[0], text
        text += os.read(master, 1 << 16).decode(errors="replace")
    return text


def test_a_failed_cases_guest_waits_for_its_user(tmp_path: Path) -> None:
    argv = command("--results", tmp_path / "run", "-p", "no:cacheprovider", "--pause-on-failure", *USUAL, "-k", "panic")
    pid, master = pty.fork()
    if pid == 0:
        os.chdir(ROOT)
        os.execv(sys.executable, argv)
    try:
        shown = wait_for(master, "Enter goes on", 600).replace("\r\n", "\n")
        assert "its guest has ended, and stands still" in shown and "ssh:" not in shown
        registers = gdb(shown)
        assert registers.isalnum()
        os.write(master, b"\n")
        _, status = os.waitpid(pid, 0)
        assert os.waitstatus_to_exitcode(status) == Exit.TESTS_FAILED
    finally:
        os.close(master)


def gdb(shown: str) -> str:
    """Ask the stub that is named for the registers, as gdb would."""
    words = shlex.split(re.findall(r"gdb: +(.*)", shown)[0])
    assert words[0] == "gdb" and Path(words[1]).name == "vmlinux" and Path(words[1]).exists()
    with Stub(Path(words[3].removeprefix("target remote ")), 30) as stub:
        return stub.ask("g")


def test_without_a_terminal_the_end_of_the_guest_ends_the_wait(tmp_path: Path) -> None:
    argv = command(
        "--results", tmp_path / "run", "-p", "no:cacheprovider", "--pause-on-failure", *USUAL, "-k", "blocked"
    )
    process = subprocess.Popen(
        argv, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        start_new_session=True,
    )  # fmt: skip
    shown = ""
    with process:
        assert process.stdout
        for line in process.stdout:
            shown += line
            if "no terminal to ask" in line:
                break
        ssh = shlex.split(re.findall(r"ssh: +(.*)", shown)[0])
        assert Path(ssh[ssh.index("-i") + 1]).stat().st_mode & 0o077 == 0
        with socket.create_connection(("127.0.0.1", int(ssh[ssh.index("-p") + 1])), timeout=60) as connection:
            assert connection.recv(8).startswith(b"SSH-2.0")
        if shutil.which("ssh"):  # the harness itself does without
            assert subprocess.run([*ssh, "true"], timeout=120).returncode == 0
        assert "blocked" in Path(shlex.split(re.findall(r"console: +(.*)", shown)[0])[-1]).read_text()
        os.kill(int(re.findall(r"kill (\d+) ends the guest", shown)[0]), 9)
        shown += process.stdout.read()
    assert process.returncode == Exit.TESTS_FAILED, shown


def test_a_pause_is_for_one_guest(tmp_path: Path) -> None:
    ran = harness(tmp_path / "run", "--pause-on-failure", "-n", "2", *USUAL)
    assert ran.status == Exit.BAD_INPUT and "-n runs several" in ran.output
