# SPDX-License-Identifier: MIT
"""A series patch by patch: whether the kernel builds, boots and passes after each, as whoever bisects will find it."""

from __future__ import annotations

import itertools
import json
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from harness import accel, doctor, image, pools, trial
from harness.arch import Arch
from harness.errors import BadInput, Exit, GuestFault
from harness.kernel import series
from harness.kernel.build import BuildFailed, Kernel, KernelRequest, build
from harness.kernel.repo import KernelRepo, disk_faults
from harness.kernel.source import resolve
from harness.options import (
    OF_CASES,
    Parser,
    add_options,
    checked,
    given,
    kernel_request,
    nonempty,
    refuse,
    wants_reference,
    word,
    writable,
)
from harness.pools import Pool
from harness.process import say
from harness.report.results import RED, Status
from harness.verdict import splats
from harness.verdict.judge import NO_HGM
from harness.vm import machine
from harness.vm.command import VmSpec

SHOWN = 3  # of many cases that change alike
# An image has no patches; the runs get images, which have no selftests; and nobody sees them wait.
UNFIT = ("kernel", "kernel_config", "kselftest", "pause_on_failure")
# Options that every run of cases gets as they are; where HGM is expected is seen here.
RUNNING = tuple(name for name in OF_CASES if name not in (*UNFIT, "expect_hgm"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """What came of one patch, and all before it, on one architecture."""

    number: int  # of the patch, from 1; 0: the kernel before the series
    subject: str
    arch: str
    build_s: float  # 0 or nearly so if the cache had it
    boot_s: float | None = None  # until ssh worked; None: it did not build, or not boot
    problem: str = ""
    status: Exit = Exit.OK
    cases: dict[str, Status] = field(default_factory=dict)  # by id; empty if none was run

    def __str__(self) -> str:
        booted = "-" if self.boot_s is None else f"{self.boot_s:.1f}"
        words = f"{self.number:3}  {self.arch:<7} {self.build_s:8.1f} {booted:>7}  {self.subject}"
        counts = Counter(self.cases.values())
        if counts:
            words += f"\n       {', '.join(f'{counts[status]} {status}' for status in Status if counts[status])}"
        return f"{words}\n       {self.problem}" if self.problem else words


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """The first patch at which a case came out otherwise than before."""

    case: str
    before: Status
    after: Status
    number: int  # of the first patch that shows it
    since: int  # of the last one before it that could be tested; number - 1 if all could

    @property
    def where(self) -> str:
        """The patch, or the range it is in when some of those before it could not be tested."""
        return str(self.number) if self.since == self.number - 1 else f"{self.since + 1}..{self.number}"


HEADER = "  #  arch    build s  boot s  patch"


def main(arguments: Sequence[str]) -> int:
    """Build and boot the kernel after each patch of a series; with `--`, also run the cases that pytest selects."""
    parser = Parser(
        prog="hgm series",
        usage="hgm series [options] [-- [PYTEST-ARGUMENTS]]",
        description=main.__doc__,
        epilog="Where no kernel is named it is the reference series. A lone -- runs every case, -- -k mapcount some. "
        "--expect-hgm: HGM must be there after the last of the patches, and stay once there; so by default for the "
        "whole reference series.",
        allow_abbrev=False,
    )
    add_options(parser.add_argument)
    parser.add_argument("--patches", type=nonempty, metavar="FIRST-LAST", help="only these patches of it, by number")
    parser.add_argument("--json", type=writable, metavar="FILE", help="write the table to FILE, too")
    words = list(arguments)
    at = words.index("--") if "--" in words else len(words)
    options = parser.parse_args(words[:at])
    selection = words[at + 1 :] if at < len(words) else None
    found = given(options, parser)
    refuse(found, UNFIT, "does not go with a series", hint="./hgm run takes it")
    if selection is None:
        unused = (*OF_CASES, "results")
        refuse(found, unused, "is about cases, and none is run", hint="end with --, or with -- -k mapcount")
    arches = checked(options, Path.cwd())
    doctor.ensure(arches)
    request = kernel_request(options, arches[0], Path.cwd())
    if not request.series:
        raise BadInput("there is no series to test", hint="--series DIR|MBOX")
    runner = None
    if selection is not None:
        running = [word(name, found[name]) for name in RUNNING if name in found]
        expect_hgm = options.expect_hgm or (wants_reference(options) and not options.patches)
        runner = Cases(selection, running, expect_hgm, trial.new_directory(options.results), options.huge_pages)
    steps = []
    print(HEADER)
    for step in walk(request, arches, options.huge_pages, options.patches or "", runner):
        steps.append(step)
        print(step, flush=True)
        if options.json:
            options.json.write_text(json.dumps([asdict(one) for one in steps], indent=1) + "\n")
    if runner:
        print("\n" + "\n".join(change_table(steps)))
        print(f"results: {runner.directory}")
    return next((step.status for step in steps if step.status), Exit.OK)


@dataclass(frozen=True, slots=True)
class Cases:
    """Runs the selected cases on one kernel after the other."""

    selection: Sequence[str]  # pytest's arguments
    options: Sequence[str]  # of how they are run
    expect_hgm: bool  # after the last patch, and wherever a case has passed before
    directory: Path
    huge_pages: str = ""  # as --huge-pages has them, for all architectures
    _passed: set[str] = field(default_factory=set)  # ids

    def run(self, step: Step, kernel: Kernel, *, last: bool) -> Step:
        """Return `step` with what the cases come to on its kernel; raises as `trial.run_cases` does."""
        place = self.directory / f"{step.number:02d}-{kernel.arch.name}"
        words = [f"--arch={kernel.arch.name}", f"--kernel={kernel.image}", f"--kernel-config={kernel.config}"]
        if self.huge_pages:
            words.append(f"--huge-pages={','.join(map(str, pools.of(kernel.arch, self.huge_pages)))}")
        result = trial.run_cases([*words, *self.options, *self.selection], place, Path.cwd())
        seen = result.machines[kernel.arch.name]
        boots = seen["boot_seconds"]
        assert isinstance(boots, list)
        told = {case.id: case.status for case in result.cases}
        skipped = [case for case in result.cases if case.status is Status.SKIP]
        lacking = [case.id for case in skipped if case.reason.startswith(NO_HGM)]
        lost = [case for case in lacking if self.expect_hgm and (last or case in self._passed)]
        self._passed.update(case for case, status in told.items() if status is Status.PASS)
        told |= dict.fromkeys(lost, Status.FAIL)
        return replace(
            step,
            # That of the template, if guests were cloned: it may have been taken by an earlier run.
            boot_s=float(str(seen["template_boot_seconds"] or boots[0])),
            cases=told,
            problem=f"HGM was expected, but the {NO_HGM}" if lost else "",
            status=Exit.TESTS_FAILED if any(status in RED for status in told.values()) else Exit.OK,
        )


def walk(
    request: KernelRequest, arches: Sequence[Arch], huge_pages: str, only: str = "", cases: Cases | None = None
) -> Iterator[Step]:
    """Yield a step for each patch and architecture. `only` is "3", "3-7" or nothing, which means all.

    With `cases` there is a step for the kernel before the first of these patches, to compare with. A patch that does
    not build or boot is a step like another; only what says nothing of the patch is raised: BadInput for a request that
    cannot be met, HostFault for this machine.
    """
    with disk_faults():
        patches = [patch for path in request.series for patch in series.read(path)]
        source = resolve(request.source)
        repo = KernelRepo.open().reading(source.alternate)
        applied = series.apply(repo, source.tree, patches)
    asked = _numbers(only, len(applied))
    for number in range(asked[0] - 1, asked[-1] + 1) if cases else asked:
        for arch in arches:
            began = time.monotonic()
            subject = applied[number - 1].subject if number else "(before the series)"
            step = Step(number=number, subject=subject, arch=arch.name, build_s=0)
            try:
                with disk_faults():
                    kernel = build(replace(request, arch=arch), repo, source, applied[:number])
                step = replace(step, build_s=round(time.monotonic() - began, 1))
                if cases:
                    say(f"running cases on {arch.name} with {number} patches")
                    yield cases.run(step, kernel, last=number == asked[-1])
                else:
                    yield replace(step, boot_s=_boot(kernel, pools.of(arch, huge_pages)))
            except (BuildFailed, GuestFault) as error:
                build_s = step.build_s or round(time.monotonic() - began, 1)
                yield replace(step, build_s=build_s, problem=error.message, status=error.exit_code)


def changes(steps: Iterable[Step]) -> list[Change]:
    """Return the first change of each case that changes, in the order of the patches."""
    last: dict[str, tuple[int, Status]] = {}
    found: dict[str, Change] = {}
    for step in steps:
        for case, status in step.cases.items():
            since, before = last.get(case, (step.number, status))
            if status is not before and case not in found:
                found[case] = Change(case=case, before=before, after=status, number=step.number, since=since)
            last[case] = step.number, status
    return sorted(found.values(), key=lambda one: (one.number, one.before, one.after, one.case))


def change_table(steps: Sequence[Step]) -> list[str]:
    """Return the lines of the table: what turns red case by case, what turns otherwise in groups."""
    if not any(step.cases for step in steps):
        return ["no case was run"]
    lines = ["first patch at which a case changed:"]
    grouped = itertools.groupby(changes(steps), key=lambda one: (one.number, one.where, one.before, one.after))
    for (_, where, before, after), group in grouped:
        names = [change.case for change in group]
        shown = names if after in RED else names[:SHOWN]
        lines.append(f"{where:>6}  {before} -> {after}: {len(names)}")
        lines += [f"          {name}" for name in shown]
        lines += [f"          and {len(names) - len(shown)} more"] if len(names) > len(shown) else []
    return lines if len(lines) > 1 else ["no case changed at any patch"]


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
