# SPDX-License-Identifier: MIT
"""Compiles the C guest tests, static, for the guest's architecture, and packs all that is pushed into one tar."""

from __future__ import annotations

import io
import os
import shutil
import tarfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from harness import arch as archs
from harness.arch import Arch
from harness.errors import BadInput, HostFault
from harness.paths import ROOT, cache_dir, digest, locked, written_whole
from harness.process import run, say, tail

LIB = ROOT / "guest_tests/lib"
FLAGS = ("-std=gnu11", "-O2", "-g", "-static", "-Wall", "-Wextra", "-Werror", "-pthread")


@dataclass(frozen=True, slots=True, kw_only=True)
class Bundle:
    """What goes into a guest: one tar, and the command that starts each program from the guest's work directory."""

    tar: bytes
    commands: dict[Path, str]


def prepare(arch: Arch, programs: Iterable[Path]) -> Bundle:
    """Compile what has changed and return the bundle of `programs` for `arch`.

    Raises HostFault if the compiler is missing, BadInput if a program does not compile.
    """
    compiler = _compiler(arch)
    version = run([*compiler, "--version"], quiet=True).stdout.splitlines()[0]
    shared = {path.name: path.read_text() for path in sorted(LIB.glob("*.[ch]"))}
    buffer = io.BytesIO()
    commands: dict[Path, str] = {}
    with tarfile.open(fileobj=buffer, mode="w") as tar, locked(f"guest-{arch.name}"):
        tar.add(LIB / "hgm.py", "lib/hgm.py", filter=_plain)
        for number, program in enumerate(sorted(set(programs))):
            # Two directories may hold programs of one name, so each gets a directory of its own in the guest too.
            place = f"{number}/{program.name}"
            if program.suffix == ".c":
                key = digest(program.read_text(), shared, version, FLAGS)
                built = cache_dir() / "guest" / f"{arch.name}-{program.stem}-{key}"
                if not built.exists():
                    _compile(compiler, program, built)
                place = place.removesuffix(".c")
                tar.add(built / "program", place, filter=_plain)
                commands[program] = f"./{place}"
            else:
                tar.add(program, place, filter=_plain)
                commands[program] = f"PYTHONPATH=lib python3 {place}"
    return Bundle(tar=buffer.getvalue(), commands=commands)


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


def _compile(compiler: list[str], program: Path, built: Path) -> None:
    say(f"compiling {program.relative_to(ROOT) if program.is_relative_to(ROOT) else program}")
    with written_whole(built) as work:
        sources = [program, LIB / "hgm.c"]
        done = run([*compiler, *FLAGS, "-I", LIB, "-o", work / "program", *sources], check=False, quiet=True)
        if done.returncode:
            if "No space left on device" in done.stderr:
                raise HostFault(f"no space left to compile {program}", hint=f"free some in {work.parent}")
            raise BadInput(
                f"{program} does not compile\n{tail(done.stderr)}", hint="mend the program; it is C11 with -Werror"
            )


def _plain(info: tarfile.TarInfo) -> tarfile.TarInfo:
    info.uid = info.gid = 0
    info.uname = info.gname = "root"
    return info
