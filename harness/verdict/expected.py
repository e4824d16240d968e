# SPDX-License-Identifier: MIT
"""The list of failures that are known and expected: each with its reason, and the day from which it holds no more."""

from __future__ import annotations

import datetime
import fnmatch
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from harness.errors import BadInput
from harness.report.results import SECONDARY, Attempt, CaseResult, Finding, Status
from harness.verdict.splats import Splat

FAILED = (Status.FAIL, Status.CRASH, Status.HANG, Status.FLAKY)
BOOT = "boot"  # what an entry names in place of a case, with an architecture, for the boot of a kernel
EXAMPLE = 'case = "guest_tests/fork/*[arm64-*]", reason = "why, and where it is discussed", revisit = 2027-06-30'


@dataclass(frozen=True, slots=True, kw_only=True)
class Expected:
    """One entry of the list."""

    case: str  # the id of a case, or boot[ARCH]; * stands for anything, as does ? for one character
    reason: str
    revisit: datetime.date  # from this day on it counts as a failure again
    finding: re.Pattern[str]  # searched in each finding that is no consequence; empty: whatever was found
    kernel: str = "*"  # of which the release must be


def read(path: Path) -> tuple[Expected, ...]:
    """Return the entries of a TOML file, tables `[[expected]]`. Raises BadInput that names what is wrong with one."""
    try:
        if path.exists() and not path.is_file():
            # What can be read only once, such as a pipe, would have no failures in it for whoever reads it next.
            raise BadInput(f"the list of expected failures {path} is not a file")
        data = tomllib.loads(path.read_text())
    except OSError as error:
        raise BadInput(f"the list of expected failures {path} cannot be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadInput(f"the list of expected failures {path} is no TOML: {error}") from error
    entries = data.pop("expected", [])
    if data or not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise BadInput(f"{path} has {', '.join(data) or 'expected'}, and may have tables [[expected]] only")
    return tuple(_entry(f"{path}: entry {number}", entry) for number, entry in enumerate(entries, start=1))


def apply(
    result: CaseResult, expected: Sequence[Expected], *, release: str, today: datetime.date | None = None
) -> CaseResult:
    """Return `result` as the list has it: XFAIL for a failure that is on it, XPASS for a pass that should be none.

    An entry whose day has come expects nothing any more; a failure on it gets a finding that says so.
    """
    today = today or datetime.datetime.now(datetime.UTC).date()
    for entry in expected:
        if not _matches(entry.case, result.id) or not fnmatch.fnmatchcase(release, entry.kernel):
            continue
        if result.status is Status.PASS:
            return replace(
                result, status=Status.XPASS, reason=f"expected to fail until {entry.revisit}: {entry.reason}"
            )
        attempts = [one for one in result.attempts or (result,) if one.status is not Status.PASS]
        if result.status not in FAILED or not all(_fails_as(entry, one) for one in attempts):
            continue
        if today < entry.revisit:
            return replace(result, status=Status.XFAIL, reason=f"until {entry.revisit}: {entry.reason}")
        message = f"was expected until {entry.revisit}, which has come: {entry.reason}"
        return replace(result, findings=(*result.findings, Finding(kind="expected", message=message)))
    return result


def at_boot(
    complaints: Sequence[Splat],
    expected: Sequence[Expected],
    *,
    arch: str,
    release: str,
    today: datetime.date | None = None,
) -> tuple[list[Splat], list[str]]:
    """Return what a kernel of `arch` complains of while it boots that is not on the list, and what to say of the list.

    Only entries for `boot[ARCH]` are for that: one for all cases is not meant to trust a kernel less. That there is no
    complaint for an entry is only said: a series or a bisection may go from kernels that complain to those that do not.
    """
    today = today or datetime.datetime.now(datetime.UTC).date()
    place = f"{BOOT}[{arch}]"
    entries = [
        entry
        for entry in expected
        if entry.case.startswith(f"{BOOT}[") and _matches(entry.case, place)
        if fnmatch.fnmatchcase(release, entry.kernel) and today < entry.revisit
    ]
    met = [[entry for entry in entries if entry.finding.search(f"{one.kind}: {one.title}")] for one in complaints]
    notes = []
    for entry in entries:
        words = "complains while it boots, as" if any(entry in some for some in met) else "boots without what"
        notes.append(f"the {arch} kernel {words} is expected until {entry.revisit}: {entry.reason}")
    return [one for one, some in zip(complaints, met, strict=True) if not some], notes


def _fails_as(entry: Expected, attempt: Attempt) -> bool:
    """Whether all that was found is what the entry is about, or follows from it; what could not be told is neither."""
    if attempt.status not in FAILED:
        return False
    said = [finding.message for finding in attempt.findings if finding.kind not in SECONDARY]
    return not entry.finding.pattern or (bool(said) and all(map(entry.finding.search, said)))


def _matches(pattern: str, case: str) -> bool:
    # Ids have brackets, which are no sets of characters here.
    return fnmatch.fnmatchcase(case, pattern.replace("[", "[[]"))


def _entry(where: str, entry: Mapping[str, object]) -> Expected:
    def text(name: str, default: str | None = None) -> str:
        value = entry.get(name, default)
        if not isinstance(value, str) or not (value or name == "finding"):
            raise BadInput(f"{where}: {name} is {value!r}, and must be text", hint=f"such as {EXAMPLE}")
        return value

    if unknown := entry.keys() - {"case", "reason", "revisit", "finding", "kernel"}:
        raise BadInput(f"{where}: {', '.join(sorted(unknown))} is not known", hint=f"such as {EXAMPLE}")
    revisit = entry.get("revisit")
    if not isinstance(revisit, datetime.date) or isinstance(revisit, datetime.datetime):
        raise BadInput(f"{where}: revisit is {revisit!r}, and must be a day without quotes", hint=f"such as {EXAMPLE}")
    try:
        finding = re.compile(text("finding", ""))
    except re.error as error:
        raise BadInput(f"{where}: finding is no regular expression: {error}") from error
    return Expected(
        case=text("case"), reason=text("reason"), revisit=revisit, finding=finding, kernel=text("kernel", "*")
    )
