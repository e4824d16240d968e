# SPDX-License-Identifier: MIT
"""Builds a collection of selftests with the kernel's own Makefiles, static, from the tree of the kernel under test.

The sources are checked out in the cache a second time, so that nobody waits for a kernel that is being built.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from harness.arch import Arch
from harness.errors import BadInput, HostFault
from harness.kernel import config as kconfig
from harness.kernel import toolchain
from harness.kernel.build import BuildFailed, Kernel, KernelRequest
from harness.kernel.repo import KernelRepo, disk_faults
from harness.kernel.source import resolve
from harness.kselftest.wanted import Wanted
from harness.paths import cache_dir, digest, locked, used, written_whole
from harness.process import say, tail

RECIPE = 2  # part of every key: raise it when this file builds differently from the same inputs
SELFTESTS = "tools/testing/selftests"
# Whatever a selftest may be made of. Sources of the kernel itself are not: a change there builds no selftest anew.
INPUTS = ("tools", "include", "usr", "scripts", "mm/gup_test.h", "Makefile")
TIMEOUT_S = 45  # kselftest/runner.sh: kselftest_default_timeout
ERRORS_SHOWN = 12
# A missing header or library is not among them: then one program is not built, and that is said of it.
# Nor is a line of the source that the compiler quotes, as "   77 | code" or indented.
HOST_TROUBLE = re.compile(
    r"^(?!\s|\d+ \|).*(?:No space left on device|Killed signal terminated program|[Cc]annot allocate memory).*", re.M
)
# So that nothing depends on the guest's libraries. Which of the three a Makefile heeds differs.
STATIC = ("USERCFLAGS=-static", "USERLDFLAGS=-static", "EXTRA_CFLAGS=-static")
# GNU make reads this before the collection's own Makefile, and expands it after that.
_LIST = """hgm-list:
	@printf 'entry %s\\n' $(notdir $(TEST_GEN_PROGS) $(TEST_CUSTOM_PROGS) $(TEST_PROGS))
	@printf 'built %s\\n' $(TEST_GEN_PROGS) $(TEST_CUSTOM_PROGS) $(TEST_GEN_PROGS_EXTENDED) $(TEST_GEN_FILES)
	@printf 'copied %s\\n' $(TEST_PROGS) $(TEST_PROGS_EXTENDED) $(TEST_FILES) $(wildcard config settings)
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Suite:
    """A collection as it would be installed. Its files do not change."""

    collection: str  # as the user calls it
    directory: str  # as the tree calls it
    files: Path  # what is installed, all of it
    entries: tuple[str, ...]  # what the kernel's runner runs, in its order
    failed: Mapping[str, str]  # programs that do not build, and why; a file that says so stands in for each
    timeout_s: int  # for each program; 0: none
    lacking: tuple[str, ...]  # options that its own fragment asks for and the kernel has not

    @property
    def notes(self) -> tuple[str, ...]:
        """What the user should know."""
        if not self.lacking:
            return ()
        asked = f"{SELFTESTS}/{self.directory}/config"
        return (
            f"the kernel lacks what {asked} asks for, so some selftests may skip or fail: {', '.join(self.lacking)}",
        )


def prepare(kernel: Kernel, request: KernelRequest, wanted: Wanted) -> Suite:
    """Return the collection for `kernel`, built if the cache does not have it whole.

    One with a program that does not build is built again each time, for a library may have been installed meanwhile.
    Raises BadInput if the tree has no such collection or the kernel no tree, BuildFailed if not even the kernel's
    headers can be made, HostFault if a program or the disk fails.
    """
    if not kernel.tree:
        raise BadInput(
            f"--kselftest {wanted.collection} is built from the kernel's tree, and {kernel.source} has none",
            hint="give the tree with --tree DIR instead of --kernel IMAGE",
        )
    with disk_faults():
        source = resolve(request.source)
        repo = KernelRepo.open().reading(source.alternate)
        directory = _find(repo, kernel, wanted)
        tools = _without_compiler(toolchain.find(kernel.arch))
        inputs = (*INPUTS, f"arch/{tools.srcarch}/include", f"arch/{tools.srcarch}/tools")
        named = [repo.git("rev-parse", f"{kernel.tree}:{path}", check=False).stdout.strip() for path in inputs]
        key = digest(RECIPE, named, directory, kernel.arch.name, tools.identity, tools.key_variables)
        target = cache_dir() / "kselftest" / f"{kernel.arch.name}-{directory.replace('/', '-')}-{key}"
        if not (target / "suite.json").exists():
            with locked(f"kselftest-{source.lineage}"):
                if not (target / "suite.json").exists():
                    say(f"building the {kernel.arch.name} selftests of {directory} from {source.label}")
                    base = cache_dir() / "trees" / source.lineage / "kselftest"
                    target = _build(repo, kernel, base, directory, tools, target)
    known = json.loads((used(target) / "suite.json").read_text())
    files = target / "files"
    return Suite(
        collection=wanted.collection,
        directory=directory,
        files=files,
        entries=tuple(known["entries"]),
        failed=known["failed"],
        timeout_s=timeout(files / "settings"),
        lacking=_lacking(files / "config", kernel),
    )


def _find(repo: KernelRepo, kernel: Kernel, wanted: Wanted) -> str:
    for directory in wanted.directories:
        if repo.text(kernel.tree, f"{SELFTESTS}/{directory}/Makefile") is not None:
            return directory
    makefile = repo.text(kernel.tree, f"{SELFTESTS}/Makefile") or ""
    known = re.findall(r"^TARGETS \+?= *(\S+)", makefile, re.MULTILINE)
    raise BadInput(
        f"--kselftest: {kernel.source} has no selftests called {wanted.collection}",
        hint=f"it has {', '.join(known)}" if known else f"it has no {SELFTESTS}/Makefile",
    )


def _without_compiler(tools: toolchain.Toolchain) -> toolchain.Toolchain:
    """With LLVM the Makefiles put the compiler's words together themselves, with the architecture it shall be for."""
    if not any(word.startswith("LLVM=") for word in tools.variables):
        return tools
    return replace(tools, variables=tuple(word for word in tools.variables if not word.startswith("CC=")))


def _build(
    repo: KernelRepo, kernel: Kernel, base: Path, directory: str, tools: toolchain.Toolchain, target: Path
) -> Path:
    """Check out, make, store, and return where: `target` if all of it builds. The caller holds the lock on `base`."""
    sources, output = base / "src", base / kernel.arch.name
    base.mkdir(parents=True, exist_ok=True)
    repo.materialize(kernel.tree, sources)
    output.mkdir(exist_ok=True)
    log = output / "hgm-build.log"
    log.unlink(missing_ok=True)
    headers = toolchain.make(tools, sources, output, "headers", log=log, check=False)
    if headers.returncode:
        _blame_host(headers.stdout, log)
        raise BuildFailed(f"the headers of {kernel.source} cannot be made:\n{tail(headers.stdout)}", hint=f"see {log}")
    build = output / "kselftest" / directory
    # The Makefiles do not know on which headers a program depends.
    shutil.rmtree(build, ignore_errors=True)
    # MACHINE is how mm's Makefile before Linux 6.3 calls it.
    words = (f"TARGETS={directory}", f"MACHINE={kernel.arch.kernel_arch}", *STATIC)
    jobs = f"-j{len(os.sched_getaffinity(0))}"
    made = toolchain.make(
        tools, sources / SELFTESTS, output, "--keep-going", "--output-sync=target", jobs, *words, log=log, check=False
    )
    listed = _listed(tools, sources / SELFTESTS / directory, output, build, kernel.arch)
    names = {Path(name).name: Path(name) for name in listed["built"]}
    missing = [name for name, path in names.items() if not path.exists()]
    if missing:
        _blame_host(made.stdout, log)
    failed = {name: why(made.stdout, name) for name in missing}
    if failed:
        # Beside others of its kind, which another run may be reading.
        target = target.with_name(f"{target.name}-{digest(failed)}")
    if (target / "suite.json").exists():
        return target
    with written_whole(target) as work:
        files = work / "files"
        files.mkdir()
        for name, path in names.items():
            if name in failed:
                (files / name).write_text(f"#!/bin/sh\necho '{name} does not build'\nexit 1\n")
                (files / name).chmod(0o755)
            else:
                _install(path, files)
        for name in listed["copied"]:
            _install(sources / SELFTESTS / directory / name, files)
        # What scripts of any collection may read: it is installed beside all of them.
        shutil.copytree(sources / SELFTESTS / "kselftest", work / "kselftest")
        shutil.copy2(log, work / "build.log")
        meta = {"entries": listed["entry"], "failed": failed, "tree": kernel.tree}
        (work / "suite.json").write_text(json.dumps(meta, indent=1))
    return target


def _listed(tools: toolchain.Toolchain, directory: Path, output: Path, build: Path, arch: Arch) -> dict[str, list[str]]:
    """Return what the collection's Makefile calls its programs: "entry", "built" and "copied"."""
    words = ("-s", f"--eval={_LIST}", f"OUTPUT={build}", f"MACHINE={arch.kernel_arch}", "hgm-list")
    done = toolchain.make(tools, directory, output, "--no-print-directory", *words)
    found: dict[str, list[str]] = {"entry": [], "built": [], "copied": []}
    for line in done.stdout.splitlines():
        kind, _, name = line.partition(" ")
        if name and kind in found and name not in found[kind]:
            found[kind].append(name)
    return found


def _install(path: Path, files: Path) -> None:
    """Copy what the Makefile would install; links become what they lead to, for they may lead out of the collection."""
    if path.is_dir():
        shutil.copytree(path, files / path.name, dirs_exist_ok=True)
    elif path.exists():
        shutil.copy2(path, files / path.name)


def why(text: str, name: str) -> str:
    """Return what the compiler said of one program."""
    quoted = re.escape(name)
    found = re.search(
        rf"^[^\n]* -o \S*/{quoted}\b[^\n]*\n(?P<words>.*?)^make\S*: \*\*\* [^\n]*/{quoted}\]", text, re.M | re.S
    )
    if found and found["words"].strip():
        return "\n".join(found["words"].strip().splitlines()[:ERRORS_SHOWN])
    # A command that the Makefile does not show, or one that make never came to.
    said = [line for line in text.splitlines() if re.search(rf"\b{quoted}\b", line)]
    return "\n".join(said[-ERRORS_SHOWN:]) or tail(text, ERRORS_SHOWN)


def _blame_host(text: str, log: Path) -> None:
    """Raise HostFault if it is this machine that failed: the disk, the memory, or a program of it."""
    if trouble := HOST_TROUBLE.search(text):
        raise HostFault(f"this machine stopped the build of selftests: {trouble[0]}", hint=f"the log is {log}")


def timeout(settings: Path) -> int:
    """Seconds that a program has, as kselftest/runner.sh reads them."""
    text = settings.read_text() if settings.is_file() else ""
    found = re.findall(r"^timeout=(\d+)\s*$", text, re.MULTILINE)
    return int(found[-1]) if found else TIMEOUT_S


def _lacking(fragment: Path, kernel: Kernel) -> tuple[str, ...]:
    options = kernel.options()
    if not fragment.is_file() or not options:
        return ()
    return tuple(
        f"{name}={value}"
        for name, value in kconfig.parse(fragment.read_text()).items()
        if value != "n" and options.get(name, "n") not in (value, "y")
    )


def _below(directory: Path) -> dict[str, Path]:
    return {os.fspath(path.relative_to(directory)): path for path in sorted(directory.rglob("*")) if path.is_file()}


def bundle_files(suite: Suite) -> dict[str, Path]:
    """Return the files that a guest needs for the collection, by their places on its disk."""
    places = {path.name: path for path in sorted((Path(__file__).parent / "guest").iterdir()) if path.is_file()}
    places |= {f"kselftest/{place}": path for place, path in _below(suite.files.parent / "kselftest").items()}
    places |= {f"{suite.directory}/{place}": path for place, path in _below(suite.files).items()}
    return {f"kselftest/{place}": path for place, path in places.items()}
