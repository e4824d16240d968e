# SPDX-License-Identifier: MIT
"""A guest that was booted once and left as it stood when it was ready; clones go on from there at once.

Its RAM lies in files that clones map privately, and the rest of its state beside them. All of it is kept in the cache
by content, so that the next run boots nothing.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from harness import accel
from harness.errors import HarnessError, HostFault
from harness.paths import cache_dir, digest, locked, sha256, used, written_whole
from harness.process import say
from harness.vm import machine
from harness.vm.command import Ram, VmSpec, command
from harness.vm.machine import IGNORE_SHARED, Machine

FORMAT = 1  # of what lies in the cache; raised when older templates must not be used any more
KEPT = 6  # templates of each architecture, the newest; one takes some 250 MiB
SMALL_DISK = 64 << 20  # bytes: with less than that left, a guest whose RAM is a file may not have found room
MANIFEST = "template.json"  # written last
PAUSE_SECONDS = 10.0  # for the state to be written, on an accelerator of slowness 1


class NoTemplate(HostFault):
    """This QEMU cannot leave a guest as it stands, or not this guest."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Template:
    """A guest to be cloned."""

    spec: VmSpec
    directory: Path
    notes: str  # what was found out of the guest before it was left
    console: str  # all that its kernel said until then
    boot_seconds: float  # from QEMU's start until ssh worked
    seconds: float  # that it took to make it, in all
    fresh: bool  # made just now, not found in the cache
    stamps: dict[str, list[int]]

    @property
    def intact(self) -> bool:
        """Whether its files are still those that were found: nobody has touched, replaced or removed one."""
        return _stamps(self.directory) == self.stamps

    @contextlib.contextmanager
    def clone(self) -> Iterator[Machine]:
        """Start a clone, give it when ssh works, and kill it at the end. Raises as `machine.booted`."""
        ram = Ram(directory=self.directory, private=True)
        with machine.cloned(self.spec, ram, self.directory / "state") as guest:
            yield guest


def prepare(spec: VmSpec, settle: Callable[[Machine], str]) -> Template:
    """Return the template for `spec`, taken now if the cache has none that can be used.

    `settle` makes a booted guest ready to be left, and returns what shall be kept as the template's notes.

    Raises NoTemplate if this QEMU cannot do it, and else as `machine.booted`.
    """
    base = cache_dir() / "templates"
    target = base / f"{spec.arch.name}-{_key(spec)}"
    with locked(f"template-{target.name}"):
        found = _manifest(target)
        fresh = not found or _stamps(target) != found["stamps"]
        if fresh:
            if target.exists():
                say(f"the {spec.arch.name} template in the cache is damaged; taking it anew")
            _take(spec, settle, target)
            found = _manifest(target)
        # The newest are those used last, not those made last.
        used(target)
        template = Template(
            spec=spec,
            directory=target,
            notes=str(found["notes"]),
            console=(target / "console").read_text(),
            boot_seconds=float(str(found["boot_seconds"])),
            seconds=float(str(found["seconds"])),
            fresh=fresh,
            stamps=_stamps(target),
        )
    if fresh:
        _prune(base, spec.arch.name)
    return template


def _take(spec: VmSpec, settle: Callable[[Machine], str], target: Path) -> None:
    say(f"booting {spec.arch.name} ({spec.accelerator.name}, {spec.memory >> 20} MiB) for a template")
    began = time.monotonic()
    with written_whole(target) as work:
        try:
            with machine.booted(spec, work / "console", Ram(directory=work, private=False)) as guest:
                boot_seconds = guest.ready_seconds
                notes = settle(guest)
                guest.ssh.close()
                _leave(guest, work / "state")
        except HarnessError as error:
            # QEMU dies of SIGBUS where a file of its RAM finds no room, and does not say why.
            if shutil.disk_usage(work).free < SMALL_DISK:
                raise HostFault(
                    f"no space left for {target}: {error.message}",
                    hint="free some, or set HGM_CACHE to a larger disk",
                ) from error
            raise
        manifest = {
            "notes": notes,
            "boot_seconds": round(boot_seconds, 3),
            "seconds": round(time.monotonic() - began, 3),
            "stamps": _stamps(work),
        }
        (work / MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n")
    say(f"template taken: booted in {boot_seconds:.1f} s, {manifest['seconds']:.1f} s in all")


def _leave(guest: Machine, state: Path) -> None:
    """Stop the guest and write all of its state that is not RAM. Raises NoTemplate if QEMU cannot."""
    guest.qmp.execute("stop")
    try:
        guest.qmp.execute("migrate-set-capabilities", capabilities=[IGNORE_SHARED])
        guest.save(state, PAUSE_SECONDS)
    except HostFault as error:
        raise NoTemplate(f"this QEMU cannot leave a guest as it stands: {error.message}") from error
    if not state.exists() or not state.stat().st_size:
        raise NoTemplate("this QEMU has left no state of the guest")


def _key(spec: VmSpec) -> str:
    """Return what a template depends on: its guest, and the very QEMU, and this boot of the host."""
    # The disk with the tests is not looked at before the template is taken; only its size is known to the guest.
    tests = spec.tests.stat().st_size if spec.tests else None
    plain = replace(spec, kernel=Path("kernel"), tests=spec.tests and Path("tests"))
    argv = command(plain, Path("directory"), Ram(directory=Path("ram"), private=False))
    # An image made anew under its old key has new ssh keys, and this one tells it apart.
    image = (spec.image.key, spec.image.host_key)
    return digest(FORMAT, accel.surroundings(spec.arch), argv, sha256(spec.kernel), image, tests)


def _stamps(directory: Path) -> dict[str, list[int]]:
    """What changes when a file is written to, replaced, or copied: size, inode, and the times of both."""
    stamps = {}
    for path in sorted(directory.glob("*")):
        if path.name != MANIFEST:
            with contextlib.suppress(FileNotFoundError):
                seen = path.stat()
                stamps[path.name] = [seen.st_size, seen.st_ino, seen.st_mtime_ns, seen.st_ctime_ns]
    return stamps


def _manifest(directory: Path) -> dict[str, object]:
    """What was written down of a template, or nothing."""
    try:
        found = json.loads((directory / MANIFEST).read_text())
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return {}
    known = isinstance(found, dict) and {"notes", "boot_seconds", "seconds", "stamps"} <= found.keys()
    return found if known else {}


def _prune(base: Path, arch: str) -> None:
    """Remove all but the newest templates. A clone that still runs keeps the files it has opened."""
    found = sorted(base.glob(f"{arch}-*/{MANIFEST}"), key=lambda path: path.parent.stat().st_mtime, reverse=True)
    for manifest in found[KEPT:]:
        shutil.rmtree(manifest.parent, ignore_errors=True)
