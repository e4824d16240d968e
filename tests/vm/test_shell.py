# SPDX-License-Identifier: MIT
"""`./hgm shell`: a command in a guest, a shell on a terminal, and pictures of another process's huge pages."""

from __future__ import annotations

import os
import pty
import subprocess
import sys

import pytest

from harness.paths import ROOT

SHELL = (sys.executable, "-P", "-m", "harness", "shell")
# Maps some pieces, sleeps in a system call, is looked at, and must then come to its end as if nothing had been.
LOOKED_AT = """
cat > /tmp/pieces.py <<'END'
import mmap, os, hgm
context = hgm.Context(huge=2 << 20, base=mmap.PAGESIZE, hgm=True)
area = hgm.Area(context, 1)
area.continue_(0, 16 * context.base)
area.continue_(40 * context.base, context.base)
open("/tmp/ready", "w").close()
assert os.read(0, 5) == b"go on"
area.expect_pieces()
print("as it was")
END
mkfifo /tmp/orders
python3 -S /tmp/pieces.py < /tmp/orders & pid=$!
exec 3> /tmp/orders
until [ -e /tmp/ready ]; do sleep 0.1; done
./hgm shape --pid $pid && ./hgm shape --pid $pid > /tmp/again || exit 9
printf 'go on' >&3
wait $pid
"""


@pytest.mark.parametrize(("arch", "leaves"), [("x86_64", "4K×16"), ("arm64", "64K×1")])
def test_a_running_process_is_shown_and_goes_on(arch: str, leaves: str) -> None:
    argv = [*SHELL, "--arch", arch, "--", "sh", "-c", LOOKED_AT]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "as it was" in done.stdout
    assert f"2M: {leaves} hole×24 4K×1 hole×471\n" in done.stdout
    assert " 2M: 2M×1\n" in done.stdout  # the alias
    piece = "▒" if arch == "arm64" else "▓"
    assert f"▓▓···{'+'}" in done.stdout and f"{piece} 4K" in done.stdout


def test_the_status_is_the_commands_and_stdin_reaches_it() -> None:
    done = subprocess.run([*SHELL], cwd=ROOT, input="cat /proc/version; exit 7\n", capture_output=True, text=True)
    assert done.returncode == 7
    assert done.stdout.startswith("Linux version 6.1.")


def test_on_a_terminal_the_guest_has_one_too() -> None:
    ours, its = pty.openpty()
    with subprocess.Popen([*SHELL], cwd=ROOT, stdin=its, stdout=its, stderr=subprocess.DEVNULL) as process:
        os.close(its)
        os.write(ours, b"tty; exit 3\n")
        said = b""
        try:
            while piece := os.read(ours, 4096):
                said += piece
        except OSError:
            pass  # how a terminal says that nobody is left at its other end
        assert process.wait() == 3
    os.close(ours)
    assert b"/dev/pts/0" in said


def test_a_process_that_cannot_be_shown_is_told() -> None:
    words = "./hgm shape --pid $$; ./hgm shape --pid 99999; ./hgm shape"
    done = subprocess.run([*SHELL, "--", "sh", "-c", words], cwd=ROOT, capture_output=True, text=True)
    assert "(sh) maps no huge pages" in done.stdout
    assert "process 99999 cannot be looked at: no such process" in done.stderr
    assert "--pid" in done.stderr.splitlines()[-1]


def test_one_guest_is_one_architecture() -> None:
    done = subprocess.run([*SHELL, "--arch", "all"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode != 0 and "a shell is in one guest" in done.stderr
