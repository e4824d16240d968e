# SPDX-License-Identifier: MIT
"""What this machine must have, each with a way to find out whether it does."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Protocol

from harness import accel
from harness import arch as archs
from harness.arch import GIB, X86_64, Arch
from harness.errors import HarnessError, HostFault
from harness.paths import cache_dir

DISK_BYTES = 12 * GIB  # sources, one kernel per flavour and architecture, ccache
MEMORY_BYTES = 4 * GIB  # one guest with a 1 GiB page, or the link of a kernel


class Stage(StrEnum):
    """For which part of the work something is needed; a verb may need only some of them."""

    SOURCE = "source"
    KERNEL = "kernel"
    IMAGE = "image"
    TESTS = "tests"
    VM = "vm"
    SELFTEST = "selftest"  # the project's own tests; no other verb needs it


FOR_USERS = tuple(stage for stage in Stage if stage is not Stage.SELFTEST)


class Probe(Protocol):
    """A way to find out whether something is there."""

    def __call__(self) -> tuple[bool, str]:
        """Return whether it is there, and where or how much."""


@dataclass(frozen=True, slots=True)
class Program:
    """Any one of these programs is on PATH."""

    names: tuple[str, ...]

    def __call__(self) -> tuple[bool, str]:
        """Return its path."""
        found = next(filter(None, map(shutil.which, self.names)), None)
        return bool(found), found or "not on PATH"


@dataclass(frozen=True, slots=True)
class Header:
    """The host's C compiler finds this header."""

    name: str

    def __call__(self) -> tuple[bool, str]:
        """Return that it is found, or that it is not."""
        words = [*_first(("gcc", "cc")), "-E", "-x", "c", "-o", os.devnull, "-include", self.name, os.devnull]
        found = _succeeds(words)
        return found is not None, "found" if found is not None else "not found by the C compiler"


@dataclass(frozen=True, slots=True)
class StaticLibc:
    """One of these compilers, the first that is there, has a C library to link with -static."""

    compilers: tuple[str, ...]

    def __call__(self) -> tuple[bool, str]:
        """Return the library's path."""
        # The compiler answers with the bare name if it has no such file.
        path = (_succeeds([*_first(self.compilers), "-print-file-name=libc.a"]) or "").strip()
        there = os.sep in path and Path(path).is_file()
        return there, os.path.realpath(path) if there else "no libc.a"


@dataclass(frozen=True, slots=True)
class Room:
    """So many bytes are free, as `free` tells; it gives their number and where they are."""

    wanted: int
    free: Callable[[], tuple[int, str]]

    def __call__(self) -> tuple[bool, str]:
        """Return what is free."""
        try:
            free, where = self.free()
        except HarnessError as error:
            return False, error.message
        short = "" if free >= self.wanted else f", {self.wanted / GIB:.0f} GiB wanted"
        return not short, f"{free / GIB:.1f} GiB free{where}{short}"


@dataclass(frozen=True, slots=True)
class Fast:
    """Guests of this architecture run on the host's own processor."""

    arch: Arch

    def __call__(self) -> tuple[bool, str]:
        """Return which accelerator is used, and why."""
        try:
            chosen = accel.choose(self.arch)
        except HarnessError as error:
            return False, error.message
        return chosen.name == "kvm", chosen.reason


@dataclass(frozen=True, slots=True, kw_only=True)
class Requirement:
    """One thing that the host must have."""

    name: str
    why: str  # one phrase
    probe: Probe
    stage: Stage
    packages: tuple[str, ...] = ()  # Debian's; none if no package helps
    arch: str = ""  # needed for guests of this architecture only
    optional: bool = False


QEMU_PACKAGES = {"qemu-system-x86_64": "qemu-system-x86", "qemu-system-aarch64": "qemu-system-arm"}


def _program(name: str, why: str, package: str, stage: Stage, *, optional: bool = False) -> Requirement:
    return Requirement(
        name=name, why=why, probe=Program((name,)), packages=(package,), stage=stage, optional=optional
    )  # fmt: skip


SHARED = (
    _program("git", "keeps kernel sources, applies series", "git", Stage.SOURCE),
    _program("apt-get", "fetches kernel sources", "apt", Stage.SOURCE),
    _program("dpkg-deb", "unpacks kernel sources", "dpkg", Stage.SOURCE),
    _program("xz", "unpacks kernel sources", "xz-utils", Stage.SOURCE),
    _program("gcc", "compiles the kernel's own tools", "gcc", Stage.KERNEL),
    Requirement(
        name="libc.a",
        why="links programs of the host's architecture",
        probe=StaticLibc(("gcc", "cc")),
        packages=("libc6-dev",),
        stage=Stage.KERNEL,
    ),
    _program("make", "builds the kernel", "make", Stage.KERNEL),
    _program("flex", "builds the kernel's configuration tool", "flex", Stage.KERNEL),
    _program("bison", "builds the kernel's configuration tool", "bison", Stage.KERNEL),
    _program("bc", "computes the kernel's time constants", "bc", Stage.KERNEL),
    _program("perl", "runs scripts of the kernel's build", "perl-base", Stage.KERNEL),
    _program("ccache", "makes a second build quick", "ccache", Stage.KERNEL, optional=True),
    _program("mmdebstrap", "unpacks the guest's packages", "mmdebstrap", Stage.IMAGE),
    _program("mke2fs", "makes the guest's disk", "e2fsprogs", Stage.IMAGE),
    _program("setpriv", "ends QEMU when the harness ends", "util-linux", Stage.VM),
    _program("chromium", "./hgm selftest looks at reports in it", "chromium", Stage.SELFTEST),
    _program("chromedriver", "./hgm selftest steers chromium by it", "chromium-driver", Stage.SELFTEST),
)


def requirements(arches: Iterable[Arch]) -> list[Requirement]:
    """Return all that is needed for guests of `arches`, less the room for them."""
    table = list(SHARED)
    # Rows of one machine need the same.
    for arch in {arch.gnu: arch for arch in reversed(list(arches))}.values():
        qemu, compilers = QEMU_PACKAGES[arch.qemu], _compilers(arch)
        table.append(
            Requirement(
                name=arch.qemu,
                why=f"runs {arch.name} guests",
                probe=Program((arch.qemu,)),
                packages=(qemu,),
                stage=Stage.VM,
                arch=arch.name,
            )
        )
        if arch is X86_64:
            # objtool, which the build runs over every object of an x86_64 kernel, is linked with it.
            table.append(
                Requirement(
                    name="gelf.h",
                    why="builds objtool of the x86_64 kernel",
                    probe=Header("gelf.h"),
                    packages=("libelf-dev",),
                    stage=Stage.KERNEL,
                    arch=arch.name,
                )
            )
        if not archs.native(arch):
            table += [
                Requirement(
                    name=compilers[0],
                    why=f"compiles for {arch.name}",
                    probe=Program(compilers),
                    packages=(f"gcc-{arch.gnu.replace('_', '-')}",),
                    stage=Stage.KERNEL,
                    arch=arch.name,
                ),
                Requirement(
                    name=f"libc.a ({arch.name})",
                    why=f"links test programs for {arch.name}",
                    probe=StaticLibc(compilers),
                    packages=(f"libc6-dev-{arch.debian}-cross",),
                    stage=Stage.TESTS,
                    arch=arch.name,
                ),
            ]
    return table


def rooms() -> list[Requirement]:
    """Return what memory and disk must be free."""
    return [
        Requirement(name="disk", why="cache", probe=Room(DISK_BYTES, _free_disk), stage=Stage.KERNEL),
        Requirement(name="memory", why="guests, builds", probe=Room(MEMORY_BYTES, _free_memory), stage=Stage.VM),
        Requirement(name="guest memory files", why="guests", probe=Room(MEMORY_BYTES, _free_shm), stage=Stage.VM),
    ]  # fmt: skip


def _compilers(arch: Arch) -> tuple[str, ...]:
    """Return the names of a cross compiler for `arch`; CROSS_COMPILE counts where it is meant for it."""
    prefix = os.environ.get("CROSS_COMPILE", "")
    own = (f"{prefix}gcc",) if prefix and arch.gnu.split("-")[0] in prefix else ()
    return f"{arch.gnu}-gcc", *own


def _first(names: Sequence[str]) -> list[str]:
    return [next((name for name in names if shutil.which(name)), names[0])]


def _succeeds(words: Sequence[str]) -> str | None:
    """Return the output of a command that succeeded, or None if it is not there or failed."""
    try:
        done = subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    except FileNotFoundError:
        return None
    return done.stdout if done.returncode == 0 else None


def _free_disk() -> tuple[int, str]:
    cache = cache_dir()
    return shutil.disk_usage(cache).free, f" in {cache}"


def _free_shm() -> tuple[int, str]:
    """Return the better one of the places where guests' memory may be a file."""
    places = [path for path in (Path("/dev/shm"), Path(tempfile.gettempdir())) if path.is_dir()]
    free, best = max((shutil.disk_usage(path).free, path) for path in places)
    return free, f" in {best}"


def _free_memory() -> tuple[int, str]:
    for line in Path("/proc/meminfo").read_text().splitlines():
        name, _, value = line.partition(":")
        if name == "MemAvailable":
            return int(value.split()[0]) * 1024, ""
    raise HostFault("/proc/meminfo has no MemAvailable")
