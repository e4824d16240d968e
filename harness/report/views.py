# SPDX-License-Identifier: MIT
"""What report.html shows of a run, in its order: a verdict, kernels, a matrix, crashes, red cases, the rest. Pure."""

from __future__ import annotations

import datetime
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import groupby
from urllib.parse import quote, urlencode

from markupsafe import Markup

from harness.arch import ARCHES, size_name
from harness.errors import Exit
from harness.report import facts
from harness.report.caseview import CaseView, Files, Viewer
from harness.report.picture import COLOURED, Album
from harness.report.results import RED, CaseResult, RunResult, Status, by_fingerprint
from harness.report.whole import cut_short

ENDS: dict[int, str] = {
    Exit.BAD_INPUT: "Ended early: bad input",
    Exit.GUEST_FAULT: "Ended early: no guest",
    Exit.HOST_FAULT: "Ended early: this machine failed",
    Exit.BUILD_FAILED: "Ended early: the kernel does not build",
}
SLOWEST = 10  # cases that are listed as such
_ORDER = (Status.PASS, *RED, Status.SKIP, Status.XFAIL)

__all__ = ["Files", "Report"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What the run came to, in a word, a lamp and a sentence."""

    lamp: str  # "green", "red"; "amber": it did not get to its end; "grey": nothing was shown
    title: str
    sentence: str
    counts: tuple[tuple[Status, int], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One field of the matrix."""

    counts: tuple[tuple[Status, int], ...]
    filter: str  # the fragment that shows these cases only
    label: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Matrix:
    """Categories against architectures and huge page sizes."""

    arches: tuple[tuple[str, int], ...]  # and how many sizes each has
    columns: tuple[Cell, ...]
    rows: tuple[tuple[Cell, tuple[Cell | None, ...]], ...]  # the first: its head; None: there is no such case


@dataclass(frozen=True, slots=True, kw_only=True)
class Crash:
    """A complaint of the kernel, and the cases that saw it."""

    fingerprint: str
    cases: tuple[CaseView, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """The cases of one program that need no attention, by name: each with its claim and its variants."""

    program: str
    counts: tuple[tuple[Status, int], ...]
    cases: tuple[tuple[str, str, tuple[CaseView, ...]], ...]  # name, claim, at each architecture and size


@dataclass
class Report:
    """All that the template asks for."""

    result: RunResult
    files: Files
    album: Album = field(default_factory=Album)
    views: list[CaseView] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Look at each case once, the worst first, since room for consoles is given in that order."""
        viewer = Viewer(self.files, self.album)
        worst = [*RED, *(status for status in Status if status not in RED)]
        order = sorted(self.result.cases, key=lambda case: worst.index(case.status))
        self.views = [viewer.view(case) for case in order]

    @cached_property
    def verdict(self) -> Verdict:
        """What the run came to. Green only if it got to its end, something passed, and nothing is red."""
        result, counts = self.result, _counts(self.result.cases)
        number = _number(len(result.cases), "case")
        red = [(status, count) for status, count in counts if status in RED]
        said = ", ".join(f"{count} {status}" for status, count in counts) or "none"
        so_far = f"{number} had a result by then: {said}." if result.cases else "No case had a result by then."
        if result.fault:
            title = ENDS.get(result.fault.exit_code, "Ended early")
            sentence = f"{result.fault.message}\n{so_far} This is no verdict on the others."
            lamp = "red" if red else "amber"
        elif result.interrupted or not result.finished:
            title = "Interrupted" if result.interrupted else "Not finished"
            lamp, sentence = "red" if red else "amber", f"{so_far} This is no verdict on the others."
        elif result.not_run:
            lamp, title, sentence = "red" if red else "amber", "Cut short", f"{cut_short(result)}. {so_far}"
        elif not result.cases:
            lamp, title, sentence = "grey", "Nothing was run", "No case has a result, so this says nothing of a kernel."
        elif red:
            lamp, title = "red", "Red: " + ", ".join(f"{count} {status}" for status, count in red)
            sentence = f"Of {number}: {said}."
        elif not any(status in (Status.PASS, Status.XFAIL) for status, _ in counts):
            lamp, title, sentence = "grey", "Nothing was shown", f"{number}, and each was skipped."
        else:
            lamp, title, sentence = "green", "Green", f"Of {number}: {said}."
        return Verdict(lamp=lamp, title=title, sentence=sentence, counts=counts)

    @cached_property
    def bar(self) -> list[tuple[Status, float, float]]:
        """For each status where it begins in a bar of all cases, and how wide it is, in per cent; none is too thin."""
        counts = sorted(_counts(self.result.cases), key=lambda pair: pair[0] not in RED)
        widths = [max(1.5, 100 * count / len(self.result.cases)) for _, count in counts]
        position, bar = 0.0, []
        for (status, _), width in zip(counts, widths, strict=True):
            bar.append((status, position, 100 * width / sum(widths)))
            position += bar[-1][2]
        return bar

    @cached_property
    def about(self) -> list[tuple[str, str]]:
        """When, how long, by what."""
        result = self.result
        said = [("Started", result.started.replace("T", " ").replace("+00:00", " UTC"))]
        if took := _took(result.started, result.finished):
            said.append(("Took", took))
        if result.shard:
            said.append(("Shard", f"{result.shard}: a part of the cases only"))
        if result.harness:
            said.append(("Harness", result.harness))
        return [*said, ("Command", " ".join(result.command))]

    @cached_property
    def kernels(self) -> list[tuple[str, list[tuple[str, str]], list[str]]]:
        """For each architecture: name, facts about its kernel and machine, and the subjects of the series."""
        names = dict.fromkeys([*self.result.kernels, *self.result.machines])
        return [
            (name, facts.kernel(self.result.kernels.get(name, {})) + facts.machine(self.result.machines.get(name, {})),
             [str(subject) for subject in facts.items(self.result.kernels.get(name, {}).get("subjects"))])
            for name in names
        ]  # fmt: skip

    @cached_property
    def statuses(self) -> list[Status]:
        """Those that occur."""
        return [status for status, _ in _counts(self.result.cases)]

    @cached_property
    def categories(self) -> list[str]:
        """Those that occur."""
        return list(dict.fromkeys(case.category for case in self.result.cases))

    @cached_property
    def columns(self) -> list[tuple[str, int]]:
        """The pairs of architecture and huge page size that occur: architectures together, small sizes first."""
        known = [*ARCHES, *dict.fromkeys(case.arch for case in self.result.cases)]
        pairs = {(case.arch, case.huge_page_size) for case in self.result.cases}
        return sorted(pairs, key=lambda pair: (known.index(pair[0]), pair[1]))

    @cached_property
    def arches(self) -> list[str]:
        """Those that occur."""
        return list(dict.fromkeys(arch for arch, _ in self.columns))

    @cached_property
    def sizes(self) -> list[str]:
        """Names of the huge page sizes that occur, small ones first."""
        return [size_name(size) for size in sorted({size for _, size in self.columns})]

    @cached_property
    def matrix(self) -> Matrix:
        """Counts for each category, architecture and size."""
        columns = self.columns
        heads = tuple(
            _cell(self.result.cases, f"{arch} {size_name(size)}", arch=arch, size=size_name(size))
            for arch, size in columns
        )
        rows = []
        for category in self.categories:
            cases = [case for case in self.result.cases if case.category == category]
            cells = [
                _cell(cases, f"{category}, {arch} {size}", category=category, arch=arch, size=size)
                for arch, size in ((arch, size_name(size)) for arch, size in columns)
            ]
            head = _cell(cases, category, category=category)
            rows.append((head, tuple(cell if cell.counts else None for cell in cells)))
        arches = tuple((arch, len(list(same))) for arch, same in groupby(columns, key=lambda pair: pair[0]))
        return Matrix(arches=arches, columns=heads, rows=tuple(rows))

    @cached_property
    def crashes(self) -> list[Crash]:
        """A line for each complaint of a kernel, however many cases saw it; the most frequent first."""
        views = {view.case.id: view for view in self.views}
        return [
            Crash(fingerprint=fingerprint, cases=tuple(views[name] for name in names))
            for fingerprint, names in by_fingerprint(self.result.cases).items()
        ]

    @cached_property
    def red(self) -> list[CaseView]:
        """The cases that keep the run from being green, the worst first."""
        return [view for view in self.views if view.case.red]

    @cached_property
    def groups(self) -> list[Group]:
        """The other cases, by program."""
        rest = sorted((view for view in self.views if not view.case.red), key=lambda view: view.program)
        places = {pair: number for number, pair in enumerate(self.columns)}
        groups = []
        for program, found in groupby(rest, key=lambda view: view.program):
            views = list(found)
            named: dict[str, list[CaseView]] = {}
            for view in views:
                named.setdefault(view.name, []).append(view)
            cases = []
            for name, variants in named.items():
                variants.sort(key=lambda view: places[view.case.arch, view.case.huge_page_size])
                cases.append((name, variants[0].case.claim, tuple(variants)))
            groups.append(
                Group(program=program, counts=_counts(view.case for view in views), cases=tuple(cases))
            )  # fmt: skip
        return groups

    @cached_property
    def slowest(self) -> list[tuple[CaseView, float, float]]:
        """The cases that took longest, with their seconds and the share of the slowest one's, in per cent."""
        timed = sorted(self.views, key=lambda view: -view.case.seconds)[:SLOWEST]
        longest = timed[0].case.seconds if timed else 0
        return [(view, view.case.seconds, 100 * view.case.seconds / longest) for view in timed if longest]

    @cached_property
    def leaves(self) -> Sequence[str]:
        """Leaf sizes that a legend shows."""
        return COLOURED

    @cached_property
    def icon(self) -> str:
        """The lamp, as an SVG to stand in a data URL."""
        colour = {"green": "#1d8a4e", "red": "#c5302a", "amber": "#c98000"}.get(self.verdict.lamp, "#7a848d")
        circle = f'<circle cx="8" cy="8" r="6" fill="{colour}"/>'
        return quote(f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 16 16">{circle}</svg>')

    @cached_property
    def symbols(self) -> Markup:
        """The drawings, in one place. It is made of numbers and constants only."""
        return Markup(self.album.symbols())


def _counts(cases: Iterable[CaseResult]) -> tuple[tuple[Status, int], ...]:
    """How many there are of each status: the good ones, then the worst first."""
    counted = Counter(case.status for case in cases)
    return tuple((status, counted[status]) for status in _ORDER if counted[status])


def _cell(cases: Iterable[CaseResult], label: str, **which: str) -> Cell:
    def fits(case: CaseResult) -> bool:
        own = {"category": case.category, "arch": case.arch, "size": size_name(case.huge_page_size)}
        return own.items() >= which.items()

    return Cell(counts=_counts(filter(fits, cases)), filter=f"#{urlencode(which, quote_via=quote)}", label=label)


def _number(count: int, what: str) -> str:
    return f"{count} {what}" + "s" * (count != 1)


def _took(started: str, finished: str) -> str:
    try:
        seconds = (datetime.datetime.fromisoformat(finished) - datetime.datetime.fromisoformat(started)).total_seconds()
    except ValueError:
        return ""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else f"{rest} s"
