# SPDX-License-Identifier: MIT
"""External commands fail in their own words, and leave nothing behind."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from harness.errors import HostFault
from harness.process import end_group, run, tail


def test_output_and_input() -> None:
    done = run(["sh", "-c", "cat; echo err >&2; exit 3"], stdin=b"in", check=False)
    assert (done.returncode, done.stdout, done.stderr) == (3, "in", "err\n")


def test_the_command_is_shown_unless_quiet(capsys: pytest.CaptureFixture[str]) -> None:
    run(["true", "a b"])
    run(["true", "hidden"], quiet=True)
    assert capsys.readouterr().err == "hgm: $ true 'a b'\n"


def test_missing_program() -> None:
    with pytest.raises(HostFault, match="no-such-program is not there") as caught:
        run(["no-such-program"])
    assert "doctor" in caught.value.hint


def test_failure_carries_status_words_and_command() -> None:
    with pytest.raises(HostFault, match="sh ended with status 7\nwhy") as caught:
        run(["sh", "-c", "echo why >&2; exit 7"])
    assert "sh -c 'echo why >&2; exit 7'" in caught.value.hint


def test_death_by_signal_is_named() -> None:
    with pytest.raises(HostFault, match="was killed by SIGKILL"):
        run(["sh", "-c", "kill -KILL $$"])


def test_a_full_disk_is_named() -> None:
    with pytest.raises(HostFault) as caught:
        run(["dd", "if=/dev/zero", "of=/dev/full", "bs=1", "count=1"])
    assert "the disk is full" in caught.value.hint


def test_log_takes_both_streams(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("before\n")
    done = run(["sh", "-c", "echo out; echo err >&2"], log=log)
    assert log.read_text() == "before\nout\nerr\n" == done.stdout
    with pytest.raises(HostFault) as caught:
        run(["false"], log=log)
    assert str(log) in caught.value.hint


def test_interrupt_ends_the_whole_group(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    # The grandchild holds the pipe open: it reads as ended once nobody of the group is left.
    script = f"""
from harness.process import run
try:
    run(["sh", "-c", "sleep 1000 > {fifo} & exec 3> {fifo}; echo up >&3; wait"])
except KeyboardInterrupt:
    print("interrupted")
"""
    child = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    with fifo.open() as pipe:
        assert pipe.readline() == "up\n"
        child.send_signal(signal.SIGINT)
        assert child.communicate(timeout=20)[0] == b"interrupted\n"
        assert select.select([pipe], [], [], 20)[0], "somebody of the group lives on"
        assert pipe.read() == ""


def test_missing_working_directory_is_named(tmp_path: Path) -> None:
    with pytest.raises(HostFault, match="nowhere is not there"):
        run(["true"], cwd=tmp_path / "nowhere")


def test_end_group_is_firm_with_those_who_ignore_it() -> None:
    words = ["sh", "-c", "trap '' TERM; echo up; while :; do sleep 1000; done"]
    stubborn = subprocess.Popen(words, stdout=subprocess.PIPE, start_new_session=True)
    assert stubborn.stdout
    assert stubborn.stdout.readline() == b"up\n"
    end_group(stubborn, grace_s=0.1)
    assert stubborn.returncode == -signal.SIGKILL
    assert stubborn.stdout.read() == b""
    stubborn.stdout.close()
    end_group(stubborn)  # a second time is harmless


def test_tail() -> None:
    assert tail("a\nb\nc\n\n", 2) == "b\nc"
