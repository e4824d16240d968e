# SPDX-License-Identifier: MIT
"""What a terminal and the reports show of findings that are alike."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from harness.report import github, html, junit, kcidb, ktap
from harness.report.results import CaseResult, Finding, RunResult, Status, distinct
from harness.report.text import failures
from harness.running import evidence
from harness.verdict.fingerprint import known
from tests.samples import NO_FILES, run


def splat(title: str) -> Finding:
    return known(Finding(kind="splat", message=f"oops: {title}", evidence=f"{title}\npage: refcount:0"))


def case(*findings: Finding) -> CaseResult:
    return CaseResult(
        id="guest_tests/compat/numa.c::soft_offline_whole[x86_64-2M]", category="compat", arch="x86_64",
        huge_page_size=2 << 20, claim="", status=Status.CRASH, findings=findings,
    )  # fmt: skip


BAD = [splat(f"BUG: Bad page state in process numa  pfn:05a4{number}") for number in range(4)]
OTHER = splat("BUG: Bad page map in process numa  pte:8000000012345 pmd:12345678")
NOT_OK = [Finding(kind="ktap", message=f"not ok: {name}") for name in ("one", "two")]


def test_complaints_that_are_alike_are_told_once_and_counted() -> None:
    told = evidence(case(BAD[0], NOT_OK[0], *BAD[1:3], OTHER, NOT_OK[1], BAD[3]), Path("results"))
    assert told.splitlines()[2:-1] == [
        f"- {BAD[0].message} (and 3 more like it)",
        *(f"    {line}" for line in BAD[0].evidence.splitlines()),
        "- not ok: one",
        f"- {OTHER.message}",
        *(f"    {line}" for line in OTHER.evidence.splitlines()),
        "- not ok: two",
    ]


def test_a_report_tells_them_once_too() -> None:
    assert failures(run([case(*BAD)]))[1:] == [f"- {BAD[0].message} (and 3 more like it)"]


@pytest.mark.parametrize(
    "written",
    [
        lambda result: html.render(result, NO_FILES),
        junit.document,
        ktap.document,
        lambda result: json.dumps(kcidb.document(result)),
        lambda result: "\n".join(github.errors(result)),
    ],
    ids=["html", "junit", "ktap", "kcidb", "github"],
)
def test_so_does_each_format(written: Callable[[RunResult], str]) -> None:
    text = written(run([case(*BAD)], kernels={"x86_64": {"release": "6.12.117-hgm"}}))
    assert "and 3 more like it" in text
    assert not [one.message for one in BAD[1:] if one.message in text]


def test_what_has_no_fingerprint_is_like_nothing_else() -> None:
    bare = Finding(kind="splat", message="oops: BUG: a")
    assert distinct([*NOT_OK, bare, bare, *NOT_OK]) == [*NOT_OK, bare, bare, *NOT_OK]
