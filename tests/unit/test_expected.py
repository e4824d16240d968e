# SPDX-License-Identifier: MIT
"""The list of expected failures: what it turns green, what it must not, and when it holds no more."""

from __future__ import annotations

import datetime
import os
from dataclasses import replace
from pathlib import Path

import pytest

from harness.errors import BadInput
from harness.report.results import CaseResult, Finding, Status, together
from harness.verdict import splats
from harness.verdict.expected import apply, at_boot, read

CASE = "guest_tests/fork/tables.c::lazy[x86_64-2M]"
ENTRY = """
[[expected]]
case = "guest_tests/fork/*[x86_64-*]"
reason = "under discussion"
revisit = 2027-01-31
"""
DAY = datetime.date(2026, 12, 24)


def result(status: Status, *messages: str, case: str = CASE) -> CaseResult:
    findings = tuple(Finding(kind="ktap", message=message) for message in messages)
    return CaseResult(
        id=case, category="fork", arch="x86_64", huge_page_size=2 << 20, claim="", status=status, findings=findings
    )


def as_listed(
    tmp_path: Path, text: str, case: CaseResult, *, release: str = "6.1.1", today: datetime.date = DAY
) -> CaseResult:
    path = tmp_path / "expected.toml"
    path.write_text(text)
    return apply(case, read(path), release=release, today=today)


@pytest.mark.parametrize("status", [Status.FAIL, Status.CRASH, Status.HANG, Status.FLAKY])
def test_a_failure_on_the_list_is_expected_and_says_why(status: Status, tmp_path: Path) -> None:
    seen = as_listed(tmp_path, ENTRY, result(status, "not ok: lazy"))
    assert (seen.status, seen.reason, seen.red) == (Status.XFAIL, "until 2027-01-31: under discussion", False)
    assert seen.findings


@pytest.mark.parametrize("status", [Status.ERROR, Status.SKIP])
def test_what_could_not_be_told_is_never_expected(status: Status, tmp_path: Path) -> None:
    assert as_listed(tmp_path, ENTRY, result(status, "lost")).status is status


def test_a_pass_of_a_listed_case_is_reported_and_red(tmp_path: Path) -> None:
    seen = as_listed(tmp_path, ENTRY, result(Status.PASS))
    assert (seen.status, seen.red) == (Status.XPASS, True)
    assert "under discussion" in seen.reason


def test_another_case_another_finding_or_another_kernel_is_not_expected(tmp_path: Path) -> None:
    failed = result(Status.FAIL, "not ok: lazy")
    other = result(Status.FAIL, "not ok: lazy", case=CASE.replace("x86_64-2M", "arm64-2M"))
    assert as_listed(tmp_path, ENTRY, other).status is Status.FAIL
    assert as_listed(tmp_path, ENTRY + 'finding = "Oops"\n', failed).status is Status.FAIL
    assert as_listed(tmp_path, ENTRY + 'finding = "^not ok: l"\n', failed).status is Status.XFAIL
    assert as_listed(tmp_path, ENTRY + 'kernel = "6.6.*"\n', failed).status is Status.FAIL
    assert as_listed(tmp_path, ENTRY + 'kernel = "6.1.*"\n', failed).status is Status.XFAIL


def test_an_entry_of_one_finding_expects_no_other_beside_it(tmp_path: Path) -> None:
    entry = ENTRY + 'finding = "^not ok: l"\n'
    own, leak = Finding(kind="ktap", message="not ok: lazy"), Finding(kind="leak", message="huge pages are not back")
    taint = Finding(kind="taint", message="the kernel's taint changed from 0 to 512")

    def seen(*attempts: tuple[Status, tuple[Finding, ...]]) -> Status:
        return as_listed(tmp_path, entry, together([replace(result(s), findings=f) for s, f in attempts])).status

    assert seen((Status.FAIL, (own, taint))) is Status.XFAIL
    assert seen((Status.FAIL, (own, leak))) is Status.FAIL
    assert seen((Status.FAIL, (taint,))) is Status.FAIL
    assert seen((Status.FAIL, (own,)), (Status.PASS, ())) is Status.XFAIL
    assert seen((Status.FAIL, (own,)), (Status.FAIL, (own, leak))) is Status.FAIL


@pytest.mark.parametrize("other", [Status.PASS, Status.FAIL])
def test_a_run_in_which_one_attempt_could_not_be_told_is_not_expected(other: Status, tmp_path: Path) -> None:
    both = together([result(Status.ERROR, "lost"), result(other, "not ok: lazy")])
    assert as_listed(tmp_path, ENTRY, both).red


def test_from_its_day_on_an_entry_expects_nothing(tmp_path: Path) -> None:
    day = datetime.date(2027, 1, 31)
    seen = as_listed(tmp_path, ENTRY, result(Status.FAIL, "not ok: lazy"), today=day)
    assert seen.status is Status.FAIL
    assert "2027-01-31, which has come" in seen.findings[-1].message


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[[expected]\n", "is no TOML"),
        ("a = " + "[" * 100_000, "is no TOML"),
        ("[[expcted]]\ncase = 'a'\n", "has expcted"),
        (ENTRY.replace("reason", "why"), "why is not known"),
        (ENTRY.replace("2027-01-31", "'soon'"), "revisit is 'soon'"),
        (ENTRY.replace('"under discussion"', '""'), "reason is ''"),
        (ENTRY + "finding = '['\n", "no regular expression"),
    ],
)
def test_a_list_that_is_wrong_is_refused_by_entry(text: str, words: str, tmp_path: Path) -> None:
    with pytest.raises(BadInput) as error:
        as_listed(tmp_path, text, result(Status.FAIL))
    assert words in str(error.value)
    assert "expected.toml" in str(error.value)


def test_a_list_that_is_not_there_is_bad_input(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="cannot be read"):
        read(tmp_path / "none.toml")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(BadInput, match="pipe is not a file"):
        read(tmp_path / "pipe")


WARNS = "[ 0.6] WARNING: CPU: 1 PID: 25 at ../src/mm/hugetlb_vmemmap.c:223 vmemmap_remap_pte+0x6e/0x2a0\n"
OOPSES = "[ 0.7] BUG: Bad page state in process init  pfn:00001\n"
BOOT = """
[[expected]]
case = "boot[x86_64]"
reason = "under discussion"
finding = "vmemmap_remap_pte"
kernel = "6.12.*"
revisit = 2027-01-31
"""


@pytest.mark.parametrize(
    ("log", "arch", "release", "day", "strange", "said"),
    [
        (WARNS, "x86_64", "6.12.117-hgm", DAY, 0, ["complains while it boots, as is expected until 2027-01-31: under"]),
        (WARNS + OOPSES, "x86_64", "6.12.117-hgm", DAY, 1, ["complains while it boots"]),
        ("", "x86_64", "6.12.117-hgm", DAY, 0, ["boots without what is expected"]),
        (WARNS, "arm64", "6.12.117-hgm", DAY, 1, []),
        (WARNS, "x86_64", "6.1.192-hgm", DAY, 1, []),
        (WARNS, "x86_64", "6.12.117-hgm", datetime.date(2027, 1, 31), 1, []),
    ],
)
def test_a_complaint_at_boot_may_be_on_the_list(
    tmp_path: Path, log: str, arch: str, release: str, day: datetime.date, strange: int, said: list[str]
) -> None:
    (tmp_path / "expected.toml").write_text(BOOT)
    entries = read(tmp_path / "expected.toml")
    left, notes = at_boot(splats.find(log), entries, arch=arch, release=release, today=day)
    assert len(left) == strange
    assert [note for note, words in zip(notes, said, strict=True) if words in note] == notes


def test_an_entry_of_all_cases_trusts_no_boot(tmp_path: Path) -> None:
    (tmp_path / "expected.toml").write_text(BOOT.replace("boot[x86_64]", "*"))
    left, notes = at_boot(
        splats.find(WARNS), read(tmp_path / "expected.toml"), arch="x86_64", release="6.12.117-hgm", today=DAY
    )
    assert (len(left), notes) == (1, [])
