# SPDX-License-Identifier: MIT
"""JUnit, KTAP and KCIDB from the one result model: every status as what it is, and nothing cut short looks green."""

from __future__ import annotations

import importlib
import json
import re
import sys
import xml.etree.ElementTree as ET
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from harness.guest.ktap import Point, parse
from harness.kernel.repo import KernelRepo
from harness.kernel.source import SourceSpec, resolve
from harness.report import files, junit, kcidb, ktap
from harness.report.results import RED, Fault, RunResult, Status
from tests.extra import module
from tests.runs import KERNEL, case, every_status, run

JUNIT = {
    "pass": None, "fail": "failure", "crash": "error", "hang": "error", "error": "error", "skip": "skipped",
    "flaky": "failure", "xfail": "skipped", "xpass": "failure",
}  # fmt: skip
KTAP = {"pass": "pass", "skip": "skip", "xfail": "xfail"}  # the others fail
KCIDB = {
    "pass": "PASS", "fail": "FAIL", "crash": "FAIL", "hang": "ERROR", "error": "ERROR", "skip": "SKIP",
    "flaky": "FAIL", "xfail": "FAIL", "xpass": "PASS",
}  # fmt: skip

CUT = {
    "fault": run(case("x"), fault=Fault(exit_code=10, message="no guest\ncomes up")),
    "interrupt": run(case("x"), interrupted=True),
    "unfinished": run(case("x"), finished=""),
    "not run": run(case("x"), not_run=[case("y", arch="arm64").id]),
    "no kernel": run(fault=Fault(exit_code=12, message="it does not build"), not_run=[case("x").id]),
    "nothing": run(fault=Fault(exit_code=11, message="the disk is full")),
}


def suites(result: RunResult) -> dict[str, ET.Element]:
    return {suite.get("name", ""): suite for suite in ET.fromstring(junit.document(result))}


def properties(element: ET.Element) -> dict[str, str | None]:
    return {one.get("name", ""): one.get("value") for one in element.findall("properties/property")}


def test_junit_has_each_status() -> None:
    for arch, suite in suites(every_status()).items():
        for element in suite.findall("testcase"):
            status = element.get("name", "").partition("[")[0]
            outcomes = [child for child in element if child.tag in ("failure", "error", "skipped")]
            assert [child.tag for child in outcomes] == ([JUNIT[status]] if JUNIT[status] else [])
            assert all(child.get("type") == status and child.get("message") for child in outcomes)
        assert (suite.get("tests"), suite.get("failures"), suite.get("errors")) == (str(len(Status)), "3", "3"), arch
        assert suite.get("skipped") == "2"


def test_junit_says_what_was_tested_of_suites_and_of_cases() -> None:
    suite = suites(run(case("x"), shard="1/2"))["x86_64"]
    element = suite.find("testcase")
    assert element is not None
    assert element.get("classname") == "guest_tests.fork.a"
    for known in (properties(suite), properties(element)):
        assert known["kernel_release"] == KERNEL["release"] and known["kernel_config_sha256"] == KERNEL["config_sha256"]
        assert known["series"] == "mm: first; mm: second, # and <more>"
        assert (known["architecture"], known["accelerator"], known["image"]) == ("x86_64", "tcg", "i1")
        assert str(known["qemu"]).startswith("QEMU")
    assert properties(suite)["shard"] == "1/2"


def test_junit_holds_what_xml_cannot() -> None:
    crash = suites(run(case("x", "crash")))["x86_64"].find("testcase/error")
    assert crash is not None and crash.text is not None
    assert "#x1B[1mhere#x00" in crash.text and "]]> & <" in crash.text
    assert junit.legal("a\ud800b\ufffe\U0001f600") == "a#xD800b#xFFFE\U0001f600"


def test_junit_keeps_every_attempt() -> None:
    text = suites(run(case("x", "flaky")))["x86_64"].findtext("testcase/system-out")
    assert text == "time 1: fail, 1.000 s: not ok: x\ntime 2: pass, 2.000 s"


@pytest.mark.parametrize("name", CUT)
def test_what_was_cut_short_is_red_everywhere(name: str) -> None:
    result = CUT[name]
    root = ET.fromstring(junit.document(result))
    assert int(root.get("errors", "0")) > 0
    run_case = suites(result)["run"].find("testcase/error")
    assert run_case is not None and run_case.get("message")
    stream = parse(ktap.document(result))
    assert stream.status == "fail", stream
    assert "MISS" in [test["status"] for test in kcidb.document(result)["tests"]]


def test_a_shard_without_a_case_is_no_error() -> None:
    result = run(shard="3/3", dealt=[case("x").id])
    assert parse(ktap.document(result)).status == "skip"
    assert ET.fromstring(junit.document(result)).get("tests") == "0"
    assert kcidb.document(result)["tests"] == []


def leaves(points: list[Point]) -> list[Point]:
    return [leaf for point in points for leaf in (leaves(point.points) if point.points else [point])]


def test_a_pass_after_it_does_not_hide_a_failure() -> None:
    stream = parse(ktap.document(run(case("a", "fail"), case("b"), case("c", arch="arm64"))))
    assert (stream.problems, [point.status for point in stream.points]) == ([], ["fail", "pass"])


def test_ktap_is_nested_and_has_each_status() -> None:
    text = ktap.document(every_status())
    assert "    not ok 4 hang[x86_64-2M] # TIMEOUT did not end within 5 s\n" in text
    stream = parse(text)
    assert stream.problems == []
    assert [point.name for point in stream.points] == ["x86_64", "arm64-64k"]
    assert [program.name for program in stream.points[0].points] == ["guest_tests/fork/a.c"]
    for point in leaves(stream.points):
        status = point.name.partition("[")[0]
        assert point.status == KTAP.get(status, "fail"), point
        assert (point.status == "fail") == (Status(status) in RED)
    assert next(point.text for point in leaves(stream.points) if point.status == "skip") == (
        "not applicable: there is # no machine"
    )
    assert "hang[x86_64-2M]: deadline: did not end within 5 s" in stream.diagnostics


def test_the_kernels_own_tool_reads_the_ktap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = tmp_path / "kunit"
    KernelRepo.open().materialize(f"{resolve(SourceSpec()).tree}:tools/testing/kunit", place)
    monkeypatch.syspath_prepend(place)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    for name in ("kunit_parser", "kunit_printer"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    reader = importlib.import_module("kunit_parser")

    def read(result: RunResult) -> Any:
        return reader.parse_run_tests(ktap.document(result).splitlines())

    test = read(every_status())
    counts = test.counts
    # It takes the expected failure for a pass, as it knows no such thing; an error is a failure to it.
    assert (counts.passed, counts.failed, counts.skipped, counts.crashed, counts.errors) == (4, 12, 2, 0, 0)
    assert test.status.name == "FAILURE"
    assert read(run(case("x"), case("y", "skip"))).status.name == "SUCCESS"
    assert all(read(result).status.name == "FAILURE" for result in CUT.values())


def test_kcidb_has_each_status_and_one_build_per_architecture() -> None:
    report = kcidb.document(every_status())
    assert [build["architecture"] for build in report["builds"]] == ["x86_64", "arm64"]
    assert len(report["checkouts"]) == 1  # both are of one tree
    for test in report["tests"]:
        status = test["path"].split(".")[3]
        assert (test["status"], test["path"]) == (KCIDB[status], f"hgm.fork.a_c.{status}.2M")
    assert len({test["id"] for test in report["tests"]}) == 2 * len(Status)


def test_a_hang_of_which_the_kernel_says_why_is_its_failure() -> None:
    hang = case("x", "hang")
    assert kcidb.document(run(hang))["tests"][0]["status"] == "ERROR"
    crash = case("y", "crash").findings
    known = replace(hang, findings=(*hang.findings, *crash))
    assert kcidb.document(run(known))["tests"][0]["status"] == "FAIL"


def test_kcidb_is_the_same_each_time_and_another_for_another_run() -> None:
    first, again = kcidb.text(every_status()), kcidb.text(every_status())
    assert first == again
    ids = {test["id"] for test in json.loads(first)["tests"]}
    later = kcidb.document(replace(every_status(), started="2026-01-02T00:00:00+00:00"))
    assert not ids & {test["id"] for test in later["tests"]}


def test_a_kernel_that_does_not_build_is_a_failed_build() -> None:
    (build,) = kcidb.document(CUT["no kernel"])["builds"]
    assert (build["status"], build["log_excerpt"]) == ("FAIL", "it does not build")
    (build,) = kcidb.document(CUT["nothing"])["builds"]
    assert build["status"] == "MISS"


def test_a_commit_is_only_named_if_it_is_one() -> None:
    kernel = KERNEL | {"commit": "a" * 40}
    assert "git_commit_hash" not in kcidb.document(run(case("x")))["checkouts"][0]
    result = run(case("x"), kernels={"x86_64": kernel})
    assert kcidb.document(result)["checkouts"][0]["git_commit_hash"] == "a" * 40


@pytest.mark.parametrize("result", [every_status(), *CUT.values()])
def test_kcidb_is_valid(result: RunResult) -> None:
    schema = module("kcidb_io").schema
    report = kcidb.document(result)
    assert schema.V5_3.validate(report) == report
    assert re.fullmatch(r"hgm:[0-9a-f]{32}", report["tests"][0]["id"])


def test_a_case_without_a_size_and_a_program_without_a_file() -> None:
    name = "kselftest/mm/hugetlb-madvise/second [of two][arm64-64k]"
    result = run(case("x", "fail", "arm64-64k", id=name, huge_page_size=0))
    element = suites(result)["arm64-64k"].find("testcase")
    assert element is not None and "huge_page_size" not in properties(element)
    assert (element.get("classname"), element.get("name")) == (
        "kselftest.mm.hugetlb-madvise", "second [of two][arm64-64k]",
    )  # fmt: skip
    (point,) = parse(ktap.document(result)).points[0].points
    assert (point.name, point.points[0].status) == ("kselftest/mm/hugetlb-madvise", "fail")
    (test,) = kcidb.document(result)["tests"]
    assert test["path"] == "hgm.kselftest.mm.hugetlb-madvise.second__of_two_"
    assert module("kcidb_io").schema.V5_3.validate(kcidb.document(result))


def test_every_report_lies_in_the_directory(tmp_path: Path) -> None:
    files.write(tmp_path, every_status())
    assert {"results.json", "junit.xml", "run.ktap", "kcidb.json"} <= {path.name for path in tmp_path.iterdir()}
    ET.parse(tmp_path / "junit.xml")
    json.loads((tmp_path / "kcidb.json").read_text())
