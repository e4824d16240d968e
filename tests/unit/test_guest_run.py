# SPDX-License-Identifier: MIT
"""Running a case, less the machine: how long a program is waited for, and what a guest must answer."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any, cast

import pytest

from harness.guest.run import DYING_SECONDS, PARTING_SECONDS, Patience
from harness.vm.machine import Machine

OOPS = "[   12.5] BUG: kernel NULL pointer dereference, address: 0000000000000010\n"
SCRIPT = b"TAP version 13\n# running ./first\n# [SKIP]\nok 1 first # SKIP\n"


def patience(console: str = "", **options: Any) -> Patience:
    machine = SimpleNamespace(console_size=lambda: len(console), console_since=lambda _: console)
    return Patience(cast(Machine, machine), 0, 1.0, **options)


@pytest.mark.parametrize(
    ("stdout", "console", "seconds"),
    [
        (b"KTAP version 1\n1..1\n", "", math.inf),
        (b"KTAP version 1\n1..1\nok 1 a\n", "", PARTING_SECONDS),
        (b"KTAP version 1\nok 1 a\n", "", math.inf),
        (SCRIPT, "", math.inf),
        (SCRIPT + b"1..1\n", "", PARTING_SECONDS),
        (b"KTAP version 1\n1..1\n", OOPS, PARTING_SECONDS),
        (b"KTAP version 1\n1..1\nnot ok 1 a\n", OOPS, DYING_SECONDS),
    ],
)
def test_a_program_that_has_said_all_is_not_waited_for_to_its_deadline(
    stdout: bytes, console: str, seconds: float
) -> None:
    assert patience(console).left(stdout) == seconds


@pytest.mark.parametrize(("console", "seconds"), [("", math.inf), (OOPS, PARTING_SECONDS)])
def test_what_a_program_within_a_script_has_said_is_not_all(console: str, seconds: float) -> None:
    # In Linux 6.1 the script goes on to others after it, and says nothing that is TAP.
    stdout = b"hgm-kselftest: begin first\nTAP version 13\n1..1\nok 1 a\nhgm-kselftest: end 0\n[PASS]\n"
    assert patience(console, one_stream=False).left(stdout) == seconds
