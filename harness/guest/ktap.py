# SPDX-License-Identifier: MIT
"""Reads KTAP version 1 (Documentation/dev-tools/ktap.rst), and the TAP 13 and 14 that kselftests and KUnit still print.

Reading never fails: what is wrong with a stream is part of the answer, since "could not tell" is a result too.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

_ANSI = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
_KERNEL_PREFIX = re.compile(r"^(?:<\d+>)?\[\s*\d+\.\d+\](?:\[\s*[TC]\d+\])?\s?")
_VERSION = re.compile(r"^(?:KTAP version 1|TAP version 1[34])\s*$")
_SUBTEST = re.compile(r"^# Subtest: (?P<name>.*?)\s*$")
_PLAN = re.compile(r"^1\.\.(\d+)(?:\s*#\s*(?P<directive>skip)\b\s*(?P<reason>.*))?\s*$", re.IGNORECASE)
_POINT = re.compile(
    r"^(?P<ok>not ok|ok)\b\s*(?P<number>\d+)?\s*(?:-\s+)?(?P<name>[^#]*?)\s*"
    r"(?:#\s*(?P<behind>(?:(?P<directive>\w+)\b:?\s*)?(?P<text>.*)))?$"
)
_BAIL_OUT = re.compile(r"^Bail out!\s*(?P<words>.*?)\s*$")
# A directive decides over ok and not ok; one that is unknown decides nothing.
_DIRECTIVES = {"SKIP": "skip", "TODO": "skip", "XFAIL": "xfail", "TIMEOUT": "fail", "ERROR": "fail"}
_DEEPEST = 32  # levels; what goes deeper is no test output, and would exhaust the stack


@dataclass(slots=True, kw_only=True)
class Point:
    """One result line, with the points nested under it."""

    name: str
    # "pass", "fail", "skip", "xfail"; "missing" if it was begun and its result did not come, or none of those under it
    status: str
    text: str = ""  # behind the directive: the reason of a skip; or all that stands there, if it is none
    points: list[Point] = field(default_factory=list)


@dataclass(slots=True, kw_only=True)
class Ktap:
    """A whole stream: its points, its diagnostics, and what is wrong with it."""

    points: list[Point] = field(default_factory=list)
    diagnostics: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)  # empty: the stream is complete and agrees with itself

    @property
    def status(self) -> str:
        """The verdict of the stream alone: "error" if it cannot be told, else "fail", "pass" or "skip"."""
        if self.problems:
            return "error"
        states = [point.status for point in self.points]
        if "fail" in states:
            return "fail"
        return "skip" if all(state == "skip" for state in states) else "pass"

    @property
    def reason(self) -> str:
        """Why it was skipped, in the program's words."""
        return "; ".join(dict.fromkeys(point.text for point in self.points if point.status == "skip" and point.text))


def parse(text: str, *, needs_plan: bool = False) -> Ktap:
    """Read one stream, from its version line on. Lines that are not KTAP, such as kernel messages, are passed over.

    A plan may be missing, but then nobody can tell whether the stream is whole: with `needs_plan` that is a problem.
    """
    result = Ktap()
    lines = _stripped(text)
    if not lines:
        result.problems.append("no KTAP version line")
    block = _Reader(lines[1:], result).block(0, 0)
    result.points = block.points
    if not result.points and not result.problems:
        result.problems.append("no results")
    if needs_plan and block.planned is None and not block.bail_outs and not result.problems:
        result.problems.append("no plan")
    return result


def _stripped(text: str) -> list[str]:
    """Return the lines from the first version line on, less what the kernel or a console puts before each."""
    lines = [_KERNEL_PREFIX.sub("", _ANSI.sub("", line.rstrip("\r"))) for line in text.split("\n")]
    start = next((number for number, line in enumerate(lines) if _VERSION.match(line.lstrip())), len(lines))
    margin = _indent(lines[start]) if start < len(lines) else 0
    return [line[min(margin, _indent(line)) :] for line in lines[start:]]


def _indent(line: str) -> int:
    """How deep a line stands; tabs and spaces count alike, for no stream has both at the same place."""
    return len(line) - len(line.lstrip())


@dataclass(slots=True)
class _Block:
    """The results of one level. Most begin with a version line or a "# Subtest:" line, or both."""

    name: str = ""  # "": not told
    planned: int | None = None
    points: list[Point] = field(default_factory=list)
    bail_outs: list[Point] = field(default_factory=list)  # they tell why there are fewer results than planned


class _Reader:
    def __init__(self, lines: list[str], result: Ktap) -> None:
        self.lines: Iterator[str] = iter(lines)
        self.pushed: list[str] = []
        self.result = result

    def block(self, indent: int, depth: int, name: str = "") -> _Block:
        """Read the points of one level until the stream ends or a line of an outer level comes."""
        block, nested = _Block(name), None
        while (line := self._next()) is not None:
            body, deep = line.lstrip(), _indent(line)
            version, subtest, point = _VERSION.match(body), _SUBTEST.match(body), _POINT.match(body)
            plan, bail_out = _PLAN.match(body), _BAIL_OUT.match(body)
            if deep < indent and (version or subtest or plan or point or bail_out):
                self.pushed.append(line)
                break
            # Deeper down, "ok" without a number is only a word.
            headless = plan or bail_out or (point and point["number"])
            if deep > indent and (version or subtest or headless) and depth < _DEEPEST:
                self._unfinished(block, nested, depth)
                if headless:
                    self.pushed.append(line)
                nested = self.block(deep, depth + 1, subtest["name"] if subtest else "")
            elif deep == indent and subtest and not block.points:
                block.name = subtest["name"]
            elif deep == indent and plan:
                block.planned = int(plan[1])
                if plan["directive"]:
                    block.points.append(Point(name="", status="skip", text=plan["reason"] or ""))
                    block.planned = 1
            elif deep == indent and point:
                block.points.append(self._point(point, len(block.points) + 1, nested))
                nested = None
            elif deep == indent and bail_out:
                block.bail_outs.append(Point(name="Bail out!", status="fail", text=bail_out["words"]))
            elif body.startswith("#"):
                self.result.diagnostics.append(body.lstrip("# "))
        self._unfinished(block, nested, depth)
        if block.planned is not None and block.planned != len(block.points) and not block.bail_outs:
            self.result.problems.append(f"plan {block.planned}, saw {len(block.points)}{_where(depth)}")
        if block.planned == 0:
            self.result.problems.append(f"a plan of no tests{_where(depth)}")
        block.points += block.bail_outs
        return block

    def _next(self) -> str | None:
        return self.pushed.pop() if self.pushed else next(self.lines, None)

    def _unfinished(self, block: _Block, nested: _Block | None, depth: int) -> None:
        """Keep nested results whose parent's result did not come."""
        if nested:
            if not block.bail_outs:
                self.result.problems.append(f"nested results without their parent's result{_where(depth)}")
            block.points.append(Point(name=nested.name, status="missing", points=nested.points))

    def _point(self, match: re.Match[str], position: int, nested: _Block | None) -> Point:
        number, name = match["number"], match["name"].strip()
        problems = self.result.problems
        if number and int(number) != position:
            problems.append(f"result {number} came as number {position}")
        directive = (match["directive"] or "").upper()
        status = _DIRECTIVES.get(directive, "pass" if match["ok"] == "ok" else "fail")
        if nested and nested.name and nested.name != name:
            problems.append(f"the results of {nested.name} are followed by that of {name}")
        if nested and not nested.points and status != "fail":
            problems.append(f"{name or position} has no results under it")
            status = "missing"
        children = nested.points if nested else []
        if status != "fail" and any(child.status == "fail" for child in children):
            said = "ok" if status == "pass" else status
            problems.append(f"{name or position} is {said} although a result under it is not ok")
            status = "fail"
        text = match["text" if directive in _DIRECTIVES else "behind"] or ""
        return Point(name=name, status=status, text=text, points=children)


def _where(depth: int) -> str:
    return f" at depth {depth}" if depth else ""
