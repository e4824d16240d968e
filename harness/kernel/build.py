# SPDX-License-Identifier: MIT
"""From what the user asked for to a kernel that boots: built in the cache, or taken as it is."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from harness.arch import Arch
from harness.errors import BadInput, Exit, HarnessError, HostFault
from harness.kernel import config as kconfig
from harness.kernel import prebuilt, series, toolchain
from harness.kernel.repo import KernelRepo, disk_faults
from harness.kernel.source import Source, SourceSpec, resolve
from harness.paths import cache_dir, digest, locked, sha256, used, written_whole
from harness.process import run, say, tail

RECIPE = 1  # part of every content key: raise it when this file builds differently from the same inputs
ERRORS_SHOWN = 8
# Not the kernel's fault, whatever make says: the disk, the memory, or a program or header of the host. No line of the
# source that the compiler quotes, as "   77 | code" or indented, is of that.
HOST_TROUBLE = re.compile(
    r"^(?!\s|\d+ \|).*(?:No space left on device|Killed signal terminated program"
    r"|fatal error: (?:libelf|gelf|openssl/\S+)\.h"
    r"|virtual memory exhausted|[Cc]annot allocate memory|: (?:command )?not found$"
    r"|\] (?:Terminated|Killed|Interrupt|Hangup)$).*",
    re.MULTILINE,
)


class BuildFailed(HarnessError):
    """The source does not compile or link: of all failures the one that a bisection must skip and not blame."""

    exit_code = Exit.BUILD_FAILED


@dataclass(frozen=True, slots=True, kw_only=True)
class KernelRequest:
    """What the user asked for."""

    arch: Arch
    source: SourceSpec = field(default_factory=SourceSpec)
    series: tuple[Path, ...] = ()  # applied one after the other
    flavour: str = "fast"
    kconfig: tuple[Path, ...] = ()  # fragments that come last and win
    jobs: int = 0  # of make; 0: one for each processor this process may use
    image: Path | None = None  # built elsewhere; nothing of the above but `arch` is used then
    config: Path | None = None  # of that image


@dataclass(frozen=True, slots=True, kw_only=True)
class Kernel:
    """A kernel that can be booted. Its files do not change; equal keys mean equal kernels."""

    arch: Arch
    key: str
    image: Path
    release: str  # what uname -r says; "" if an image built elsewhere does not tell
    config: Path | None  # None: unknown until it has booted, see harness.kernel.config.missing_options
    source: str  # for people
    flavour: str  # "fast", "debug", or "prebuilt"
    tree: str = ""  # git tree that was built, patches included
    commit: str = ""  # that the tree is, but for `series` and uncommitted changes
    subjects: tuple[str, ...] = ()  # of the series
    vmlinux: Path | None = None
    system_map: Path | None = None
    decoder: Path | None = None  # decode_stacktrace.sh of its own tree
    toolchain: str = ""
    notes: tuple[str, ...] = ()  # what the user should know

    def options(self) -> dict[str, str]:
        """Return its configuration, "n" for "is not set"; empty if it is unknown."""
        return kconfig.parse(self.config.read_text()) if self.config else {}

    def to_json(self) -> dict[str, Any]:
        """Return all fields as JSON can hold them; paths as text, the architecture as its name."""
        return {item.name: _plain(getattr(self, item.name)) for item in fields(self)}


def prepare(request: KernelRequest) -> Kernel:
    """Return the kernel that `request` asks for, built if the cache does not have it.

    Raises BadInput for a request that cannot be met, BuildFailed if the source does not build, HostFault if a program,
    the network or the disk fails. Can be interrupted at any time; what is finished stays.
    """
    with disk_faults():
        if request.image:
            return _take(request, request.image)
        if request.config:
            hint = "for options of a build, use --kconfig FILE"
            raise BadInput(f"--kernel-config {request.config} without --kernel", hint=hint)
        patches = [patch for path in request.series for patch in series.read(path)]
        source = resolve(request.source)
        repo = KernelRepo.open().reading(source.alternate)
        return build(request, repo, source, series.apply(repo, source.tree, patches))


def build(request: KernelRequest, repo: KernelRepo, source: Source, applied: Sequence[series.Applied]) -> Kernel:
    """Return the kernel of `source` with the patches `applied` to it; raises as `prepare` does.

    `repo` must read from the source's alternate. For callers that build one source with each patch of a series.
    """
    tree = applied[-1].tree if applied else source.tree
    symbol = rf"^\s*(menu)?config\s+{kconfig.HGM.removeprefix('CONFIG_')}\s*$"
    hgm = bool(repo.grep(tree, symbol, "fs/Kconfig*", "mm/Kconfig*"))
    tools = toolchain.find(request.arch)
    # Linux 6.6 turned the name's words round. The second version of the posted series excludes it.
    wanted = r"select ARCH_WANT_(HUGETLB_PAGE_OPTIMIZE|OPTIMIZE_HUGETLB)_VMEMMAP"
    hvo = bool(repo.grep(tree, wanted, f"arch/{tools.srcarch}/Kconfig"))
    hvo &= not repo.grep(tree, r"depends on.*!HUGETLB_HIGH_GRANULARITY_MAPPING", "fs/Kconfig")
    pieces = kconfig.fragments(request.arch, request.flavour, hgm=hgm, hvo=hvo, extra=request.kconfig)
    texts = [piece.text for piece in pieces]
    key = digest(RECIPE, tree, texts, request.arch.name, request.flavour, tools.identity, tools.key_variables)
    target = cache_dir() / "kernels" / key
    if not (target / "meta.json").exists():
        with locked(f"kernel-{source.lineage}"):
            if not (target / "meta.json").exists():
                patches = f" with {len(applied)} patches" if applied else ""
                say(f"building {request.arch.name} {request.flavour} kernel from {source.label}{patches}")
                _build(request, repo, source, tree, pieces, tools, target)
    meta = json.loads((used(target) / "meta.json").read_text())
    # What names the request and not the kernel is not part of the stored record: equal trees share one kernel.
    return Kernel(
        arch=request.arch,
        key=key,
        image=target / meta["image"],
        release=meta["release"],
        config=target / "config",
        source=source.label,
        flavour=request.flavour,
        tree=tree,
        commit=source.commit or "",
        subjects=tuple(patch.subject for patch in applied),
        vmlinux=target / "vmlinux",
        system_map=target / "System.map",
        decoder=target / "decode_stacktrace.sh",
        toolchain=tools.identity,
        notes=tuple(meta["notes"]),
    )


def output_dir(source: Source, arch: Arch, flavour: str) -> Path:
    """Return the O= directory, kept warm for each source, architecture and flavour.

    It lies beside the work tree in the cache, or below $O (or $KBUILD_OUTPUT) if that is set: below and not in it, for
    what is built there by hand has a .config of its own.
    """
    users = os.environ.get("O") or os.environ.get("KBUILD_OUTPUT")
    if users:
        return Path(users).absolute() / f"{source.lineage}-{arch.name}-{flavour}"
    # The way from here to the sources is ../src for every source, so that ccache answers one with another's objects.
    return work_tree(source).with_name(f"{arch.name}-{flavour}")


def work_tree(source: Source) -> Path:
    """Return the directory into which a source is checked out to be built."""
    return cache_dir() / "trees" / source.lineage / "src"


def _build(
    request: KernelRequest,
    repo: KernelRepo,
    source: Source,
    tree: str,
    pieces: Sequence[kconfig.Fragment],
    tools: toolchain.Toolchain,
    target: Path,
) -> None:
    """Check out, configure, make, and store under `target`. The caller holds the lock of the source's lineage."""
    sources = work_tree(source)
    repo.materialize(tree, sources)
    used(sources.parent)
    output = output_dir(source, request.arch, request.flavour)
    busy = output.with_name(f"{output.name}.busy")
    if busy.exists():
        # The harness was killed with make running: an object may be cut short and yet look up to date.
        shutil.rmtree(output, ignore_errors=True)
    output.mkdir(parents=True, exist_ok=True)
    busy.touch()
    try:
        log = output / "hgm-build.log"
        log.unlink(missing_ok=True)
        notes = _configure(tools, source, output, pieces)
        jobs = request.jobs or len(os.sched_getaffinity(0))
        image = toolchain.make(tools, sources, output, "-s", "image_name").stdout.split()[-1]
        words = (f"-j{jobs}", Path(image).name)
        result = toolchain.make(tools, sources, output, *words, log=log, check=False, quiet=False)
        if result.returncode:
            _explain_failure(result.stdout, log, source)
        # Only now: before the build it is read from what the last configuration in this directory has left behind.
        release = toolchain.make(tools, sources, output, "-s", "kernelrelease").stdout.split()[-1]
    finally:
        busy.unlink(missing_ok=True)
    with written_whole(target) as work:
        for file in (image, "vmlinux", "System.map"):
            shutil.copy2(output / file, work)
        shutil.copy2(output / ".config", work / "config")
        shutil.copy2(log, work / "build.log")
        shutil.copy2(sources / "scripts/decode_stacktrace.sh", work)
        meta = {"image": Path(image).name, "release": release, "notes": notes, "tree": tree}
        meta |= {"toolchain": tools.identity, "make": list(tools.variables)}
        (work / "meta.json").write_text(json.dumps(meta, indent=1))


def _configure(
    tools: toolchain.Toolchain, source: Source, output: Path, pieces: Sequence[kconfig.Fragment]
) -> list[str]:
    """Make the .config in `output` from the fragments, check it, and return notes. Raises BadInput for lost options."""
    sources, directory = work_tree(source), output / "hgm-kconfig"
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir()
    files = []
    for number, piece in enumerate(pieces):
        files.append(directory / f"{number:02d}-{re.sub(r'[^A-Za-z0-9._-]', '_', piece.name)}")
        files[-1].write_text(piece.text)
    merged = directory / "merged"
    # Only merged there (-m), as its own call of make knows neither O= nor a cross compiler's CC.
    script = ["sh", os.fspath(sources / "scripts/kconfig/merge_config.sh"), "-m", "-O", os.fspath(directory)]
    env = toolchain.environment() | {"KCONFIG_CONFIG": os.fspath(merged)}
    run([*script, *(os.fspath(file) for file in files)], cwd=directory, env=env, quiet=True)
    log = output / "hgm-build.log"
    words = ("-s", f"KCONFIG_ALLCONFIG={merged}", "allnoconfig")
    # A patch can break a Kconfig file as well as a source file.
    result = toolchain.make(tools, sources, output, *words, log=log, check=False)
    if result.returncode:
        _explain_failure(result.stdout, log, source)
    final = kconfig.parse((output / ".config").read_text())
    note = kconfig.check(pieces, final, sources, tools.srcarch)
    if note:
        say(note)
    return [note] if note else []


def _explain_failure(text: str, log: Path, source: Source) -> None:
    """Raise BuildFailed with the compiler's first words, or HostFault if it is this machine that failed."""
    trouble = HOST_TROUBLE.search(text)
    if trouble:
        raise HostFault(f"this machine stopped the kernel build: {trouble[0]}", hint=f"./hgm doctor; the log is {log}")
    errors = [line for line in text.splitlines() if re.search(r"\berror:|undefined reference|^ERROR: ", line)]
    shown = "\n  ".join(errors[:ERRORS_SHOWN]) if errors else tail(text, ERRORS_SHOWN)
    raise BuildFailed(f"{source.label} does not build:\n  {shown}", hint=f"the whole log is {log}")


def _take(request: KernelRequest, image: Path) -> Kernel:
    """Return a kernel built elsewhere, copied into the cache so that it stays what it was."""
    given = request.source
    if any((given.tree, given.commit, given.package, given.tarball, request.series, request.kconfig)):
        raise BadInput(
            f"--kernel {image} is built already; a source, a series or kconfig fragments cannot change it",
            hint="leave out either --kernel or the others",
        )
    known = prebuilt.inspect(image, request.arch, request.config)
    if known.config is not None:
        lacking = kconfig.missing_options(known.config, request.arch)
        if lacking:
            raise BadInput(
                "\n  ".join([f"{image} lacks options (configuration: {known.config_from}):", *lacking]),
                hint="build it with them; nothing is loaded as a module, so each must be y",
            )
    key = digest(RECIPE, sha256(image), known.config)
    target = cache_dir() / "kernels" / key
    with locked(f"kernel-{key}"):
        if not (target / "image").exists():
            with written_whole(target) as work:
                shutil.copy2(image, work / "image")
                if known.config is not None:
                    (work / "config").write_text(known.config)
    return Kernel(
        arch=request.arch,
        key=key,
        image=used(target) / "image",
        release=known.release,
        config=target / "config" if known.config is not None else None,
        source=f"{image} (built elsewhere)",
        flavour="prebuilt",
        notes=() if known.config is not None else (f"the configuration of {image} is {known.config_from}",),
    )


def _plain(value: object) -> object:
    if isinstance(value, Arch):
        return value.name
    return os.fspath(value) if isinstance(value, Path) else list(value) if isinstance(value, tuple) else value
