# SPDX-License-Identifier: MIT
"""Finds a kernel's complaints in its log. The patterns and the allow list are data: splats.toml."""

from __future__ import annotations

import functools
import re
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_PREFIX = re.compile(r"^(?:<\d+>)?\[\s*\d+\.\d+\]\s?(?:\[\s*[TC]\d+\]\s?)?")
# Lines of a call trace are indented; the registers of user mode inside it are not.
_OF_TRACE = re.compile(r"\s|R\w{2}: |CR2: |Code: |x\d+ *: |={10}")
MAX_LINES = 80  # of one splat's text
CRASHES = ("panic", "oops", "kasan")  # kinds after which a kernel is not to be trusted, though it may live on


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


def allowed(log: str) -> bool:
    """Whether a splat of the allow list is in a kernel log."""
    return any(_excused(splat) for splat, _ in _all(log))


def located(log: str) -> list[tuple[Splat, range]]:
    """Return what `find` finds, each with the numbers of its lines in the log, from 0."""
    return [(splat, where) for splat, where in _all(log) if not _excused(splat)]


def _all(log: str) -> Iterator[tuple[Splat, range]]:
    lines = clean(log)
    position = 0
    while position < len(lines):
        kind = _kind(lines[position])
        if not kind:
            position += 1
            continue
        end = _extent(lines, position, kind)
        text = "\n".join(lines[position:end])
        yield Splat(kind=kind, title=lines[position].strip(), text=text), range(position, end)
        position = end


def _kind(line: str) -> str:
    return next((kind for kind, pattern in _rules()[0] if pattern.search(line)), "")


def _excused(splat: Splat) -> bool:
    return any(rule.pattern.search(splat.title) and rule.within.search(splat.text) for rule in _rules()[1])


def _extent(lines: list[str], start: int, kind: str) -> int:
    """Where the splat that begins at `start` ends: behind its end mark, where its call trace stops, or at a crash."""
    stop = min(len(lines), start + MAX_LINES)
    following = range(start + 1, stop)
    ends = (p for p in following if "[ cut here ]" in lines[p] or (kind not in CRASHES and _kind(lines[p]) in CRASHES))
    stop = next(ends, stop)
    following = range(start + 1, stop)
    if mark := next((p for p in following if "---[ end " in lines[p]), None):
        return mark + 1
    trace = next((p for p in range(start, stop) if lines[p].lower().startswith("call trace:")), None)
    if trace is None:
        return start + 1
    return next((p for p in range(trace + 1, stop) if not _OF_TRACE.match(lines[p])), stop)
