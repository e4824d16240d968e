# SPDX-License-Identifier: MIT
"""One run: what was asked for, what was prepared for it, the guests that are up, and the results."""

from __future__ import annotations

import contextlib
import datetime
import importlib.metadata
import os
import re
import shlex
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from harness import accel, image, pools
from harness.arch import Arch, size_name
from harness.errors import BadInput, HarnessError, HostFault
from harness.guest import build as guest_build
from harness.guest.cases import Case
from harness.guest.run import Guest, Keep
from harness.kernel import build as kernel_build
from harness.kernel.build import Kernel, KernelRequest
from harness.kernel.repo import disk_faults
from harness.kselftest import build as kselftest_build
from harness.kselftest.build import Suite
from harness.kselftest.wanted import Wanted
from harness.paths import sha256
from harness.process import run, say
from harness.report.results import CaseResult, RunResult, Status, together
from harness.supply import Fresh, Supply
from harness.verdict import symbols
from harness.verdict.expected import Expected, apply
from harness.verdict.judge import Observation, Verdict, judge
from harness.vm import memory, places
from harness.vm.command import VmSpec
from harness.vm.machine import Machine

ATTEMPTS = 3  # at a case whose guest turned out to stand on a template that somebody had changed


@dataclass(slots=True)
class Run:
    """A run with its directory. Close it at the end; no guest outlives it."""

    request: KernelRequest  # its architecture is replaced by each one of the run in turn
    huge_pages: str  # as --huge-pages has them; empty: what is usual for the architecture
    expect_hgm: bool
    directory: Path
    result: RunResult
    stress_s: int = 0  # how long a stress case runs, in seconds
    fresh: Fresh | None = None
    repeat: int = 1  # how often each case runs
    rerun: bool = False  # whether one that did not pass runs once more, where each runs once
    expected: tuple[Expected, ...] = ()
    suites: dict[tuple[str, str], Suite] = field(default_factory=dict)  # selftests by architecture and collection
    listed: dict[tuple[str, str], list[str]] = field(default_factory=dict)  # what the script of a suite would run
    dump_memory: bool = False  # of a guest that hangs, or whose kernel has crashed
    pause: Callable[[Machine, Kernel, CaseResult], None] | None = None  # called while the guest of a failed case lives
    _supplies: dict[str, Supply] = field(default_factory=dict)
    _kernels: dict[str, Kernel] = field(default_factory=dict)

    def prepare(self, arch: Arch, programs: Iterable[Path], selftests: Iterable[Wanted] = ()) -> None:
        """Make kernel, image, tests and template ready for `arch`. Raises HarnessError: one clear message."""
        kernel = kernel_build.prepare(replace(self.request, arch=arch))
        extra: dict[str, Path] = {}
        for wanted in {one.collection: one for one in selftests}.values():
            suite = kselftest_build.prepare(kernel, replace(self.request, arch=arch), wanted)
            self.suites[arch.name, wanted.collection] = suite
            extra |= kselftest_build.bundle_files(suite)
        bundle = guest_build.prepare(arch, programs, extra)
        spec = VmSpec(
            arch=arch,
            accelerator=accel.choose(arch),
            kernel=kernel.image,
            image=image.prepare(arch),
            pools=pools.of(arch, self.huge_pages),
            tests=bundle.disk,
        )
        supply = Supply(
            spec=spec, bundle=bundle, fresh=self.fresh, directory=self.directory, stress_s=self.stress_s,
            keep=Keep(memory=self.dump_memory, guest=self.pause is not None), expected=self.expected,
            release=kernel.release,
        )  # fmt: skip
        supply.prepare()
        self._supplies[arch.name], self._kernels[arch.name] = supply, kernel
        notes = [note for (name, _), suite in self.suites.items() if name == arch.name for note in suite.notes]
        for note in notes:
            say(note)
        supply.notes[:0] = [*kernel.notes, *notes]
        self.result.kernels[arch.name] = kernel.to_json() | {
            "config_sha256": sha256(kernel.config) if kernel.config else None,
            "notes": supply.notes,
        }
        self.result.machines[arch.name] = {
            "accelerator": spec.accelerator.name,
            "accelerator_reason": spec.accelerator.reason,
            "qemu": run([arch.qemu, "--version"], quiet=True).stdout.splitlines()[0],
            "image": spec.image.key,
            "pools": {size_name(pool.size): pool.count for pool in spec.pools},
            "fresh": str(supply.fresh),
            "template_seconds": supply.template.seconds if supply.template else None,
            "template_boot_seconds": supply.template.boot_seconds if supply.template else None,
            "boot_seconds": supply.boot_seconds,
            "clone_seconds": supply.clone_seconds,
        }

    def run(self, case: Case, arch: Arch, huge_page_size: int, case_id: str) -> CaseResult:
        """Run one case as often as asked for, once more if it did not pass then, and return the result of it all.

        Raises HarnessError if no guest can be had.
        """
        (result,) = self.settled(arch, lambda number: [self._once(case, arch, huge_page_size, case_id, number)])
        return result

    def settled(self, arch: Arch, once: Callable[[int], list[CaseResult]]) -> list[CaseResult]:
        """Call `once` with 1, 2, ... as often as asked for, once more if not all passed; return what it comes to."""
        turns = [once(number) for number in range(1, self.repeat + 1)]
        kinds = {finding.kind for result in turns[0] for finding in result.findings}
        # That a kernel lacks HGM is no matter of chance.
        if self.repeat == 1 and self.rerun and kinds - {"expect-hgm"}:
            turns.append(once(2))
        by_id: dict[str, list[CaseResult]] = {}
        for result in (result for turn in turns for result in turn):
            by_id.setdefault(result.id, []).append(result)
        release = str(self.result.kernels.get(arch.name, {}).get("release", ""))
        return [apply(together(found), self.expected, release=release) for found in by_id.values()]

    def place(self, name: str, number: int) -> Path:
        """Return the directory, relative to the run's, of the files of what is called `name` and runs that `number`."""
        name = re.sub(r"[^\w.\[\]-]+", "_", name)
        return Path("cases") / (name if number == 1 else f"{name}-{number}")

    @disk_faults()
    def _once(self, case: Case, arch: Arch, huge_page_size: int, case_id: str, number: int) -> CaseResult:
        """Run one case in a healthy guest, for the time of that `number`, and return its result."""
        place = self.place(case_id, number)
        supply = self._supplies[arch.name]
        with places.taken(supply.spec.pools):
            seen = _observed(
                supply, lambda: supply.take(case).run(case, huge_page_size, self.directory / place), case_id
            )
        verdict = judge(seen, expect_hgm=self.expect_hgm)
        _keep(self.directory / place, seen)
        result = self.told(_result(case, arch, huge_page_size, case_id, seen, verdict, os.fspath(place)), seen)
        if verdict.findings and self.pause and supply.machine:
            self.pause(supply.machine, self._kernels[arch.name], result)
        spoilt = case.spoils and verdict.status is not Status.SKIP
        if spoilt or any(finding.kind != "expect-hgm" for finding in verdict.findings):
            # What a failed case has done to its kernel must not reach the next one, nor a loss that was meant.
            supply.drop()
        supply.done()
        return result

    def told(self, result: CaseResult, seen: Observation) -> CaseResult:
        """Write down what a guest told that hangs; return the result with lines of source, where they are known."""
        if not result.findings:
            return result
        verdict = Verdict(status=result.status, findings=result.findings)
        kernel = self._kernels[result.arch]
        return replace(result, findings=_explained(verdict, seen, kernel, self.directory / result.directory).findings)

    @disk_faults()
    def watch(self, arch: Arch, name: str, directory: Path, look: Callable[[Guest], Observation]) -> Observation:
        """Return what `look` sees in a guest that nobody has had, and keep its files in `directory`.

        Raises HarnessError if no guest can be had.
        """
        supply = self._supplies[arch.name]
        with places.taken(supply.spec.pools):
            try:
                seen = _observed(supply, lambda: look(supply.renew()), name)
            finally:
                supply.drop()
        _keep(directory, seen)
        return seen

    @contextlib.contextmanager
    def guest(self, arch: Arch) -> Iterator[Guest]:
        """Within the block there is a guest that nobody has had. Raises HarnessError if none can be had."""
        supply = self._supplies[arch.name]
        with places.taken(supply.spec.pools):
            try:
                yield supply.renew()
            finally:
                supply.drop()

    def close(self) -> None:
        """Kill all guests."""
        for supply in self._supplies.values():
            supply.drop()

    def boots_for(self, case: Case, arch: Arch) -> bool:
        """Whether a guest must boot before `case` can run, which takes long enough to be said."""
        return self._supplies[arch.name].boots_for(case)


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
    started = now.isoformat(timespec="seconds")
    if Path(command[0]).name == "__main__.py":
        command = ["./hgm", *command[1:]]
    return target, RunResult(started=started, command=command, harness=importlib.metadata.version("hgm-harness"))


def _observed(supply: Supply, look: Callable[[], Observation], name: str) -> Observation:
    """Return what is seen in a guest of which all is known; look once more if its template was changed under it."""
    for _ in range(ATTEMPTS):
        try:
            seen = look()
        except BaseException as error:
            supply.drop()
            if isinstance(error, HarnessError) and not supply.genuine:
                continue
            raise
        if supply.genuine:
            return seen
        supply.drop()
    raise HostFault(
        f"the template of {supply.spec.arch.name} guests was changed {ATTEMPTS} times while {name} ran",
        hint="who writes to the cache? set HGM_CACHE to a directory of your own",
    )


def _keep(directory: Path, seen: Observation) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "ktap.txt").write_bytes(seen.outcome.stdout)
    (directory / "stderr.txt").write_bytes(seen.outcome.stderr)
    (directory / "console.txt").write_text(seen.earlier + seen.log + (seen.hang.console if seen.hang else ""))
    (directory / "dmesg.txt").write_text(seen.log)


def _explained(verdict: Verdict, seen: Observation, kernel: Kernel, directory: Path) -> Verdict:
    """Write what a guest told that hangs, and return the verdict; both with lines of source where they are known."""
    if seen.hang:
        (directory / "hang.txt").write_text(symbols.decoded([seen.hang.text], kernel)[0])
    verdict = symbols.explained(verdict, kernel)
    if not (directory / memory.NAME).exists() or not kernel.vmlinux:
        return verdict
    opened = shlex.join(["drgn", "-c", os.fspath(directory / memory.NAME), "-s", os.fspath(kernel.vmlinux)])
    findings = (replace(one, evidence=opened) if one.kind == "dump" else one for one in verdict.findings)
    return replace(verdict, findings=tuple(findings))


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
        shapes=tuple(shape.pages for shape in seen.shapes),
        directory=directory,
    )
