# SPDX-License-Identifier: MIT
"""KTAP version 1 of a whole run (Documentation/dev-tools/ktap.rst): architecture, program, case, nested."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from harness.report.results import CaseResult, RunResult, Status, distinct
from harness.report.whole import NOT_RUN, arch_of, cut_short, facts, split

# What the kernel's kunit_parser.py goes by is ok and not ok, and of the directives SKIP alone.
_LINE = {
    Status.PASS: ("ok", ""),
    Status.SKIP: ("ok", "SKIP"),
    Status.XFAIL: ("ok", "XFAIL"),
    Status.FAIL: ("not ok", ""),
    Status.CRASH: ("not ok", ""),
    Status.FLAKY: ("not ok", ""),
    Status.XPASS: ("not ok", ""),
    Status.HANG: ("not ok", "TIMEOUT"),
    Status.ERROR: ("not ok", "ERROR"),
}


class _Level:
    """One nesting level: its result lines, each with what stands before it."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.count = 0
        self.red = False

    def add(self, ok: str, name: str, directive: str = "", text: str = "", before: Iterable[str] = ()) -> None:
        self.count += 1
        self.red |= ok != "ok"
        self.lines += before
        words = " ".join(filter(None, [directive, _flat(text)])) if directive else ""
        self.lines.append(f"{ok} {self.count} {_name(name)}" + (f" # {words}" if words else ""))

    def nest(self, name: str, level: _Level, notes: Iterable[str] = ()) -> None:
        text = [f"# Subtest: {_name(name)}", f"1..{level.count}", *notes, *level.lines]
        self.add("not ok" if level.red else "ok", name, before=["  " + line for line in ["KTAP version 1", *text]])


def document(result: RunResult) -> str:
    """Return the whole stream. Cases that were selected and did not run are `not ok`, and so is a run cut short."""
    top = _Level()
    reason = cut_short(result)
    for arch in dict.fromkeys([*(case.arch for case in result.cases), *map(arch_of, result.not_run)]):
        level = _Level()
        programs: dict[str, list[CaseResult | str]] = {}
        for case in result.cases:
            if case.arch == arch:
                programs.setdefault(split(case.id)[0], []).append(case)
        for name in result.not_run:
            if arch_of(name) == arch:
                programs.setdefault(split(name)[0], []).append(name)
        for program, cases in programs.items():
            level.nest(program, _cases(cases, reason))
        top.nest(arch, level, [f"# {key}: {_flat(value)}" for key, value in facts(result, arch).items()])
    if reason:
        top.add("not ok", "run", "ERROR", reason)
    elif not result.cases:
        top.add("ok", "run", "SKIP", "no case was selected")
    return "\n".join(["KTAP version 1", f"1..{top.count}", *top.lines]) + "\n"


def _cases(cases: Sequence[CaseResult | str], reason: str) -> _Level:
    level = _Level()
    for case in cases:
        if isinstance(case, str):
            level.add("not ok", split(case)[1], "ERROR", f"{NOT_RUN}: {reason}")
            continue
        name = split(case.id)[1]
        ok, directive = _LINE[case.status]
        text = case.reason or "; ".join(finding.message for finding in distinct(case.findings))
        level.add(ok, name, directive, text, before=[f"# {_name(name)}: {_flat(line)}" for line in _said(case)])
    return level


def _said(case: CaseResult) -> Iterable[str]:
    if case.status is Status.XPASS:
        yield f"passes, but was {case.reason}"
    if case.attempts:
        yield f"run {len(case.attempts)} times: {', '.join(attempt.status for attempt in case.attempts)}"
    for finding in distinct(case.findings):
        yield f"{finding.kind}: {finding.message}"
    yield from case.diagnostics


def _flat(text: str) -> str:
    """Return `text` on one line, and without what a terminal would take for more than text."""
    return " ".join("".join(one if one.isprintable() else " " for one in text).split())


def _name(text: str) -> str:
    """Return `text` as a description, which may hold no # and must not look like a number or a directive."""
    return _flat(text).replace("#", "_")
