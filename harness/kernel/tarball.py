# SPDX-License-Identifier: MIT
"""Tarballs and Debian source packages, streamed into the cache's repository without being unpacked on the disk."""

from __future__ import annotations

import contextlib
import io
import os
import shlex
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import IO

from harness.errors import BadInput, HostFault
from harness.kernel.repo import KernelRepo, disk_hint, quoted_path
from harness.paths import locked
from harness.process import end_group, say, tail

BUFFER_BYTES = 1 << 20
# First bytes of a kind, and the program that unpacks it to a pipe, in parallel with what reads the pipe. Other kinds
# are unpacked by tarfile, which needs no program, but knows zstd only from Python 3.14 on.
UNPACKERS = {
    b"\xfd7zXZ\0": ("xz", "-dc", "-T0"),
    b"\x28\xb5\x2f\xfd": ("zstd", "-dcq"),
}


def import_tarball(repo: KernelRepo, path: Path, *, name: str) -> str:
    """Put the tarball `path` into `repo` and return the hash of its tree; one common top directory is stripped.

    `name` is a content key that makes the import's reference unique. Symbolic links,
    hard links and executable bits are kept. Raises BadInput if it is no tarball, HostFault if a tool fails.
    """
    with path.open("rb") as file:
        head = file.read(8)
    unpacker = next((words for magic, words in UNPACKERS.items() if head.startswith(magic)), ("cat",))
    reference = f"refs/sources/{name}"
    importer = ("git", "fast-import", "--quiet", "--force", "--done", "--depth=0")
    with locked("git-import"):
        # Left by an import that was killed; our lock keeps every living one out.
        leftovers = ("objects/pack/tmp_pack_*", "fast_import_crash_*", f"{reference}.lock")
        for leftover in (found for pattern in leftovers for found in repo.path.glob(pattern)):
            leftover.unlink()
        say(f"importing {path.name} into the cache's repository")
        with _piped(importer, repo.environment(), writes=True) as to_git:
            try:
                with _piped((*unpacker, os.fspath(path)), None) as archive:
                    entries = _feed(archive, to_git)
            except (tarfile.TarError, EOFError) as error:
                raise BadInput(f"{path} is no tarball, or a damaged one: {error}") from error
            to_git.write(_commit(reference, entries))
    return repo.git("rev-parse", f"{reference}^{{tree}}").stdout.strip()


def unpack_package(package: Path, member: str, target: Path) -> Path:
    """Write the file called `member` of a Debian package into the directory `target` and return its path.

    Raises HostFault if the package has none or dpkg-deb fails.
    """
    output = target / PurePosixPath(member).name
    with (
        _piped(("dpkg-deb", "--fsys-tarfile", os.fspath(package)), None) as pipe,
        tarfile.open(fileobj=pipe, mode="r|", bufsize=BUFFER_BYTES) as archive,
    ):
        for entry in archive:
            source = archive.extractfile(entry) if entry.name.removeprefix("./") == member else None
            if source:
                with output.open("wb") as file:
                    while block := source.read(BUFFER_BYTES):
                        file.write(block)
    if not output.exists():
        raise HostFault(f"{package.name} has no {member}", hint="name a package that holds a kernel source tarball")
    return output


def _feed(archive: IO[bytes], git: IO[bytes]) -> list[tuple[str, int, str]]:
    """Send every file of a tar stream to fast-import as a marked blob; return (git mode, mark, path) of each."""
    entries: dict[str, tuple[str, int]] = {}
    with tarfile.open(fileobj=archive, mode="r|*", bufsize=BUFFER_BYTES) as tar:
        for mark, entry in enumerate(tar, start=1):
            path = os.path.normpath(entry.name)
            if entry.islnk():
                with contextlib.suppress(KeyError):
                    entries[path] = entries[os.path.normpath(entry.linkname)]
                continue
            if entry.issym():
                mode, data = "120000", os.fsencode(entry.linkname)
            elif entry.isfile():
                file = tar.extractfile(entry)
                mode, data = "100755" if entry.mode & 0o100 else "100644", file.read() if file else b""
            else:
                continue
            git.write(b"blob\nmark :%d\ndata %d\n" % (mark, len(data)))
            git.write(data)
            git.write(b"\n")
            entries[path] = (mode, mark)
    tops = {path.split("/", 1)[0] for path in entries}
    strip = f"{tops.pop()}/" if len(tops) == 1 and all("/" in path for path in entries) else ""
    return [(mode, mark, path.removeprefix(strip)) for path, (mode, mark) in entries.items()]


def _commit(reference: str, entries: Sequence[tuple[str, int, str]]) -> bytes:
    """Return the fast-import command that makes one tree of `entries`."""
    lines = [f"commit {reference}", "committer hgm <> 0 +0000", "data 0", "", "deleteall"]
    lines += [f"M {mode} :{mark} {quoted_path(path)}" for mode, mark, path in entries]
    return os.fsencode("\n".join([*lines, "", "done", ""]))


@contextlib.contextmanager
def _piped(argv: Sequence[str], env: Mapping[str, str] | None, *, writes: bool = False) -> Iterator[IO[bytes]]:
    """Give the pipe to (`writes`) or from a command that runs in a session of its own, and wait for its end.

    Raises HostFault with its own words if it fails, and ends it if the block is left by an error.
    """
    with tempfile.TemporaryFile() as errors:
        try:
            process = subprocess.Popen(
                argv,
                env=env,
                stdin=subprocess.PIPE if writes else subprocess.DEVNULL,
                stdout=subprocess.DEVNULL if writes else subprocess.PIPE,
                stderr=errors,
                bufsize=BUFFER_BYTES,
                start_new_session=True,
            )
        except FileNotFoundError as error:
            raise HostFault(f"{argv[0]} is not there", hint="./hgm doctor tells what is missing") from error
        pipe = process.stdin if writes else process.stdout
        assert pipe is not None
        broken = False
        try:
            yield pipe
            # What is left unread is padding; a writer that meets a closed pipe would call that a failure.
            while not writes and pipe.read(BUFFER_BYTES):
                pass
            pipe.close()
            process.wait()
        except BrokenPipeError:
            # The command has given up; its own words say why, and better than this error.
            broken = True
            with contextlib.suppress(BrokenPipeError):
                pipe.close()
            process.wait()
        except BaseException:
            end_group(process)
            with contextlib.suppress(BrokenPipeError):
                pipe.close()
            raise
        if process.returncode or broken:
            errors.seek(0, io.SEEK_SET)
            words = tail(errors.read().decode(errors="replace"))
            raise HostFault(
                f"{argv[0]} ended with status {process.returncode}\n{words}",
                hint=disk_hint(words) or f"the command was: {shlex.join(argv)}",
            )
