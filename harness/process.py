# SPDX-License-Identifier: MIT
"""External commands: shown before they run, killed as a whole group, and failing with their own words."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from harness import interrupts
from harness.errors import HostFault

TAIL_LINES = 20


def say(text: str) -> None:
    """Print one progress line of the harness to stderr, so that stdout stays the result's."""
    print(f"hgm: {text}", file=sys.stderr, flush=True)


def tail(text: str, lines: int = TAIL_LINES) -> str:
    """Return the last `lines` lines of `text`."""
    return "\n".join(text.rstrip().splitlines()[-lines:])


def run(
    argv: Sequence[str | os.PathLike[str]],
    *,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    stdin: bytes | None = None,
    log: Path | None = None,
    check: bool = True,
    quiet: bool = False,
) -> subprocess.CompletedProcess[str]:
    """Run one command to its end and return its output as text.

    The command gets a session of its own, so that an interrupt reaches it exactly once: from here, to the whole
    group. With `log`, stdout and stderr go to that file and the result's `stdout` is the file's text.

    Raises HostFault if the program is missing, or, with `check`, if it fails; the message carries the exit status
    or signal, the end of the output, and the command to type.
    """
    words = [os.fspath(a) for a in argv]
    if not quiet:
        say("$ " + shlex.join(words))
    sink = log.open("ab") if log else None
    process = None
    try:
        with interrupts.held():
            process = subprocess.Popen(
                words,
                cwd=cwd,
                env=dict(env) if env is not None else None,
                stdin=subprocess.PIPE if stdin is not None else subprocess.DEVNULL,
                stdout=sink or subprocess.PIPE,
                stderr=subprocess.STDOUT if sink else subprocess.PIPE,
                start_new_session=True,
            )
        out, err = process.communicate(stdin)
    except FileNotFoundError as error:
        raise HostFault(
            f"{error.filename or words[0]} is not there: {error.strerror}", hint="./hgm doctor tells what is missing"
        ) from error
    except BaseException:
        if process:
            end_group(process)
        raise
    finally:
        if sink:
            sink.close()
    if log:
        out, err = log.read_bytes(), b""
    text, errors = out.decode(errors="replace"), err.decode(errors="replace")
    if check and process.returncode:
        status = process.returncode
        how = f"was killed by {signal.Signals(-status).name}" if status < 0 else f"ended with status {status}"
        message = f"{words[0]} {how}\n{tail(errors or text)}"
        if "No space left on device" in errors + text:
            raise HostFault(message, hint=f"the disk is full (working directory {cwd or Path.cwd()})")
        raise HostFault(message, hint=f"the command was: {shlex.join(words)}" + (f"; its log: {log}" if log else ""))
    return subprocess.CompletedProcess(words, process.returncode, text, errors)


def end_group(process: subprocess.Popen[bytes], grace_s: float = 3.0) -> None:
    """End a process started in a session of its own, and everything in its group: politely, then by force."""
    for kill in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, kill)
        except ProcessLookupError:
            break
        try:
            process.wait(grace_s)
        except subprocess.TimeoutExpired:
            continue
    process.wait()
