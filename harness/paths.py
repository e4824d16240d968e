# SPDX-License-Identifier: MIT
"""Where things live: the checkout, the cache, and the directory of a run."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import IO

from filelock import FileLock, Timeout

from harness.errors import BadInput, HostFault
from harness.process import say

ROOT = Path(__file__).resolve().parent.parent
GUEST_TESTS = ROOT / "guest_tests"

_shared: tuple[Path, IO[bytes]] | None = None  # the cache that this process uses, and the file that says so


def cache_dir() -> Path:
    """Return the cache, made if need be: $HGM_CACHE, or hgm-harness under $XDG_CACHE_HOME.

    Everything in it can be deleted at any time that no run is going on: see `cache_to_oneself`. Raises HostFault if it
    cannot be made or written to.
    """
    base = os.environ.get("HGM_CACHE")
    path = Path(base) if base else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "hgm-harness"
    try:
        path.mkdir(parents=True, exist_ok=True)
        path = path.resolve()
        _share(path)
    except OSError as error:
        raise HostFault(
            f"the cache {path} cannot be made: {error.strerror}", hint="set HGM_CACHE to a directory you may write"
        ) from error
    return path


@contextlib.contextmanager
def cache_to_oneself() -> Iterator[Path]:
    """Give the cache while no other process uses it, and let none begin. Raises BadInput if one does already."""
    path = cache_dir()
    assert _shared
    try:
        try:
            fcntl.flock(_shared[1], fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BadInput(f"the cache {path} is in use by another run", hint="wait for its end") from None
        yield path
    finally:
        # Also after a refusal: the kernel has given up the old lock before it looks for the new one (flock(2)).
        fcntl.flock(_shared[1], fcntl.LOCK_SH)


def used(path: Path) -> Path:
    """Note that an entry of the cache is of use today, and return it."""
    os.utime(path)
    return path


def _share(path: Path) -> None:
    """Be one of the users of a cache, to the end of this process or until it turns to another one."""
    global _shared
    if _shared and _shared[0] == path:
        return
    file = (path / "in-use").open("ab")
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        say(f"the cache {path} is being cleared; waiting for the end of that")
        fcntl.flock(file, fcntl.LOCK_SH)
    _shared = path, file


def digest(*parts: object) -> str:
    """Return a short content key (16 hex digits) for values that JSON can hold."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()[:16]


def sources(directory: Path, without: Collection[Path] = ()) -> str:
    """Return a short content key of the patches and guest tests in a directory, but for those in `without`."""
    files = [file for file in sorted(directory.rglob("*")) if file.suffix in (".patch", ".c", ".h", ".py", ".sh")]
    return digest(*(sha256(file) for file in files if file not in without))


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextlib.contextmanager
def locked(name: str) -> Iterator[None]:
    """Hold the cache-wide lock called `name`; says so when another run has it."""
    directory = cache_dir() / "locks"
    directory.mkdir(exist_ok=True)
    lock = FileLock(directory / f"{name}.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        say(f"another run holds {name}; waiting for it")
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


@contextlib.contextmanager
def written_whole(target: Path) -> Iterator[Path]:
    """Give a temporary directory beside `target` that becomes `target` if the block succeeds, and vanishes if not.

    Raises HostFault when the disk is full; nothing half-written is left under the final name.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    try:
        yield work
        work.chmod(0o755)
        if target.exists():
            shutil.rmtree(target)
        work.rename(target)
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise HostFault(
                f"no space left for {target}", hint="free some, or set HGM_CACHE to a larger disk"
            ) from error
        raise
    finally:
        shutil.rmtree(work, ignore_errors=True)
