# SPDX-License-Identifier: MIT
"""A guest's memory in a file, for drgn and crash.

It is an ELF core. QEMU's compressed formats are half as large, but they take longer, have no name of a kernel in their
header, and have blocks of 64K only for arm64: drgn does not open them.
"""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

from harness import interrupts
from harness.errors import HostFault
from harness.process import end_group, tail
from harness.vm.machine import Machine

NAME = "memory.dump"
SECONDS = 60.0  # on an accelerator of slowness 1; the guest stands still meanwhile
START = 1 << 16  # bytes of a dump in which the kernel's note lies


def dump(machine: Machine, path: Path) -> str:
    """Write the guest's memory to `path`; return in one line what came of it. A guest that ran goes on afterwards.

    The file is as long as the memory, and has holes where that is all zeroes.
    """
    began = time.monotonic()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    try:
        _write(machine, path)
    except (HostFault, OSError) as error:
        path.unlink(missing_ok=True)
        return f"its memory could not be dumped: {error}"
    size = path.stat().st_blocks * 512
    text = f"its memory is in {path.name}: {size / (1 << 20):.0f} MiB, written in {time.monotonic() - began:.1f} s"
    with path.open("rb") as file:
        noted = b"VMCOREINFO\0" in file.read(START)
    return text if noted else f"{text}, without the kernel's note VMCOREINFO, so drgn cannot open it"


def _write(machine: Machine, path: Path) -> None:
    """Write the dump through a pipe, in which dd sorts out what is all zeroes: QEMU writes every page."""
    seconds = SECONDS * machine.spec.accelerator.slowness
    pipe = machine.console.parent / "dump"
    os.mkfifo(pipe, 0o600)
    path.touch(0o600)
    argv = ["dd", "bs=64K", "iflag=fullblock", "conv=sparse", f"if={pipe}", f"of={path}"]
    with interrupts.held():
        writer = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True)
    try:
        machine.qmp.execute("dump-guest-memory", seconds, paging=False, protocol=f"file:{pipe}")
        _, errors = writer.communicate(timeout=seconds)
    except subprocess.TimeoutExpired as error:
        raise HostFault(f"dd did not end within {seconds:.0f} s") from error
    finally:
        end_group(writer, 0)
        pipe.unlink()
    if writer.returncode:
        raise HostFault(f"dd failed: {tail(errors.decode(errors='replace'), 1)}")
