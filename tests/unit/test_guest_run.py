# SPDX-License-Identifier: MIT
"""Running a case, less the machine: how long a program is waited for, and what a guest must answer."""

from __future__ import annotations

import math
import re
import socket
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from harness.arch import X86_64
from harness.deadline import Deadline
from harness.errors import GuestFault
from harness.guest.build import Bundle
from harness.guest.cases import known_cases
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


class Scripted:
    """A machine whose guest says late words, runs a case that asks for page tables, and has a huge page less then."""

    alive, halted = True, False
    spec = SimpleNamespace(accelerator=SimpleNamespace(slowness=1.0), pools=(), arch=X86_64)

    def __init__(self, directory: Path, *, heard: bool) -> None:
        self.console, self.ssh, self.qmp = directory / "console", self, self
        self.questions, self.guest = socket.socketpair()
        self._text, self._heard = "", heard

    def run(self, command: str, *_: Any, **__: Any) -> Outcome:
        told = POOLS
        if match := re.search("hgm: (begin|end) .*?(?=')", command):
            self._text += "[ 1.0] late\n" if match[1] == "begin" else "[ 1.2] words\n"
            self._text += f"[ 1.1] {match[0]}\n"
            told = POOLS.replace(":8", ":7")
        if "the case" in command:
            told = "KTAP version 1\nok 1 a\n"
            self.guest.sendall(b"shape abc 1000 1000 200000\n")
            self.guest.recv(1000)
        return Outcome(end=End.EXITED, status=0, stdout=told.encode(), stderr=b"", seconds=0.0)

    def monitor(self, command: str) -> str:
        raise GuestFault("gone")

    def console_size(self) -> int:
        return len(self._text)

    def console_since(self, start: int = 0, end: int | None = None) -> str:
        return self._text[start:end]

    def wait_console(self, words: str, position: int, patience: Deadline) -> bool:
        return self._heard and words in self._text[position:]


@pytest.mark.parametrize("heard", [True, False])
def test_all_that_is_seen_of_a_case_is_handed_over(heard: bool, tmp_path: Path) -> None:
    machine = Scripted(tmp_path, heard=heard)
    with machine.questions, machine.guest:
        guest = Guest(cast(Machine, machine), cast(Bundle, None))
        seen = guest.observe("a", "the case", Deadline(5), tmp_path, spoils=True)
    assert (seen.earlier, seen.log, seen.log_complete) == ("[ 1.0] late\n", "[ 1.2] words\n", heard)
    assert seen.unseen == ("gone",)
    assert seen.ktap.problems == ["no plan"]
    assert (seen.before.pools, seen.after) == ({2 << 20: {"nr": 8}}, guest.state)
    assert guest.state.pools == {2 << 20: {"nr": 7}}


def test_a_case_is_told_how_much_longer_it_may_wait(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    case = next(case for case in known_cases() if case.name == "no_reader_left_asleep")
    spec = SimpleNamespace(accelerator=SimpleNamespace(slowness=24.0, factor=3.0), pools=())
    woken = Outcome(end=End.EXITED, status=0, stdout=POOLS.encode(), stderr=b"", seconds=0.0)
    machine = SimpleNamespace(
        spec=spec, ssh=SimpleNamespace(run=lambda *_, **__: woken), console_size=lambda: 0, console_since=lambda: ""
    )
    guest = Guest(cast(Machine, machine), cast(Bundle, SimpleNamespace(commands={case.program: "./holes"})))
    seen: list[Any] = []
    monkeypatch.setattr(
        guest, "observe", lambda _, command, deadline, *__, **___: seen.extend((command, deadline.left))
    )
    guest.run(case, 2 << 20, tmp_path)
    assert " HGM_SLOWNESS=3 ./holes --case no_reader_left_asleep " in seen[0]
    assert seen[1] == pytest.approx(case.deadline_s * 24, abs=60)
