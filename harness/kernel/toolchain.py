# SPDX-License-Identifier: MIT
"""The compiler and the make variables of a kernel build, with the habits of kernel people honoured."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.arch import Arch, native
from harness.errors import HostFault
from harness.paths import cache_dir
from harness.process import run

SRCARCH = {"x86_64": "x86"}  # ARCH= to directory below arch/, where they differ (top Makefile of the kernel)
PROGRAMS = ("make", "flex", "bison", "bc", "perl")
# Passed on from the environment to make as they are. KBUILD_OUTPUT and O are not among them: see build.output_dir.
PASSED = ("KCFLAGS", "KAFLAGS", "KCPPFLAGS", "HOSTCFLAGS", "HOSTLDFLAGS", "LLVM_IAS", "LD", "LOCALVERSION")
# Fixed, so that equal sources give equal kernels and ccache hits.
FIXED = {
    "KBUILD_BUILD_TIMESTAMP": "Thu Jan  1 00:00:00 UTC 1970",
    "KBUILD_BUILD_USER": "hgm",
    "KBUILD_BUILD_HOST": "hgm",
    "KBUILD_BUILD_VERSION": "1",  # else a count of links in this O= directory
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Toolchain:
    """What make is told on its command line, and who the tools are."""

    variables: tuple[str, ...]  # "CC=ccache gcc"
    key_variables: tuple[str, ...]  # the same without ccache, which changes nothing in a kernel
    identity: str  # first line of --version of compiler and linker: part of the kernel's content key
    srcarch: str


def find(arch: Arch, env: Mapping[str, str] = os.environ) -> Toolchain:
    """Return the toolchain for `arch`.

    Honours CROSS_COMPILE, LLVM (1, -15, or a directory ending in /), CC, HOSTCC, LD and the flag variables, as
    Documentation/kbuild/{kbuild,llvm}.rst describes them. ccache goes in front of compilers where it is installed.
    Raises HostFault if a program is missing.
    """
    for program in PROGRAMS:
        if not shutil.which(program):
            raise HostFault(f"{program} is needed to build a kernel and is not there", hint="./hgm doctor --install")
    llvm = env.get("LLVM", "")
    llvm = "" if llvm == "0" else llvm
    prefix, suffix = (llvm, "") if llvm.endswith("/") else ("", llvm if llvm.startswith("-") else "")
    cross = env.get("CROSS_COMPILE")
    if cross is None:
        cross = "" if llvm or native(arch) else f"{arch.gnu}-"
    compiler = env.get("CC") or (f"{prefix}clang{suffix}" if llvm else f"{cross}gcc")
    host_compiler = env.get("HOSTCC") or (f"{prefix}clang{suffix}" if llvm else "gcc")
    linker = env.get("LD") or (f"{prefix}ld.lld{suffix}" if llvm else f"{cross}ld")
    identity = "; ".join(_version(words, arch) for words in dict.fromkeys((compiler, linker, host_compiler)))
    variables = {"ARCH": arch.kernel_arch, "CROSS_COMPILE": cross, "CC": compiler, "HOSTCC": host_compiler}
    if llvm:
        variables["LLVM"] = llvm
    variables |= {name: env[name] for name in PASSED if name in env}
    # An empty one keeps scripts/setlocalversion from adding "+" for a git tree around the cache.
    variables.setdefault("LOCALVERSION", "")
    variables |= {name: env.get(name) or value for name, value in FIXED.items()}
    return Toolchain(
        variables=_words(variables | {"CC": _cached(compiler), "HOSTCC": _cached(host_compiler)}),
        key_variables=_words(variables),
        identity=identity,
        srcarch=SRCARCH.get(arch.kernel_arch, arch.kernel_arch),
    )


def make(
    tools: Toolchain,
    source: Path,
    output: Path,
    *words: str,
    log: Path | None = None,
    check: bool = True,
    quiet: bool = True,
) -> subprocess.CompletedProcess[str]:
    """Run the kernel's make in `source` with O=`output`. Raises HostFault if it fails and `check` is set."""
    argv = ["make", "-C", os.fspath(source), f"O={output}", *_mapped(tools.variables, output), *words]
    return run(argv, env=environment(), log=log, check=check, quiet=quiet)


def environment(env: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Return the environment of a kernel build: variables are given on make's command line, where they win."""
    # MAKEFLAGS of a make around the harness would bring its job server, which is not open here.
    dropped = {"MAKEFLAGS", "MFLAGS", "MAKELEVEL", "O", "KBUILD_OUTPUT", "V", "KCONFIG_CONFIG", "KBUILD_VERBOSE"}
    kept = {name: value for name, value in env.items() if name not in dropped}
    # ccache's own default directory is the user's; what this cache holds can be deleted with it.
    kept.setdefault("CCACHE_DIR", os.fspath(cache_dir() / "ccache"))
    # The same object from the work tree of another source: paths below are taken relative to the O= directory.
    kept.setdefault("CCACHE_BASEDIR", os.fspath(cache_dir()))
    return kept | {"LC_ALL": "C"}


def _mapped(variables: Sequence[str], output: Path) -> list[str]:
    """Return make's variables with paths in debug information relative to the O= directory.

    Else ccache, which with -g takes account of the working directory, has nothing for the same source elsewhere.
    """
    flag = f"-fdebug-prefix-map={output}=."
    given = dict(word.split("=", 1) for word in variables)
    mapped = {name: f"{given.get(name, '')} {flag}".strip() for name in ("KCFLAGS", "KAFLAGS")}
    return list(_words(given | mapped))


def _words(variables: Mapping[str, str]) -> tuple[str, ...]:
    return tuple(f"{name}={value}" for name, value in variables.items())


def _cached(compiler: str) -> str:
    has_it = "ccache" in Path(shlex.split(compiler)[0]).name
    return compiler if has_it or not shutil.which("ccache") else f"ccache {compiler}"


def _version(command: str, arch: Arch) -> str:
    words = shlex.split(command)
    if not words or not shutil.which(words[0]):
        hint = f"./hgm doctor --install, or set CROSS_COMPILE or CC for {arch.name}"
        raise HostFault(f"{command} is needed to build a kernel for {arch.name} and is not there", hint=hint)
    return run([*words, "--version"], quiet=True).stdout.split("\n", 1)[0]
