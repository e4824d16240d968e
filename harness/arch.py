# SPDX-License-Identifier: MIT
"""The architectures, one row each, and one for each other size of base page.

Nothing else in the harness asks "which architecture is this?".
"""

from __future__ import annotations

import platform
from dataclasses import dataclass, replace

from harness.errors import BadInput

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30


@dataclass(frozen=True, slots=True, kw_only=True)
class Arch:
    """What differs between architectures, as data."""

    name: str
    aliases: tuple[str, ...]  # how uname, Debian and kernel people also call it
    kernel_arch: str  # ARCH= of the kernel's make
    debian: str  # dpkg architecture of the guest
    gnu: str  # triplet of the cross tools, without the trailing dash
    qemu: str  # system emulator
    machine: str  # -machine
    cpu_tcg: str  # -cpu under TCG: every feature, less the slow ones
    accelerators: tuple[str, ...]  # to try, best first, where the host has this architecture
    console: str  # kernel name of the first serial port
    image_magic: tuple[int, bytes]  # (offset, bytes) by which a kernel image is known
    huge_page_sizes: tuple[int, ...]  # that guests reserve, in bytes, smallest first
    huge_pages: str  # pools that a guest reserves by default, as --huge-pages has them
    probe_code: bytes  # machine code that prints the letter H on the first serial port and halts
    probe_address: int | None  # where it is loaded; None: it is a boot sector
    pc: str  # QEMU's name of the program counter
    frame: str  # and of the frame pointer
    link: str = ""  # and of the link register, where there is one
    # Bytes into struct pt_regs at which frame pointer and program counter lie, where a frame pointer with its lowest
    # bit set is the address of one (arch/x86/include/asm/frame.h:ENCODE_FRAME_POINTER).
    saved: tuple[int, int] | None = None
    nmi: bool = False  # QEMU's inject-nmi reaches every processor
    base_page: int = 4 * KIB  # bytes
    section: int = 128 * MIB  # of memory, with which a NUMA node begins (SECTION_SIZE_BITS), bytes
    cmdline: str = ""  # kernel parameters only this architecture needs


X86_64 = Arch(
    name="x86_64",
    aliases=("x86", "amd64"),
    kernel_arch="x86_64",
    debian="amd64",
    gnu="x86_64-linux-gnu",
    qemu="qemu-system-x86_64",
    machine="q35",  # on the older "pc" each device waits a tenth of a second for its interrupt to be routed
    # Where it can, the kernel clears and copies by "rep stosb": for QEMU a round for each byte, seconds for a 1G page.
    cpu_tcg="max,erms=off",
    accelerators=("kvm", "tcg"),
    console="ttyS0",
    image_magic=(0x202, b"HdrS"),
    huge_page_sizes=(2 * MIB, GIB),
    huge_pages="2M=128,1G=2",
    # mov dx,0x3f8; mov al,'H'; out dx,al; cli; hlt; jmp $-1
    probe_code=bytes.fromhex("baf803b048eefaf4ebfd"),
    probe_address=None,
    pc="RIP",
    frame="RBP",
    saved=(0x20, 0x80),
    nmi=True,
    # An NMI that nobody has asked for comes from the harness, and shall end in a trace.
    cmdline="unknown_nmi_panic",
)

ARM64 = Arch(
    name="arm64",
    aliases=("aarch64",),
    kernel_arch="arm64",
    debian="arm64",
    gnu="aarch64-linux-gnu",
    qemu="qemu-system-aarch64",
    machine="virt,gic-version=3",
    # Pointer authentication in QEMU's default algorithm costs a third of all time under TCG; LPA2 and SVE are unused.
    cpu_tcg="max,pauth-impdef=on,sve=off,sme=off",
    accelerators=("kvm", "tcg"),
    console="ttyAMA0",
    image_magic=(0x38, b"ARM\x64"),
    huge_page_sizes=(64 * KIB, 2 * MIB, 32 * MIB, GIB),
    huge_pages="64K=256,2M=128,32M=8,1G=2",
    # movz x0,#0x900,lsl #16; movz w1,#'H'; strb w1,[x0]; wfi; b .-4
    probe_code=bytes.fromhex("0020a1d201098052010000397f2003d5ffffff17"),
    probe_address=0x4020_0000,  # past the device tree that QEMU puts at the start of RAM
    pc="PC",
    frame="X29",
    link="X30",
)

# The same machine with larger base pages: 32 of them with one contiguous entry make 2M, a PMD makes 512M.
ARM64_64K = replace(
    ARM64,
    name="arm64-64k",
    aliases=(),
    huge_page_sizes=(2 * MIB, 512 * MIB),
    huge_pages="2M=128,512M=4",
    base_page=64 * KIB,
    section=512 * MIB,
)

ARCHES = {arch.name: arch for arch in (X86_64, ARM64, ARM64_64K)}
ALL = (X86_64, ARM64)  # what --arch all means: the rest are variants


def find(name: str) -> Arch:
    """Return the architecture called `name` by any of its names. Raises BadInput for an unknown one."""
    for arch in ARCHES.values():
        if name in (arch.name, *arch.aliases):
            return arch
    raise BadInput(
        f"unknown architecture {name!r}",
        hint=f"known: {', '.join(ARCHES)}, and 'all' for {' and '.join(arch.name for arch in ALL)}",
    )


def native(arch: Arch) -> bool:
    """Whether the harness's own machine is of this architecture, whatever the size of its base pages."""
    machine = platform.machine()
    return any(machine in (row.name, *row.aliases) for row in ARCHES.values() if row.gnu == arch.gnu)


def size_name(size: int) -> str:
    """Return the short name of a page size: 65536 is 64K, 2097152 is 2M, 1073741824 is 1G."""
    for unit, letter in ((GIB, "G"), (MIB, "M"), (KIB, "K")):
        if size % unit == 0 and size:
            return f"{size // unit}{letter}"
    return str(size)
