# SPDX-License-Identifier: MIT
"""From what was seen of one selftest to results: one for each result line of its output, and one for the program."""

from __future__ import annotations

from dataclasses import dataclass, replace

from harness.arch import Arch
from harness.guest.ktap import Ktap, Point
from harness.kselftest import output
from harness.kselftest.output import Section
from harness.kselftest.wanted import result_id
from harness.process import tail
from harness.report.results import CaseResult, Finding, Status
from harness.verdict.fingerprint import known
from harness.verdict.judge import Observation, Verdict, of_end, of_kernel, of_state, status_words, worst
from harness.vm.ssh import End

# kselftest/runner.sh: whatever else a program exits with is a failure.
_EXIT = {0: "pass", 4: "skip"}
_POINT = {
    "pass": Status.PASS,
    "fail": Status.FAIL,
    "skip": Status.SKIP,
    "xfail": Status.XFAIL,
    "missing": Status.ERROR,
}
LINES_KEPT = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """A program of a collection, as it is run."""

    words: tuple[str, ...]  # its name and arguments
    name: str  # within the collection: its name alone, or with arguments if it is run more than once
    command: str  # what runs it, such as the collection's script
    turn: int = 1  # which of the programs that `command` runs it is


def results(program: Program, collection: str, arch: Arch, directory: str, seen: Observation) -> list[CaseResult]:
    """Return the results of a program and of every line of its TAP; the program's own comes last."""
    part = output.section(seen.outcome.stdout.decode(errors="replace"))
    tap = output.read(part.lines) if part else None
    verdict = judge(seen, part, tap, program)
    lines = part.lines if part else []
    own = _result(program, collection, arch, directory)
    found = [
        _of_point(own, result_id(collection, program.name, arch.name, "/".join(path)), point)
        for path, point in output.flat(tap.points if tap else [])
    ]
    own = replace(
        own,
        status=verdict.status,
        reason=verdict.reason,
        findings=verdict.findings,
        diagnostics=tuple(lines[:LINES_KEPT]),
        seconds=round(seen.outcome.seconds, 3),
    )
    return [*found, own]


def not_built(program: Program, collection: str, arch: Arch, why: str) -> CaseResult:
    """Return the result of a program that does not build here. That is no verdict on the kernel, and no pass."""
    finding = known(Finding(kind="build", message=f"{program.words[0]} does not build", evidence=why))
    return replace(_result(program, collection, arch, ""), findings=(finding,))


def judge(seen: Observation, part: Section | None, tap: Ktap | None, program: Program) -> Verdict:
    """Weigh all evidence: output, exit status, what the script around it says, the kernel's log, taint and pools."""
    lines = part.lines if part else tail(seen.outcome.stdout.decode(errors="replace")).splitlines()
    seen = replace(seen, ktap=Ktap(diagnostics=lines))
    if seen.outcome.end is not End.EXITED:
        found = of_end(seen)
    elif part is None or part.status is None:
        message = f"{program.command} ended with status {seen.outcome.status}, and the program "
        message += "has not been started" if part is None else "has not come to its end"
        found = [(Status.ERROR, Finding(kind="script", message=message, evidence="\n".join(lines)))]
    else:
        found = _program(part, part.status, tap, program)
    if verdict := worst(seen, [*of_kernel(seen), *found, *of_state(seen)]):
        return verdict
    if part and (part.status == 4 or (tap and tap.status == "skip")):
        reason = (tap.reason if tap else "") or next((line.strip() for line in reversed(lines) if line.strip()), "")
        return Verdict(status=Status.SKIP, findings=(), reason=reason or "it gave no reason")
    return Verdict(status=Status.PASS, findings=())


def _program(part: Section, status: int, tap: Ktap | None, program: Program) -> list[tuple[Status, Finding]]:
    """What the program said, and whether its exit status and the script around it say the same."""
    found: list[tuple[Status, Finding]] = []
    words = "\n".join(part.lines[-60:])
    by_exit = _EXIT.get(status, "fail")
    if tuple(part.words.split()) != program.words:
        message = f"{program.command} ran {part.words!r} where it had run {' '.join(program.words)!r}"
        found.append((Status.ERROR, Finding(kind="script", message=message)))
    if tap and tap.problems:
        message = "its TAP is not complete: " + "; ".join(tap.problems)
        found.append((Status.ERROR, Finding(kind="ktap", message=message, evidence=words)))
    elif tap and tap.status == "fail":
        names = ", ".join(f"{point.name} {point.text}".strip() for point in tap.points if point.status == "fail")
        found.append((Status.FAIL, Finding(kind="ktap", message=f"not ok: {names}", evidence=words)))
    if by_exit == "fail" and not (tap and tap.status == "fail"):
        exited = f"exited with {status_words(status)}" if status > 4 else f"exited with {status}"
        found.append((Status.FAIL, Finding(kind="exit", message=exited, evidence=words)))
    # A program whose every result is a skip exits with 0 or with 4.
    elif tap and not tap.problems and by_exit != tap.status and (by_exit, tap.status) != ("pass", "skip"):
        message = f"its TAP says {tap.status}, its exit status {status} says {by_exit}"
        worse = Status.FAIL if tap.status == "fail" else Status.ERROR
        found.append((worse, Finding(kind="exit", message=message, evidence=words)))
    if part.said not in ("", by_exit):
        message = f"{program.command} says {part.said}, and it exited with {status}"
        found.append((Status.ERROR, Finding(kind="script", message=message, evidence=words)))
    return found


def _result(program: Program, collection: str, arch: Arch, directory: str) -> CaseResult:
    return CaseResult(
        id=result_id(collection, program.name, arch.name),
        category=f"kselftest/{collection}",
        arch=arch.name,
        huge_page_size=0,  # of its own choice
        claim=" ".join(program.words),
        status=Status.ERROR,
        directory=directory,
    )


def _of_point(own: CaseResult, name: str, point: Point) -> CaseResult:
    """Return the result of one line in the output of the program whose result is `own`."""
    status = _POINT[point.status]
    message = f"{'no result' if status is Status.ERROR else 'not ok'}: {' '.join(f'{point.name} {point.text}'.split())}"
    reason = (point.text or "it gave no reason") if status in (Status.SKIP, Status.XFAIL) else ""
    return replace(
        own,
        id=name,
        claim=point.name or point.text,
        status=status,
        reason=reason,
        findings=(known(Finding(kind="ktap", message=message)),) if status in (Status.FAIL, Status.ERROR) else (),
    )
