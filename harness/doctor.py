# SPDX-License-Identifier: MIT
"""What this machine lacks of what it must have, and the one command that mends it."""

from __future__ import annotations

import os
import shlex
import shutil
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from harness import accel
from harness.arch import ARCHES, Arch
from harness.bootstrap import apt_lists, privilege
from harness.errors import Exit, HostFault
from harness.needs import FOR_USERS, Fast, Requirement, Stage, requirements, rooms
from harness.process import run, say

APT = ("apt-get", "-o", "DPkg::Lock::Timeout=300")
# What apt says when its lists are older than its archive.
STALE = ("Unable to locate package", "has no installation candidate", "404  Not Found", "Failed to fetch")


class State(StrEnum):
    """How it stands with one requirement."""

    OK = "ok"
    MISSING = "missing"
    OPTIONAL = "optional"  # not there, and it works without


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """A requirement and how it stands with it on this machine."""

    requirement: Requirement
    state: State
    detail: str


def diagnose(arches: Sequence[Arch], *, stages: Collection[Stage] = tuple(Stage)) -> list[Finding]:
    """Probe everything that guests of `arches` need, the accelerators last. Changes nothing.

    What only the project's own tests need is optional here.
    """
    wanted = [requirement for requirement in requirements(arches) + rooms() if requirement.stage in stages]
    found = [_find(replace(one, optional=one.optional or one.stage not in FOR_USERS)) for one in wanted]
    there = {finding.requirement.name for finding in found if finding.state is State.OK}
    for arch in arches if Stage.VM in stages else ():
        if {arch.qemu, "setpriv"} <= there:
            found.append(
                _find(
                    Requirement(
                        name=f"accelerator ({arch.name})",
                        why="KVM makes guests several times faster",
                        probe=Fast(arch),
                        stage=Stage.VM,
                        arch=arch.name,
                        optional=True,
                    )
                )
            )
    return found


def table(findings: Sequence[Finding]) -> str:
    """Return the findings as aligned lines."""
    rows = [
        (
            finding.state.value,
            finding.requirement.name,
            finding.requirement.why,
            finding.detail
            + (f" (package {' '.join(finding.requirement.packages)})" if _mendable(finding) else ""),
        )
        for finding in findings
    ]  # fmt: skip
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    return "\n".join("  ".join([*(c.ljust(w) for c, w in zip(row, widths, strict=False)), row[3]]) for row in rows)


def packages(findings: Iterable[Finding]) -> list[str]:
    """Return the Debian packages that mend `findings`, each once."""
    return sorted({name for finding in findings if _mendable(finding) for name in finding.requirement.packages})


def remedy(findings: Sequence[Finding]) -> str:
    """Return the one command to type that mends `findings`, or nothing if no package does."""
    names = packages(findings)
    if not names:
        return ""
    if not shutil.which("apt-get"):
        return f"install, with your system's package manager, what Debian calls: {' '.join(names)}"
    sudo = "" if os.geteuid() == 0 else "sudo "
    update = "" if apt_lists() else f"{sudo}apt-get update && "
    return f"{update}{sudo}apt-get install -y --no-install-recommends {shlex.join(names)}"


def install(findings: Sequence[Finding], say: Callable[[str], None] = say) -> None:
    """Install what `findings` lack, as root or through sudo; says so first. Does nothing if no package helps.

    Raises HostFault with what to type where it may not, and if apt fails.
    """
    names = packages(findings)
    if not names:
        return
    typed = remedy(findings)
    missing = ", ".join(finding.requirement.name for finding in findings if _mendable(finding))
    if not shutil.which("apt-get"):
        raise HostFault(f"this machine lacks {missing}", hint=typed)
    prefix = privilege()
    if prefix is None:
        raise HostFault(
            f"this machine lacks {missing}, and you are neither root nor allowed sudo", hint=f"type: {typed}"
        )
    say(f"this machine lacks {missing}; running: {typed}")
    # Its complaints are told apart by their English words.
    apt = [*prefix, "env", "LC_ALL=C", "DEBIAN_FRONTEND=noninteractive", *APT]
    get = [*apt, "install", "-y", "--no-install-recommends", *names]
    if not apt_lists():
        run([*apt, "update"], quiet=True)
    first = run(get, check=False, quiet=True)
    if first.returncode:
        if any(sign in first.stderr for sign in STALE):
            say("apt's lists are out of date; running: apt-get update, and once more")
            run([*apt, "update"], quiet=True)
        # Once more in any case: its failure then comes with its own words.
        run(get, quiet=True)


def ensure(arches: Sequence[Arch], say: Callable[[str], None] = say, *, stages: Collection[Stage] = FOR_USERS) -> None:
    """Make sure that all packages for guests of `arches` are there; silent if they are, else installs them.

    Raises HostFault with what to type if something is missing still.
    """
    findings = _needed(arches, stages)
    if any(finding.state is State.MISSING for finding in findings):
        install(findings, say)
        findings = _needed(arches, stages)
        left = [finding for finding in findings if finding.state is State.MISSING]
        if left:
            raise HostFault(
                "this machine still lacks " + ", ".join(f"{f.requirement.name} ({f.detail})" for f in left),
                hint=remedy(left) or "./hgm doctor shows more",
            )
    for requirement in rooms():
        short = _find(requirement)
        # Not an error: what is in the cache already needs no room, and a full disk ends in a message of its own.
        if requirement.stage in stages and short.state is not State.OK:
            say(f"{requirement.name}: {short.detail}")


def main(*, install: bool = False) -> int:
    """Print how it stands for both architectures; with `install`, mend it first.

    What only the project's own tests need is shown, but it is not missed. Raises BadInput as `accel.check`.
    """
    arches = list(ARCHES.values())
    for arch in arches:
        accel.check(arch)
    findings = diagnose(arches)
    if install and packages(_of_users(findings)):
        _mend(_of_users(findings))
        findings = diagnose(arches)
    print(table(findings))
    missing = [finding.requirement.name for finding in _of_users(findings) if finding.state is State.MISSING]
    command = remedy(_of_users(findings))
    if command:
        print(f"\nto mend it, type:\n  {command}\nor: ./hgm doctor --install")
    print(f"\nmissing: {', '.join(missing)}" if missing else "\nall that is needed is there")
    return Exit.HOST_FAULT if missing else Exit.OK


def _of_users(findings: Sequence[Finding]) -> list[Finding]:
    return [finding for finding in findings if finding.requirement.stage in FOR_USERS]


def _mend(findings: Sequence[Finding]) -> None:
    # By another name: in main() "install" is the option.
    install(findings)


def _needed(arches: Sequence[Arch], stages: Collection[Stage]) -> list[Finding]:
    return [_find(requirement) for requirement in requirements(arches) if requirement.stage in stages]


def _find(requirement: Requirement) -> Finding:
    there, detail = requirement.probe()
    state = State.OK if there else State.OPTIONAL if requirement.optional else State.MISSING
    return Finding(requirement=requirement, state=state, detail=detail)


def _mendable(finding: Finding) -> bool:
    return finding.state is not State.OK and bool(finding.requirement.packages)
