# SPDX-License-Identifier: MIT
"""What users wait for, measured side by side in one run: whole commands, guests, and virtme-ng's guests beside them."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import pty
import re
import select
import shlex
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from harness import accel, image, pools
from harness.arch import X86_64
from harness.deadline import Deadline
from harness.errors import Exit, HarnessError, HostFault
from harness.guest.run import settle
from harness.kernel.build import KernelRequest, prepare
from harness.options import REFERENCE, Parser, at_least, writable
from harness.paths import ROOT, cache_dir, digest, locked
from harness.process import end_group, run, say, tail
from harness.vm import machine, template
from harness.vm.command import VmSpec
from harness.vm.machine import Machine
from harness.vm.ssh import End

PYTEST = (sys.executable, "-m", "pytest")
VIRTME_NG = "virtme-ng==1.42"
POOLS = "2M=16"  # of guests that only say how long they have been up
LIMIT_S = 120.0  # for one guest of virtme-ng


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One measured figure; `value` is None when it could not be measured, and `note` says why."""

    key: str
    what: str
    value: float | None
    unit: str = "s"
    goal: str = ""  # on two cores without KVM
    note: str = ""

    def __str__(self) -> str:
        value = "-" if self.value is None else f"{self.value:.3g} {self.unit}"
        goal = f"goal {self.goal}" if self.goal else ""
        return f"{self.what:<58} {value:>12}  {goal:<14} {self.note}".rstrip()


class Unmeasured(Exception):
    """Why something could not be measured."""


def main(arguments: Sequence[str]) -> int:
    """Measure, print a table, and with --json write the figures too. Exit status 0 also where a goal is missed."""
    parser = Parser(prog="hgm bench", description=main.__doc__, allow_abbrev=False)
    parser.add_argument("--json", type=writable, metavar="FILE", help="write the figures to FILE")
    help_text = "times each is measured; the median counts"
    parser.add_argument("--runs", type=at_least(1), default=5, metavar="N", help=help_text)
    parser.add_argument("--build", action="store_true", help="also build the kernel in an empty cache (minutes)")
    parser.add_argument("--quick", action="store_true", help="leave the runs of all cases out (minutes)")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="hgm-bench-") as scratch:
        place = Path(scratch)
        figures = [*_guests(options.runs), *_commands(place, options.runs), *_whole_runs(place, options.quick)]
        if options.build:
            figures.append(_build(place))
    print("\n".join(map(str, figures)))
    if options.json:
        known: dict[str, object] = {}
        for figure in figures:
            known[figure.key] = figure.value if figure.value is None else round(figure.value, 4)
            if figure.note:
                known[f"{figure.key}_note"] = figure.note
        options.json.write_text(json.dumps(known, indent=1) + "\n")
    return Exit.OK


def _guests(runs: int) -> list[Figure]:
    """Guests until their first command has answered: booted, cloned, and virtme-ng's, in turns on one kernel."""
    request = KernelRequest(arch=X86_64, series=(REFERENCE,), kconfig=(ROOT / "kconfigs/virtme.config",))
    spec = VmSpec(
        arch=X86_64,
        accelerator=accel.choose(X86_64),
        kernel=prepare(request).image,
        image=image.prepare(X86_64),
        pools=pools.parse(POOLS),
    )
    # Parameters that nobody else gives: this one is certainly not in the cache.
    fresh = template.prepare(replace(spec, append=f"hgm.bench={os.getpid()}"), settle)
    source = template.prepare(spec, settle)
    cold: list[float] = []
    cloned: list[float] = []
    private: list[float] = []
    theirs: list[float] = []
    their_cases: list[float] = []
    reason = ""
    for _ in range(runs):
        cold.append(_first_command(lambda: machine.booted(spec))[0])
        seconds, mib = _first_command(source.clone)
        cloned.append(seconds)
        private.append(mib)
        if not reason:
            try:
                answered, ended = _virtme_ng(spec)
            except Unmeasured as error:
                reason = str(error)
            else:
                theirs.append(answered)
                their_cases.append(ended)
    shutil.rmtree(fresh.directory, ignore_errors=True)
    median = statistics.median

    def ratio(ours: Sequence[float], others: Sequence[float]) -> float | None:
        return None if reason else median(ours) / median(others)

    return [
        Figure(key="cold_boot_s", what="cold boot, first command answered", value=median(cold)),
        Figure(key="cold_boot_vs_virtme_ng", what="the same, ratio to virtme-ng", unit="x", goal="<= 0.33",
               value=ratio(cold, theirs), note=reason or f"virtme-ng: {median(theirs):.2f} s"),
        Figure(key="clone_s", what="clone, first command answered", value=median(cloned), goal="<= 0.5 s"),
        Figure(key="clone_vs_virtme_ng", what="the same, ratio to one command by virtme-ng", unit="x", goal="<= 0.05",
               value=ratio(cloned, their_cases), note=reason or f"virtme-ng: {median(their_cases):.2f} s"),
        Figure(key="clone_private_mib", what="memory of a clone's own", value=median(private), unit="MiB"),
        Figure(key="template_s", what="template: boot, settle, leave", value=fresh.seconds),
    ]  # fmt: skip


def _first_command(start: Callable[[], contextlib.AbstractContextManager[Machine]]) -> tuple[float, float]:
    """Return the seconds until a new guest's first command has answered, and the MiB of its QEMU's own then."""
    began = time.perf_counter()
    with start() as guest:
        outcome = guest.ssh.run("cat /proc/uptime", Deadline(LIMIT_S))
        seconds = time.perf_counter() - began
        if outcome.end is not End.EXITED or not outcome.stdout:
            raise HostFault(f"a guest's first command did not answer: {outcome}")
        rollup = Path(f"/proc/{guest.process.pid}/smaps_rollup").read_text()
    private = sum(int(kib) for kib in re.findall(r"^Private_\w+:\s+(\d+) kB", rollup, re.MULTILINE))
    return seconds, private / 1024


def _virtme_ng(spec: VmSpec) -> tuple[float, float]:
    """Return the seconds until the same command has answered in a guest of virtme-ng's, and until vng has ended.

    Raises Unmeasured.
    """
    program = _virtme_ng_program()
    # Where the host has no udev, a command's output only comes with the kernel's own; ours prints all of that, too.
    argv = [os.fspath(program), "--verbose", "--run", os.fspath(spec.kernel), "--cpus", str(spec.cpus)]
    argv += ["--memory", f"{spec.memory >> 20}M"]
    argv += ["--disable-kvm"] if spec.accelerator.name != "kvm" else []
    argv += ["--", "cat /proc/uptime"]
    environment = {**os.environ, "PATH": f"{program.parent}:{os.environ['PATH']}"}
    # It wants a terminal.
    ours, its = pty.openpty()
    began = time.perf_counter()
    process = subprocess.Popen(
        argv, cwd="/", env=environment, stdin=its, stdout=its, stderr=its, start_new_session=True
    )  # fmt: skip
    os.close(its)
    said, answered = b"", 0.0
    try:
        deadline = Deadline(LIMIT_S)
        while piece := _read(ours, deadline):
            said += piece
            if not answered and re.search(rb"^[\d.]+ [\d.]+\r*$", said, re.MULTILINE):
                answered = time.perf_counter() - began
        if not answered or deadline.over:
            raise Unmeasured(f"virtme-ng's guest did not answer: {shlex.join(argv)}: {_last_line(said)}")
        process.wait()
        return answered, time.perf_counter() - began
    finally:
        end_group(process)
        os.close(ours)


def _read(terminal: int, deadline: Deadline) -> bytes:
    """Return what comes next, or nothing once all have closed the other end or time is over."""
    ready, _, _ = select.select([terminal], [], [], deadline.left)
    try:
        return os.read(terminal, 1 << 16) if ready else b""
    except OSError as error:
        # Linux's way to say that a terminal has no other end any more.
        if error.errno != errno.EIO:
            raise
        return b""


def _last_line(said: bytes) -> str:
    lines = [line.strip() for line in said.decode(errors="replace").splitlines() if line.strip()]
    return lines[-1][:200] if lines else "it said nothing"


def _virtme_ng_program() -> Path:
    """Return virtme-ng in an environment of its own, installed if the cache has none. Raises Unmeasured."""
    target = cache_dir() / f"virtme-ng-{digest(VIRTME_NG, sys.version)}"
    whole = target / "whole"  # an environment cannot be moved, so it is made where it stays, and this is made last
    with locked("virtme-ng"):
        if not whole.exists():
            say(f"installing {VIRTME_NG}")
            shutil.rmtree(target, ignore_errors=True)
            try:
                run([sys.executable, "-m", "venv", target], quiet=True)
                run([target / "bin/python", "-m", "pip", "install", "--quiet", VIRTME_NG], quiet=True)
            except HarnessError as error:
                raise Unmeasured(f"{VIRTME_NG} cannot be installed: {tail(error.message, 1)}") from error
            whole.touch()
    return target / "bin/vng"


def _commands(scratch: Path, runs: int) -> list[Figure]:
    """Whole commands, from the shell's prompt to the verdict."""
    one = [f"--results={scratch / 'results'}", "-k", "dontneed_alignment and 2M", "-q"]
    _time([*PYTEST, *one])  # fills the caches, so that what follows is what a second run costs
    start = _median(runs, [sys.executable, "-c", "import pytest"])
    collect = _median(runs, [*PYTEST, "--collect-only", "-q"])
    one_case = _median(runs, [*PYTEST, *one])
    return [
        Figure(key="python_s", what="python and pytest, started and nothing else (baseline)", value=start),
        Figure(key="collect_s", what="pytest --collect-only", value=collect, goal="<= 2 s",
               note=f"{collect / start:.1f} x baseline"),
        Figure(key="cached_one_case_s", what="cached pytest -k one_case", value=one_case, goal="<= 2 s"),
    ]  # fmt: skip


def _whole_runs(scratch: Path, quick: bool) -> list[Figure]:
    """All cases, one guest at a time and two."""
    figures = []
    for number in (1, 2):
        rate, note = None, "left out by --quick"
        if not quick:
            results = scratch / f"whole-{number}"
            seconds = _time([*PYTEST, f"--results={results}", "-q", "-n", str(number)])
            cases = len(json.loads((results / "results.json").read_text())["cases"])
            rate, note = 60 * cases / seconds, f"{cases} cases in {seconds:.0f} s"
        figures.append(
            Figure(key=f"cases_per_minute_n{number}", what=f"all cases, -n {number}", value=rate, unit="a minute",
                   goal=">= 60", note=note)
        )  # fmt: skip
    return figures


def _build(scratch: Path) -> Figure:
    environment = {**os.environ, "HGM_CACHE": os.fspath(scratch / "cache")}
    seconds = _time([sys.executable, "-m", "harness", "build"], environment)
    return Figure(key="build_s", what="kernel source and build, empty cache", value=seconds, goal="<= 300 s")


def _median(runs: int, argv: Sequence[str]) -> float:
    return statistics.median(_time(argv) for _ in range(runs))


def _time(argv: Sequence[str], environment: Mapping[str, str] | None = None) -> float:
    """Seconds that a command took. Raises HostFault if it failed, for then its time says nothing."""
    started = time.perf_counter()
    done = subprocess.run(argv, cwd=ROOT, env=environment, capture_output=True, text=True)
    seconds = time.perf_counter() - started
    say(f"{seconds:7.2f} s  {' '.join(argv[1:])}")
    if done.returncode not in (Exit.OK, Exit.NO_TESTS):
        raise HostFault(f"{' '.join(argv)} failed\n{tail(done.stdout + done.stderr)}", hint="mend that first")
    return seconds
