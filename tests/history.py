# SPDX-License-Identifier: MIT
"""Makes a git history of a real kernel to bisect in: `python -m tests.history DIR` prints what it has seeded.

The first commit is the source package that the harness takes by default; the others change one file each, in mm/ and
elsewhere. The repository is bare, is written by `git fast-import`, and borrows the package's objects from the cache, so
it costs no checkout and no network once the cache has the package.
"""

from __future__ import annotations

import argparse
import json
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.errors import BadInput
from harness.kernel.repo import KernelRepo
from harness.kernel.source import SourceSpec, resolve

COMMITS = 64
# What most commits touch, in turn: sources in every kernel, one that no test kernel has, and text.
PATHS = (
    "Documentation/mm/hugetlbfs_reserv.rst", "drivers/net/ethernet/intel/e100.c", "mm/mmap.c", "mm/vmscan.c",
    "fs/open.c", "mm/rmap.c", "lib/bitmap.c", "mm/gup.c", "mm/mprotect.c", "mm/filemap.c", "kernel/signal.c",
    "mm/memory.c", "mm/shmem.c", "fs/namei.c", "mm/mincore.c", "Documentation/mm/page_tables.rst", "mm/madvise.c",
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Seed:
    """A deliberate change: `text` is put behind `anchor` in `path` by one commit, and taken out by a later one."""

    name: str
    subject: str
    path: str
    anchor: str  # must be in the file exactly once; empty: the end of the file
    text: str
    replaces: str = ""  # what `text` takes the place of, right behind the anchor


REGRESSION = Seed(
    name="regression",
    subject="mm/util: a file page needs no look at its compound mapcount",
    path="mm/util.c",
    anchor="\t * of the page: no need to look into compound_mapcount.\n\t */\n",
    replaces="\tif (!PageAnon(page) && !PageHuge(page))\n",
    text="\tif (!PageAnon(page))\n",
)
WARNING = Seed(
    name="warning",
    subject="hugetlbfs: warn of shared mappings",
    path="fs/hugetlbfs/inode.c",
    anchor="\tstruct hstate *h = hstate_file(file);\n\tvm_flags_t vm_flags;\n",
    text="\n\tWARN_ON_ONCE(vma->vm_flags & VM_SHARED);\n",
)
NO_BOOT = Seed(
    name="no-boot",
    subject="mm/hugetlb: check the table of sizes early",
    path="mm/hugetlb.c",
    anchor="\tBUILD_BUG_ON(sizeof_field(struct page, private) * BITS_PER_BYTE <\n\t\t\t__NR_HPAGEFLAGS);\n",
    text="\tBUG_ON(hugetlb_max_hstate >= 0);\n",
)
NO_COMPILE = Seed(
    name="no-compile",
    subject="mm/mremap: prepare to count moves",
    path="mm/mremap.c",
    anchor="",
    text="\nint mremap_moves(void)\n{\n\treturn moves;\n}\n",
)
NO_LINK = Seed(
    name="no-link",
    subject="mm/mlock: count the locks of a process",
    path="mm/mlock.c",
    anchor="",
    text="\nint mlock_all(void);\nint mlock_count(void);\nint mlock_count(void)\n{\n\treturn mlock_all();\n}\n",
)
# By number of the commit, and how many commits later it is taken back (0: never). They lie where git looks when it
# goes from the first commit to the last, so that a bisection meets them all.
LONG: dict[int, tuple[Seed, int]] = {
    32: (NO_COMPILE, 1),
    35: (NO_LINK, 1),
    39: (WARNING, 2),
    43: (REGRESSION, 0),
    45: (NO_BOOT, 1),
}


@dataclass(frozen=True, slots=True)
class Commit:
    """One commit of the history, and what it was seeded with, if it was."""

    subject: str
    path: str
    text: str  # of the whole file after it
    seed: str = ""


def plan(files: Mapping[str, str], count: int, seeds: Mapping[int, tuple[Seed, int]]) -> Iterator[Commit]:
    """Yield the commits 1 to `count` on top of `files` (path to text). Raises BadInput for an anchor not found."""
    texts = dict(files)
    changes = {number: (seed, False) for number, (seed, _) in seeds.items()}
    changes |= {number + later: (seed, True) for number, (seed, later) in seeds.items() if later}
    for number in range(1, count + 1):
        if number in changes:
            seed, back = changes[number]
            texts[seed.path] = _seeded(seed, texts[seed.path], back=back)
            name = "" if back else seed.name
            yield Commit(f'Revert "{seed.subject}"' if back else seed.subject, seed.path, texts[seed.path], name)
        else:
            path = PATHS[number % len(PATHS)]
            texts[path] += _harmless(path, number)
            yield Commit(f"{path.removesuffix('.c')}: harmless change {number}", path, texts[path])


def write(directory: Path, count: int = COMMITS, seeds: Mapping[int, tuple[Seed, int]] = LONG) -> dict[str, str]:
    """Make the repository in `directory`; return the commit of each seed by name, and those called first and last.

    Raises BadInput if `directory` is there already, HostFault if the source package cannot be had.
    """
    if directory.exists():
        raise BadInput(f"{directory} is there already")
    source = resolve(SourceSpec())
    repo = KernelRepo.open()
    paths = {*PATHS, *(seed.path for seed, _ in seeds.values())}
    files = {path: repo.text(source.tree, path) or "" for path in paths}
    commits = list(plan(files, count, seeds))
    subprocess.run(["git", "init", "--quiet", "--bare", "--initial-branch=main", directory], check=True)
    (directory / "objects/info/alternates").write_text(f"{repo.path / 'objects'}\n")
    stream = b"".join(_stream(source.tree, source.label, commits))
    subprocess.run(["git", "-C", directory, "fast-import", "--quiet"], input=stream, check=True)
    listed = subprocess.run(
        ["git", "-C", directory, "rev-list", "--reverse", "main"], capture_output=True, text=True, check=True
    ).stdout.split()
    marks = {commit.seed: listed[number] for number, commit in enumerate(commits, start=1) if commit.seed}
    return {"first": listed[0], "last": listed[-1]} | marks


def _seeded(seed: Seed, text: str, *, back: bool) -> str:
    old, new = (seed.text, seed.replaces) if back else (seed.replaces, seed.text)
    if not seed.anchor:
        return text.removesuffix(old) + new
    if text.count(seed.anchor + old) != 1:
        raise BadInput(f"{seed.path} has changed: the place for {seed.subject!r} is not there")
    return text.replace(seed.anchor + old, seed.anchor + new)


def _harmless(path: str, number: int) -> str:
    if not path.endswith(".c"):
        return f"\nA remark, number {number}.\n"
    return f"\nstatic int __used harmless_{number}(void)\n{{\n\treturn {number};\n}}\n"


def _stream(tree: str, label: str, commits: Sequence[Commit]) -> Iterator[bytes]:
    """Yield the input of git fast-import."""
    yield _head(0, label) + f'M 040000 {tree} ""\n\n'.encode()
    for number, commit in enumerate(commits, start=1):
        yield _head(number, commit.subject) + f"M 100644 inline {commit.path}\n".encode() + _data(commit.text) + b"\n"


def _head(number: int, subject: str) -> bytes:
    # Fixed dates make the same history anywhere.
    return f"commit refs/heads/main\ncommitter Test <test@example.org> {1700000000 + number} +0000\n".encode() + _data(
        f"{subject}\n"
    )


def _data(text: str) -> bytes:
    raw = text.encode()
    return b"data %d\n%s" % (len(raw), raw)


def main() -> None:
    """Make the history and print the commits that matter, as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("directory", type=Path)
    parser.add_argument("--commits", type=int, default=COMMITS, help="at least 64, so that every seed is in it")
    options = parser.parse_args()
    print(json.dumps(write(options.directory, options.commits), indent=1))


if __name__ == "__main__":
    main()
