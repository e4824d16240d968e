# SPDX-License-Identifier: MIT
"""What the probe reads of QEMU's words, and what it says."""

from __future__ import annotations

import socket
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from harness.arch import ARCHES
from harness.errors import HostFault
from harness.pagetable.probe import Shape, answering, parse_ram
from harness.vm.machine import Machine

MTREE = """FlatView #0
 AS "memory", root: system
  0000000000000000-00000000000c2fff (prio 0, ram): node0
  00000000000c3000-00000000000e7fff (prio 0, rom): node0 @00000000000c3000
  0000000000100000-000000007fffffff (prio 0, ram): node0 @0000000000100000
  00000000fee00000-00000000feefffff (prio 4096, i/o): apic-msi
  00000000fffc0000-00000000ffffffff (prio 0, rom): pc.bios
  0000000100000000-000000014fffffff (prio 0, ram): node0 @0000000080000000
  0000000150000000-000000020fffffff (prio 0, ram): node1
FlatView #1
  0000000000000000-00000000000c2fff (prio 0, ram): node0
"""


def test_memory_is_where_the_nodes_are() -> None:
    ram = parse_ram(MTREE)
    assert ram.stretches == ((0, 0xC3000), (0x100000, 0x80000000), (0x100000000, 0x210000000))
    assert ram.holds(0x14FFFF000, 0x2000) and not ram.holds(0x7FFFF000, 0x2000) and not ram.holds(0xC2000, 0x2000)


def test_a_machine_without_memory_is_not_believed() -> None:
    with pytest.raises(HostFault, match="shows no memory"):
        parse_ram("FlatView #0\n")


def test_the_line_that_the_guest_reads() -> None:
    shape = Shape(start=0, length=4 << 20, pages=("2M: 4K×1 hole×511", "2M: hole×512"), frames=(0x1400000, 0), tables=1,
                  findings=("0x0: odd",), seconds=0)  # fmt: skip
    assert str(shape) == "tables 1; 2M: 4K×1 hole×511@1400000; 2M: hole×512@0 !! 0x0: odd"


def test_what_qemu_does_not_tell_is_kept_as_a_fault(tmp_path: Path) -> None:
    # No QEMU is there to be asked: a machine that has just died.
    machine = SimpleNamespace(
        spec=SimpleNamespace(arch=ARCHES["x86_64"], accelerator=SimpleNamespace(slowness=1)),
        console=tmp_path / "console", qmp=SimpleNamespace(monitor=lambda command: MTREE),
    )  # fmt: skip
    ours, guest = socket.socketpair()
    with ours, guest, answering(cast(Machine, machine), ours) as answers:
        guest.settimeout(10)
        guest.sendall(b"shape abc 1000 1000 200000\n")
        assert guest.recv(1000).startswith(b"abc error: QEMU's gdb stub at ")
    assert not answers.shapes and "does not let itself be reached" in answers.faults[0]


def test_a_fault_of_ours_is_raised() -> None:
    ours, guest = socket.socketpair()
    with ours, guest, pytest.raises(AttributeError), answering(cast(Machine, SimpleNamespace()), ours):
        guest.sendall(b"shape abc 1000 1000 200000\n")
