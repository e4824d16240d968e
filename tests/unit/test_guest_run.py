# SPDX-License-Identifier: MIT
"""Running a case, less the machine: how long a program is waited for, and what a guest must answer."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any, cast

import pytest

from harness.errors import GuestFault
from harness.guest.build import Bundle
from harness.guest.run import DYING_SECONDS, PARTING_SECONDS, Guest, Patience
from harness.vm.machine import Machine
from harness.vm.ssh import End, Outcome

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


POOLS = "tainted=0\nhugepages-2048kB/nr_hugepages:8\n"


@pytest.mark.parametrize(
    ("woken", "looked", "told", "words"),
    [
        (0, 0, POOLS, ""),
        (None, 0, POOLS, "cannot be given its tests and its time"),
        (0, 2, POOLS, "does not answer"),
        (0, None, POOLS, "does not answer"),
        (0, 1, "tainted=0\n", "state cannot be read"),
    ],
)
def test_a_guest_whose_first_commands_fail_is_none(woken: int, looked: int, told: str, words: str) -> None:
    outcomes = [(woken, ""), (looked, told)]

    def run(*_: Any, **__: Any) -> Outcome:
        status, stdout = outcomes.pop(0)
        return Outcome(end=End.EXITED, status=status, stdout=stdout.encode(), stderr=b"grep: killed", seconds=0.0)

    spec = SimpleNamespace(accelerator=SimpleNamespace(slowness=1.0), pools=())
    machine = SimpleNamespace(spec=spec, ssh=SimpleNamespace(run=run), console_size=lambda: 0, console_since=lambda: "")
    bundle = cast(Bundle, None)
    if not words:
        assert Guest(cast(Machine, machine), bundle).state.pools == {2 << 20: {"nr": 8}}
        return
    with pytest.raises(GuestFault, match=words):
        Guest(cast(Machine, machine), bundle)
