# SPDX-License-Identifier: MIT
"""Two runs side by side: what broke, what got fixed, what is tested no more, what got slower. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

from harness.errors import Exit
from harness.report.results import CaseResult, RunResult, Status, distinct
from harness.report.whole import cut_short, facts

# What is shorter than the floor, or less of a change than the ratio, is the noise of a busy machine.
CASE_RATIO, CASE_FLOOR_S = 1.5, 1.0
CATEGORY_RATIO, CATEGORY_FLOOR_S = 1.2, 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One case that came to something else than before."""

    id: str
    before: str  # status; "" if it was not there
    after: str
    reason: str = ""  # what it says of itself now


@dataclass(frozen=True, slots=True, kw_only=True)
class Slower:
    """A case that passed both times, or all such cases of a category on an architecture."""

    name: str
    before: float  # seconds
    after: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """What differs between two runs, the newer of which is judged."""

    broke: tuple[Change, ...]  # red now, and was not, or is new
    skipped: tuple[Change, ...]  # skipped now, and was not
    missing: tuple[Change, ...]  # without a result now
    fixed: tuple[Change, ...]
    new: tuple[Change, ...]
    changed: tuple[Change, ...]  # any other change of status, or of what a red case found
    slower: tuple[Slower, ...]
    cut_short: str  # what ended the newer run early
    notes: tuple[str, ...]  # what makes the two less comparable

    @property
    def exit_status(self) -> int:
        """1 if the newer run is worse in a case or has lost one: coverage that is lost is not green. Else 0."""
        lost = self.broke or self.skipped or self.missing or self.cut_short
        return Exit.TESTS_FAILED if lost else Exit.OK

    def to_json(self) -> dict[str, Any]:
        """Return everything as plain data."""
        return asdict(self) | {"exit_status": int(self.exit_status)}


def compare(new: RunResult, old: RunResult) -> Comparison:
    """Compare the run `new` with an older one."""
    before = {case.id: case for case in old.cases}
    after = {case.id: case for case in new.cases}
    groups: dict[str, list[Change]] = {name: [] for name in ("broke", "skipped", "fixed", "new", "changed")}
    for name, case in after.items():
        if group := _group(before.get(name), case):
            was = before[name].status if name in before else ""
            groups[group].append(Change(id=name, before=was, after=case.status, reason=_reason(case)))
    gone = [Change(id=name, before=case.status, after="") for name, case in before.items() if name not in after]
    gone += [Change(id=name, before="", after="", reason="not run") for name in new.not_run if name not in before]
    both = [(before[name], case) for name, case in after.items() if name in before]
    same = [(one, two) for one, two in both if _accelerator(old, one.arch) == _accelerator(new, two.arch)]
    return Comparison(
        **{name: tuple(changes) for name, changes in groups.items()},
        missing=tuple(gone),
        slower=_slower([pair for pair in same if pair[0].status is pair[1].status is Status.PASS]),
        cut_short=cut_short(new),
        notes=tuple(_notes(new, old)),
    )


def text(result: Comparison) -> list[str]:
    """Return the comparison as lines for people."""
    lines = [f"note: {note}" for note in result.notes]
    titles = {
        "broke": "broke",
        "skipped": "skipped now",
        "missing": "missing now",
        "fixed": "fixed",
        "changed": "changed otherwise",
        "new": "new",
    }
    for name, title in titles.items():
        changes: tuple[Change, ...] = getattr(result, name)
        lines += [f"{title}: {len(changes)}"] if changes else []
        for change in changes:
            lines.append(f"  {change.id}: {change.before or 'no result'} -> {change.after or 'no result'}")
            lines += [f"    {line}" for line in change.reason.splitlines()]
    lines += [f"slower: {len(result.slower)} (seconds compare only on the same machine)"] if result.slower else []
    for one in result.slower:
        lines.append(
            f"  {one.name}: {one.before:.1f} s -> {one.after:.1f} s, {one.after / max(one.before, 0.001):.1f}x"
        )
    lines += [f"cut short: {result.cut_short}"] if result.cut_short else []
    return lines or ["no difference"]


def _group(before: CaseResult | None, after: CaseResult) -> str:
    """Return to which group of the comparison a case belongs; "" if nothing changed."""
    if after.red and not (before and before.red):
        return "broke"
    if before is None:
        return "new"
    if after.status is Status.SKIP and before.status is not Status.SKIP:
        return "skipped"
    if before.red and after.status is Status.PASS:
        return "fixed"
    otherwise = before.status != after.status or (after.red and _fingerprints(before) != _fingerprints(after))
    return "changed" if otherwise else ""


def _fingerprints(case: CaseResult) -> set[tuple[str, str]]:
    return {(finding.kind, finding.fingerprint) for finding in case.findings}


def _reason(case: CaseResult) -> str:
    return "\n".join(finding.message for finding in distinct(case.findings)) or case.reason


def _accelerator(result: RunResult, arch: str) -> str:
    return facts(result, arch).get("accelerator", "")


def _slower(pairs: list[tuple[CaseResult, CaseResult]]) -> tuple[Slower, ...]:
    sums: dict[str, list[float]] = {}
    found = []
    for old, new in pairs:
        total = sums.setdefault(f"{new.category} on {new.arch}, all that passed both times", [0.0, 0.0])
        total[0] += old.seconds
        total[1] += new.seconds
        if new.seconds > old.seconds * CASE_RATIO and new.seconds - old.seconds > CASE_FLOOR_S:
            found.append(Slower(name=new.id, before=old.seconds, after=new.seconds))
    whole = [
        Slower(name=name, before=old, after=new)
        for name, (old, new) in sums.items()
        if new > old * CATEGORY_RATIO and new - old > CATEGORY_FLOOR_S
    ]
    return (*whole, *sorted(found, key=lambda one: one.before - one.after))


def _notes(new: RunResult, old: RunResult) -> Iterable[str]:
    if reason := cut_short(old):
        yield f"the run to compare with was cut short: {reason}"
    for arch in new.kernels:
        if arch not in old.kernels:
            yield f"{arch} was not run before"
            continue
        was, is_now = facts(old, arch), facts(new, arch)
        for name in ("kernel_release", "kernel_tree", "kernel_config_sha256", "kernel_flavour", "qemu"):
            if was.get(name) != is_now.get(name):
                yield f"{arch}: {name} was {was.get(name, 'unknown')}, is {is_now.get(name, 'unknown')}"
        if was.get("accelerator") != is_now.get("accelerator"):
            accelerators = f"{was.get('accelerator')} before, {is_now.get('accelerator')} now"
            yield f"{arch}: {accelerators}: seconds are not compared"
