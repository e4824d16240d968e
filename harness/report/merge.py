# SPDX-License-Identifier: MIT
"""Joins the results of runs that shared the cases of one matrix: shards, architectures, or both."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path

from harness.errors import BadInput, Exit
from harness.report.results import CaseResult, Fault, RunResult

IDENTITY = ("release", "tree", "config_sha256", "flavour", "key")  # of a kernel; in one result there is one of each


def merged(parts: Sequence[tuple[str, RunResult]], *, started: RunResult, lost: Sequence[str] = ()) -> RunResult:
    """Return one result of several, each with the name by which the user knows it; `started` is the empty one to fill.

    A shard that is missing becomes a fault of the whole, and its cases are cases without a result; so does each run
    that left no results, whose name is in `lost`. Raises BadInput if two have a result of the same case, were made by
    different versions, or tested different kernels.
    """
    whole = started
    whole.started = min(part.started for _, part in parts)
    whole.finished = max(part.finished for _, part in parts) if all(part.finished for _, part in parts) else ""
    whole.interrupted = any(part.interrupted for _, part in parts)
    _one_of_each([(name, part.harness) for name, part in parts], "made by harness")
    whole.harness = parts[0][1].harness
    owner: dict[str, str] = {}
    for name, part in parts:
        for case in part.cases:
            if other := owner.get(case.id):
                raise BadInput(f"{other} and {name} both have a result of {case.id}", hint="each case belongs to one")
            owner[case.id] = name
            whole.cases.append(case)
        whole.selected += part.selected
        whole.not_run += part.not_run
    for arch in dict.fromkeys(arch for _, part in parts for arch in part.kernels):
        having = [(name, part) for name, part in parts if arch in part.kernels]
        for key in IDENTITY:
            _one_of_each([(name, part.kernels[arch].get(key)) for name, part in having], f"of {arch} kernels: {key}")
        whole.kernels[arch] = having[0][1].kernels[arch]
        whole.machines[arch] = _machine([part.machines.get(arch, {}) for _, part in having])
    missing = [*(f"{name} has no results" for name in lost), *_missing_shards(parts, whole)]
    faults = [part.fault for _, part in parts if part.fault]
    if faults or missing:
        # What a shard met says more than that another is not there.
        words = "; ".join([*(fault.message for fault in faults), *missing])
        whole.fault = Fault(exit_code=faults[0].exit_code if faults else Exit.HOST_FAULT, message=words)
    return whole


def copy_files(part: RunResult, source: Path, target: Path) -> None:
    """Give `target` copies of the files of each case of `part`; a later run may write over those in `source`."""
    for directory in dict.fromkeys(_directories(part.cases)):
        if (source / directory).is_dir() and (source / directory).resolve() != (target / directory).resolve():
            shutil.copytree(source / directory, target / directory, dirs_exist_ok=True)


def _directories(cases: Iterable[CaseResult]) -> Iterable[str]:
    for case in cases:
        yield from (one.directory for one in (case, *case.attempts) if one.directory)


def _one_of_each(values: Sequence[tuple[str, object]], what: str) -> None:
    first, expected = values[0]
    for name, value in values[1:]:
        if value != expected:
            raise BadInput(
                f"{what}: {expected!r} in {first}, {value!r} in {name}",
                hint="only runs of the same kernel by the same harness are one result",
            )


def _machine(machines: Sequence[dict[str, object]]) -> dict[str, object]:
    """Return one machine for several: lists are joined, and texts that differ are all named."""
    whole: dict[str, object] = {}
    for key in dict.fromkeys(key for machine in machines for key in machine):
        values = [machine[key] for machine in machines if key in machine]
        lists = [one for value in values if isinstance(value, list) for one in value]
        texts = [value for value in values if isinstance(value, str)]
        whole[key] = lists or (", ".join(dict.fromkeys(texts)) if texts else values[0])
    return whole


def _missing_shards(parts: Sequence[tuple[str, RunResult]], whole: RunResult) -> list[str]:
    """Return a sentence for each shard that is not among `parts`, and take its cases up as selected and not run."""
    groups: dict[tuple[str, ...], dict[int, RunResult]] = {}
    sizes: dict[tuple[str, ...], int] = {}
    for name, part in parts:
        if not part.shard:
            continue
        number, _, count = part.shard.partition("/")
        # One that was killed, and had workers, has not been told what was dealt: that is where its own cases are.
        others = (one.dealt for _, one in parts if part.selected and set(part.selected) <= set(one.dealt))
        group = tuple(sorted(part.dealt or next(others, [])))
        if sizes.setdefault(group, int(count)) != int(count):
            raise BadInput(f"{name} is shard {part.shard}, and others share the same cases between {sizes[group]}")
        if int(number) in groups.setdefault(group, {}):
            raise BadInput(f"{name} is shard {part.shard} of cases of which that shard is there already")
        groups[group][int(number)] = part
    sentences = []
    for group, seen in groups.items():
        known = {case for part in seen.values() for case in part.selected}
        lacking = [case for case in group if case not in known]
        whole.selected += lacking
        whole.not_run += lacking
        lost = [number for number in range(1, sizes[group] + 1) if number not in seen]
        sentences += [f"shard {number}/{sizes[group]} is missing" for number in lost]
    return sentences
