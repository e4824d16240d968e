# SPDX-License-Identifier: MIT
"""Templates and their clones: used again, never trusted when touched, and nothing is left of any of them."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from harness import accel, image, pools
from harness.arch import X86_64
from harness.deadline import Deadline
from harness.errors import Exit
from harness.guest import build as guest_build
from harness.guest.cases import Case, find
from harness.guest.run import Guest, settle
from harness.kernel.build import Kernel, KernelRequest
from harness.paths import ROOT, cache_dir
from harness.report.results import RunResult, Status
from harness.session import Run
from harness.supply import Fresh, Supply
from harness.vm import template
from harness.vm.command import VmSpec
from harness.vm.ssh import End
from harness.vm.template import Template
from tests.namespaces import with_mounts
from tests.vm.conftest import command, finish, harness

PROGRAM = ROOT / "tests/guest_programs/faults.c"
ONE_CASE = (PROGRAM, "-k", "passes and 2M")
CLONES = 40


def spec_of(kernel: Kernel, huge_pages: str) -> VmSpec:
    """A guest with pools of its own, so that no other test uses its template."""
    return VmSpec(
        arch=X86_64,
        accelerator=accel.choose(X86_64),
        kernel=kernel.image,
        image=image.prepare(X86_64),
        pools=pools.parse(huge_pages),
        tests=guest_build.prepare(X86_64, [PROGRAM]).disk,
    )


@pytest.fixture(scope="module")
def taken(kernel: Kernel) -> Template:
    return template.prepare(spec_of(kernel, "2M=17"), settle)


@pytest.fixture(scope="module")
def passes() -> Case:
    return next(case for case in find(PROGRAM) if case.name == "passes")


def test_the_next_run_boots_nothing(kernel: Kernel, tmp_path: Path) -> None:
    options = ("--kernel", kernel.image, "--huge-pages", "2M=18", *ONE_CASE)
    for name in ("first", "second"):
        ran = harness(tmp_path / name, *options)
        assert ran.status == Exit.OK, ran.output
    seen = ran.results["machines"]["x86_64"]
    assert (seen["fresh"], seen["boot_seconds"], len(seen["clone_seconds"])) == ("test", [], 1)


def flip(path: Path) -> None:
    """Write to the middle of a file."""
    with path.open("r+b") as file:
        file.seek(path.stat().st_size // 2)
        file.write(b"\xff" * 8)


DAMAGE: dict[str, Callable[[Path], None]] = {
    "state is short": lambda place: os.truncate(place / "state", 1000),
    "RAM is written to": lambda place: flip(place / "node0"),
    "RAM is gone": lambda place: (place / "node1").unlink(),
    "manifest is no JSON": lambda place: flip(place / "template.json"),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_a_damaged_template_is_taken_anew(taken: Template, kind: str, capfd: pytest.CaptureFixture[str]) -> None:
    again = template.prepare(taken.spec, settle)
    assert not again.fresh or kind == next(iter(DAMAGE))
    DAMAGE[kind](taken.directory)
    anew = template.prepare(taken.spec, settle)
    assert anew.fresh and anew.intact
    assert "damaged" in capfd.readouterr().err
    with anew.clone() as guest:
        assert guest.ssh.run("true", Deadline(60)).status == 0


class Vandal(Supply):
    """Somebody damages the template while its first clone is in use."""

    damage: Callable[[Path], None]
    struck = False

    def take(self, case: Case) -> Guest:
        guest = super().take(case)
        if not self.struck and self.template:
            self.damage(self.template.directory)
        self.struck = True
        return guest


@pytest.mark.parametrize(
    "damage",
    [
        lambda place: flip(place / "node0"),
        lambda place: os.truncate(place / "node0", 0),  # QEMU dies of it
        lambda place: (place / "node1").unlink(),
    ],
)
def test_a_template_damaged_under_a_case_gives_no_wrong_verdict(
    kernel: Kernel, passes: Case, tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    spec = spec_of(kernel, "2M=19")
    bundle = guest_build.prepare(X86_64, [PROGRAM])
    supply = Vandal(spec=spec, bundle=bundle, fresh=Fresh.TEST, directory=tmp_path)
    supply.damage = damage
    supply.prepare()
    run = Run(
        request=KernelRequest(arch=X86_64), huge_pages="", expect_hgm=False, directory=tmp_path,
        result=RunResult(started="", command=[]),
    )  # fmt: skip
    run._supplies[X86_64.name], run._kernels[X86_64.name] = supply, kernel
    with contextlib.closing(run):
        assert run.run(passes, X86_64, 2 << 20, "a").status is Status.PASS
    assert len(supply.clone_seconds) == 2 and supply.template and supply.template.fresh


def test_a_qemu_that_cannot_leave_a_guest_boots_it(
    kernel: Kernel, passes: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    # A capability that no QEMU has stands for one that this QEMU lacks.
    monkeypatch.setattr(template, "IGNORE_SHARED", {"capability": "x-ignore-nothing", "state": True})
    bundle = guest_build.prepare(X86_64, [PROGRAM])
    supply = Supply(spec=spec_of(kernel, "2M=20"), bundle=bundle, fresh=None, directory=tmp_path)
    supply.prepare()
    assert supply.template is None and supply.fresh is Fresh.RUN
    assert "a guest boots for each run" in capfd.readouterr().err
    try:
        assert supply.take(passes).run(passes, 2 << 20, tmp_path).outcome.status == 0
        assert supply.take(passes).run(passes, 2 << 20, tmp_path).outcome.status == 0
        assert len(supply.boot_seconds) == 1
    finally:
        supply.drop()


def test_clones_are_guests_of_their_own(taken: Template) -> None:
    taken = template.prepare(taken.spec, settle)
    with taken.clone() as one, taken.clone() as two:
        bundle = guest_build.prepare(X86_64, [PROGRAM])
        guests = [Guest(one, bundle, template=taken), Guest(two, bundle, template=taken)]
        assert one.forwarded_port() != two.forwarded_port()
        assert one.console != two.console
        words = "head -c 16 /dev/urandom | od -An -tx1; date +%s"
        said = [guest.machine.ssh.run(words, Deadline(60)).stdout.decode().splitlines() for guest in guests]
        assert said[0][0] != said[1][0]
        assert abs(int(said[0][1]) - time.time()) < 60
        # What one writes to its memory, the other does not see; nor does its end reach the other.
        assert one.ssh.run("echo mine > /tmp/file; sync", Deadline(60)).status == 0
        assert two.ssh.run("test -e /tmp/file", Deadline(60)).status == 1
        os.kill(one.process.pid, signal.SIGKILL)
        assert one.wait_end(60)
        assert one.ssh.run("true", Deadline(60)).end is End.LOST
        assert two.ssh.run("true", Deadline(60)).status == 0
    assert taken.intact


def test_clones_leave_nothing(taken: Template) -> None:
    taken = template.prepare(taken.spec, settle)

    def left() -> tuple[int, int, int, list[str]]:
        children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
        descriptors = len(list(Path("/proc/self/fd").iterdir()))
        return descriptors, threading.active_count(), len(children), sorted(map(str, cache_dir().glob("templates/*")))

    with taken.clone() as first:
        assert first.alive
    before = left()
    for _ in range(CLONES):
        with taken.clone() as guest:
            place = guest.console.parent
        assert not place.exists()
    assert left() == before


def test_a_full_disk_is_said(kernel: Kernel, tmp_path: Path) -> None:
    # A cache that shares all but its templates with the usual one, and whose templates find little room.
    cache = tmp_path / "cache"
    (cache / "templates").mkdir(parents=True)
    for path in cache_dir().iterdir():
        if path.name != "templates":
            (cache / path.name).symlink_to(path)
    script = (
        'mount -t tmpfs -o size=64m tmpfs "$0/templates" && HGM_CACHE="$0" "$@"; s=$?; ls -A "$0/templates"; exit $s'
    )
    argv = command("--results", tmp_path / "run", "--kernel", kernel.image, "--huge-pages", "2M=21", *ONE_CASE)
    done = finish([*with_mounts(script, cache), *argv], tmp_path / "run")
    assert done.status == Exit.HOST_FAULT, done.output
    assert "no space left for" in done.output
    assert not [line for line in done.output.splitlines() if line.startswith((".x86_64-", "x86_64-"))]


def test_workers_share_a_template_and_their_results_are_one(kernel: Kernel, tmp_path: Path) -> None:
    options = ("--kernel", kernel.image, "--huge-pages", "2M=16", PROGRAM, "-k", "passes or fails or skips or taint")
    ran = harness(tmp_path / "run", "-n", "2", "--no-rerun", *options)
    assert ran.status == Exit.TESTS_FAILED, ran.output
    statuses = {name.partition("[")[0]: case["status"] for name, case in ran.cases().items()}
    assert statuses == {"passes": "pass", "fails": "fail", "skips": "skip", "taint": "fail"}
    seen = ran.results["machines"]["x86_64"]
    assert len(seen["boot_seconds"]) <= 1 and len(seen["clone_seconds"]) == len(ran.results["cases"])
    assert "results: " in ran.output and "not ok: fails" in ran.output


def test_a_worker_that_gets_no_guest_ends_the_run(kernel: Kernel, tmp_path: Path) -> None:
    options = ("--kernel", kernel.image, "--huge-pages", "2M=16,1G=4000", PROGRAM, "-k", "passes or fails")
    ran = harness(tmp_path / "run", "-n", "2", *options)
    assert ran.status == Exit.BAD_INPUT, ran.output
    assert "the huge pages asked for need 4096032 MiB" in ran.output
