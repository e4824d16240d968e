# SPDX-License-Identifier: MIT
"""Which accelerator a guest gets: the best one on which a guest was seen to run.

That /dev/kvm opens proves nothing: on some hosts it even creates VMs, and yet no guest ever runs. So a few bytes of
machine code are started, and must print a letter on the serial port before a deadline. Nor does a letter alone: where
virtualisation is nested badly, a guest on KVM was seen to need forty times as long as one on TCG.
"""

from __future__ import annotations

import errno
import json
import os
import select
import shutil
import signal
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from harness import arch as arches
from harness import interrupts
from harness.arch import Arch
from harness.deadline import Deadline
from harness.errors import BadInput, HostFault
from harness.paths import cache_dir, digest
from harness.process import say

ACCELERATORS = ("kvm", "tcg")
LETTER = b"H"
KVM_SECONDS = 5.0  # a working one needs 0.2
KVM_DOUBTFUL_SECONDS = 1.0  # slower than this, it must show that it is faster than TCG
TCG_SECONDS = 30.0  # nothing comes after it, so only a QEMU that hangs should ever reach this
TCG_SLOWNESS = 8.0
# SeaBIOS does not boot from smaller disks everywhere.
DISK_BYTES = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Accelerator:
    """What runs a guest's instructions."""

    name: str  # kvm or tcg
    argv: tuple[str, ...]  # QEMU's -accel
    cpu: str  # QEMU's -cpu
    slowness: float  # by which deadlines of a guest on kvm are multiplied
    reason: str  # one line: why this one

    @property
    def factor(self) -> float:
        """The user's factor on all deadlines, which is part of `slowness`."""
        return self.slowness / _own_slowness(self.name)


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What came of running the probe."""

    problem: str  # why no letter came, or nothing
    seconds: float


def choose(arch: Arch, machine: str | None = None) -> Accelerator:
    """Return the best accelerator on which a guest of `arch` was seen to run, on `machine` if not the usual one.

    The answer is kept until the host boots again or its QEMU changes. HGM_ACCEL forces one, HGM_SLOWNESS multiplies
    all deadlines. Raises BadInput for values that cannot be, and HostFault if no guest runs at all.
    """
    forced, factor = _forced(arch), _factor()
    machine = machine or arch.machine
    known = cache_dir() / f"accel-{arch.name}.json"
    key = _key(arch, machine, forced)
    remembered = _recall(known, key)
    if remembered:
        return _accelerator(arch, *remembered, factor)
    name, reason = _find(arch, machine, forced)
    say(f"{arch.name}: {reason}")
    fresh = known.with_name(f"{known.name}.{os.getpid()}")
    fresh.write_text(json.dumps({"key": key, "name": name, "reason": reason}))
    fresh.replace(known)
    return _accelerator(arch, name, reason, factor)


def check(arch: Arch) -> None:
    """Raise BadInput for values of HGM_ACCEL and HGM_SLOWNESS that cannot be."""
    _forced(arch)
    _factor()


def _forced(arch: Arch) -> str:
    """Return the accelerator that HGM_ACCEL asks for, or nothing."""
    forced = os.environ.get("HGM_ACCEL", "")
    if forced and forced not in ACCELERATORS:
        raise BadInput(f"HGM_ACCEL is {forced!r}", hint=f"one of {', '.join(ACCELERATORS)}, or unset it")
    if forced and forced not in arch.accelerators:
        raise BadInput(f"HGM_ACCEL is {forced!r}, which {arch.name} cannot use", hint="unset it")
    return forced


def _factor() -> float:
    """Return the user's factor on all deadlines."""
    text = os.environ.get("HGM_SLOWNESS") or "1"
    try:
        factor = float(text)
    except ValueError:
        factor = 0.0
    if not 0 < factor < 1000:
        raise BadInput(f"HGM_SLOWNESS is {text!r}", hint="it multiplies all deadlines: a number such as 2")
    return factor


def _accelerator(arch: Arch, name: str, reason: str, factor: float) -> Accelerator:
    return Accelerator(
        name=name,
        argv=_argv(name),
        cpu=_cpu(arch, name),
        slowness=factor * _own_slowness(name),
        reason=reason,
    )


def _own_slowness(name: str) -> float:
    return 1.0 if name == "kvm" else TCG_SLOWNESS


def _argv(name: str) -> tuple[str, ...]:
    return ("-accel", "kvm" if name == "kvm" else "tcg,thread=multi")


def _cpu(arch: Arch, name: str) -> str:
    return "host" if name == "kvm" else arch.cpu_tcg


def surroundings(arch: Arch) -> tuple[object, ...]:
    """Return what anything learnt about guests of `arch` depends on: this boot of the host, and its QEMU.

    Raises HostFault if there is no QEMU.
    """
    qemu = shutil.which(arch.qemu)
    if qemu is None:
        raise HostFault(f"{arch.qemu} is not there", hint="./hgm doctor --install")
    program = Path(qemu).resolve()
    stat = program.stat()
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return boot, os.fspath(program), stat.st_mtime_ns, stat.st_size


def _key(arch: Arch, machine: str, forced: str) -> str:
    # Whether /dev/kvm may be opened changes with the user and while the host runs.
    return digest(
        *surroundings(arch), machine, forced, _kvm_obstacle(arch),
        arch.probe_code.hex(), arch.probe_address, arch.cpu_tcg,
    )  # fmt: skip


def _recall(known: Path, key: str) -> tuple[str, str] | None:
    """Return name and reason as they were found for `key`, or None."""
    try:
        found = json.loads(known.read_text())
    except (FileNotFoundError, ValueError):
        return None  # never asked, or the host died while it was written: ask again
    if not isinstance(found, dict) or found.get("key") != key or found.get("name") not in ACCELERATORS:
        return None
    return str(found["name"]), str(found.get("reason", ""))


def _find(arch: Arch, machine: str, forced: str) -> tuple[str, str]:
    """Return name and reason of the best accelerator on which a guest runs. Raises HostFault if there is none."""
    failed: list[str] = []
    for name in (forced,) if forced else arch.accelerators:
        problem = _kvm_obstacle(arch) if name == "kvm" else ""
        if not problem:
            seen = probe(arch, name, machine=machine, seconds=KVM_SECONDS if name == "kvm" else TCG_SECONDS)
            problem = seen.problem
            if not problem and name == "kvm" and not forced:
                problem = _sluggish(arch, machine, seen.seconds)
        if not problem:
            why = "; ".join([*failed, f"using {name.upper()}"]) if failed else f"{name}: a guest runs on it"
            return name, why + (" (HGM_ACCEL)" if forced else "")
        failed.append(f"{name}: {problem}")
    raise HostFault(
        f"no {arch.name} guest runs here: {'; '.join(failed)}",
        hint="unset HGM_ACCEL to have another tried" if forced else f"reinstall {arch.qemu}; ./hgm doctor checks more",
    )


def _sluggish(arch: Arch, machine: str, kvm_seconds: float) -> str:
    """Return that TCG is faster than a KVM that needed `kvm_seconds` for the probe, or nothing."""
    if kvm_seconds < KVM_DOUBTFUL_SECONDS or "tcg" not in arch.accelerators:
        return ""
    tcg = probe(arch, "tcg", machine=machine, seconds=kvm_seconds)
    if tcg.problem or tcg.seconds > kvm_seconds / 2:
        return ""
    return f"a guest needed {kvm_seconds:.1f} s to print one letter, and {tcg.seconds:.1f} s on TCG"


def _kvm_obstacle(arch: Arch) -> str:
    """Return why KVM need not even be tried for guests of `arch`, or nothing."""
    if not arches.native(arch):
        return f"only runs guests of the host's own architecture, not {arch.name}"
    return device_obstacle(Path("/dev/kvm"))


def device_obstacle(device: Path) -> str:
    """Return why KVM's device cannot be opened, with what to do, or nothing."""
    try:
        os.close(os.open(device, os.O_RDWR | os.O_CLOEXEC))
    except OSError as error:
        if error.errno == errno.ENOENT:
            return f"there is no {device} (virtualisation is off in the firmware, or this is a VM without it)"
        if error.errno in (errno.EACCES, errno.EPERM):
            return f"{device} may not be opened (add yourself to its group: usermod -aG kvm $USER)"
        return f"{device} cannot be opened: {error.strerror}"
    return ""


def probe(
    arch: Arch, accelerator: str, *, machine: str | None = None, cpu: str | None = None, seconds: float = KVM_SECONDS
) -> Seen:
    """Run a guest that prints one letter, for at most `seconds`."""
    with tempfile.TemporaryDirectory(prefix="hgm-accel-") as name:
        directory = Path(name)
        code = directory / "code"
        code.write_bytes(image(arch))
        words = command(arch, accelerator, code, machine=machine or arch.machine, cpu=cpu or _cpu(arch, accelerator))
        with (directory / "stderr").open("w+b") as errors:
            with interrupts.held():
                process = subprocess.Popen(
                    words,
                    cwd=directory,  # its own: a QEMU that aborts may leave a core dump
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=errors,
                    start_new_session=True,
                )
            deadline = Deadline(seconds)
            try:
                problem = _listen(process, deadline)
                passed = deadline.passed
            finally:
                # By force: nothing in it is worth a polite end, and a guest stuck inside KVM gives none.
                process.kill()
                process.wait()
                if process.stdout:
                    process.stdout.close()
            errors.seek(0)
            complaint = _first_line(errors.read().decode(errors="replace"), arch.qemu)
    if problem and complaint:
        problem = f"{problem}: {complaint}"
    return Seen(problem=problem, seconds=passed)


def _listen(process: subprocess.Popen[bytes], deadline: Deadline) -> str:
    """Wait for the letter on QEMU's stdout; return nothing once it came, else what happened."""
    if process.stdout is None:
        raise AssertionError("QEMU was started without a pipe")
    while select.select([process.stdout], [], [], deadline.left)[0]:
        got = os.read(process.stdout.fileno(), 64)
        if LETTER in got:
            return ""
        if not got:
            status = process.wait()
            how = signal.Signals(-status).name if status < 0 else f"status {status}"
            return f"QEMU ended with {how}"
    return f"a guest printed nothing in {deadline.seconds:g} s"


def _first_line(text: str, program: str) -> str:
    """Return the first line of QEMU's complaints, without its name and warnings."""
    lines = [line.removeprefix(f"{program}: ") for line in text.splitlines() if ": warning: " not in line]
    return next((line.removeprefix("error: ") for line in lines if line.strip()), "")


def image(arch: Arch) -> bytes:
    """Return the probe's code as it is handed to QEMU: a disk with a boot sector, or the bare code."""
    if arch.probe_address is not None:
        return arch.probe_code
    return (arch.probe_code.ljust(510, b"\0") + b"\x55\xaa").ljust(DISK_BYTES, b"\0")


def command(arch: Arch, accelerator: str, code: Path, *, machine: str, cpu: str) -> list[str]:
    """Return the argv of a QEMU that runs `code` with its first serial port on stdout."""
    if arch.probe_address is None:
        load = [
            "-drive", f"file={code},format=raw,if=none,id=probe,readonly=on",
            "-device", "virtio-blk-pci,drive=probe,bootindex=0",
        ]  # fmt: skip
    else:
        load = ["-device", f"loader,file={code},addr={arch.probe_address:#x},cpu-num=0,force-raw=on"]
    return [
        "setpriv", "--pdeathsig", "KILL", "--",
        arch.qemu,
        "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot",
        "-machine", machine,
        *_argv(accelerator),
        "-cpu", cpu,
        "-m", "32M",
        "-serial", "stdio",
        *load,
    ]  # fmt: skip
