# SPDX-License-Identifier: MIT
"""Reads what one selftest printed, within what the script around it printed.

A selftest prints TAP, or only words; in both cases its exit status counts, too. Some scripts run programs that print
TAP themselves and put "# " before each of their lines, as many times as there are scripts around it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from harness.guest import ktap
from harness.guest.ktap import Ktap, Point

# Printed by guest/shim.sh around the program, whose status the second one carries.
_BEGIN = re.compile(r"^(?P<margin>(?:# )*)hgm-kselftest: begin (?P<words>.*)$")
_END = re.compile(r"hgm-kselftest: end (?P<status>\d+)$")
_CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|[\x00-\x08\x0b-\x1f\x7f]")
_TAP = re.compile(r"^(?:KTAP version \d|TAP version 1[34]|1\.\.\d+|(?:not )?ok\b\s*\d+|Bail out!)")
_VERSION = re.compile(r"^K?TAP version ")
_INNER = re.compile(
    r"^(?P<depth>(?:#\s?)+)(?=(?:KTAP|TAP) version \d|1\.\.\d+\s*(?:#|$)|(?:not )?ok\b\s*\d+|Bail out!)"
)
# The verdict of 6.1's script, and that of later ones.
_BRACKETS = re.compile(r"^(?:# )*\[(PASS|FAIL|SKIP)\]\s*$")
_RESULT = re.compile(r"^(?:# )*(?P<ok>not ok|ok) \d+ [^#]*(?P<skip># SKIP)?")


@dataclass(slots=True, kw_only=True)
class Section:
    """What one program printed."""

    lines: list[str] = field(default_factory=list)
    words: str = ""  # how it was run
    status: int | None = None  # of its exit; None: it did not come to its end
    said: str = ""  # the verdict of the script around it: "pass", "fail" or "skip"; "": it gave none


def section(text: str) -> Section | None:
    """Return the program's part of a script's output; None if the script has not come to it."""
    lines = (_CONTROL.sub("", line) for line in text.split("\n"))
    start = next((match for line in lines if (match := _BEGIN.match(line))), None)
    if start is None:
        return None
    found = Section(words=start["words"])
    for line in lines:
        line = line.removeprefix(start["margin"])
        if end := _END.search(line):
            # A program need not end its last line.
            found.lines += [line[: end.start()]] if line[: end.start()] else []
            found.status, found.said = int(end["status"]), _verdict(lines)
            return found
        found.lines.append(line)
    return found


def _verdict(lines: Iterator[str]) -> str:
    """The verdict right behind a program's output."""
    for line in lines:
        if brackets := _BRACKETS.match(line):
            return brackets[1].lower()
        if result := _RESULT.match(line):
            return "skip" if result["skip"] else "pass" if result["ok"] == "ok" else "fail"
        if "running " in line:
            break
    return ""


def read(lines: list[str]) -> Ktap | None:
    """Read a program's lines as TAP; None if they hold none.

    kselftest.h prints the version line only if the program asks for it, so TAP may begin without one, even with that
    of a program within.
    """
    if not any(map(_TAP.match, lines)):
        return None
    start = next(number for number, line in enumerate(lines) if _TAP.match(line) or _INNER.match(line))
    tap = [_INNER.sub(_indented, line) for line in lines[start:]]
    return ktap.parse("\n".join(tap if _VERSION.match(tap[0]) else ["TAP version 13", *tap]))


def _indented(match: re.Match[str]) -> str:
    return "  " * match["depth"].count("#")


def flat(points: list[Point], above: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Point]]:
    """Yield every result line of a stream with its name and those above it, children first; each name only once."""
    seen: dict[str, int] = {}
    for number, point in enumerate(points, start=1):
        name = point.name or point.text or str(number)
        seen[name] = seen.get(name, 0) + 1
        path = (*above, name if seen[name] == 1 else f"{name} ({seen[name]})")
        yield from flat(point.points, path)
        yield path, point
