# SPDX-License-Identifier: MIT
"""One run: what was asked for, what was prepared for it, the guests that are up, and the results."""

from __future__ import annotations

import contextlib
import datetime
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path

from harness import accel, image, pools
from harness.accel import Accelerator
from harness.arch import Arch, size_name
from harness.errors import BadInput, GuestFault
from harness.guest import build as guest_build
from harness.guest.build import Bundle
from harness.guest.cases import Case
from harness.guest.run import Guest
from harness.image import Image
from harness.kernel import build as kernel_build
from harness.kernel.build import Kernel, KernelRequest
from harness.pools import Pool
from harness.process import say
from harness.report.results import CaseResult, RunResult, Status
from harness.verdict import splats
from harness.verdict.judge import Observation, Verdict, judge
from harness.vm import machine
from harness.vm.command import VmSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """All that a guest of one architecture is started from."""

    kernel: Kernel
    image: Image
    accelerator: Accelerator
    bundle: Bundle
    pools: tuple[Pool, ...]


@dataclass(slots=True)
class Run:
    """A run with its directory. Use as a context manager; no guest outlives it."""

    request: KernelRequest  # its architecture is replaced by each one of the run in turn
    huge_pages: str  # as --huge-pages has them; empty: what is usual for the architecture
    expect_hgm: bool
    directory: Path
    result: RunResult
    stress_s: int = 0  # how long a stress case runs, in seconds
    _prepared: dict[str, Prepared] = field(default_factory=dict)
    _guests: dict[str, tuple[Guest, contextlib.ExitStack]] = field(default_factory=dict)
    _booted: int = 0

    def prepare(self, arch: Arch, programs: Iterable[Path]) -> None:
        """Make kernel, image and test programs ready for `arch`. Raises HarnessError with one clear message."""
        kernel = kernel_build.prepare(replace(self.request, arch=arch))
        prepared = Prepared(
            kernel=kernel,
            image=image.prepare(arch),
            accelerator=accel.choose(arch),
            bundle=guest_build.prepare(arch, programs),
            pools=pools.of(arch, self.huge_pages),
        )
        self._prepared[arch.name] = prepared
        self.result.kernels[arch.name] = kernel.to_json()
        self.result.machines[arch.name] = {
            "accelerator": prepared.accelerator.name,
            "accelerator_reason": prepared.accelerator.reason,
            "image": prepared.image.key,
            "pools": {size_name(pool.size): pool.count for pool in prepared.pools},
            "boot_seconds": [],
        }

    def run(self, case: Case, arch: Arch, huge_page_size: int, case_id: str) -> CaseResult:
        """Run one case in a healthy guest and record its result. Raises HarnessError if no guest can be had."""
        directory = self.directory / "cases" / re.sub(r"[^\w.\[\]-]+", "_", case_id)
        if not self.is_up(arch):
            self.boot(arch)
        guest, _ = self._guests[arch.name]
        try:
            seen = guest.run(case, huge_page_size)
            verdict = judge(seen, expect_hgm=self.expect_hgm)
        except BaseException:
            self._drop(arch)
            raise
        _keep(directory, seen)
        spoilt = case.spoils and verdict.status is not Status.SKIP
        if spoilt or any(finding.kind != "expect-hgm" for finding in verdict.findings):
            # What a failed case has done to its kernel must not reach the next one, nor a loss that was meant.
            self._drop(arch)
        result = _result(
            case, arch, huge_page_size, case_id, seen, verdict, os.fspath(directory.relative_to(self.directory))
        )
        self.result.cases.append(result)
        return result

    def close(self) -> None:
        """Kill all guests and write the results."""
        for name in list(self._guests):
            self._guests.pop(name)[1].close()
        self.result.write(self.directory / "results.json")

    def is_up(self, arch: Arch) -> bool:
        """Whether a healthy guest of `arch` runs."""
        return arch.name in self._guests and self._guests[arch.name][0].machine.alive

    def boot(self, arch: Arch) -> None:
        """Start a fresh guest of `arch`. Raises HarnessError if it does not come up, or complains while it boots."""
        self._drop(arch)
        prepared = self._prepared[arch.name]
        spec = VmSpec(
            arch=arch,
            accelerator=prepared.accelerator,
            kernel=prepared.kernel.image,
            image=prepared.image,
            pools=prepared.pools,
        )
        self._booted += 1
        say(f"booting {arch.name} ({prepared.accelerator.name}, {spec.memory >> 20} MiB)")
        with contextlib.ExitStack() as stack:
            console = self.directory / f"vm-{self._booted}-{arch.name}.console.txt"
            guest = Guest(stack.enter_context(machine.running(spec, console)), prepared.bundle, self.stress_s)
            say(f"guest ready after {guest.machine.boot_seconds:.1f} s")
            seconds = self.result.machines[arch.name]["boot_seconds"]
            assert isinstance(seconds, list)
            seconds.append(round(guest.machine.boot_seconds, 2))
            if complaints := splats.find(guest.boot_log):
                raise GuestFault(
                    f"the {arch.name} kernel complains while it boots, so no case on it can be trusted: "
                    f"{complaints[0].title}",
                    hint=f"its console: {console}",
                )
            self._guests[arch.name] = guest, stack.pop_all()

    def _drop(self, arch: Arch) -> None:
        if arch.name in self._guests:
            self._guests.pop(arch.name)[1].close()


def start(directory: Path | None, base: Path, command: list[str]) -> tuple[Path, RunResult]:
    """Make the directory of a run, dated below `base` unless given, and point `latest` at it.

    Raises BadInput if it cannot be written.
    """
    now = datetime.datetime.now(datetime.UTC)
    target = directory or base / now.strftime("%Y-%m-%dT%H-%M-%S.%fZ")
    try:
        target.mkdir(parents=True, exist_ok=directory is not None)
        if directory is None:
            link = base / f".latest-{os.getpid()}"
            link.symlink_to(target.name)
            link.rename(base / "latest")
    except OSError as error:
        raise BadInput(
            f"the results cannot be written to {target}: {error.strerror}", hint="--results DIR chooses another place"
        ) from error
    return target, RunResult(started=now.isoformat(timespec="seconds"), command=command)


def _keep(directory: Path, seen: Observation) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "ktap.txt").write_bytes(seen.outcome.stdout)
    (directory / "stderr.txt").write_bytes(seen.outcome.stderr)
    (directory / "console.txt").write_text(seen.earlier + seen.log + seen.stacks)
    (directory / "dmesg.txt").write_text(seen.log)


def _result(
    case: Case, arch: Arch, size: int, case_id: str, seen: Observation, verdict: Verdict, directory: str
) -> CaseResult:
    return CaseResult(
        id=case_id,
        category=case.category,
        arch=arch.name,
        huge_page_size=size,
        claim=case.claim,
        status=verdict.status,
        reason=verdict.reason,
        findings=verdict.findings,
        diagnostics=tuple(seen.ktap.diagnostics),
        seconds=round(seen.outcome.seconds, 3),
        directory=directory,
    )
