# SPDX-License-Identifier: MIT
"""How a case ends, what it expects, and the words in which it says what it saw instead."""

from __future__ import annotations

import errno
import math
import os
import sys
import traceback
from pathlib import Path
from typing import NoReturn

# How long a thread or a message may take: far above what an emulated machine needs, and stretched by HGM_SLOWNESS as
# the harness's deadlines are.
PATIENCE_S = math.ceil(40 * float(os.environ.get("HGM_SLOWNESS") or 1))


class Failure(Exception):
    """Something was not as expected."""


class Skip(Exception):
    """The case is not about this kernel or machine."""


def fail(message: str) -> NoReturn:
    """End the case as failed."""
    raise Failure(message)


def skip(reason: str) -> NoReturn:
    """End the case as skipped."""
    raise Skip(reason)


def note(text: str) -> None:
    """Print a diagnostic line."""
    print("\n".join(f"# {line}" for line in text.splitlines()), flush=True)


def expect(condition: bool, what: str) -> None:
    """Fail unless `condition`; `what` says what should hold."""
    if not condition:
        fail(f"{what}: expected true, saw false")


def expect_eq(what: str, seen: object, expected: object) -> None:
    """Fail unless both are equal."""
    if seen != expected:
        fail(f"{what}: expected {expected!r}, saw {seen!r}")


def expect_errno(what: str, seen: int, expected: int) -> None:
    """Fail unless a call gave this errno; 0 is success."""
    if seen != expected:
        fail(f"{what}: expected {error_name(expected)}, saw {error_name(seen)}")


def error_name(number: int) -> str:
    """The name of an errno."""
    return errno.errorcode.get(number, f"errno {number}") if number else "success"


def size_name(size: int) -> str:
    """The short name of a page size, such as 2M."""
    for shift, letter in ((30, "G"), (20, "M")):
        if size >= 1 << shift:
            return f"{size >> shift}{letter}"
    return f"{size >> 10}K"


def size_of(name: str) -> int:
    """The page size that `size_name` names."""
    return int(name[:-1]) << {"G": 30, "M": 20, "K": 10}[name[-1]]


def explain(error: BaseException) -> None:
    """Print where in the case's program it failed, and why; for what is no Failure, all of it."""
    frames = traceback.extract_tb(error.__traceback__)
    program = Path(sys.argv[0]).resolve()
    ours = [frame for frame in frames if Path(frame.filename).resolve() == program]
    place = f"{program.name}:{ours[-1].lineno}: " if ours else ""
    if isinstance(error, Failure):
        note(f"{place}{error}")
    else:
        note(f"{place}{''.join(traceback.format_exception(error)).rstrip()}")
