# SPDX-License-Identifier: MIT
"""A series patch by patch: whether the kernel builds and boots after each, as whoever bisects over it will find it."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from harness import accel, doctor, image, pools
from harness.arch import Arch
from harness.errors import BadInput, Exit, GuestFault
from harness.kernel import series
from harness.kernel.build import BuildFailed, Kernel, KernelRequest, build
from harness.kernel.repo import KernelRepo, disk_faults
from harness.kernel.source import resolve
from harness.options import add_options, expand, kernel_request
from harness.pools import Pool
from harness.process import say
from harness.verdict import splats
from harness.vm import machine
from harness.vm.command import VmSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """What came of one patch, and all before it, on one architecture."""

    number: int  # of the patch, from 1
    subject: str
    arch: str
    build_s: float  # 0 or nearly so if the cache had it
    boot_s: float | None = None  # until ssh worked; None: it did not build, or not boot
    problem: str = ""
    status: Exit = Exit.OK

    def __str__(self) -> str:
        booted = "-" if self.boot_s is None else f"{self.boot_s:.1f}"
        words = f"{self.number:3}  {self.arch:<7} {self.build_s:8.1f} {booted:>7}  {self.subject}"
        return f"{words}\n       {self.problem}" if self.problem else words


HEADER = "  #  arch    build s  boot s  patch"


def main(arguments: Sequence[str]) -> int:
    """Build and boot the kernel after each patch of a series; without --series, of the reference series."""
    parser = argparse.ArgumentParser(prog="hgm series", description=main.__doc__, allow_abbrev=False)
    add_options(parser.add_argument)
    parser.add_argument("--patches", metavar="FIRST-LAST", help="only these patches of it, by number")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the table to FILE, too")
    options = parser.parse_args(arguments)
    arches = expand(options.arch)
    doctor.ensure(arches)
    request = kernel_request(options, arches[0], Path.cwd())
    if not request.series:
        raise BadInput("there is no series to test", hint="--series DIR|MBOX")
    steps = []
    print(HEADER)
    for step in walk(request, arches, options.huge_pages, options.patches or ""):
        steps.append(step)
        print(step, flush=True)
        if options.json:
            options.json.write_text(json.dumps([asdict(one) for one in steps], indent=1) + "\n")
    return next((step.status for step in steps if step.status), Exit.OK)


def walk(request: KernelRequest, arches: Sequence[Arch], huge_pages: str, only: str = "") -> Iterator[Step]:
    """Yield a step for each patch and architecture. `only` is "3", "3-7" or nothing, which means all.

    A patch that does not build or boot is a step like another; only what says nothing of the patch is raised: BadInput
    for a request that cannot be met, HostFault for this machine.
    """
    with disk_faults():
        patches = [patch for path in request.series for patch in series.read(path)]
        source = resolve(request.source)
        repo = KernelRepo.open().reading(source.alternate)
        applied = series.apply(repo, source.tree, patches)
    for number in _numbers(only, len(applied)):
        for arch in arches:
            began = time.monotonic()
            step = Step(number=number, subject=applied[number - 1].subject, arch=arch.name, build_s=0)
            try:
                with disk_faults():
                    kernel = build(replace(request, arch=arch), repo, source, applied[:number])
                step = replace(step, build_s=round(time.monotonic() - began, 1))
                yield replace(step, boot_s=_boot(kernel, pools.of(arch, huge_pages)))
            except (BuildFailed, GuestFault) as error:
                build_s = step.build_s or round(time.monotonic() - began, 1)
                yield replace(step, build_s=build_s, problem=error.message, status=error.exit_code)


def _numbers(only: str, count: int) -> range:
    first, dash, last = only.partition("-")
    try:
        asked = range(int(first), int(last if dash else first) + 1) if only else range(1, count + 1)
    except ValueError:
        asked = range(0)
    if not asked or asked[0] < 1 or asked[-1] > count:
        raise BadInput(f"--patches {only} does not fit a series of {count}", hint="such as --patches 3 or 3-7")
    return asked


def _boot(kernel: Kernel, reserve: tuple[Pool, ...]) -> float:
    """Return the seconds until ssh works. Raises GuestFault if it does not, or if the kernel complains on its way."""
    arch = kernel.arch
    spec = VmSpec(
        arch=arch, accelerator=accel.choose(arch), kernel=kernel.image, image=image.prepare(arch), pools=reserve
    )
    say(f"booting {arch.name}")
    with machine.booted(spec) as guest:
        if complaints := splats.find(guest.console_since()):
            raise GuestFault(f"the kernel complains while it boots: {complaints[0].title}")
        return round(guest.ready_seconds, 1)
