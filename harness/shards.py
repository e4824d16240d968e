# SPDX-License-Identifier: MIT
"""Splits the cases of a run between machines, so that each is done at about the same time. Pure but for one file."""

from __future__ import annotations

import json
import re
import statistics
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from harness.errors import BadInput
from harness.paths import GUEST_TESTS

if TYPE_CHECKING:
    from harness.report.results import RunResult

DURATIONS = GUEST_TESTS / "durations.json"  # seconds by id of a case; `./hgm report --durations` writes it
LICENCE = "SPDX-License-Identifier"
USUAL_S = 1.0  # what a case takes of which nothing is known, nor of any other


def parse(words: str) -> tuple[int, int] | None:
    """Return K and N of --shard K/N, None for no such option. Raises BadInput for anything else."""
    if not words:
        return None
    found = re.fullmatch(r"([1-9]\d{0,3})/([1-9]\d{0,3})", words, re.ASCII)
    if not found or int(found[1]) > int(found[2]):
        hint = "K/N with K from 1 to N, such as 2/3: the second of three parts; N is 9999 at most"
        raise BadInput(f"--shard {words}", hint=hint)
    return int(found[1]), int(found[2])


def read(path: Path = DURATIONS) -> dict[str, float]:
    """Return the recorded seconds by id of a case. Raises BadInput if the file is none of that kind."""
    try:
        seconds = json.loads(path.read_text())["seconds"]
        return {str(name): float(value) for name, value in seconds.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise BadInput(f"{path} holds no durations: {error!r}", hint="./hgm report --durations writes it") from error


def write(path: Path, seconds: Mapping[str, float]) -> None:
    """Write the file that `read` reads."""
    data = {LICENCE: "MIT", "seconds": {name: round(seconds[name], 2) for name in sorted(seconds)}}
    path.write_text(json.dumps(data, indent=1) + "\n")


def recorded(result: RunResult) -> dict[str, float]:
    """Return what each case of a run took, in seconds: its program, and a guest of its own."""
    guests = {
        name: statistics.median(_numbers(machine.get("clone_seconds")) or [0.0])
        for name, machine in result.machines.items()
    }
    return {case.id: case.seconds + guests.get(case.arch, 0.0) for case in result.cases}


def deal(ids: Collection[str], count: int, seconds: Mapping[str, float]) -> list[set[str]]:
    """Return `count` disjoint sets that together are `ids`: the longest case first, each to who has least to do.

    The same ids are dealt in the same way in whatever order they come. A case without a record counts as the median of
    its program, or else of all.
    """
    guess = _guesses(seconds)
    expected = {name: seconds.get(name, guess.get(_program(name), guess[""])) for name in ids}
    hands: list[set[str]] = [set() for _ in range(count)]
    load = [0.0] * count
    for name in sorted(expected, key=lambda name: (-expected[name], name)):
        least = load.index(min(load))
        hands[least].add(name)
        load[least] += expected[name]
    return hands


def _numbers(value: object) -> list[float]:
    return [float(one) for one in value] if isinstance(value, list) else []


def _guesses(seconds: Mapping[str, float]) -> dict[str, float]:
    """Return the median of each program, and that of all under the empty name."""
    programs: dict[str, list[float]] = {"": list(seconds.values()) or [USUAL_S]}
    for name, value in seconds.items():
        programs.setdefault(_program(name), []).append(value)
    return {program: statistics.median(values) for program, values in programs.items()}


def _program(name: str) -> str:
    return name.partition("::")[0]
