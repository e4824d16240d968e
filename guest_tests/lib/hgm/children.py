# SPDX-License-Identifier: MIT
"""Processes that a case forks, and how the two sides wait for one another."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
from collections.abc import Callable
from typing import NoReturn

from hgm.memory import libc
from hgm.verdicts import Skip, explain, fail, note


class Child:
    """A forked process that runs `body` and dies with its parent. What it expects in vain fails the case at join."""

    def __init__(self, body: Callable[[Child], None]) -> None:
        sys.stdout.flush()
        mine, theirs = socket.socketpair()
        self.pid = os.fork()
        self._channel = mine if self.pid else theirs
        (theirs if self.pid else mine).close()
        if not self.pid:
            _run_child(lambda: body(self))

    def tell(self) -> None:
        """Let the other side go on from its wait."""
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # the wait or join that follows says why
            self._channel.send(b".")

    def wait(self) -> None:
        """Wait for the other side's tell."""
        with contextlib.suppress(ConnectionResetError):
            if self._channel.recv(1):
                return
        if self.pid:
            self.join()
        fail("the other process ended before its time")

    def join(self) -> None:
        """Wait for the end of the child, which must be a good one."""
        _, status = os.waitpid(self.pid, 0)
        self._channel.close()
        if os.WIFSIGNALED(status):
            number = os.WTERMSIG(status)
            fail(f"a child was killed by signal {number} ({signal.strsignal(number)})")
        if os.WEXITSTATUS(status):
            fail(f"a child failed (exit status {os.WEXITSTATUS(status)})")


def _run_child(body: Callable[[], None]) -> NoReturn:
    code = 1
    try:
        if libc.prctl(1, signal.SIGKILL, 0, 0, 0):  # PR_SET_PDEATHSIG
            fail("prctl")
        body()
        code = 0
    except Skip as error:
        note(f"a child cannot skip the case: {error}")
    except BaseException as error:
        explain(error)
    finally:
        sys.stdout.flush()
        os._exit(code)
