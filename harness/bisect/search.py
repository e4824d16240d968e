# SPDX-License-Identifier: MIT
"""git's own bisection, in a bare repository of the cache that only reads the user's objects.

The user's work tree, index, HEAD and references are never touched, nor is any `git bisect` under way there.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.bisect.failure import Word
from harness.errors import BadInput, HostFault
from harness.kernel.repo import KernelRepo, ask, disk_faults
from harness.process import run

_FIRST_BAD = re.compile(r"^# first bad commit: \[(\w+)\]", re.MULTILINE)
_POSSIBLE = re.compile(r"^# possible first bad commit: \[(\w+)\]", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class History:
    """The commits of the user's tree, read through a repository of our own."""

    tree: Path
    repo: KernelRepo

    @classmethod
    def open(cls, tree: Path, directory: Path) -> History:
        """Make the repository in `directory`, in place of what was there. Raises BadInput if `tree` is no git tree."""
        objects = ask(tree, "rev-parse", "--path-format=absolute", "--git-path", "objects") if tree.is_dir() else None
        if not objects:
            raise BadInput(f"{tree} is not a git tree", hint="--tree DIR, a clone with the commits to choose from")
        if directory.exists():
            shutil.rmtree(directory)
        repo = KernelRepo(directory, Path(objects))
        directory.parent.mkdir(parents=True, exist_ok=True)
        env = repo.environment()
        run(["git", "init", "--quiet", "--bare", "--initial-branch=bisect", directory], env=env, quiet=True)
        # Of a shallow clone the commits without parents are listed there, and are not to be looked behind.
        shallow = Path(ask(tree, "rev-parse", "--path-format=absolute", "--git-path", "shallow") or "")
        if shallow.is_file():
            shutil.copy(shallow, directory / "shallow")
        return cls(tree, repo)

    def subject(self, commit: str) -> str:
        """Return the subject of a commit."""
        return self.repo.git("show", "--no-patch", "--format=%s", commit).stdout.strip()

    def about(self, commit: str) -> str:
        """Return hash, author, date and subject of a commit, for people."""
        form = "commit %H%nAuthor: %an <%ae>%nDate:   %ad%n%n    %s"
        return self.repo.git("show", "--no-patch", f"--format={form}", commit).stdout.rstrip()

    def start(self, good: str, bad: str) -> None:
        """Begin the bisection. Raises BadInput if `good` is no ancestor of `bad`."""
        ancestor = self.repo.git("merge-base", "--is-ancestor", good, bad, check=False)
        if ancestor.returncode > 1:
            raise HostFault(f"the commits of {self.tree} cannot be read: {ancestor.stderr.strip()}")
        if good == bad:
            raise BadInput(f"--good and --bad are the same commit, {good[:12]}")
        if ancestor.returncode:
            hint = "they may be on two branches: give the merge base as --good, or change the two for each other"
            raise BadInput(f"--good {good[:12]} is not an ancestor of --bad {bad[:12]}", hint=hint)
        # git bisect wants a HEAD to go back to.
        self.repo.git("update-ref", "refs/heads/bisect", bad)
        self.repo.git("bisect", "start", bad, good)

    def current(self) -> str | None:
        """Return the commit that is to be judged next; None if the bisection is over."""
        log = self.log()
        if _FIRST_BAD.search(log) or _POSSIBLE.search(log):
            return None
        return self.repo.git("rev-parse", "--verify", "BISECT_HEAD").stdout.strip()

    def tell(self, word: Word, commit: str) -> None:
        """Tell git what a commit is. Raises HostFault if git fails."""
        done = self.repo.git("bisect", word, commit, check=False)
        # 2: only skipped commits are left, which `found` tells.
        if done.returncode not in (0, 2):
            raise HostFault(f"git bisect {word} {commit} failed\n{done.stdout}{done.stderr}")

    def log(self) -> str:
        """Return the log so far, which `git bisect replay` accepts in any clone that has the commits."""
        return self.repo.git("bisect", "log").stdout

    def found(self) -> Sequence[str]:
        """Return the first bad commit, or those that it may be when only skipped ones are left; [] while searching."""
        log = self.log()
        return _FIRST_BAD.findall(log) or _POSSIBLE.findall(log)


def find_commit(tree: Path, revision: str) -> str:
    """Return the full hash of a revision as the user's tree knows it. Raises BadInput if one of them is not there."""
    words = ("rev-parse", "--verify", "--quiet", "--end-of-options", f"{revision}^{{commit}}")
    with disk_faults():
        if not tree.is_dir():
            raise BadInput(f"the kernel tree {tree} is not {'a directory' if tree.exists() else 'there'}")
    found = ask(tree, *words)
    if not found:
        hint = "git fetch it, or see `git log --oneline`"
        raise BadInput(f"there is no commit {revision!r} in {tree}", hint=hint)
    return found
