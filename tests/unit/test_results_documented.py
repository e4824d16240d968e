# SPDX-License-Identifier: MIT
"""docs/results.md has every key of results.json, and says of each status what the reports make of it."""

from __future__ import annotations

import ast
import inspect
import re
import textwrap
from dataclasses import fields

import pytest

from harness.kernel.build import Kernel
from harness.paths import ROOT
from harness.report import junit, kcidb, ktap, whole
from harness.report.compare import Comparison
from harness.report.results import RED, SCHEMA, CaseResult, Fault, Finding, RunResult, Status
from harness.session import Run
from tests.runs import KERNEL, case, run

DOCUMENT = (ROOT / "docs/results.md").read_text()
KEYS = {
    "The run": {"schema", *(item.name for item in fields(RunResult))},
    "A case": {item.name for item in fields(CaseResult)},
    "A finding": {item.name for item in fields(Finding)},
    "A fault": {item.name for item in fields(Fault)},
    "A kernel": {"config_sha256", *(item.name for item in fields(Kernel))},
}


def rows(title: str) -> list[list[str]]:
    section = re.split(r"^#+ ", DOCUMENT.partition(f"# {title}\n")[2], maxsplit=1, flags=re.MULTILINE)[0]
    table = [line for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table[2:]]


@pytest.mark.parametrize("title", KEYS)
def test_every_key_has_a_row(title: str) -> None:
    assert {row[0].strip("`") for row in rows(title)} == KEYS[title]
    for _, kind, since, meaning in rows(title):
        assert kind and meaning and 1 <= int(since) <= SCHEMA


def test_every_key_of_a_machine_has_a_row() -> None:
    tree = ast.parse(textwrap.dedent(inspect.getsource(Run.prepare)))
    (literal,) = (
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign) and "machines" in ast.unparse(node.targets[0])
    )
    assert isinstance(literal, ast.Dict)
    assert [row[0].strip("`") for row in rows("A machine")] == [ast.literal_eval(key) for key in literal.keys if key]


def test_the_version_is_the_one_written() -> None:
    assert f"The schema is version {SCHEMA}," in DOCUMENT


def test_each_status_is_what_the_document_says() -> None:
    *known, missing = rows("Statuses")
    assert [row[0].strip("`") for row in known] == list(Status)
    for name, red, _, in_junit, in_ktap, in_kcidb in known:
        status = Status(name.strip("`"))
        result = run(case("x", status))
        assert (red == "yes") == (status in RED)
        tags = re.findall(r"<(failure|error|skipped) ", junit.document(result))
        assert tags == ([] if in_junit == "-" else [in_junit.strip("`")])
        ok, _, directive = in_ktap.replace("`", "").partition(", ")
        line = next(line for line in ktap.document(result).splitlines() if "ok 1 x[" in line).strip()
        assert line.startswith(f"{ok} 1") and (f"# {directive}" in line if directive else "#" not in line)
        assert kcidb.document(result)["tests"][0]["status"] == in_kcidb.partition("`; ")[0].strip("`")
    assert missing[0] == "no result"


def test_every_property_and_every_group_of_a_comparison_is_named() -> None:
    result = run(case("x"), kernels={"x86_64": KERNEL | {"commit": "a" * 40}})
    for name in whole.facts(result, "x86_64"):
        assert f"`{name}`" in DOCUMENT
    for item in fields(Comparison):
        assert f'"{item.name}"' in DOCUMENT
