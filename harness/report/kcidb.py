# SPDX-License-Identifier: MIT
"""A report for KCIDB, the kernel community's database of test results: its I/O schema version 5.3 (kcidb-io).

All ids follow from the results, so that a report sent twice is one report. Statuses speak of the tested kernel, whoever
expected what: a failure on the list of expected ones is FAIL there, and a pass that is on it is PASS.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from typing import Any

from harness.arch import size_name
from harness.errors import Exit
from harness.report.results import CaseResult, RunResult, Status, distinct
from harness.report.whole import NOT_RUN, arch_of, cut_short, facts, split

ORIGIN = "hgm"
VERSION = {"major": 5, "minor": 3}
EXCERPT = 16384  # characters at most, says the schema

_STATUS = {
    Status.PASS: "PASS",
    Status.XPASS: "PASS",
    Status.FAIL: "FAIL",
    Status.XFAIL: "FAIL",
    Status.FLAKY: "FAIL",
    Status.CRASH: "FAIL",
    Status.HANG: "ERROR",
    Status.ERROR: "ERROR",
    Status.SKIP: "SKIP",
}


def document(result: RunResult) -> dict[str, Any]:
    """Return the report as data for JSON. A case that had not its turn is MISS, and so is a run cut short."""
    report: dict[str, Any] = {"version": VERSION, "checkouts": [], "builds": [], "tests": []}
    reason = cut_short(result)
    lost = [arch for arch in dict.fromkeys(map(arch_of, result.not_run)) if arch not in result.kernels]
    for arch in [*result.kernels, *lost] or ([""] if reason else []):
        checkout, build = _source(result, arch), _build(result, arch)
        if checkout["id"] not in [one["id"] for one in report["checkouts"]]:
            report["checkouts"].append(checkout)
        report["builds"].append(build | {"checkout_id": checkout["id"]})
        report["tests"] += [_test(result, case, build["id"]) for case in result.cases if case.arch == arch]
        report["tests"] += [
            _missed(result, name, _path(name), f"{NOT_RUN}: {reason}", build["id"])
            for name in result.not_run
            if arch_of(name) == arch
        ]
    if reason:
        report["tests"].append(_missed(result, "run", ORIGIN, reason, report["builds"][0]["id"]))
    return report


def text(result: RunResult) -> str:
    """Return the report as text."""
    return json.dumps(document(result), indent=1) + "\n"


def _id(*parts: object) -> str:
    return f"{ORIGIN}:{hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]}"


def _clean(words: object) -> str:
    return str(words).replace("\0", "\N{REPLACEMENT CHARACTER}")


def _source(result: RunResult, arch: str) -> dict[str, Any]:
    kernel = result.kernels.get(arch, {})
    # Equal trees are one checkout; an image built elsewhere has none, and stands for itself.
    known = kernel.get("tree") or kernel.get("key") or [result.started, result.command]
    checkout: dict[str, Any] = {"id": _id("checkout", known), "origin": ORIGIN, "start_time": result.started}
    if not kernel:
        return checkout
    if re.fullmatch(r"[0-9a-f]{40}", str(kernel.get("commit"))):
        checkout["git_commit_hash"] = kernel["commit"]
    checkout["valid"] = True
    checkout["misc"] = {name: kernel.get(name) for name in ("source", "tree") if kernel.get(name)}
    checkout["misc"]["series"] = list(_texts(kernel.get("subjects")))
    return checkout


def _build(result: RunResult, arch: str) -> dict[str, Any]:
    kernel = result.kernels.get(arch, {})
    known = kernel.get("key") or [result.started, result.command]
    build: dict[str, Any] = {"id": _id("build", arch, known), "origin": ORIGIN}
    if re.fullmatch(r"[a-z0-9_]+", machine := arch.partition("-")[0]):
        build["architecture"] = machine
    if kernel:
        build["status"] = "PASS"
        build["config_name"] = _clean(kernel.get("flavour", ""))
        build["compiler"] = _clean(kernel.get("toolchain", ""))
        build["misc"] = {name: kernel.get(name) for name in ("release", "config_sha256", "key") if kernel.get(name)}
        return build
    failed = result.fault is not None and result.fault.exit_code == Exit.BUILD_FAILED
    return build | {"status": "FAIL" if failed else "MISS", "log_excerpt": _clean(cut_short(result))[:EXCERPT]}


def _test(result: RunResult, case: CaseResult, build: str) -> dict[str, Any]:
    status = _STATUS[case.status]
    if status == "ERROR" and any(finding.kind == "splat" for finding in case.findings):
        status = "FAIL"  # it did not end, and the kernel has said why
    test = _common(result, case.id, _path(case.id), status, build) | {"duration": case.seconds}
    lines = [line for finding in distinct(case.findings) for line in (finding.message, *finding.evidence.splitlines())]
    if lines:
        test["log_excerpt"] = _clean("\n".join(lines))[:EXCERPT]
    test["misc"] = {
        "id": case.id,
        "status": str(case.status),
        "claim": case.claim,
        "directory": case.directory,
        "fingerprints": sorted({finding.fingerprint for finding in case.findings if finding.fingerprint}),
        "attempts": [str(attempt.status) for attempt in case.attempts],
    }
    if case.huge_page_size:
        test["misc"]["huge_page_size"] = size_name(case.huge_page_size)
    return test | ({"comment": _clean(case.reason)} if case.reason else {})


def _missed(result: RunResult, name: str, path: str, reason: str, build: str) -> dict[str, Any]:
    return _common(result, name, path, "MISS", build) | {"comment": _clean(reason)}


def _common(result: RunResult, name: str, path: str, status: str, build: str) -> dict[str, Any]:
    known: Mapping[str, str] = facts(result, arch_of(name))
    machine = {key: known[key] for key in ("accelerator", "qemu", "image") if key in known}
    return {
        "id": _id("test", result.started, result.shard, build, name),
        "origin": ORIGIN,
        "build_id": build,
        "path": path,
        "status": status,
        "start_time": result.started,
        "environment": {"misc": machine},
    }


def _path(case_id: str) -> str:
    """Return the place of a case in a tree of tests, which is the same on every architecture."""
    program, name = split(case_id.removeprefix("guest_tests/"))
    case, _, parameters = name.rpartition("[")
    size = parameters.removesuffix("]").removeprefix(arch_of(case_id)).strip("-")
    parts = [ORIGIN, *program.split("/"), case, size]
    return ".".join(re.sub(r"[^a-zA-Z0-9_-]", "_", part) for part in parts if part)


def _texts(value: object) -> list[str]:
    return list(map(str, value)) if isinstance(value, list | tuple) else []
