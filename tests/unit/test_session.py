# SPDX-License-Identifier: MIT
"""Which guest a case gets: as fresh a one as asked for, and never one in which a case failed or took pages for good."""

from __future__ import annotations

import contextlib
import datetime
import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from harness.arch import X86_64
from harness.errors import GuestFault
from harness.guest import ktap
from harness.guest.cases import Case
from harness.guest.run import Guest
from harness.guest.state import State
from harness.report.results import RunResult, Status
from harness.session import Run
from harness.supply import Fresh, Supply
from harness.verdict.expected import Expected
from harness.verdict.judge import Observation
from harness.vm.command import VmSpec
from harness.vm.ssh import End, Outcome

SIZE = 2 << 20
FULL = State(tainted=0, debug_locks=1, pools={SIZE: {"nr": 4, "free": 4}})
LESS = State(tainted=0, debug_locks=1, pools={SIZE: {"nr": 4, "free": 3}})


class FakeGuest:
    """A guest in which every case ends as told, with a huge page less."""

    def __init__(self, line: str, status: int) -> None:
        self.machine = SimpleNamespace(alive=True)
        self._stdout, self._status = f"KTAP version 1\n1..1\n{line}\n", status

    def run(self, case: Case, huge_page_size: int, directory: Path) -> Observation:
        assert huge_page_size == SIZE
        outcome = Outcome(end=End.EXITED, status=self._status, stdout=self._stdout.encode(), stderr=b"", seconds=1)
        after = FULL if "SKIP" in self._stdout else LESS
        return Observation(
            outcome=outcome, ktap=ktap.parse(self._stdout), log="", before=FULL, after=after, spoils=case.spoils
        )


class FakeSupply(Supply):
    """A supply of fakes."""

    guest: FakeGuest

    def _booted(self, stack: contextlib.ExitStack) -> Guest:
        self.boot_seconds.append(1.0)
        return cast(Guest, self.guest)


def make_run(directory: Path, guest: FakeGuest, **options: Any) -> tuple[Run, FakeSupply]:
    """A run whose guest is a fake."""
    anything: Any = None
    spec = VmSpec(arch=X86_64, accelerator=anything, kernel=Path("k"), image=anything, pools=())
    supply = FakeSupply(spec=spec, bundle=anything, fresh=Fresh.RUN, directory=directory)
    supply.guest = guest
    result = RunResult(started="", command=[])
    given = {"expect_hgm": False} | options
    run = Run(request=anything, huge_pages="", directory=directory, result=result, **given)
    run._supplies[X86_64.name], run._kernels[X86_64.name] = supply, anything
    return run, supply


def run_twice(directory: Path, case: Case, line: str, status: int) -> tuple[list[Status], int]:
    """The statuses of a case that is run twice, and how many guests it took."""
    run, supply = make_run(directory, FakeGuest(line, status))
    return [run.run(case, X86_64, SIZE, "a").status for _ in range(2)], len(supply.boot_seconds)


CASE = Case(program=Path("a.c"), line=1, name="a", claim="x", needs_hgm=False)
PASS = ("ok 1 a", 0)
SKIP = ("ok 1 a # SKIP not applicable", 4)


@pytest.mark.parametrize(
    ("spoils", "outcome", "expected"),
    [
        (True, PASS, ([Status.PASS, Status.PASS], 2)),
        (True, SKIP, ([Status.SKIP, Status.SKIP], 1)),  # it has taken nothing
        (False, SKIP, ([Status.SKIP, Status.SKIP], 1)),
        (False, PASS, ([Status.FAIL, Status.FAIL], 2)),  # a loss that is not announced is a leak
    ],
)
def test_a_case_that_spoils_its_guest_is_its_last(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    spoils: bool,
    outcome: tuple[str, int],
    expected: tuple[list[Status], int],
) -> None:
    monkeypatch.setenv("HGM_CACHE", str(tmp_path))
    case = Case(program=Path("compat/poison.c"), line=1, name="a", claim="x", needs_hgm=False, spoils=spoils)
    assert run_twice(tmp_path, case, *outcome) == expected


@pytest.mark.parametrize(("fresh", "guests"), [(Fresh.TEST, 4), (Fresh.FILE, 3), (Fresh.RUN, 1)])
def test_how_fresh_guests_are(tmp_path: Path, fresh: Fresh, guests: int) -> None:
    anything: Any = None
    supply = FakeSupply(spec=anything, bundle=anything, fresh=fresh, directory=tmp_path)
    supply.guest = FakeGuest(*PASS)
    for program in ("a.c", "a.c", "b.c", "a.c"):
        supply.take(Case(program=Path(program), line=1, name="a", claim="x", needs_hgm=False))
    assert len(supply.boot_seconds) == guests


def test_a_guest_that_has_died_is_not_used_again(tmp_path: Path) -> None:
    anything: Any = None
    supply = FakeSupply(spec=anything, bundle=anything, fresh=Fresh.RUN, directory=tmp_path)
    supply.guest = FakeGuest(*PASS)
    supply.take(CASE)
    supply.guest.machine.alive = False
    supply.take(CASE)
    assert len(supply.boot_seconds) == 2


@pytest.mark.parametrize("cloned", [True, False])
@pytest.mark.parametrize("listed", [True, False])
@pytest.mark.parametrize("complains", [True, False])
def test_a_kernel_that_complains_while_it_boots_is_not_trusted_unless_that_is_expected(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, complains: bool, listed: bool, cloned: bool
) -> None:
    log = "[ 0.1] WARNING: CPU: 0 PID: 1 at mm/hugetlb.c:1 hugetlb_init+0x1/0x2\n" if complains else "[ 0.1] fine\n"
    booted = SimpleNamespace(ready_seconds=1.0)
    guest = SimpleNamespace(machine=booted, boot_log=log)
    monkeypatch.setattr("harness.supply.machine.booted", lambda *_: contextlib.nullcontext(booted))
    monkeypatch.setattr("harness.supply.Guest", lambda *_, **__: guest)
    monkeypatch.setattr("harness.supply.template.prepare", lambda *_: SimpleNamespace(fresh=False, console=log))
    anything: Any = None
    accelerator: Any = SimpleNamespace(name="tcg")
    spec = VmSpec(arch=X86_64, accelerator=accelerator, kernel=Path("k"), image=anything, pools=())
    entry = Expected(
        case="boot[x86_64]",
        reason="known",
        revisit=datetime.date.max,
        finding=re.compile("hugetlb_init"),
        kernel="6.12.*",
    )
    supply = Supply(
        spec=spec, bundle=anything, fresh=Fresh.RUN, directory=tmp_path, expected=(entry,) * listed, release="6.12.1"
    )
    with (
        pytest.raises(GuestFault, match="complains while it boots")
        if complains and not listed
        else contextlib.nullcontext()
    ):
        supply.prepare() if cloned else supply.take(CASE)
        assert len(supply.notes) == listed


class Moody(FakeGuest):
    """A guest in which a case comes to each of some ends in turn, and loses no huge page."""

    def __init__(self, *lines: str) -> None:
        super().__init__("", 0)
        self._lines = list(lines)

    def run(self, case: Case, huge_page_size: int, directory: Path) -> Observation:
        self._stdout = f"KTAP version 1\n1..1\n{self._lines.pop(0)}\n"
        self._status = {"ok": 0, "no": 1}[self._stdout.split("\n")[2][:2]]
        return replace(super().run(case, huge_page_size, directory), after=FULL)


@pytest.mark.parametrize(
    ("options", "lines", "expected"),
    [
        ({"rerun": True}, ["ok 1 a"], ("pass", [])),
        ({"rerun": True}, ["not ok 1 a", "ok 1 a"], ("flaky", ["fail", "pass"])),
        ({"rerun": True}, ["not ok 1 a", "not ok 1 a"], ("fail", ["fail", "fail"])),
        ({}, ["not ok 1 a"], ("fail", [])),
        ({"repeat": 3, "rerun": True}, ["ok 1 a", "not ok 1 a", "ok 1 a"], ("flaky", ["pass", "fail", "pass"])),
        ({"repeat": 3, "rerun": True}, ["ok 1 a"] * 3, ("pass", ["pass"] * 3)),
    ],
)
def test_repeats_and_the_one_rerun(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    options: dict[str, Any],
    lines: list[str],
    expected: tuple[str, list[str]],
) -> None:
    monkeypatch.setenv("HGM_CACHE", str(tmp_path))
    guest = Moody(*lines)
    run, _ = make_run(tmp_path / "run", guest, **options)
    result = run.run(CASE, X86_64, SIZE, "a")
    assert (result.status, [one.status for one in result.attempts]) == expected
    assert not guest._lines
    # The files of every attempt are kept.
    directories = [one.directory for one in result.attempts or (result,)]
    assert len(set(directories)) == len(lines)
    assert all((tmp_path / "run" / name / "ktap.txt").exists() for name in directories)


def test_a_kernel_without_hgm_is_no_matter_of_chance(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HGM_CACHE", str(tmp_path))
    run, _ = make_run(tmp_path, FakeGuest("ok 1 a # SKIP kernel has no HGM", 4), expect_hgm=True, rerun=True)
    result = run.run(CASE, X86_64, SIZE, "a")
    assert (result.status, [one.kind for one in result.findings]) == (Status.FAIL, ["expect-hgm"])
    assert result.attempts == ()


def test_a_failure_of_the_list_is_an_expected_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HGM_CACHE", str(tmp_path))
    entry = Expected(case="a", reason="known", revisit=datetime.date.max, finding=re.compile(""))
    run, _ = make_run(tmp_path, Moody("not ok 1 a"), expected=(entry,))
    assert run.run(CASE, X86_64, SIZE, "a").status is Status.XFAIL


def test_what_was_seen_on_a_changed_template_does_not_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HGM_CACHE", str(tmp_path))
    genuine = [False, True]
    monkeypatch.setattr(FakeSupply, "genuine", property(lambda _: genuine.pop(0)))
    run, supply = make_run(tmp_path, Moody("not ok 1 a", "ok 1 a"))
    assert run.run(CASE, X86_64, SIZE, "a").status is Status.PASS
    assert len(supply.boot_seconds) == 2
