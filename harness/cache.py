# SPDX-License-Identifier: MIT
"""`./hgm cache`: what the cache holds, and the removal of what nobody has used for a while."""

from __future__ import annotations

import contextlib
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.errors import BadInput, Exit, HostFault
from harness.options import Parser
from harness.paths import cache_dir, cache_to_oneself
from harness.process import run

DAY = 24 * 60 * 60
GIB = 1 << 30
# Of the rooms whose entries are marked when they are used (`harness.paths.used`); each entry can be made again alone.
ROOMS = {
    "kernels": "kernels, with their debug information",
    "templates": "guests, booted and left",
    "trees": "checked-out sources, and what is built in them",
    "guest": "guest tests, compiled, and their disks",
    "kselftest": "the kernel's own selftests",
    "images": "guests' root file systems",
    "bisect": "bisections, to be gone on with",
    "mail": "series fetched by b4",
}
REST = "objects of ccache and of git, and small things"


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """Something that the cache holds."""

    path: Path
    size: int  # bytes that it takes on the disk
    used: float  # seconds since the epoch

    @property
    def unfinished(self) -> bool:
        """Whether it was being written when its harness was killed: see `harness.paths.written_whole`."""
        return self.path.name.startswith(".")


def main(arguments: Sequence[str]) -> int:
    """List what the cache holds; with --drop-unused remove what no run has used for so many days.

    Raises BadInput if a run is going on, HostFault if something cannot be removed.
    """
    parser = Parser(prog="hgm cache", description=(main.__doc__ or "").splitlines()[0], allow_abbrev=False)
    help_text = "remove what has not been used for DAYS days, and what was left half-written; 0: all but the last row"
    parser.add_argument("--drop-unused", type=int, metavar="DAYS", help=help_text)
    days = parser.parse_args(list(arguments)).drop_unused
    if days is None:
        print("\n".join(table(cache_dir())))
        return Exit.OK
    if days < 0:
        raise BadInput(f"--drop-unused {days}: a number of days is 0 or more")
    with cache_to_oneself() as base:
        old = [entry for entry in entries(base) if _goes(entry, days)]
        for entry in old:
            _remove(entry.path)
    gone = sum(entry.size for entry in old)
    print(f"{len(old)} removed, {gone / GIB:.1f} GiB; {shutil.disk_usage(base).free / GIB:.1f} GiB free in {base}")
    return Exit.OK


def table(base: Path) -> list[str]:
    """Return lines that say what each room of a cache holds, and when it was last used."""
    found = entries(base)
    lines = [f"{base}", ""]
    for room, what in ROOMS.items():
        if inside := [entry for entry in found if entry.path.parent.name == room]:
            last = time.strftime("%Y-%m-%d", time.localtime(max(entry.used for entry in inside)))
            size = sum(entry.size for entry in inside)
            lines.append(f"{size / GIB:7.1f} GiB  {len(inside):5}  last used {last}  {what}")
    size = _sizes([base])[base]
    lines.append(f"{(size - sum(entry.size for entry in found)) / GIB:7.1f} GiB  {'':5}  {'':20}  {REST}")
    lines.append(f"{size / GIB:7.1f} GiB in all, {shutil.disk_usage(base).free / GIB:.1f} GiB free")
    return [*lines, "", "./hgm cache --drop-unused 7 removes what no run has used for a week"]


def entries(base: Path) -> list[Entry]:
    """Return what lies in the rooms of a cache, in their order."""
    paths = [path for room in ROOMS for path in sorted((base / room).glob("*"))]
    sizes, found = _sizes(paths), []
    for path in paths:
        with contextlib.suppress(FileNotFoundError):  # another run has removed it meanwhile
            found.append(Entry(path=path, size=sizes.get(path, 0), used=path.lstat().st_mtime))
    return found


def _goes(entry: Entry, days: int) -> bool:
    return entry.unfinished or not days or entry.used < time.time() - days * DAY


def _sizes(paths: Sequence[Path]) -> dict[Path, int]:
    """Bytes that each takes on the disk, where it can be read: what a template keeps of its guest's RAM has holes."""
    said = (
        run(["du", "--summarize", "--block-size=1", "--null", "--", *paths], check=False, quiet=True).stdout
        if paths
        else ""
    )
    return {Path(path): int(size) for size, path in (line.split("\t", 1) for line in said.split("\0") if line)}


def _remove(path: Path) -> None:
    try:
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    except OSError as error:
        raise HostFault(f"{path} cannot be removed: {error.strerror}", hint="remove it by hand") from error
