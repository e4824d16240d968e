# SPDX-License-Identifier: MIT
"""What is missing is named with the command that mends it; what is there costs nothing."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from harness import doctor
from harness.arch import ARCHES, ARM64, X86_64
from harness.doctor import Finding, State
from harness.errors import Exit, HostFault
from harness.needs import Header, Program, Requirement, Room, Stage, StaticLibc, requirements, rooms


def lacking(name: str, package: str = "", *, optional: bool = False) -> Requirement:
    """Return a requirement that no machine fulfils."""
    return Requirement(
        name=name,
        why="for a test",
        probe=Program((f"no-such-{name}",)),
        packages=(package,) if package else (),
        stage=Stage.VM,
        optional=optional,
    )


def finding(requirement: Requirement) -> Finding:
    """Return that it is missing."""
    state = State.OPTIONAL if requirement.optional else State.MISSING
    return Finding(requirement=requirement, state=state, detail="not on PATH")


class Apt:
    """Records what would be run as root, and answers as apt does."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, answers: Sequence[tuple[int, str]] = ()) -> None:
        self.ran: list[str] = []
        self._answers = list(answers)
        monkeypatch.setattr(doctor, "run", self)
        monkeypatch.setattr(doctor, "privilege", lambda: ["sudo", "-n"])
        monkeypatch.setattr(doctor, "apt_lists", lambda: True)
        monkeypatch.setattr("shutil.which", lambda name: f"/usr/bin/{name}" if name == "apt-get" else None)

    def __call__(self, argv: Sequence[str], **_: object) -> subprocess.CompletedProcess[str]:
        self.ran.append(" ".join(argv))
        status, errors = self._answers.pop(0) if self._answers else (0, "")
        return subprocess.CompletedProcess(list(argv), status, "", errors)


INSTALL = "sudo -n env LC_ALL=C DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=300 install -y"
UPDATE = "sudo -n env LC_ALL=C DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=300 update"


def test_x86_64_on_its_own_host_needs_no_cross_tools(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    names = {name for requirement in requirements([X86_64]) for name in requirement.packages}
    assert {"qemu-system-x86", "libelf-dev", "gcc", "libc6-dev"} <= names
    assert not [name for name in names if "arm" in name or "aarch64" in name or "cross" in name]


def test_another_architecture_needs_its_cross_tools(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    names = {name for requirement in requirements([ARM64]) for name in requirement.packages}
    assert {"qemu-system-arm", "gcc-aarch64-linux-gnu", "libc6-dev-arm64-cross"} <= names
    assert "qemu-system-x86" not in names
    monkeypatch.setattr("platform.machine", lambda: "aarch64")
    names = {name for requirement in requirements([X86_64]) for name in requirement.packages}
    assert {"gcc-x86-64-linux-gnu", "libc6-dev-amd64-cross"} <= names


def test_every_requirement_says_why_and_how_to_get_it() -> None:
    table = requirements(list(ARCHES.values()))
    assert all(requirement.why and requirement.packages for requirement in table)
    assert len({requirement.name for requirement in table}) == len(table)


def test_program_probe_takes_any_of_its_names(tmp_path: Path) -> None:
    assert Program(("no-such-program", "sh"))() == (True, shutil.which("sh"))
    assert Program(("no-such-program",))() == (False, "not on PATH")


@pytest.mark.skipif(not shutil.which("gcc"), reason="no gcc here; ./hgm doctor --install")
def test_compiler_probes() -> None:
    assert Header("stdio.h")() == (True, "found")
    assert Header("no-such-header.h")() == (False, "not found by the C compiler")
    there, path = StaticLibc(("no-such-gcc", "gcc"))()
    assert there is Path(path).is_file()


def test_compiler_probes_without_a_compiler(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert Header("stdio.h")()[0] is False
    assert StaticLibc(("gcc",))() == (False, "no libc.a")


def test_room() -> None:
    gib = 1 << 30
    assert Room(2 * gib, lambda: (3 * gib, " in /x"))() == (True, "3.0 GiB free in /x")
    assert Room(4 * gib, lambda: (3 * gib, " in /x"))() == (False, "3.0 GiB free in /x, 4 GiB wanted")

    def fail() -> tuple[int, str]:
        raise HostFault("the cache cannot be made")

    assert Room(1, fail)() == (False, "the cache cannot be made")


def test_rooms_of_this_machine_have_numbers() -> None:
    assert all("GiB free" in requirement.probe()[1] for requirement in rooms())


def test_table_is_aligned() -> None:
    lines = doctor.table([finding(lacking("a", "pack")), finding(lacking("longer", optional=True))]).splitlines()
    assert lines == [
        "missing   a       for a test  not on PATH (package pack)",
        "optional  longer  for a test  not on PATH",
    ]


def test_remedy_is_one_command(monkeypatch: pytest.MonkeyPatch) -> None:
    Apt(monkeypatch)
    findings = [finding(lacking("b", "two")), finding(lacking("a", "one")), finding(lacking("c", "one"))]
    monkeypatch.setattr("os.geteuid", lambda: 0)
    assert doctor.remedy(findings) == "apt-get install -y --no-install-recommends one two"
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    monkeypatch.setattr(doctor, "apt_lists", lambda: False)
    assert (
        doctor.remedy(findings)
        == "sudo apt-get update && sudo apt-get install -y --no-install-recommends one two"
    )  # fmt: skip
    assert doctor.remedy([finding(lacking("memory"))]) == ""
    monkeypatch.setattr("shutil.which", lambda name: None)
    assert doctor.remedy(findings) == "install, with your system's package manager, what Debian calls: one two"


def test_install_says_first_what_it_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    apt, said = Apt(monkeypatch), list[str]()
    doctor.install([finding(lacking("a", "one")), finding(lacking("b", "two", optional=True))], said.append)
    assert apt.ran == [f"{INSTALL} --no-install-recommends one two"]
    assert said[0].startswith("this machine lacks a, b; running: ")


def test_lists_are_fetched_where_there_are_none(monkeypatch: pytest.MonkeyPatch) -> None:
    apt = Apt(monkeypatch)
    monkeypatch.setattr(doctor, "apt_lists", lambda: False)
    doctor.install([finding(lacking("a", "one"))])
    assert apt.ran == [UPDATE, f"{INSTALL} --no-install-recommends one"]


def test_stale_lists_are_fetched_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    apt = Apt(monkeypatch, answers=[(100, "E: Package 'one' has no installation candidate")])
    doctor.install([finding(lacking("a", "one"))])
    assert apt.ran == [f"{INSTALL} --no-install-recommends one", UPDATE, f"{INSTALL} --no-install-recommends one"]


def test_where_it_may_not_it_says_what_to_type(monkeypatch: pytest.MonkeyPatch) -> None:
    apt = Apt(monkeypatch)
    monkeypatch.setattr(doctor, "privilege", lambda: None)
    with pytest.raises(HostFault, match="this machine lacks a, and you are neither root") as caught:
        doctor.install([finding(lacking("a", "one"))])
    assert "apt-get install -y --no-install-recommends one" in caught.value.hint
    assert apt.ran == []


def test_without_apt_it_names_the_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    Apt(monkeypatch)
    monkeypatch.setattr("shutil.which", lambda name: None)
    with pytest.raises(HostFault) as caught:
        doctor.install([finding(lacking("a", "one"))])
    assert caught.value.hint == "install, with your system's package manager, what Debian calls: one"


def test_ensure_is_silent_where_nothing_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    there = replace(lacking("sh"), probe=Program(("sh",)))
    monkeypatch.setattr(doctor, "requirements", lambda arches: [there, lacking("ccache", "ccache", optional=True)])
    monkeypatch.setattr(doctor, "rooms", lambda: [])
    doctor.ensure([X86_64], said.append)
    assert said == []


def test_ensure_probes_again_and_fails_if_it_is_missing_still(monkeypatch: pytest.MonkeyPatch) -> None:
    apt = Apt(monkeypatch)
    monkeypatch.setattr(doctor, "requirements", lambda arches: [lacking("a", "one")])
    with pytest.raises(HostFault, match=r"still lacks a \(not on PATH\)"):
        doctor.ensure([X86_64])
    assert len(apt.ran) == 1


def test_ensure_only_warns_of_little_room(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr(doctor, "requirements", lambda arches: [])
    little = replace(lacking("disk"), probe=Room(2 << 30, lambda: (1 << 30, " in /x")))
    monkeypatch.setattr(doctor, "rooms", lambda: [little])
    doctor.ensure([X86_64], said.append)
    assert said == ["disk: 1.0 GiB free in /x, 2 GiB wanted"]


def test_main_reports_by_its_exit_code(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(doctor, "diagnose", lambda arches: [finding(lacking("a", "one"))])
    assert doctor.main() == Exit.HOST_FAULT
    out = capsys.readouterr().out
    assert "missing  a  for a test" in out and "\nmissing: a\n" in out
    if shutil.which("apt-get"):
        assert f"{'' if os.geteuid() == 0 else 'sudo '}apt-get install -y --no-install-recommends one" in out
    monkeypatch.setattr(doctor, "diagnose", lambda arches: [finding(lacking("a", optional=True))])
    assert doctor.main() == Exit.OK
    assert "all that is needed is there" in capsys.readouterr().out


def test_main_installs_first(monkeypatch: pytest.MonkeyPatch) -> None:
    apt = Apt(monkeypatch)
    monkeypatch.setattr(doctor, "diagnose", lambda arches: [finding(lacking("a", "one"))])
    assert doctor.main(install=True) == Exit.HOST_FAULT
    assert len(apt.ran) == 1


def test_a_browser_is_for_the_own_tests_only(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    apt = Apt(monkeypatch)
    browser = replace(lacking("chromium", "chromium"), stage=Stage.SELFTEST)
    monkeypatch.setattr(doctor, "requirements", lambda arches: [browser])
    monkeypatch.setattr(doctor, "rooms", lambda: [])
    doctor.ensure([X86_64])
    assert doctor.main(install=True) == Exit.OK
    out = capsys.readouterr().out
    assert out.startswith("optional") and "(package chromium)" in out and "all that is needed is there" in out
    assert apt.ran == []
    with pytest.raises(HostFault, match="lacks chromium"):
        doctor.ensure([X86_64], stages=tuple(Stage))
    assert apt.ran == [f"{INSTALL} --no-install-recommends chromium"]
