# SPDX-License-Identifier: MIT
"""Ctrl-C and SIGTERM: both end a run alike, are never lost, and never come while a child is half started."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM)

_came: list[int] = []


def _interrupt(number: int, _: FrameType | None) -> None:
    _came.append(number)
    raise KeyboardInterrupt(signal.Signals(number).name)


@contextlib.contextmanager
def handled() -> Iterator[None]:
    """Raise KeyboardInterrupt for Ctrl-C and SIGTERM within the block, which the main thread runs.

    A shell's `&` starts its jobs with SIGINT ignored, which Python leaves so: here it is heard again.
    """
    _came.clear()
    before = {number: signal.signal(number, _interrupt) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def raise_lost() -> None:
    """Raise the KeyboardInterrupt again that has come before, if one has and the caller lives on nevertheless.

    An exception that a handler raises is lost where Python can hand it to nobody, as in a destructor, or where a
    library's own clean-up fails because of it and raises something else.
    """
    if _came:
        raise KeyboardInterrupt(signal.Signals(_came[0]).name)


@contextlib.contextmanager
def held() -> Iterator[None]:
    """Hold interrupts back until the block has ended.

    A command runs in a session of its own as soon as it is forked, but only once Popen has returned is it known whom
    to end: an interrupt between the two would leave it running for good.
    """
    handlers = {number: signal.getsignal(number) for number in SIGNALS}
    # Other threads are never interrupted; and where a signal is ignored, the command shall inherit that.
    ours = [number for number, handler in handlers.items() if handler in (_interrupt, signal.default_int_handler)]
    if threading.current_thread() is not threading.main_thread():
        ours = []
    waiting: list[int] = []
    for number in ours:
        signal.signal(number, lambda number, _: waiting.append(number))
    try:
        yield
    finally:
        for number in ours:
            signal.signal(number, handlers[number])
        if waiting:
            signal.raise_signal(waiting[0])
