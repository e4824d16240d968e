# SPDX-License-Identifier: MIT
"""What can go wrong, by whose fault, and the exit code of each.

A message says what happened and the value that mattered; a hint says what to do about it.
"""

from __future__ import annotations

from enum import IntEnum


class Exit(IntEnum):
    """Exit codes of `./hgm` and of pytest under the plugin; 0 to 5 are pytest's own."""

    OK = 0
    TESTS_FAILED = 1
    INTERRUPTED = 2
    OUR_FAULT = 3  # pytest's internal error, and any other that the harness did not expect
    BAD_INPUT = 4  # pytest's usage error
    NO_TESTS = 5
    GUEST_FAULT = 10
    HOST_FAULT = 11
    BUILD_FAILED = 12


class HarnessError(Exception):
    """Root of all errors that end in one clear message instead of a traceback."""

    exit_code = Exit.HOST_FAULT

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}\n  hint: {self.hint}" if self.hint else self.message


class BadInput(HarnessError):
    """The user asked for something that cannot be: a typo, a tree that is no kernel, a wrong image."""

    exit_code = Exit.BAD_INPUT


class HostFault(HarnessError):
    """This machine cannot do it: a program is missing, the disk is full, QEMU does not start."""

    exit_code = Exit.HOST_FAULT


class GuestFault(HarnessError):
    """The guest did not do its part: it does not boot, or ssh to it broke."""

    exit_code = Exit.GUEST_FAULT
