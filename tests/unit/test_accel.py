# SPDX-License-Identifier: MIT
"""An accelerator is chosen by what a guest does on it, and every refusal says why."""

from __future__ import annotations

import json
import os
import stat
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from harness import accel
from harness.accel import Seen
from harness.arch import ALL, ARM64, X86_64, Arch
from harness.errors import BadInput, HostFault

SILENT = {"x86_64": bytes.fromhex("faf4ebfd"), "arm64": bytes.fromhex("7f2003d5ffffff17")}  # halt, and again


@pytest.fixture(autouse=True)
def fresh_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HGM_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("HGM_ACCEL", raising=False)
    monkeypatch.delenv("HGM_SLOWNESS", raising=False)


def canned(monkeypatch: pytest.MonkeyPatch, **seen: Seen) -> list[str]:
    """Replace the probe: how a host with (or with broken) KVM answers cannot be had on one without."""
    asked: list[str] = []

    def probe(arch: Arch, name: str, *, machine: str, seconds: float) -> Seen:
        asked.append(name)
        return seen[name]

    monkeypatch.setattr(accel, "probe", probe)
    monkeypatch.setattr(accel, "_kvm_obstacle", lambda arch: "")
    return asked


GOOD = Seen(problem="", seconds=0.1)
SILENCE = Seen(problem="a guest printed nothing in 5 s", seconds=5.0)


@pytest.mark.parametrize("arch", ALL, ids=[arch.name for arch in ALL])
def test_a_guest_prints_its_letter_under_tcg(arch: Arch) -> None:
    assert accel.probe(arch, "tcg", seconds=30).problem == ""


@pytest.mark.parametrize("arch", ALL, ids=[arch.name for arch in ALL])
def test_a_silent_guest_is_given_up(arch: Arch) -> None:
    silent = replace(arch, probe_code=SILENT[arch.name])
    seen = accel.probe(silent, "tcg", seconds=0.5)
    assert seen.problem == "a guest printed nothing in 0.5 s"
    assert seen.seconds >= 0.5


def test_a_qemu_that_ends_is_quoted() -> None:
    seen = accel.probe(X86_64, "tcg", cpu="nosuch", seconds=30)
    assert seen.problem == "QEMU ended with status 1: unable to find CPU model 'nosuch'"


def test_qemu_dies_with_its_parent() -> None:
    words = accel.command(X86_64, "tcg", Path("code"), machine="pc", cpu="max")
    assert words[:4] == ["setpriv", "--pdeathsig", "KILL", "--"]


def test_kvm_that_runs_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = canned(monkeypatch, kvm=GOOD)
    chosen = accel.choose(X86_64)
    assert (chosen.name, chosen.cpu, chosen.slowness, asked) == ("kvm", "host", 1.0, ["kvm"])
    assert chosen.argv == ("-accel", "kvm")


def test_kvm_on_which_no_guest_prints_ends_in_tcg(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    canned(monkeypatch, kvm=SILENCE, tcg=GOOD)
    chosen = accel.choose(X86_64)
    assert (chosen.name, chosen.cpu, chosen.slowness) == ("tcg", X86_64.cpu_tcg, accel.TCG_SLOWNESS)
    assert chosen.reason == "kvm: a guest printed nothing in 5 s; using TCG"
    assert capsys.readouterr().err == f"hgm: x86_64: {chosen.reason}\n"


def test_kvm_slower_than_tcg_ends_in_tcg(monkeypatch: pytest.MonkeyPatch) -> None:
    canned(monkeypatch, kvm=Seen(problem="", seconds=3.5), tcg=GOOD)
    assert accel.choose(X86_64).reason == "kvm: a guest needed 3.5 s to print one letter, and 0.1 s on TCG; using TCG"


def test_slow_kvm_on_a_slow_host_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    canned(monkeypatch, kvm=Seen(problem="", seconds=3.5), tcg=Seen(problem="", seconds=3.0))
    assert accel.choose(X86_64).name == "kvm"


def test_no_guest_runs_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    canned(monkeypatch, kvm=SILENCE, tcg=Seen(problem="QEMU ended with SIGSEGV", seconds=0.1))
    with pytest.raises(HostFault, match="kvm: a guest printed nothing in 5 s; tcg: QEMU ended with SIGSEGV"):
        accel.choose(X86_64)


def test_the_answer_is_remembered_until_something_changes(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = canned(monkeypatch, kvm=SILENCE, tcg=GOOD)
    first = accel.choose(X86_64)
    assert capsys.readouterr().err
    assert accel.choose(X86_64) == first
    assert capsys.readouterr().err == ""
    assert asked == ["kvm", "tcg"]
    accel.choose(X86_64, "pc")
    assert asked == ["kvm", "tcg"] * 2
    # A file cut short by a crash of the host is no answer.
    known = tmp_path / "cache/accel-x86_64.json"
    known.write_text(known.read_text()[:20])
    accel.choose(X86_64, "pc")
    assert asked == ["kvm", "tcg"] * 3
    assert json.loads(known.read_text())["name"] == "tcg"


def test_hgm_accel_forces_one(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = canned(monkeypatch, kvm=GOOD, tcg=GOOD)
    monkeypatch.setenv("HGM_ACCEL", "tcg")
    assert accel.choose(X86_64).name == "tcg"
    assert asked == ["tcg"]


def test_hgm_accel_forces_one_that_does_not_run(monkeypatch: pytest.MonkeyPatch) -> None:
    canned(monkeypatch, kvm=SILENCE)
    monkeypatch.setenv("HGM_ACCEL", "kvm")
    with pytest.raises(HostFault, match="unset HGM_ACCEL"):
        accel.choose(X86_64)


def test_kvm_is_not_tried_for_another_architecture(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    monkeypatch.setenv("HGM_ACCEL", "kvm")
    with pytest.raises(HostFault, match="only runs guests of the host's own architecture, not arm64"):
        accel.choose(ARM64)


@pytest.mark.parametrize(("name", "value"), [("HGM_ACCEL", "xen"), ("HGM_SLOWNESS", "fast"), ("HGM_SLOWNESS", "-1")])
def test_values_that_cannot_be(name: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(BadInput, match=f"{name} is '{value}'"):
        accel.choose(X86_64)


def test_hgm_slowness_multiplies(monkeypatch: pytest.MonkeyPatch) -> None:
    canned(monkeypatch, kvm=GOOD)
    monkeypatch.setenv("HGM_SLOWNESS", "2.5")
    assert (accel.choose(X86_64).slowness, accel.choose(X86_64).factor) == (2.5, 2.5)


def test_the_users_factor_is_told_from_the_slowness_of_tcg(monkeypatch: pytest.MonkeyPatch) -> None:
    canned(monkeypatch, tcg=GOOD)
    monkeypatch.setenv("HGM_ACCEL", "tcg")
    monkeypatch.setenv("HGM_SLOWNESS", "2.5")
    chosen = accel.choose(X86_64)
    assert (chosen.slowness, chosen.factor) == (2.5 * accel.TCG_SLOWNESS, 2.5)


def test_absent_and_forbidden_devices_are_told_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "there is no" in accel.device_obstacle(tmp_path / "kvm")
    device = tmp_path / "locked"
    device.touch(mode=0)
    if os.geteuid() == 0:
        # Permission bits do not bind root; what the kernel tells others is put in its mouth.
        def refuse(path: Path, flags: int) -> int:
            raise PermissionError(13, "Permission denied")

        monkeypatch.setattr("os.open", refuse)
    assert "may not be opened (add yourself to its group" in accel.device_obstacle(device)
    assert stat.S_IMODE(device.stat().st_mode) == 0


def test_missing_qemu_is_a_host_fault() -> None:
    with pytest.raises(HostFault, match="qemu-system-none is not there"):
        accel.choose(replace(X86_64, qemu="qemu-system-none"))


@pytest.mark.parametrize(
    ("arch", "prefix", "option", "source"),
    [
        (X86_64, "", ["-m32"], ".code16\nmov $0x3f8,%dx\nmov $0x48,%al\nout %al,%dx\ncli\n1: hlt\njmp 1b\n"),
        (ARM64, "aarch64-linux-gnu-", [], "movz x0,#0x900,lsl #16\nmovz w1,#0x48\nstrb w1,[x0]\n1: wfi\nb 1b\n"),
    ],
    ids=["x86_64", "arm64"],
)
def test_probe_code_is_what_an_assembler_makes(
    arch: Arch, prefix: str, option: list[str], source: str, tmp_path: Path
) -> None:
    code, made, raw = tmp_path / "probe.s", tmp_path / "probe.o", tmp_path / "probe.bin"
    code.write_text(source)
    try:
        subprocess.run([f"{prefix}gcc", *option, "-c", code, "-o", made], check=True)
    except FileNotFoundError:
        pytest.skip(f"no {prefix}gcc here; ./hgm doctor --install")
    subprocess.run([f"{prefix}objcopy", "-O", "binary", "-j", ".text", made, raw], check=True)
    assert raw.read_bytes().rstrip(b"\0") == arch.probe_code.rstrip(b"\0")
