# SPDX-License-Identifier: MIT
"""JUnit's XML: a suite per architecture, a test case per case, and the run itself as one if it was cut short."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from collections.abc import Iterable

from harness.arch import size_name
from harness.report.results import CaseResult, RunResult, Status, distinct
from harness.report.whole import NOT_RUN, arch_of, cut_short, facts, split

# Element and type of each status; readers know failures (the kernel's or the case's) and errors (nobody could tell).
_OUTCOME = {
    Status.PASS: None,
    Status.FAIL: "failure",
    Status.FLAKY: "failure",
    Status.XPASS: "failure",
    Status.CRASH: "error",
    Status.HANG: "error",
    Status.ERROR: "error",
    Status.SKIP: "skipped",
    Status.XFAIL: "skipped",
}
_ILLEGAL = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")  # in XML 1.0


def document(result: RunResult) -> str:
    """Return the whole file as text."""
    root = ET.Element("testsuites", name="hgm")
    for arch in dict.fromkeys([*result.kernels, *(case.arch for case in result.cases), *map(arch_of, result.not_run)]):
        suite = _suite(root, arch, result, facts(result, arch))
        for case in result.cases:
            if case.arch == arch:
                suite.append(_case(case, facts(result, arch)))
        for name in result.not_run:
            if arch_of(name) == arch:
                suite.append(_error(name, "not run", f"{NOT_RUN}: {cut_short(result)}", facts(result, arch)))
        _count(suite)
    if reason := cut_short(result):
        suite = _suite(root, "run", result, {})
        suite.append(_error("run", "cut short", reason, {}))
        _count(suite)
    for name in ("tests", "failures", "errors", "skipped"):
        root.set(name, str(sum(int(suite.get(name, "0")) for suite in root)))
    root.set("time", f"{sum(float(suite.get('time', '0')) for suite in root):.3f}")
    ET.indent(root)
    return ET.tostring(root, encoding="unicode", xml_declaration=False).join(
        ('<?xml version="1.0" encoding="UTF-8"?>\n', "\n")
    )


def legal(text: str) -> str:
    """Return `text` with each character that XML cannot hold told by its number."""
    return _ILLEGAL.sub(lambda found: f"#x{ord(found[0]):02X}", text)


def _suite(root: ET.Element, name: str, result: RunResult, known: dict[str, str]) -> ET.Element:
    # XML's dateTime has no offset in the schema that is widely used; the model's is UTC.
    suite = ET.SubElement(root, "testsuite", name=name, timestamp=result.started[:19])
    more = {"command": " ".join(result.command), "harness": result.harness, "shard": result.shard}
    _properties(suite, known | {key: value for key, value in more.items() if value})
    return suite


def _count(suite: ET.Element) -> None:
    cases = suite.findall("testcase")
    suite.set("tests", str(len(cases)))
    for attribute, tag in (("failures", "failure"), ("errors", "error"), ("skipped", "skipped")):
        suite.set(attribute, str(sum(case.find(tag) is not None for case in cases)))
    suite.set("time", f"{sum(float(case.get('time', '0')) for case in cases):.3f}")


def _case(case: CaseResult, known: dict[str, str]) -> ET.Element:
    element = _element(case.id, case.seconds)
    own = {"claim": case.claim, "category": case.category}
    own |= {"huge_page_size": size_name(case.huge_page_size)} if case.huge_page_size else {}
    _properties(element, known | own | {"status": case.status, "directory": case.directory})
    if tag := _OUTCOME[case.status]:
        message = case.reason or "; ".join(finding.message for finding in distinct(case.findings)) or case.status
        if case.status is Status.XFAIL:
            message = f"failed as expected {message}"
        outcome = ET.SubElement(element, tag, message=legal(message), type=str(case.status))
        if tag != "skipped":
            outcome.text = legal("\n".join(_words(case)))
    if case.diagnostics or case.attempts:
        ET.SubElement(element, "system-out").text = legal("\n".join([*_attempts(case), *case.diagnostics]))
    return element


def _words(case: CaseResult) -> Iterable[str]:
    yield f"claim: {case.claim}"
    for finding in distinct(case.findings):
        yield finding.message
        yield from finding.evidence.splitlines()


def _attempts(case: CaseResult) -> Iterable[str]:
    for number, attempt in enumerate(case.attempts, start=1):
        said = "; ".join(finding.message for finding in distinct(attempt.findings)) or attempt.reason
        yield f"time {number}: {attempt.status}, {attempt.seconds:.3f} s" + (f": {said}" if said else "")
        yield from (f"  {line}" for line in attempt.diagnostics)


def _error(case_id: str, kind: str, message: str, known: dict[str, str]) -> ET.Element:
    element = _element(case_id, 0)
    _properties(element, known)
    ET.SubElement(element, "error", message=legal(message), type=kind)
    return element


def _element(case_id: str, seconds: float) -> ET.Element:
    # As pytest names them, so that the history of a CI engine goes on whichever of the two files it reads.
    path, name = split(case_id)
    classname = re.sub(r"\.(?:c|py)$", "", path).replace("/", ".")
    return ET.Element("testcase", classname=legal(classname), name=legal(name), time=f"{seconds:.3f}")


def _properties(parent: ET.Element, known: dict[str, str]) -> None:
    if known:
        properties = ET.SubElement(parent, "properties")
        for name, value in known.items():
            ET.SubElement(properties, "property", name=name, value=legal(value))
