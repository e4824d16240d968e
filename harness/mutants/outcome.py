# SPDX-License-Identifier: MIT
"""What became of each bug, kept as mutants.json, and the table that is made from it."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from harness import record
from harness.errors import Exit
from harness.mutants.verdict import Judgement, Word
from harness.report.results import Status

SCHEMA = 1  # of mutants.json: raised when a key changes its meaning or goes
SHOWN = 2  # of many cases that caught one bug


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of one bug on one architecture."""

    bug: str
    title: str
    category: str
    arch: str
    flavour: str
    stress_s: int
    judgement: Judgement
    build_s: float = 0.0  # 0 or nearly so if the cache had the kernel
    red_s: float | None = (
        None  # from the start of the cases, guest's boot included, to the end of the first that is red
    )
    run_s: float = 0.0  # of all cases that were run
    key: str = ""  # of what it was found out with: another patch, series or guest test makes it another one
    directory: str = ""  # of its files, relative to that of mutants.json

    @property
    def place(self) -> tuple[str, str]:
        """What there is one outcome of."""
        return self.bug, self.arch


@dataclass(slots=True)
class _Kept:
    """mutants.json."""

    bugs: list[Outcome] = field(default_factory=list)
    baseline: dict[str, dict[str, Status]] = field(default_factory=dict)


@dataclass(slots=True)
class Record:
    """Everything that was found out so far. Every change is on disk, whole, before anything is done with it."""

    path: Path
    outcomes: dict[tuple[str, str], Outcome] = field(default_factory=dict)
    # What cases that are red with a bug come to without it, by kernel and id.
    baseline: dict[str, dict[str, Status]] = field(default_factory=dict)

    @classmethod
    def load(cls, path: Path) -> Record:
        """Return what is kept in `path`; nothing, if it is not there. Raises what `record.load` does."""
        kept = record.load(path, SCHEMA, _Kept)
        return cls(path, {one.place: one for one in kept.bugs}, kept.baseline)

    def add(self, outcome: Outcome) -> None:
        """Keep an outcome."""
        self.outcomes[outcome.place] = outcome
        self.save()

    def save(self) -> None:
        """Write mutants.json: whole or not at all. Raises HostFault if the disk is full."""
        bugs = [self.outcomes[place] for place in sorted(self.outcomes)]
        record.save(self.path, SCHEMA, _Kept(bugs, self.baseline))


def exit_status(outcomes: Sequence[Outcome]) -> Exit:
    """Return 0 if each was caught for the stated reason, 1 if one was not, else why it could not be told."""
    statuses = [one.judgement.status for one in outcomes]
    return next((status for status in (Exit.TESTS_FAILED, *statuses) if status and status in statuses), Exit.OK)


def line(outcome: Outcome) -> str:
    """Return what a terminal shows of an outcome."""
    told = outcome.judgement
    words = f"{_verdict(told):<16}  {outcome.arch:<7} {outcome.build_s:6.0f} s {_seconds(outcome):>7}  {outcome.bug}"
    if told.cases:
        words += f"\n                  {_cases(told)}"
    return f"{words}\n                  {told.why}"


def markdown(outcomes: Sequence[Outcome], day: datetime.date) -> str:
    """Return a page with the table, in the order of categories and names; `day` is that on which it is written."""
    rows = sorted(outcomes, key=lambda one: (one.category, one.bug, one.arch))
    text = [
        "<!-- SPDX-License-Identifier: MIT -->",
        "# Seeded bugs, and what caught them",
        "",
        f"Written by `./hgm mutants --markdown` on {day}. {summary(rows)}.",
        "",
        "*by*: cases that say no, first those whose claim the bug's header names. *in its words*: what the first said.",
        "*s*: seconds from the start of the cases, with the boot of their guest, to the end of the first that is red.",
        "",
        "| category | what is broken | kernel | verdict | by | in its words | s |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for one in rows:
        told = one.judgement
        kernel = one.arch if one.flavour == "fast" else f"{one.arch} {one.flavour}"
        kernel += f", stress {one.stress_s} s" if one.stress_s else ""
        cells = [
            one.category,
            f"`{one.bug}`: {one.title}",
            kernel,
            _verdict(told) if told.word is Word.CAUGHT and told.named else f"**{_verdict(told)}**",
            _cases(told),
            told.why,
            _seconds(one).removesuffix(" s"),
        ]
        text.append(f"| {' | '.join(map(_cell, cells))} |")
    return "\n".join(text) + "\n"


def _verdict(told: Judgement) -> str:
    """Return what became of a bug; a case of its category that makes another claim has caught it by luck."""
    return f"{told.word} by another rule" if told.word is Word.CAUGHT and not told.named else told.word.value


def summary(outcomes: Sequence[Outcome]) -> str:
    """Return the counts in a line, such as "caught 12, missed 1 of 13"."""
    words = [one.judgement.word for one in outcomes]
    counts = ", ".join(f"{word} {words.count(word)}" for word in Word if word in words)
    return f"{counts or 'nothing was tried'}; of {len(words)}"


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "\\|").split())


def _cases(told: Judgement) -> str:
    names = list(dict.fromkeys(_name(case) for case in told.cases))
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more


def _name(case: str) -> str:
    """Return an id without its directories and its architecture, which is in a column of its own."""
    program, _, name = case.partition("::")
    name, _, where = name.partition("[")
    return f"{Path(program).name}::{name}[{where.rstrip(']').rpartition('-')[2]}]"


def _seconds(outcome: Outcome) -> str:
    return "-" if outcome.red_s is None else f"{outcome.red_s:.0f} s"
