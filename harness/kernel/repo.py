# SPDX-License-Identifier: MIT
"""The cache's own git repository, in which every kernel source is a tree.

A tree hash says what will be built; git writes only the files that differ when a work tree goes from one to the next,
so that make compiles only what changed. Nothing is ever written to a repository of the user.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from harness.errors import BadInput, HostFault
from harness.paths import cache_dir, locked
from harness.process import run, tail

OPTIONS = {
    "core.compression": "0",  # the disk is quicker than zlib, for writing and for checking out
    "core.looseCompression": "0",
    "gc.auto": "0",  # no reference protects the trees
    "core.autocrlf": "false",
    "core.fsmonitor": "false",  # a user's index may name a monitor; it watches for another repository
    "core.untrackedCache": "false",
    "core.splitIndex": "false",
    "core.hooksPath": os.devnull,
    "core.attributesFile": os.devnull,
    "core.preloadIndex": "true",
    "checkout.workers": "0",  # one for each processor
    "advice.addEmbeddedRepo": "false",
}
# A tree the user names may belong to someone else, as in a container: reading it is what was asked for.
READING = ("-c", "safe.directory=*", "-c", "core.fsmonitor=false", "-c", f"core.hooksPath={os.devnull}")


def clean_environment() -> dict[str, str]:
    """Return the environment for git without the variables of a surrounding git (hooks, `git bisect run`)."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    # Messages are compared in places, and a status refresh must never write to the user's index.
    return env | {"LC_ALL": "C", "GIT_OPTIONAL_LOCKS": "0", "GIT_TERMINAL_PROMPT": "0"}


@dataclass(frozen=True, slots=True)
class KernelRepo:
    """A bare repository, and perhaps an object store of the user to read from."""

    path: Path
    alternate: Path | None = None

    @classmethod
    def open(cls) -> KernelRepo:
        """Return the repository of the cache, made if need be. Raises HostFault if git is missing or the disk full."""
        path = cache_dir() / "git"
        if not (path / "hgm-ready").exists():
            with locked("git"):
                if not (path / "hgm-ready").exists():
                    run(["git", "init", "--quiet", "--bare", path], env=cls(path).environment(), quiet=True)
                    (path / "hgm-ready").touch()
        (path / "tmp").mkdir(exist_ok=True)
        return cls(path)

    def reading(self, alternate: Path | None) -> KernelRepo:
        """Return the same repository, which also reads objects from the store `alternate`."""
        return replace(self, alternate=alternate)

    def environment(self, *, index: Path | None = None, work_tree: Path | None = None) -> dict[str, str]:
        """Return the environment in which git works on this repository only."""
        env = clean_environment() | {
            "GIT_DIR": os.fspath(self.path),
            "GIT_CONFIG_GLOBAL": os.devnull,
            "GIT_CONFIG_NOSYSTEM": "1",
        }
        env["GIT_CONFIG_COUNT"] = str(len(OPTIONS))
        for number, (name, value) in enumerate(OPTIONS.items()):
            env |= {f"GIT_CONFIG_KEY_{number}": name, f"GIT_CONFIG_VALUE_{number}": value}
        if self.alternate:
            # The variable is a list separated by colons; a quoted entry may hold them.
            quoted = os.fspath(self.alternate).replace("\\", "\\\\").replace('"', '\\"')
            env["GIT_ALTERNATE_OBJECT_DIRECTORIES"] = f'"{quoted}"'
        if index:
            env["GIT_INDEX_FILE"] = os.fspath(index)
        if work_tree:
            env["GIT_WORK_TREE"] = os.fspath(work_tree)
        return env

    def git(
        self,
        *words: str | os.PathLike[str],
        index: Path | None = None,
        work_tree: Path | None = None,
        stdin: bytes | None = None,
        extra: Mapping[str, str] | None = None,
        check: bool = True,
        quiet: bool = True,
    ) -> subprocess.CompletedProcess[str]:
        """Run one git command on this repository and return its result. Raises HostFault if it fails (`check`)."""
        env = self.environment(index=index, work_tree=work_tree) | dict(extra or {})
        return run(["git", *words], cwd=work_tree or self.path, env=env, stdin=stdin, check=check, quiet=quiet)

    def has(self, *objects: str) -> bool:
        """Tell whether every one of `objects` (hashes) can be read."""
        names = "".join(f"{name}\n" for name in objects)
        return " missing" not in self.git("cat-file", "--batch-check", stdin=names.encode()).stdout

    def has_difference(self, old: str, new: str) -> bool:
        """Tell whether tree `new` is whole, given that tree `old` is: every object that differs can be read."""
        if not self.has(old, new):
            return False
        diff = self.git("diff-tree", "-r", "-t", "--raw", "--no-abbrev", "--no-renames", old, new, check=False)
        wanted = [line.split()[3] for line in diff.stdout.splitlines()]
        return diff.returncode == 0 and self.has(*(name for name in wanted if set(name) != {"0"}))

    def text(self, tree: str, path: str) -> str | None:
        """Return the text of the file `path` in `tree`, or None if it has none."""
        result = self.git("cat-file", "blob", f"{tree}:{path}", check=False)
        return result.stdout if result.returncode == 0 else None

    def grep(self, tree: str, pattern: str, *paths: str) -> list[str]:
        """Return the lines of `tree` that match the extended expression `pattern`, in files that match `paths`."""
        result = self.git("grep", "-hE", pattern, tree, "--", *paths, check=False)
        if result.returncode > 1:
            raise HostFault(f"git grep {pattern!r} in {tree} failed\n{tail(result.stderr)}")
        return result.stdout.splitlines()

    def materialize(self, tree: str, work_tree: Path) -> None:
        """Make the directory `work_tree` hold exactly `tree`, touching only files that differ from what it holds.

        The caller holds the lock on `work_tree`. Raises HostFault if an object cannot be read or the disk is full.
        """
        index, busy = work_tree.with_name(f"{work_tree.name}.index"), work_tree.with_name(f"{work_tree.name}.busy")
        was_cut_short = busy.exists()
        busy.parent.mkdir(parents=True, exist_ok=True)
        busy.touch()
        work_tree.mkdir(exist_ok=True)
        # The lock of a git that was killed; ours keeps every living one out.
        index.with_name(f"{index.name}.lock").unlink(missing_ok=True)
        if was_cut_short:
            # An index cut short is not to be trusted; without one every file is compared with the tree.
            index.unlink(missing_ok=True)
        words = ("read-tree", "--reset", "-u", tree)
        if self.git(*words, index=index, work_tree=work_tree, check=False).returncode:
            index.unlink(missing_ok=True)
            self.git(*words, index=index, work_tree=work_tree)
        if was_cut_short:
            self.git("clean", "-qffdx", index=index, work_tree=work_tree)
        busy.unlink()

    def scratch_index(self, name: str) -> Path:
        """Return the path of a private index in the cache, with nothing there yet."""
        path = self.path / "tmp" / f"{name}.{os.getpid()}.index"
        for leftover in (path, path.with_name(f"{path.name}.lock")):
            leftover.unlink(missing_ok=True)
        return path


def ask(tree: Path, *words: str) -> str | None:
    """Return what a reading git command says in the user's `tree`, or None if it fails there."""
    result = run(["git", *READING, "-C", tree, *words], env=clean_environment(), check=False, quiet=True)
    return result.stdout.strip() if result.returncode == 0 else None


def disk_hint(words: str) -> str:
    """Return what to do if `words`, from a tool that failed, speak of a full disk; else ""."""
    # git's fast-import says "disk corruption?" when it cannot write on.
    full = r"[Nn]o space left|quota exceeded|[Oo]ut of diskspace|disk corruption|enough free space|write error"
    return "the disk is full: free some, or set HGM_CACHE to a larger one" if re.search(full, words) else ""


@contextlib.contextmanager
def disk_faults() -> Iterator[None]:
    """Turn what a disk does not do for the block into HostFault, or into BadInput if it is what the user has named.

    A full or read-only disk is a fault of the host, and so is whatever happens in the cache.
    """
    try:
        yield
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
        if not full and error.errno not in (errno.EACCES, errno.EPERM, errno.ELOOP, errno.ENAMETOOLONG):
            raise
        where = f" for {error.filename}" if error.filename else ""
        if full or Path(str(error.filename)).is_relative_to(cache_dir()):
            hint = "free some space, or choose another disk with HGM_CACHE or --results"
            hint = hint if full else "who owns the cache? see HGM_CACHE"
            raise HostFault(f"{error.strerror}{where}", hint=hint) from error
        raise BadInput(f"{error.strerror}{where}", hint="name a file or directory that you may read") from error


def quoted_path(path: str) -> str:
    """Return `path` as git's fast-import wants it: in C quotes."""
    return '"' + path.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'
