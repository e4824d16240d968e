# SPDX-License-Identifier: MIT
"""What a bisection has found out so far, kept in the cache: a killed one goes on where it was.

git's own state is not kept: it follows from the judgements, and is made again from them in no time.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from harness import record
from harness.bisect.failure import Failure, Judgement, Word

SCHEMA = 1  # of the file: raised when its meaning changes


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """What came of one commit."""

    commit: str
    judgement: Judgement
    image: str = ""  # sha256 of its kernel image; "" if it has none
    built: bool = False  # whether its kernel was built for this trial, and not in the cache before
    same_image_as: str = ""  # the commit whose judgement this is, for their images are identical
    seconds: float = 0.0  # from checkout to judgement
    directory: str = ""  # of its files


@dataclass(frozen=True, slots=True, kw_only=True)
class Ends:
    """What the check of both ends has found."""

    failure: Failure  # that is followed
    failed_runs: int  # of `runs` of the case at the bad end
    runs: int
    others: tuple[str, ...] = ()  # ids of further cases that fail at the bad end and pass at the good one


@dataclass(slots=True)
class _Kept:
    """bisect.json."""

    ends: Ends | None = None
    trials: list[Trial] = field(default_factory=list)


@dataclass(slots=True)
class Memory:
    """Trials by commit. Every change is on disk, whole, before anything is done with it."""

    path: Path
    ends: Ends | None = None
    trials: dict[str, Trial] = field(default_factory=dict)

    @classmethod
    def load(cls, path: Path) -> Memory:
        """Return what is kept in `path`; nothing, if it is not there. Raises what `record.load` does."""
        kept = record.load(path, SCHEMA, _Kept)
        return cls(path, kept.ends, {trial.commit: trial for trial in kept.trials})

    def by_image(self, image: str) -> Trial | None:
        """Return a trial of the identical kernel image that was good or bad; one that told nothing is tried anew."""
        told = (trial for trial in self.trials.values() if trial.judgement.word is not Word.SKIP)
        return next((trial for trial in told if image and trial.image == image), None)

    def add(self, trial: Trial) -> None:
        """Keep a trial."""
        self.trials[trial.commit] = trial
        self.save()

    def save(self) -> None:
        """Write everything: whole or not at all. Raises HostFault if the disk is full."""
        record.save(self.path, SCHEMA, _Kept(self.ends, list(self.trials.values())))
