# SPDX-License-Identifier: MIT
"""The same-failure rule: what is bad, what is good, and what says nothing of a commit."""

from __future__ import annotations

import pytest

from harness.bisect.failure import (
    Failure,
    Judgement,
    Word,
    failure_of,
    judge,
    judge_any,
    runs_needed,
    together,
)
from harness.report.results import CaseResult, Finding, Status
from harness.verdict.fingerprint import fingerprint, known

CASE = "guest_tests/mapcount/partial.c::each_mapping_counts[x86_64-2M]"
NOT_OK = Finding(kind="ktap", message="not ok: each_mapping_counts", evidence="partial.c:23: expected 1, saw 0")
TAINT = Finding(kind="taint", message="the kernel's taint changed from 0 to 512")
LOST = Finding(kind="lost", message="the guest went away while the case ran")


def warning(line: int = 137, cpu: int = 0, function: str = "hugetlbfs_file_mmap", when: str = "") -> Finding:
    title = f"WARNING: CPU: {cpu} PID: {60 + cpu} at ../src/fs/hugetlbfs/inode.c:{line} {function}+0x1a/0x{line:x}"
    text = f"{title}\nCPU: {cpu} PID: 61 Comm: partial\nRIP: 0010:{function}+0x1a/0x150\nCode: 00"
    return Finding(kind="splat", message=f"warning{when}: {title}", evidence=text)


def null_pointer(address: str, function: str) -> Finding:
    title = f"BUG: kernel NULL pointer dereference, address: {address}"
    text = f"{title}\n#PF: supervisor read access in kernel mode\nRIP: 0010:{function}+0x4/0x20\n"
    return Finding(kind="splat", message=f"oops: {title}", evidence=text)


def case(status: Status, *findings: Finding, name: str = CASE, reason: str = "") -> CaseResult:
    return CaseResult(
        id=name, category="mapcount", arch="x86_64", huge_page_size=2 << 20, claim="", status=status,
        findings=tuple(map(known, findings)), reason=reason,
    )  # fmt: skip


def followed(*findings: Finding, status: Status = Status.FAIL) -> Failure:
    found = failure_of(case(status, *findings))
    assert found
    return found


def test_a_splat_is_the_same_on_another_line_cpu_and_offset() -> None:
    assert fingerprint(warning()) == fingerprint(warning(line=999, cpu=3))
    assert fingerprint(warning()) == fingerprint(warning(when=" before this case, after the one before it"))
    assert fingerprint(warning()) == "warning: WARNING: at fs/hugetlbfs/inode.c hugetlbfs_file_mmap"


def test_a_splat_elsewhere_is_another() -> None:
    assert fingerprint(warning()) != fingerprint(warning(function="hugetlb_no_page"))
    one, two = null_pointer("0000000000000008", "page_mapcount"), null_pointer("0000000000000010", "put_page")
    assert fingerprint(one) != fingerprint(two)
    assert fingerprint(one) == fingerprint(null_pointer("00000000deadbeef", "page_mapcount.isra.0"))


@pytest.mark.parametrize(
    ("one", "two"),
    [
        ("BUG: Bad page state in process numa  pfn:05a40", "BUG: Bad page state in process python3  pfn:2c4c3"),
        ("BUG kmalloc-64 (Not tainted): Redzone overwritten", "BUG kmalloc-64 (Tainted: G  B): Redzone overwritten"),
        ("INFO: task numa:71 blocked for more than 30 seconds.", "INFO: task x/1:9 blocked for more than 61 seconds."),
        ("BUG: soft lockup - CPU#1 stuck for 22s! [kworker/1:71]", "BUG: soft lockup - CPU#0 stuck for 9s! [races:7]"),
        ("BUG: scheduling while atomic: swapper/0/1/0x00000002", "BUG: scheduling while atomic: numa/80/0x00000004"),
        ("a: Corrupted page table at address 7f928b707000", "b c: Corrupted page table at address 7f1111707000"),
        ("WARNING: mm/gup.c:7 at follow+0x1/0x2, CPU#0: a/1", "WARNING: mm/gup.c:9 at follow+0x4/0x9, CPU#1: b b/22"),
    ],
)
def test_a_splat_is_the_same_in_another_process_and_on_another_page(one: str, two: str) -> None:
    first, second = (Finding(kind="splat", message=f"oops: {title}", evidence=title) for title in (one, two))
    assert fingerprint(first) == fingerprint(second)


@pytest.mark.parametrize(
    ("one", "two", "same"),
    [
        ("exited with 139: killed by SIGSEGV", "exited with 134: killed by SIGABRT", False),
        ("exited with 139: killed by SIGSEGV", "exited with 139: killed by SIGSEGV", True),
    ],
)
def test_an_exit_status_is_part_of_the_failure(one: str, two: str, same: bool) -> None:
    first, second = (fingerprint(Finding(kind="exit", message=message)) for message in (one, two))
    assert (first == second) is same


def test_a_deadline_is_the_same_after_other_seconds() -> None:
    one, two = (Finding(kind="deadline", message=f"did not end within {seconds} s") for seconds in (60, 180))
    assert fingerprint(one) == fingerprint(two)


def test_what_follows_from_something_else_is_not_followed() -> None:
    assert followed(warning(), NOT_OK, TAINT).kind == "splat"
    assert followed(LOST, NOT_OK).kind == "ktap"
    incomplete = Finding(kind="ktap", message="its KTAP is not complete: plan 1, saw 0")
    leak = Finding(kind="leak", message="huge pages are not back")
    assert followed(incomplete, TAINT, leak).kind == "leak"
    assert followed(TAINT).kind == "taint"


@pytest.mark.parametrize("status", [Status.PASS, Status.SKIP, Status.ERROR])
def test_what_is_no_verdict_on_the_kernel_is_not_followed(status: Status) -> None:
    assert failure_of(case(status, LOST)) is None


@pytest.mark.parametrize(
    ("result", "word", "why"),
    [
        (case(Status.PASS), Word.GOOD, "passes"),
        (case(Status.FAIL, NOT_OK), Word.BAD, "not ok"),
        (case(Status.CRASH, warning(), NOT_OK, TAINT), Word.BAD, "not ok"),
        (case(Status.FAIL, warning(), TAINT), Word.SKIP, "fails otherwise: warning"),
        (case(Status.CRASH, null_pointer("0000000000000000", "page_mapcount"), LOST), Word.SKIP, "fails otherwise"),
        (case(Status.HANG, Finding(kind="deadline", message="did not end within 9 s")), Word.SKIP, "fails otherwise"),
        (case(Status.ERROR, NOT_OK, LOST), Word.SKIP, "could not be told"),
        (case(Status.SKIP, reason="kernel has no HGM"), Word.SKIP, "kernel has no HGM"),
        (case(Status.FAIL, NOT_OK, name="guest_tests/fork/tables.c::x[x86_64-2M]"), Word.SKIP, "was not run"),
    ],
)
def test_only_the_same_failure_is_bad_and_only_a_pass_is_good(result: CaseResult, word: Word, why: str) -> None:
    judgement = judge(followed(NOT_OK), [result])
    assert judgement.word is word
    assert why in judgement.why


def test_a_followed_splat_needs_the_same_splat() -> None:
    found = followed(warning(), NOT_OK, TAINT)
    assert judge(found, [case(Status.FAIL, warning(line=150), TAINT)]).word is Word.BAD
    assert judge(found, [case(Status.FAIL, warning(function="hugetlb_fault"), TAINT)]).word is Word.SKIP
    assert judge(found, [case(Status.FAIL, NOT_OK)]).word is Word.SKIP


@pytest.mark.parametrize("status", [Status.FAIL, Status.CRASH, Status.HANG])
def test_a_verdict_on_the_kernel_is_followed(status: Status) -> None:
    assert followed(NOT_OK, status=status).kind == "ktap"
    assert judge(followed(NOT_OK), [case(status, NOT_OK)]).word is Word.BAD
    assert judge_any([case(Status.PASS), case(status)]).word is Word.BAD


def test_without_a_known_failure_any_is_bad_and_nothing_told_is_not_good() -> None:
    fine, other = case(Status.PASS), "guest_tests/fork/tables.c::x[x86_64-2M]"
    assert judge_any([fine, case(Status.FAIL, NOT_OK, name=other)]).word is Word.BAD
    assert judge_any([fine, case(Status.ERROR, LOST, name=other)]).word is Word.SKIP
    assert judge_any([fine, case(Status.FLAKY, NOT_OK, name=other)]).word is Word.SKIP
    assert judge_any([fine, case(Status.SKIP, name=other)]).word is Word.GOOD
    assert judge_any([case(Status.SKIP, reason="kernel has no HGM")]).word is Word.SKIP
    assert judge_any([]).word is Word.SKIP


def test_of_several_runs_one_bad_is_bad_and_only_all_good_are_good() -> None:
    good, bad, skip = (Judgement(word=word, why="") for word in (Word.GOOD, Word.BAD, Word.SKIP))
    assert together([good, skip, bad]).word is Word.BAD
    assert together([good, skip]).word is Word.SKIP
    assert together([good, good]).word is Word.GOOD


def test_runs_that_a_flaky_failure_needs() -> None:
    assert runs_needed(2, 2) == 1
    assert runs_needed(1, 2) == 5  # 1/2 to the 5th is 3 %, to the 4th 6 %
    assert runs_needed(9, 10) == 2
    assert runs_needed(1, 10) == 29
