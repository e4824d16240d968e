# SPDX-License-Identifier: MIT
"""Stacks of the kernel read from outside: linked frames, interrupted contexts, signed addresses, damage."""

from __future__ import annotations

import pytest

from harness.arch import ARM64, X86_64
from harness.errors import HostFault
from harness.vm.frames import MOST, Processor, parse, walk

K = 0xFFFF_8880_0000_0000  # a stack
TEXT = 0xFFFF_FFFF_8100_0000


def test_registers_of_each_architecture() -> None:
    x86 = "\r\nCPU#1\r\nRAX=0000000000000001 RBX=0000000000000000\r\nRBP=ffff888000000010 RSP=ffff888000000000\r\n"
    assert parse(f"{x86}RIP=ffffffff81000010 RFL=00000246 [---Z-P-] CPL=0 II=0 A20=1 SMM=0 HLT=0")["RIP"] == TEXT + 0x10
    arm = " PC=ffff800008010000 X00=0000000000000001 X01=0000000000000002\nX29=ffff800009000000 X30=ffff800008020000 "
    seen = parse(f"{arm} SP=ffff800009000000\nPSTATE=600003c5 -ZC- EL1h")
    assert (seen["PC"], seen["X29"], seen["X30"]) == (
        0xFFFF_8000_0801_0000,
        0xFFFF_8000_0900_0000,
        0xFFFF_8000_0802_0000,
    )
    with pytest.raises(HostFault, match="shows none"):
        parse("unknown command")


def test_frames_are_followed_to_the_end() -> None:
    memory = {K: (K + 0x40, TEXT + 0x20), K + 0x40: (0, TEXT + 0x30)}
    assert walk({"RIP": TEXT + 0x10, "RBP": K}, X86_64, memory.get) == [TEXT + 0x10, TEXT + 0x20, TEXT + 0x30]


def test_an_interrupted_context_is_entered() -> None:
    regs = K + 0x100  # of a struct pt_regs, to which a frame pointer with its lowest bit set leads
    memory = {
        K: (regs | 1, TEXT + 0x20),
        regs + 0x20: (K + 0x40, 0),
        regs + 0x80: (TEXT + 0x30, 0x10),
        K + 0x40: (0, TEXT + 0x40),
    }
    found = walk({"RIP": TEXT + 0x10, "RBP": K}, X86_64, memory.get)
    assert found == [TEXT + 0x10, TEXT + 0x20, TEXT + 0x30, TEXT + 0x40]


def test_user_mode_ends_the_walk() -> None:
    regs = K + 0x100
    memory = {K: (regs | 1, TEXT + 0x20), regs + 0x20: (0x7FFF_0000, 0), regs + 0x80: (0x40_1000, 0x33)}
    assert walk({"RIP": TEXT + 0x10, "RBP": K}, X86_64, memory.get) == [TEXT + 0x10, TEXT + 0x20]
    assert walk({"RIP": 0x40_1000, "RBP": 0x7FFF_0000}, X86_64, memory.get) == []
    assert "in user mode" in str(Processor(number=0, registers="", frames=()))


def test_signatures_come_off_and_a_leaf_has_its_caller_in_the_link_register() -> None:
    text = 0xFFFF_8000_0801_0000
    signed = text + 0x20 & ~(0x3F << 48) | 0x15 << 48
    memory = {K: (0, signed)}
    found = walk({"PC": text, "X29": K, "X30": text + 0x10}, ARM64, memory.get)
    assert found == [text, text + 0x10, text + 0x20]
    # Behind its own first instructions a function's frame says the same as the link register.
    assert walk({"PC": text, "X29": K, "X30": text + 0x20}, ARM64, memory.get) == [text, text + 0x20]


def test_a_ring_and_a_damaged_frame_end() -> None:
    assert len(walk({"RIP": TEXT, "RBP": K}, X86_64, lambda _: (K, TEXT))) == MOST
    assert walk({"RIP": TEXT, "RBP": 0x1234}, X86_64, lambda _: (K, TEXT)) == [TEXT]
    assert walk({"RIP": TEXT, "RBP": K}, X86_64, lambda _: None) == [TEXT]
