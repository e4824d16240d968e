# SPDX-License-Identifier: MIT
"""The one verdict from all evidence of a case. Pure: everything it looks at is handed in."""

from __future__ import annotations

import signal
from collections.abc import Sequence
from dataclasses import dataclass

from harness.guest.ktap import Ktap
from harness.guest.state import State
from harness.pagetable.probe import Shape
from harness.report.results import Finding, Status
from harness.verdict import splats
from harness.verdict.fingerprint import known
from harness.verdict.leaks import pool_changes
from harness.vm.evidence import Evidence
from harness.vm.ssh import End, Outcome

NO_HGM = "kernel has no HGM"  # how a case's skip reason begins on a kernel without it
_EXIT = {0: "pass", 1: "fail", 4: "skip"}  # as kselftest.h has them
WARNED = 1 << 9  # of the taint: there was a WARN (kernel/panic.c:__warn)


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """All that was seen of one case."""

    outcome: Outcome
    ktap: Ktap
    log: str  # the kernel's log from the case's start to its end
    earlier: str = ""  # its log between the end of the case before and this one's start
    log_complete: bool = True  # whether the mark that ends the case has reached the console
    spoils: bool = False  # the case takes pages for good, and has compared the pools itself
    stacks: str = ""  # what the guest was doing when it did not end or answer, in short
    hang: Evidence | None = None  # and all that it told of it
    memory: str = ""  # what came of a dump of its memory, if one was asked for
    before: State
    after: State | None  # None: the guest could not be asked any more
    shapes: tuple[Shape, ...] = ()  # how the case's memory was mapped, as it asked, in order
    unseen: tuple[str, ...] = ()  # why it was not told, where it asked in vain


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What a case came to, and why. Without findings it passed, or was skipped for `reason`."""

    status: Status
    findings: tuple[Finding, ...]
    reason: str = ""


def judge(seen: Observation, *, expect_hgm: bool) -> Verdict:
    """Weigh all evidence. A case passes only if every piece of it says so; the worst finding names the status."""
    if verdict := worst(seen, [*of_kernel(seen), *_unseen(seen, _program(seen)), *of_state(seen)]):
        return verdict
    if seen.ktap.status == "skip":
        if expect_hgm and seen.ktap.reason.startswith(NO_HGM):
            missing = Finding(kind="expect-hgm", message=f"HGM was expected, but the {seen.ktap.reason}")
            return Verdict(status=Status.FAIL, findings=(known(missing),))
        return Verdict(status=Status.SKIP, findings=(), reason=seen.ktap.reason)
    return Verdict(status=Status.PASS, findings=())


def worst(seen: Observation, found: Sequence[tuple[Status, Finding]]) -> Verdict | None:
    """Return the verdict that the worst of the findings gives, if there are any."""
    ranked = [status for status, _ in found]
    findings = [finding for _, finding in found]
    if seen.memory:
        findings.append(Finding(kind="dump", message=seen.memory))
    for status in (Status.CRASH, Status.HANG, Status.FAIL, Status.ERROR):
        if status in ranked:
            return Verdict(status=status, findings=tuple(map(known, findings)))
    return None


def crashed(log: str) -> bool:
    """Whether a kernel's log shows that it crashed, though it may have lived on."""
    return any(splat.kind in splats.CRASHES for splat in splats.find(log))


def of_kernel(seen: Observation) -> list[tuple[Status, Finding]]:
    """What the kernel complained of while the case ran, or late, so that nobody else saw it."""
    return [
        (
            Status.CRASH if splat.kind in splats.CRASHES else Status.FAIL,
            Finding(kind="splat", message=f"{splat.kind}{when}: {splat.title}", evidence=splat.text),
        )
        for log, when in ((seen.earlier, " before this case, after the one before it"), (seen.log, ""))
        for splat in splats.find(log)
    ]


def of_end(seen: Observation) -> list[tuple[Status, Finding]]:
    """How the program ended, if not by itself."""
    outcome, said = seen.outcome, "\n".join(seen.ktap.diagnostics)
    match outcome.end:
        case End.DEADLINE:
            message = f"did not end within {outcome.seconds:.0f} s"
            evidence = "\n".join(text for text in (said, seen.stacks) if text)
            return [(Status.HANG, Finding(kind="deadline", message=message, evidence=evidence)), *_refusal(seen.ktap)]
        case End.FLOOD:
            size = len(outcome.stdout) + len(outcome.stderr)
            return [(Status.ERROR, Finding(kind="flood", message=f"printed more than {size >> 20} MiB"))]
        case End.LOST:
            gone = Finding(kind="lost", message="the guest went away while the case ran", evidence=said)
            return [(Status.ERROR, gone), *_refusal(seen.ktap)]
        case End.EXITED:
            return []


def _program(seen: Observation) -> list[tuple[Status, Finding]]:
    """What the test program did and said."""
    if seen.outcome.end is not End.EXITED:
        return of_end(seen)
    outcome, ktap = seen.outcome, seen.ktap
    found: list[tuple[Status, Finding]] = []
    stderr = outcome.stderr.decode(errors="replace").strip()
    by_exit = _EXIT.get(outcome.status if outcome.status is not None else -1)
    if ktap.problems:
        message = "its KTAP is not complete: " + "; ".join(ktap.problems)
        found.append((Status.ERROR, Finding(kind="ktap", message=message, evidence=stderr or _start(outcome.stdout))))
    elif ktap.status == "fail":
        found += _refusal(ktap, stderr)
    if by_exit is None:
        message = f"exited with {status_words(outcome.status)}"
        found.append((Status.ERROR, Finding(kind="exit", message=message, evidence=stderr)))
    elif not ktap.problems and by_exit != ktap.status:
        message = f"its KTAP says {ktap.status}, its exit status {outcome.status} says {by_exit}"
        worse = Status.FAIL if "fail" in (by_exit, ktap.status) else Status.ERROR
        found.append((worse, Finding(kind="exit", message=message, evidence=stderr)))
    return found


def _unseen(seen: Observation, found: list[tuple[Status, Finding]]) -> list[tuple[Status, Finding]]:
    """What is left of a program's words if page tables could not be read for it: its no is to that, not to a kernel."""
    if not seen.unseen:
        return found
    message = f"page tables could not be read: {'; '.join(seen.unseen)}"
    finding = Finding(kind="probe", message=message, evidence="\n".join(seen.ktap.diagnostics))
    return [*(one for one in found if one[1].kind != "ktap"), (Status.ERROR, finding)]


def _refusal(ktap: Ktap, stderr: str = "") -> list[tuple[Status, Finding]]:
    """What the program has said no to. It counts even if the program, or its guest, did not get to an end after it."""
    names = ", ".join(point.name for point in ktap.points if point.status == "fail")
    said = "\n".join(ktap.diagnostics)
    return [(Status.FAIL, Finding(kind="ktap", message=f"not ok: {names}", evidence=said or stderr))] if names else []


def of_state(seen: Observation) -> list[tuple[Status, Finding]]:
    """What the case left behind in the kernel."""
    before, after = seen.before, seen.after
    if after is None:
        if seen.outcome.end is End.EXITED:
            message = "the guest did not answer after the case, so taint and pools are unknown"
            return [(Status.ERROR, Finding(kind="lost", message=message, evidence=seen.stacks))]
        return []
    found: list[tuple[Status, Finding]] = []
    if not seen.log_complete:
        message = "the kernel's log does not reach to the end of the case, so it could not be searched"
        found.append((Status.ERROR, Finding(kind="lost", message=message)))
    # An allowed WARN taints as every other does.
    excused = WARNED if splats.allowed(seen.earlier + seen.log) else 0
    if (after.tainted ^ before.tainted) & ~excused:
        message = f"the kernel's taint changed from {before.tainted} to {after.tainted}"
        found.append((Status.FAIL, Finding(kind="taint", message=message)))
    if not seen.spoils and (changes := pool_changes(before, after)):
        found.append(
            (Status.FAIL, Finding(kind="leak", message="huge pages are not back", evidence="\n".join(changes)))
        )
    if 0 in (before.debug_locks, after.debug_locks) or before.debug_locks != after.debug_locks:
        when = "before" if before.debug_locks == 0 else "while"
        message = f"lockdep had switched itself off {when} the case ran, so locking was not checked"
        found.append((Status.ERROR, Finding(kind="lockdep", message=message)))
    return found


def status_words(status: int | None) -> str:
    """Return an exit status in words: which signal it stands for, or that it is none of a test's."""
    if status is not None and 128 < status < 128 + signal.NSIG:
        return f"{status}: killed by {signal.Signals(status - 128).name}"
    return str(status) if status in _EXIT else f"{status}, which is none of 0, 1, 4"


def _start(raw: bytes) -> str:
    return repr(raw[:200])[2:-1] if raw else "(it printed nothing)"
