# SPDX-License-Identifier: MIT
"""Reads KTAP version 1 (Documentation/dev-tools/ktap.rst), and the TAP 13 and 14 that kselftests still print.

Reading never fails: what is wrong with a stream is part of the answer, since "could not tell" is a result too.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

_ANSI = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
_KERNEL_PREFIX = re.compile(r"^(?:<\d+>)?\[\s*\d+\.\d+\](?:\[\s*[TC]\d+\])?\s?")
_VERSION = re.compile(r"^(?:KTAP version \d+|TAP version 1[34])\s*$")
_PLAN = re.compile(r"^1\.\.(\d+)(?:\s*#\s*(?P<directive>skip)\b\s*(?P<reason>.*))?\s*$", re.IGNORECASE)
_POINT = re.compile(
    r"^(?P<ok>not ok|ok)\b\s*(?P<number>\d+)?\s*(?:-\s+)?(?P<name>[^#]*?)\s*"
    r"(?:#\s*(?P<directive>\w+)\b:?\s*(?P<text>.*))?$"
)
# A directive decides over ok and not ok; one that is unknown decides nothing.
_DIRECTIVES = {"SKIP": "skip", "TODO": "skip", "XFAIL": "xfail", "TIMEOUT": "fail", "ERROR": "fail"}


@dataclass(slots=True, kw_only=True)
class Point:
    """One result line, with the points nested under it."""

    name: str
    status: str  # "pass", "fail", "skip", "xfail"
    text: str = ""  # behind the directive: the reason of a skip
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


def parse(text: str) -> Ktap:
    """Read one stream. Lines that are not KTAP, such as kernel messages in between, are passed over."""
    result = Ktap()
    lines = [_KERNEL_PREFIX.sub("", _ANSI.sub("", line.rstrip("\r"))) for line in text.split("\n")]
    if not any(_VERSION.match(line) for line in lines):
        result.problems.append("no KTAP version line")
    reader = _Reader(lines, result)
    result.points = reader.block(0)
    if not result.points and not result.problems and not reader.skipped_all:
        result.problems.append("no results")
    return result


class _Reader:
    def __init__(self, lines: list[str], result: Ktap) -> None:
        self.lines: Iterator[str] = iter(lines)
        self.pushed: list[str] = []
        self.result = result
        self.skipped_all = False

    def block(self, depth: int) -> list[Point]:
        """Read the points of one nesting level until the stream ends or a line of an outer level comes."""
        points: list[Point] = []
        nested: list[Point] = []
        planned: int | None = None
        indent = "  " * depth
        while (line := self._next()) is not None:
            if depth and not line.startswith(indent) and (_POINT.match(line.strip()) or _VERSION.match(line.strip())):
                self.pushed.append(line)
                break
            body = line.removeprefix(indent)
            if body.startswith("  ") and _VERSION.match(body.strip()):
                nested = self.block(depth + 1)
            elif plan := _PLAN.match(body):
                planned = int(plan[1])
                if plan["directive"]:
                    points.append(Point(name="", status="skip", text=plan["reason"] or ""))
                    planned = 1
            elif point := _POINT.match(body):
                points.append(self._point(point, len(points) + 1, nested))
                nested = []
            elif body.startswith("#"):
                self.result.diagnostics.append(body.lstrip("# "))
        where = f" at depth {depth}" if depth else ""
        if planned is not None and planned != len(points):
            self.result.problems.append(f"plan {planned}, saw {len(points)}{where}")
        if planned == 0:
            self.result.problems.append(f"a plan of no tests{where}")
        if nested:
            self.result.problems.append(f"nested results without their parent's result{where}")
        return points

    def _next(self) -> str | None:
        return self.pushed.pop() if self.pushed else next(self.lines, None)

    def _point(self, match: re.Match[str], position: int, nested: list[Point]) -> Point:
        number, name = match["number"], match["name"].strip()
        if number and int(number) != position:
            self.result.problems.append(f"result {number} came as number {position}")
        directive = (match["directive"] or "").upper()
        status = _DIRECTIVES.get(directive, "pass" if match["ok"] == "ok" else "fail")
        if status == "pass" and any(child.status == "fail" for child in nested):
            status = "fail"
            self.result.problems.append(f"{name or position} is ok although a result under it is not")
        return Point(name=name, status=status, text=match["text"] or "", points=nested)
