# SPDX-License-Identifier: MIT
"""Compiles the C guest tests, static, for the guest's architecture, and packs all that guests need into one disk."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from harness import arch as archs
from harness.arch import MIB, Arch
from harness.errors import BadInput, HostFault
from harness.paths import GUEST_TESTS, ROOT, cache_dir, digest, locked, sha256, used, written_whole
from harness.process import run, say, tail

LIB = GUEST_TESTS / "lib"
# The packages bring no bytecode, and the root file system is read-only: what was compiled once is kept in memory.
PYTHON = "PYTHONPYCACHEPREFIX=/run/pycache python3 -S"
WAKE = "lib/wake"  # sets clock and random numbers of a guest that was cloned
FLAGS = ("-std=gnu11", "-O2", "-g", "-static", "-Wall", "-Wextra", "-Werror", "-pthread")


# Of a disk with tests, at least. Templates are kept for guests with a disk of one size, whatever is on it.
DISK_BYTES = 64 * MIB


@dataclass(frozen=True, slots=True, kw_only=True)
class Bundle:
    """What goes into a guest: a disk, and the command that starts each program from where it is mounted."""

    disk: Path  # ext2, to be attached read-only
    commands: dict[Path, str]


def prepare(arch: Arch, programs: Iterable[Path], extra: Mapping[str, Path] | None = None) -> Bundle:
    """Compile what has changed and return the bundle of `programs` for `arch`, with `extra` files by their places.

    Raises HostFault if the compiler is missing, BadInput if a program does not compile.
    """
    compiler = _compiler(arch)
    version = run([*compiler, "--version"], quiet=True).stdout.splitlines()[0]
    files = {f"lib/{path.relative_to(LIB)}": path for path in sorted(LIB.rglob("*.py"))}
    files |= {"hgm": LIB / "hgm.sh"} | dict(extra or {})
    commands: dict[Path, str] = {}
    with locked(f"guest-{arch.name}"):
        wake = Path(__file__).with_name("wake.c")
        files[WAKE] = _built(arch, compiler, version, wake, [wake])
        for number, program in enumerate(sorted(set(programs))):
            # As in the checkout. Elsewhere two directories of one name may hold programs of one name.
            ours = program.is_relative_to(GUEST_TESTS)
            place = os.fspath(program.relative_to(GUEST_TESTS)) if ours else f"{number}/{program.name}"
            if program.suffix == ".c":
                place = place.removesuffix(".c")
                # The library is one object, compiled once and linked with each program.
                library = _built(arch, compiler, version, LIB, sorted(LIB.glob("*.c")), "-r")
                files[place] = _built(arch, compiler, version, program, [program, library])
                commands[program] = f"./{place}"
            else:
                files[place] = program
                commands[program] = f"PYTHONPATH=lib {PYTHON} {place}"
        return Bundle(disk=_disk(arch, files), commands=commands)


def _disk(arch: Arch, files: Mapping[str, Path]) -> Path:
    """Return a disk that holds `files`, by their places on it."""
    key = digest({place: sha256(file) for place, file in files.items()})
    target = cache_dir() / "guest" / f"{arch.name}-disk-{key}"
    if not target.exists():
        size = DISK_BYTES
        while size < 5 * sum(file.stat().st_size for file in files.values()) // 4:
            size *= 2
        with written_whole(target) as work:
            for place, file in files.items():
                (work / "root" / place).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(file, work / "root" / place)
            run(
                ["mke2fs", "-q", "-t", "ext2", "-m", "0", "-d", work / "root", work / "disk", f"{size >> 10}k"],
                quiet=True,
            )
            shutil.rmtree(work / "root")
    return used(target) / "disk"


def _compiler(arch: Arch) -> list[str]:
    """CROSS_COMPILE as kernel people set it, if it is for `arch`; else the triplet's gcc, else the host's."""
    prefix = os.environ.get("CROSS_COMPILE", "")
    native = archs.native(arch)
    names = [f"{prefix}gcc"] if prefix and arch.gnu.split("-")[0] in prefix else []
    names += [f"{arch.gnu}-gcc", *(["gcc", "cc"] if native else [])]
    for name in names:
        if shutil.which(name):
            return [name]
    raise HostFault(f"no C compiler for {arch.name} (tried {', '.join(names)})", hint="./hgm doctor --install")


def _built(arch: Arch, compiler: list[str], version: str, name: Path, sources: list[Path], *words: str) -> Path:
    """Return what `sources` come to, called by `name`; compiled if the cache has none."""
    headers = [path.read_text() for path in sorted(LIB.glob("*.h"))]
    key = digest([sha256(source) for source in sources], headers, version, FLAGS, words)
    built = cache_dir() / "guest" / f"{arch.name}-{name.stem}-{key}"
    if not built.exists():
        say(f"compiling {name.relative_to(ROOT) if name.is_relative_to(ROOT) else name}")
        with written_whole(built) as work:
            call = [*compiler, *FLAGS, *words, "-I"]
            done = run([*call, LIB, "-o", work / "program", *sources], check=False, quiet=True)
            if done.returncode:
                if "No space left on device" in done.stderr:
                    raise HostFault(f"no space left to compile {name}", hint=f"free some in {work.parent}")
                raise BadInput(
                    f"{name} does not compile\n{tail(done.stderr)}", hint="mend the program; it is C11 with -Werror"
                )
    return used(built) / "program"
