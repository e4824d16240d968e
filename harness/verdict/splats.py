# SPDX-License-Identifier: MIT
"""Finds a kernel's complaints in its log. The patterns and the allow list are data: splats.toml."""

from __future__ import annotations

import functools
import re
import tomllib
from dataclasses import dataclass
from pathlib import Path

_PREFIX = re.compile(r"^(?:<\d+>)?\[\s*\d+\.\d+\]\s?(?:\[\s*[TC]\d+\]\s?)?")
# Lines of a call trace are indented; the registers of user mode inside it are not.
_OF_TRACE = re.compile(r"\s|R\w{2}: |CR2: |Code: |x\d+ *: |={10}")
MAX_LINES = 80  # of one splat's text


@dataclass(frozen=True, slots=True, kw_only=True)
class Splat:
    """One complaint of the kernel."""

    kind: str  # as in splats.toml: panic, kasan, lockdep, hang, oops, warning, oom
    title: str  # the line that was recognised
    text: str  # that line and what belongs to it


@dataclass(frozen=True, slots=True)
class _Allowed:
    pattern: re.Pattern[str]
    within: re.Pattern[str]


@functools.cache
def _rules() -> tuple[list[tuple[str, re.Pattern[str]]], list[_Allowed]]:
    data = tomllib.loads((Path(__file__).parent / "splats.toml").read_text())
    deny = [(rule["kind"], re.compile(rule["pattern"])) for rule in data["deny"]]
    allow = [_Allowed(re.compile(rule["pattern"]), re.compile(rule["within"])) for rule in data["allow"]]
    return deny, allow


def clean(log: str) -> list[str]:
    """Return the lines of a log without time stamps, levels and caller ids."""
    return [_PREFIX.sub("", line.rstrip()) for line in log.splitlines()]


def find(log: str) -> list[Splat]:
    """Return the splats of a kernel log in order; those of the allow list are left out."""
    return [splat for splat, _ in located(log)]


def located(log: str) -> list[tuple[Splat, range]]:
    """Return what `find` finds, each with the numbers of its lines in the log, from 0."""
    deny, allow = _rules()
    lines = clean(log)
    splats: list[tuple[Splat, range]] = []
    position = 0
    while position < len(lines):
        kind = next((kind for kind, pattern in deny if pattern.search(lines[position])), None)
        if kind is None:
            position += 1
            continue
        end = _extent(lines, position)
        text = "\n".join(lines[position:end])
        title = lines[position].strip()
        if not any(rule.pattern.search(title) and rule.within.search(text) for rule in allow):
            splats.append((Splat(kind=kind, title=title, text=text), range(position, end)))
        position = end
    return splats


def _extent(lines: list[str], start: int) -> int:
    """Where the splat that begins at `start` ends: behind its end mark, or where its call trace stops."""
    stop = min(len(lines), start + MAX_LINES)
    following = range(start + 1, stop)
    stop = next((p for p in following if "[ cut here ]" in lines[p]), stop)
    following = range(start + 1, stop)
    if mark := next((p for p in following if "---[ end " in lines[p]), None):
        return mark + 1
    trace = next((p for p in following if lines[p].lower().startswith("call trace:")), None)
    if trace is None:
        return start + 1
    return next((p for p in range(trace + 1, stop) if not _OF_TRACE.match(lines[p])), stop)
