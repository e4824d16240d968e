# SPDX-License-Identifier: MIT
"""Which guest a case gets: as fresh a one as asked for, and never one in which a case failed or took pages for good."""

from __future__ import annotations

import contextlib
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from harness.arch import X86_64
from harness.guest import ktap
from harness.guest.cases import Case
from harness.guest.run import Guest
from harness.guest.state import State
from harness.report.results import RunResult, Status
from harness.session import Run
from harness.supply import Fresh, Supply
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

    def run(self, case: Case, huge_page_size: int) -> Observation:
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


def run_twice(directory: Path, case: Case, line: str, status: int) -> tuple[list[Status], int]:
    """The statuses of a case that is run twice, and how many guests it took."""
    anything: Any = None
    result = RunResult(started="", command=[])
    spec = VmSpec(arch=X86_64, accelerator=anything, kernel=Path("k"), image=anything, pools=())
    supply = FakeSupply(spec=spec, bundle=anything, fresh=Fresh.RUN, directory=directory)
    supply.guest = FakeGuest(line, status)
    run = Run(request=anything, huge_pages="", expect_hgm=False, directory=directory, result=result)
    run._supplies[X86_64.name] = supply
    return [run.run(case, X86_64, SIZE, "a").status for _ in range(2)], len(supply.boot_seconds)


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
