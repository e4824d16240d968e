# SPDX-License-Identifier: MIT
"""What report.html shows of one case: findings, attempts, pictures, and of its files as much as there is room for."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Protocol
from urllib.parse import quote

from harness.arch import ARCHES, KIB, size_name
from harness.report.excerpt import Excerpt, excerpt
from harness.report.picture import Album, Picture
from harness.report.results import Attempt, CaseResult, Finding, Status, distinct

CONSOLE_ROOM = 1_500_000  # characters of all consoles in a report
EVIDENCE_ROOM = 1_000_000  # and of all evidence
ALIKE = 2  # cases of one fingerprint whose consoles are shown
MOST_EVIDENCE = 60  # lines of one finding, as in the terminal
FIRST_EVIDENCE = 12  # lines of it that are seen at once
LEAST_EVIDENCE = 6  # lines once there is no room left
MOST_NOTES = 12
MOST_COLUMNS = 400
MOST_STEPS = {True: 24, False: 6}  # pictures between first and last, of a red case and of another one
MOST_PAGES = 6  # different huge pages of one question


class Files(Protocol):
    """What the cases of a run left in their directories."""

    def names(self, directory: str) -> Sequence[str]:
        """Return the names of the files in a directory (relative to the run's), none if there is no such directory."""

    def text(self, directory: str, name: str) -> str:
        """Return the text of a file."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FindingView:
    """One finding, its evidence cut to what there is room for."""

    finding: Finding
    first: str  # lines that are seen at once
    rest: str  # those that are unfolded
    left_out: int  # lines

    @property
    def more(self) -> int:
        """How many lines are to be unfolded."""
        return len(self.rest.splitlines())


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """What one question, or several in a row, had for an answer."""

    first: int  # number of the question, from 1
    last: int
    pages: tuple[tuple[Picture, int], ...]  # each huge page, and how many alike follow one another
    left_out: int = 0  # huge pages

    @property
    def number(self) -> str:
        """Which question it was."""
        return str(self.first) if self.first == self.last else f"{self.first}-{self.last}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Story:
    """How a case's memory was mapped, from its first question to its last."""

    questions: int
    before: Step
    between: tuple[Step, ...]
    left_out: int  # steps in the midst of `between` that are not shown
    after: Step | None  # None: it was the same all the time
    kinds: tuple[str, ...]  # for the legend


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptView:
    """One time that a case was run."""

    number: int
    attempt: Attempt
    findings: tuple[FindingView, ...]
    notes: tuple[str, ...]
    story: Story | None
    files: tuple[tuple[str, str], ...]  # name and link
    last: bool = True  # whether the last picture stands here


@dataclass(frozen=True, slots=True, kw_only=True)
class Console:
    """A part of a file of a case."""

    name: str
    link: str
    excerpt: Excerpt


@dataclass(frozen=True, slots=True, kw_only=True)
class CaseView:
    """One case at one architecture and size."""

    case: CaseResult
    anchor: str
    program: str
    name: str
    size: str
    main: AttemptView  # the worst attempt
    attempts: tuple[AttemptView, ...]  # side by side: one of each status that they came to
    counts: tuple[tuple[Status, int], ...]  # of all attempts
    consoles: tuple[Console, ...]
    note: str  # why there is no console


@dataclass(slots=True)
class Viewer:
    """Looks at one case after the other, and minds how much room is left."""

    files: Files
    album: Album
    console_room: int = CONSOLE_ROOM
    evidence_room: int = EVIDENCE_ROOM
    _anchors: set[str] = field(default_factory=set)
    _shown: Counter[tuple[str, ...]] = field(default_factory=Counter)

    def view(self, case: CaseResult) -> CaseView:
        """Return what is shown of a case; its console only if it is red."""
        program, _, variant = case.id.partition("::")
        numbered = list(enumerate(case.attempts or (case,), start=1))
        worst = next((n for n, one in numbered if one.directory == case.directory), 1)
        main = self._attempt(worst, case, case)
        sides = {one.status: self._attempt(n, one, case) for n, one in reversed(numbered)} if case.attempts else {}
        consoles, note = self._consoles(case) if case.red else ((), "")
        return CaseView(
            case=case,
            anchor=self._anchor(case.id),
            program=program,
            name=variant.partition("[")[0] or program,
            size=size_name(case.huge_page_size),
            main=main,
            attempts=tuple(sorted(sides.values(), key=lambda one: one.number)) if len(sides) > 1 else (),
            counts=tuple(Counter(one.status for one in case.attempts).items()),
            consoles=consoles,
            note=note,
        )

    def _anchor(self, case_id: str) -> str:
        """A name for links that says which case it is, and that no other case has."""
        plain = "case-" + re.sub(r"[^A-Za-z0-9_.]+", "-", case_id.removeprefix("guest_tests/")).strip("-")
        name, number = plain, 1
        while name in self._anchors:
            number += 1
            name = f"{plain}-{number}"
        self._anchors.add(name)
        return name

    def _attempt(self, number: int, attempt: Attempt, case: CaseResult) -> AttemptView:
        notes = [_cut(note) for note in attempt.diagnostics[:MOST_NOTES]]
        if len(attempt.diagnostics) > MOST_NOTES:
            notes.append(f"… {len(attempt.diagnostics) - MOST_NOTES} more in ktap.txt")
        return AttemptView(
            number=number,
            attempt=attempt,
            findings=tuple(map(self._finding, distinct(attempt.findings))),
            notes=tuple(notes),
            story=self._story(attempt.shapes, case),
            files=tuple((name, _link(attempt.directory, name)) for name in self._names(attempt.directory)),
        )

    def _names(self, directory: str) -> Sequence[str]:
        return self.files.names(directory) if directory else ()

    def _finding(self, finding: Finding) -> FindingView:
        lines = [_cut(line) for line in finding.evidence.splitlines()]
        shown = lines[: MOST_EVIDENCE if self.evidence_room > 0 else LEAST_EVIDENCE]
        self.evidence_room -= sum(map(len, shown))
        return FindingView(
            finding=finding,
            first="\n".join(shown[:FIRST_EVIDENCE]),
            rest="\n".join(shown[FIRST_EVIDENCE:]),
            left_out=len(lines) - len(shown),
        )

    def _consoles(self, case: CaseResult) -> tuple[tuple[Console, ...], str]:
        """The texts of a red case, and if there are none, why."""
        splats = [finding for finding in case.findings if finding.kind == "splat"]
        titles = {finding.message.partition(": ")[2] for finding in splats}
        names = [name for name in ("hang.txt", "console.txt") if name in self._names(case.directory)]
        prints = tuple(sorted({finding.fingerprint for finding in splats}))
        if prints and self._shown[prints] >= ALIKE:
            return (), f"Its console is not shown: {ALIKE} others with the same complaint have theirs above."
        if names and self.console_room <= 0:
            return (), "Its console is not shown here: the report would grow too large. It is among the files."
        self._shown[prints] += 1
        consoles = []
        for name in names:
            part = excerpt(self.files.text(case.directory, name), titles)
            self.console_room -= part.size
            if part.lines:
                consoles.append(Console(name=name, link=_link(case.directory, name), excerpt=part))
        return tuple(consoles), ""

    def _story(self, shapes: Sequence[Sequence[str]], case: CaseResult) -> Story | None:
        """The shapes of an attempt: neighbours that are alike are one, and of many the first and last are shown."""
        if not shapes:
            return None
        base = ARCHES[case.arch].base_page if case.arch in ARCHES else 4 * KIB
        runs: list[tuple[int, int, Sequence[str]]] = []
        for pages, same in groupby(enumerate(shapes, start=1), key=lambda pair: pair[1]):
            numbers = [number for number, _ in same]
            runs.append((numbers[0], numbers[-1], pages))
        most = MOST_STEPS[case.red]
        middle = runs[1:-1]
        left_out = max(0, len(middle) - most)
        if left_out:
            middle = [*middle[: most // 2], *middle[len(middle) - most // 2 :]]
        steps = [self._step(run, base) for run in (runs[0], *middle, *runs[1:][-1:])]
        kinds = {kind for step in steps for picture, _ in step.pages for kind in picture.kinds}
        return Story(
            questions=len(shapes),
            before=steps[0],
            between=tuple(steps[1:-1]),
            left_out=left_out,
            after=steps[-1] if len(runs) > 1 else None,
            kinds=tuple(sorted(kinds, key=_kind_order)),
        )

    def _step(self, run: tuple[int, int, Sequence[str]], base: int) -> Step:
        first, last, pages = run
        alike = [(notation, len(list(same))) for notation, same in groupby(pages)]
        shown = tuple((self.album.add(notation, base), count) for notation, count in alike[:MOST_PAGES])
        return Step(
            first=first, last=last, pages=shown, left_out=sum(count for _, count in alike[MOST_PAGES:])
        )  # fmt: skip


def _kind_order(kind: str) -> tuple[int, int, str]:
    units = {"K": 1, "M": 1 << 10, "G": 1 << 20}
    found = re.match(r"(\d+)([KMG])", kind)
    return (0, int(found[1]) * units[found[2]], kind) if found else (1, 0, kind)


def _link(directory: str, name: str) -> str:
    return quote(f"{directory}/{name}")


def _cut(text: str) -> str:
    return text if len(text) <= MOST_COLUMNS else text[:MOST_COLUMNS] + " …"
