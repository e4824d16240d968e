# SPDX-License-Identifier: MIT
"""From what a VM shall be to QEMU's command line. Pure: nothing is opened, probed or written here."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from harness.accel import Accelerator
from harness.arch import GIB, MIB, Arch, size_name
from harness.image import READY_PORT, SHAPE_PORT, Image
from harness.pools import Pool

# Besides the pools: the kernel, its page tables, tmpfs, Python, and room for a test's own small memory.
BASE_MEMORY = 768 * MIB
NODES = 2  # of NUMA, since pages shall be moved between them
# Sizes of which the page allocator cannot be counted upon to have an aligned stretch unless there is room to spare.
GIGANTIC = 512 * MIB


@dataclass(frozen=True, slots=True, kw_only=True)
class VmSpec:
    """All that decides how a guest is built up."""

    arch: Arch
    accelerator: Accelerator
    kernel: Path
    image: Image
    pools: tuple[Pool, ...]
    tests: Path | None = None  # disk image with the guest tests, to be attached read-only
    cpus: int = 2
    append: str = ""  # further kernel parameters

    @property
    def memory(self) -> int:
        """RAM in bytes: the pools, room for everything else, and what alignment costs.

        A gigantic page needs an aligned stretch of that size. The PC machine leaves a hole below 4 GiB, so the RAM
        below the hole serves as room and each gigantic page is counted above it (4608M gives one, 6144M gives two).
        """
        gigantic = sum(pool.size * pool.count for pool in self.pools if pool.size >= GIGANTIC)
        small = sum(pool.size * pool.count for pool in self.pools if pool.size < GIGANTIC)
        return (3 * GIB + 3 * gigantic // 2 if gigantic else BASE_MEMORY) + small

    @property
    def node_memory(self) -> tuple[int, ...]:
        """RAM of each NUMA node in bytes. Halves: the kernel spreads each pool over the nodes when it boots."""
        section = self.arch.section
        first = max(self.memory // NODES // section, 1) * section
        return first, self.memory - first

    @property
    def cmdline(self) -> str:
        """The kernel's parameters."""
        words = [
            f"console={self.arch.console}",
            "root=/dev/vda rootfstype=ext2 ro",
            # A panic ends QEMU at once (with -no-reboot); a WARN must not, or the evidence after it is lost.
            "panic=-1",
            "ignore_loglevel printk.devkmsg=on log_buf_len=4M",
            "sysrq_always_enabled kasan_multi_shot",
            "hugetlb_free_vmemmap=on",
            # Memory given to a guest must not be probed or moved behind a test's back.
            "nokaslr random.trust_cpu=on",
            *(f"hugepagesz={size_name(pool.size)} hugepages={pool.count}" for pool in self.pools),
            self.arch.cmdline,
            self.append,
        ]
        return " ".join(word for word in words if word)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ram:
    """Files in `directory` that hold a guest's RAM, one for each node."""

    directory: Path
    private: bool  # a clone's: what it writes stays its own, and it waits for the state of the guest it is cloned from


def command(spec: VmSpec, directory: Path, ram: Ram | None = None) -> list[str]:
    """Return the argv of a QEMU for `spec` that keeps its sockets and console in `directory`.

    Its RAM is its own, or that of `ram`. QEMU connects to sockets that the harness has bound before, so
    there is nothing to poll for. The forwarded port is left to QEMU (port 0), so no two VMs can race for one.
    """
    return [
        # util-linux; without it a killed harness would leave QEMU behind.
        "setpriv", "--pdeathsig", "KILL", "--",
        spec.arch.qemu,
        "-nodefaults", "-no-user-config", "-no-reboot", "-display", "none",
        "-machine", spec.arch.machine,
        *spec.accelerator.argv,
        "-cpu", spec.accelerator.cpu,
        # A socket for each node: processors that share a cache must not lie in two (arch/x86/kernel/smpboot.c).
        "-smp", f"{spec.cpus},sockets={NODES}",
        "-m", f"{spec.memory // MIB}M",
        *_numa(spec, ram),
        "-kernel", os.fspath(spec.kernel),
        "-append", spec.cmdline,
        "-drive", f"if=none,id=root,file={spec.image.disk},format=raw,readonly=on",
        "-device", "virtio-blk-pci,drive=root",
        *_tests(spec),
        "-netdev", "user,id=net,restrict=on,hostfwd=tcp:127.0.0.1:0-:22",
        # The option ROM is for booting from the network only, and comes in a package of its own.
        "-device", "virtio-net-pci,netdev=net,romfile=",
        "-object", "rng-random,id=rng,filename=/dev/urandom",
        "-device", "virtio-rng-pci,rng=rng",
        "-device", "virtio-serial-pci",
        "-chardev", f"socket,id=ready,path={directory / 'ready'}",
        "-device", f"virtserialport,chardev=ready,name={READY_PORT}",
        "-chardev", f"socket,id=shape,path={directory / 'shape'}",
        "-device", f"virtserialport,chardev=shape,name={SHAPE_PORT}",
        "-chardev", f"socket,id=qmp,path={directory / 'qmp'}",
        "-mon", "chardev=qmp,mode=control",
        # Who connects can type. As long as nobody has, or when he goes, nothing waits for a reader; the log has it all.
        "-chardev", f"socket,id=console,path={directory / 'serial'},server=on,wait=off,logfile={directory / 'console'}",
        "-serial", "chardev:console",
        # The kernel tells where things are in its memory, for those who open a dump of it.
        "-device", "vmcoreinfo",
        *(["-incoming", "defer"] if ram and ram.private else []),
    ]  # fmt: skip


def _tests(spec: VmSpec) -> list[str]:
    if spec.tests is None:
        return []
    drive = f"if=none,id=tests,file={spec.tests},format=raw,readonly=on"
    return ["-drive", drive, "-device", "virtio-blk-pci,drive=tests"]


def _numa(spec: VmSpec, ram: Ram | None) -> list[str]:
    words = []
    for node, size in enumerate(spec.node_memory):
        cpus = "".join(f",cpus={cpu}" for cpu in range(node, spec.cpus, NODES))
        backend = f"memory-backend-ram,id=node{node},size={size // MIB}M"
        if ram:
            share = "off" if ram.private else "on"
            backend = f"{backend.replace('-ram', '-file')},mem-path={ram.directory / f'node{node}'},share={share}"
        words += ["-object", backend, "-numa", f"node,nodeid={node},memdev=node{node}{cpus}"]
    return words
