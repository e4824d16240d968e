# SPDX-License-Identifier: MIT
"""The verdict: every piece of evidence can turn a case red, and none is needed twice."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from harness.errors import GuestFault
from harness.guest import ktap
from harness.guest.state import COMMAND, State, parse
from harness.report.results import Status
from harness.verdict.judge import Observation, judge
from harness.vm.ssh import End, Outcome

POOLS = {2 << 20: {"nr": 4, "free": 4, "resv": 0, "surplus": 0}}
CLEAN = State(tainted=0, debug_locks=1, pools=POOLS)
PASS = "KTAP version 1\n1..1\nok 1 a\n"
FAIL = "KTAP version 1\n1..1\n# a.c:7: count is 2, expected 1\nnot ok 1 a\n"
SKIP = "KTAP version 1\n1..1\nok 1 a # SKIP kernel has no HGM\n"
WARN = "[ 1.0] WARNING: CPU: 0 PID: 7 at mm/hugetlb.c:1 hugetlb_fault+0x1/0x2\n"
ALLOWED = (Path(__file__).parent / "splats/allowed/dmesg.txt").read_text()
PANIC = "[ 1.0] Kernel panic - not syncing: Fatal exception\n"
OOPS = "[ 1.0] BUG: kernel NULL pointer dereference, address: 0000000000000010\n"
KASAN = "[ 1.0] BUG: KASAN: use-after-free in hugetlb_fault+0x11/0x80\n"


def observe(stdout: str = PASS, status: int | None = 0, end: End = End.EXITED, **rest: Any) -> Observation:
    outcome = Outcome(end=end, status=status, stdout=stdout.encode(), stderr=b"", seconds=1)
    given: dict[str, Any] = {"log": "", "before": CLEAN, "after": CLEAN, **rest}
    return Observation(outcome=outcome, ktap=ktap.parse(stdout), **given)


def pools(**changes: int) -> dict[int, dict[str, int]]:
    return {2 << 20: POOLS[2 << 20] | changes}


def state(**changes: Any) -> State:
    return State(**{"tainted": 0, "debug_locks": 1, "pools": POOLS, **changes})


@pytest.mark.parametrize(
    ("seen", "status", "kinds"),
    [
        (observe(), Status.PASS, []),
        (observe(FAIL, 1), Status.FAIL, ["ktap"]),
        (observe(SKIP, 4), Status.SKIP, []),
        (observe(PASS, 1), Status.FAIL, ["exit"]),
        (observe(FAIL, 0), Status.FAIL, ["ktap", "exit"]),
        (observe(PASS, 4), Status.ERROR, ["exit"]),
        (observe(SKIP, 0), Status.ERROR, ["exit"]),
        (observe(PASS, 139), Status.ERROR, ["exit"]),
        (observe(PASS, 2), Status.ERROR, ["exit"]),
        (observe("", 0), Status.ERROR, ["ktap"]),
        (observe("KTAP version 1\n1..3\nok 1 a\n", 0), Status.ERROR, ["ktap"]),
        (observe(PASS, None, End.DEADLINE, after=None), Status.HANG, ["deadline"]),
        (observe(FAIL, None, End.DEADLINE, after=None), Status.HANG, ["deadline", "ktap"]),
        (observe(FAIL, None, End.LOST, after=None), Status.FAIL, ["lost", "ktap"]),
        (observe(FAIL, None, End.LOST, after=None, log=PANIC), Status.CRASH, ["splat", "lost", "ktap"]),
        (observe(PASS, None, End.DEADLINE, after=None, log=PANIC), Status.CRASH, ["splat", "deadline"]),
        (observe(PASS, None, End.FLOOD, after=None), Status.ERROR, ["flood"]),
        (observe(PASS, None, End.LOST, after=None), Status.ERROR, ["lost"]),
        (observe(PASS, None, End.LOST, after=None, log=PANIC), Status.CRASH, ["splat", "lost"]),
        (observe(log=WARN), Status.FAIL, ["splat"]),
        (observe(earlier=WARN), Status.FAIL, ["splat"]),
        (observe(log=OOPS), Status.CRASH, ["splat"]),
        (observe(log=KASAN), Status.CRASH, ["splat"]),
        (observe(SKIP, 4, log=WARN), Status.FAIL, ["splat"]),
        (observe(after=state(tainted=512)), Status.FAIL, ["taint"]),
        (observe(before=state(tainted=512), after=state(tainted=512 | 128)), Status.FAIL, ["taint"]),
        (observe(after=state(pools=pools(free=3))), Status.FAIL, ["leak"]),
        (observe(after=state(pools=pools(resv=1))), Status.FAIL, ["leak"]),
        (observe(after=state(pools=pools(surplus=1))), Status.FAIL, ["leak"]),
        (observe(after=state(pools=pools(nr=3))), Status.FAIL, ["leak"]),
        (observe(after=state(pools={}), spoils=True), Status.PASS, []),
        (observe(after=state(tainted=512), spoils=True), Status.FAIL, ["taint"]),
        (observe(after=state(pools={})), Status.FAIL, ["leak"]),
        (observe(log=ALLOWED, after=state(tainted=512)), Status.PASS, []),
        (observe(earlier=ALLOWED, after=state(tainted=512)), Status.PASS, []),
        (observe(log=ALLOWED, after=state(tainted=512 | 128)), Status.FAIL, ["taint"]),
        (observe(FAIL, 1, unseen=("no answer",)), Status.ERROR, ["probe"]),
        (observe(FAIL, 1, unseen=("no answer",), log=PANIC), Status.CRASH, ["splat", "probe"]),
        (observe(PASS, 0, unseen=("no answer",)), Status.ERROR, ["probe"]),
        (observe(after=state(debug_locks=0)), Status.ERROR, ["lockdep"]),
        (observe(after=state(debug_locks=None)), Status.ERROR, ["lockdep"]),
        (observe(before=state(debug_locks=0), after=state(debug_locks=0)), Status.ERROR, ["lockdep"]),
        (observe(after=None), Status.ERROR, ["lost"]),
        (observe(log_complete=False), Status.ERROR, ["lost"]),
    ],
)  # fmt: skip
def test_one_verdict_from_all_evidence(seen: Observation, status: Status, kinds: list[str]) -> None:
    verdict = judge(seen, expect_hgm=False)
    assert (verdict.status, [finding.kind for finding in verdict.findings]) == (status, kinds)


def test_a_skip_for_lack_of_hgm_is_a_failure_where_hgm_is_expected() -> None:
    verdict = judge(observe(SKIP, 4), expect_hgm=True)
    assert verdict.status is Status.FAIL
    assert verdict.findings[0].message == "HGM was expected, but the kernel has no HGM"


def test_another_skip_stays_one_where_hgm_is_expected() -> None:
    seen = observe(SKIP.replace("kernel has no HGM", "not applicable: no uffd-wp on arm64"), 4)
    assert judge(seen, expect_hgm=True).status is Status.SKIP


def test_the_leak_names_pool_and_count() -> None:
    verdict = judge(observe(after=state(pools=pools(free=3))), expect_hgm=False)
    assert verdict.findings[0].evidence == "pool 2M: free_hugepages was 4, is 3"


def test_the_state_is_read(tmp_path: Path) -> None:
    counts = {"nr": 4, "free": 3, "resv": 2, "surplus": 1}
    files = {"proc/sys/kernel/tainted": 512, "proc/lockdep_stats": " debug_locks:                    1"}
    files |= {f"sys/kernel/mm/hugepages/hugepages-2048kB/{name}_hugepages": count for name, count in counts.items()}
    for name, value in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(f"{value}\n")
    command = re.sub(r"(?<!\w)/(?=proc/|sys/)", f"{tmp_path}/", COMMAND)
    told = subprocess.run(["sh", "-c", command], check=True, capture_output=True, text=True).stdout
    assert parse(told) == State(tainted=512, debug_locks=1, pools={2 << 20: counts})


@pytest.mark.parametrize("text", ["", "tainted=0\n", "hugepages-2048kB/nr_hugepages:4\n"])
def test_a_state_that_cannot_be_read_is_no_clean_state(text: str) -> None:
    with pytest.raises(GuestFault):
        parse(text)
