# SPDX-License-Identifier: MIT
"""Patches on top of a source: read from a directory, an mbox or a file, and applied without a work tree."""

from __future__ import annotations

import gzip
import json
import os
import re
import zlib
from dataclasses import dataclass
from email import message_from_bytes, policy
from email.message import EmailMessage, Message
from pathlib import Path

from harness.errors import BadInput, HostFault
from harness.kernel.repo import KernelRepo, disk_hint
from harness.paths import cache_dir, digest

MAIL_START = re.compile(rb"^From \S.*\d\d:\d\d:\d\d.* \d{4}.*\n", re.MULTILINE)  # of git, of mboxrd and of mutt
MAIL_HEADER = re.compile(rb"\A(From|Subject|Date|Message-I[dD]|MIME-Version|Return-Path|Received|X-[\w-]+): ")
DIFF = re.compile(rb"^(diff --git |--- .+\n\+\+\+ )", re.MULTILINE)
TAG = re.compile(r"^(\[[^\]]*\]\s*)+")
NUMBER = re.compile(r"\[[^\]]*?\b(\d+)/(\d+)[^\]]*\]")
HUNK = re.compile(rb"^@@ -(\d+)(?:,\d+)? \+\d+(?:,\d+)? @@.*$", re.MULTILINE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Patch:
    """One patch as it was read."""

    origin: str  # the file it is from
    subject: str  # without the [PATCH ...] tag; the file's name if it has none
    diff: bytes
    strip: int = 1  # leading directories to take off its paths
    number: tuple[int, int] | None = None  # (3, 9) of [PATCH 3/9]


@dataclass(frozen=True, slots=True, kw_only=True)
class Applied:
    """One patch of a series and the tree that has it and all before it."""

    subject: str
    origin: str
    tree: str


def read(path: Path) -> list[Patch]:
    """Return the patches of a directory, an mbox (perhaps gzipped) or a single file, in the order to apply them.

    A directory's order is that of its quilt `series` file, else of its *.patch by name; an mbox's that of the numbers
    in its subjects. Cover letters, replies and other mail without a diff are left out.
    Raises BadInput if there is nothing to apply, a file is missing, or a number of an mbox is missing or there twice.
    """
    if path.is_dir():
        return _read_directory(path)
    if not path.is_file():
        raise BadInput(f"the series {path} is {'neither file nor directory' if path.exists() else 'not there'}")
    patches = _read_file(path)
    if not patches:
        raise BadInput(f"there are no patches in {path}", hint="give a directory of *.patch, an mbox, or one patch")
    if len(patches) > 1:
        _check_numbers(path, patches)
        patches.sort(key=lambda patch: patch.number or (0, 0))
    return patches


def apply(repo: KernelRepo, tree: str, patches: list[Patch]) -> tuple[Applied, ...]:
    """Return the tree after each of `patches`, the first on top of `tree`. `repo` must see all of `tree`.

    Raises BadInput that names the patch, the file and the hunk that does not apply. No fuzz: context must match.
    """
    if not patches:
        return ()
    memo = cache_dir() / "series" / f"{digest(tree, [(p.strip, p.diff.hex()) for p in patches])}.json"
    trees = _recall(memo, repo, tree, len(patches))
    if not trees:
        trees = []
        index = repo.scratch_index("series")
        repo.git("read-tree", tree, index=index)
        for position, patch in enumerate(patches, start=1):
            words = ("apply", "--cached", "--whitespace=nowarn", f"-p{patch.strip}", "-")
            result = repo.git(*words, index=index, stdin=patch.diff, check=False)
            if result.returncode:
                index.unlink()
                if disk_hint(result.stderr):
                    raise HostFault(f"{patch.origin}: {result.stderr.strip()}", hint=disk_hint(result.stderr))
                raise _does_not_apply(patch, position, len(patches), result.stderr)
            trees.append(repo.git("write-tree", index=index).stdout.strip())
        index.unlink()
        memo.parent.mkdir(exist_ok=True)
        part = memo.with_name(f".{memo.name}.{os.getpid()}")
        part.write_text(json.dumps(trees))
        part.replace(memo)
    return tuple(
        Applied(subject=patch.subject, origin=patch.origin, tree=after)
        for patch, after in zip(patches, trees, strict=True)
    )


def _recall(memo: Path, repo: KernelRepo, tree: str, count: int) -> list[str]:
    """Return the remembered trees, or nothing if one of them can no longer be read whole."""
    try:
        trees = [str(name) for name in json.loads(memo.read_text())]
    except (FileNotFoundError, ValueError):
        return []
    return trees if len(trees) == count and repo.has(*trees) and repo.has_difference(tree, trees[-1]) else []


def _read_directory(path: Path) -> list[Patch]:
    listing = path / "series"
    files: list[tuple[Path, int]] = []
    if listing.is_file():
        try:
            lines = listing.read_text(encoding="utf-8").splitlines()
        except UnicodeDecodeError as error:
            raise BadInput(f"{listing} is no list of patches: {error}", hint="it is text in UTF-8") from error
        for line in lines:
            words = line.split("#", 1)[0].split()
            if not words:
                continue
            options = [re.fullmatch(r"-p(\d)", word) for word in words[1:]]
            if not all(options) or len(options) > 1:
                raise BadInput(f"{listing}: {line.strip()!r} is not understood", hint="FILE, or FILE -pN")
            files.append((path / words[0], int(options[0][1]) if options and options[0] else 1))
    else:
        files = [(file, 1) for file in sorted(path.glob("*.patch"))]
    patches = []
    for file, strip in files:
        if not file.is_file():
            raise BadInput(f"the patch {file} is not {'a file' if file.exists() else 'there'}")
        found = _read_file(file, strip)
        if not found and not file.name.startswith("0000-"):
            raise BadInput(f"there is no diff in {file}")
        patches += found
    if not patches:
        raise BadInput(f"there are no patches in the directory {path}", hint="it needs *.patch or a quilt series file")
    return patches


def _read_file(path: Path, strip: int = 1) -> list[Patch]:
    raw = path.read_bytes()
    if raw.startswith(b"\x1f\x8b"):
        try:
            raw = gzip.decompress(raw)
        except (gzip.BadGzipFile, zlib.error, EOFError) as error:
            raise BadInput(f"{path} is a damaged gzip file: {error}", hint="fetch or copy it again") from error
    parts = [part for part in MAIL_START.split(raw) if part.strip()]
    patches = [_read_one(part, path, strip) for part in parts]
    return [patch for patch in patches if patch]


def _read_one(raw: bytes, path: Path, strip: int) -> Patch | None:
    """Return the patch in one mail or plain diff, or None if there is none in it."""
    subject, diff = "", raw
    if MAIL_HEADER.match(raw):
        mail = message_from_bytes(raw, policy=policy.default)
        subject = " ".join(str(mail.get("Subject", "")).split())
        diff = _body(mail) if "content-transfer-encoding" in mail or mail.is_multipart() else raw
    if not DIFF.search(diff) or subject.lower().startswith("re:"):
        return None
    # Mail systems end lines with CR LF; the kernel has no such files.
    if diff.count(b"\r\n") == diff.count(b"\n"):
        diff = diff.replace(b"\r\n", b"\n")
    number = NUMBER.search(subject)
    return Patch(
        origin=os.fspath(path),
        subject=TAG.sub("", subject) or path.name,
        diff=diff,
        strip=strip,
        number=(int(number[1]), int(number[2])) if number else None,
    )


def _body(mail: Message | EmailMessage) -> bytes:
    """Return the text of a mail, attachments that are text included, with its transfer encoding undone."""
    texts = [part.get_payload(decode=True) for part in mail.walk() if part.get_content_maintype() == "text"]
    return b"\n".join(text for text in texts if isinstance(text, bytes))


def _check_numbers(path: Path, patches: list[Patch]) -> None:
    numbers = [patch.number for patch in patches if patch.number]
    if not numbers:
        return
    seen = sorted(number for number, _ in numbers)
    twice = sorted({number for number in seen if seen.count(number) > 1})
    hint = "an mbox must hold one version of one series"
    if twice or len(numbers) != len(patches):
        which = f"numbered {twice[0]}" if twice else "with a number and some without"
        raise BadInput(f"{path} holds several patches {which}: {'; '.join(p.subject for p in patches[:6])}", hint=hint)
    missing = sorted(set(range(1, max(total for _, total in numbers) + 1)) - set(seen))
    if missing:
        total = numbers[0][1]
        raise BadInput(f"{path} lacks patch {', '.join(str(number) for number in missing)} of {total}", hint=hint)


def _does_not_apply(patch: Patch, position: int, count: int, errors: str) -> BadInput:
    """Return the error that names patch, file and hunk, made from what git apply said."""
    lines = []
    for file, line in re.findall(r"^error: patch failed: (.+):(\d+)$", errors, re.MULTILINE):
        hunk = _find_hunk(patch, file, int(line))
        lines.append(f"{file}, {hunk}" if hunk else f"{file}, at line {line}")
    if not lines:
        lines = [line.removeprefix("error: ") for line in errors.splitlines() if line.startswith(("error", "fatal"))]
    head = f"patch {position} of {count} does not apply: {patch.subject!r} ({patch.origin})"
    return BadInput(
        "\n  ".join([head, *lines]),
        hint="the series may be made for another kernel, be in another order, or be in this tree already",
    )


def _find_hunk(patch: Patch, file: str, line: int) -> str:
    """Return "hunk 2: @@ ... @@" for the hunk of `file` that starts at `line` of the old file."""
    sections = re.split(rb"^(?=diff --git |--- \S+\n\+\+\+ )", patch.diff, flags=re.MULTILINE)
    for section in sections:
        if not re.search(rb"^(---|\+\+\+) \S*?" + re.escape(os.fsencode(file)) + rb"\s", section, re.MULTILINE):
            continue
        for number, hunk in enumerate(HUNK.finditer(section), start=1):
            if int(hunk[1]) == line:
                return f"hunk {number}: {hunk[0].decode(errors='replace')}"
    return ""
