# SPDX-License-Identifier: MIT
"""Kernel images built elsewhere: which architecture, which release, which configuration."""

from __future__ import annotations

import bz2
import lzma
import re
import shutil
import struct
import subprocess
import zlib
from dataclasses import dataclass
from pathlib import Path

from harness.arch import ARCHES, Arch
from harness.errors import BadInput

IKCONFIG = b"IKCFG_ST"  # kernel/configs.c puts it before the gzipped .config
GZIP = b"\x1f\x8b\x08"
# Formats of a bzImage's payload that Python cannot read, and the program that can.
FILTERS = {b"\x28\xb5\x2f\xfd": ("zstd", "-dcq"), b"\x02\x21\x4c\x18": ("lz4", "-dcq"), b"\x89LZO": ("lzop", "-dcq")}


@dataclass(frozen=True, slots=True, kw_only=True)
class Prebuilt:
    """What could be read from an image."""

    release: str  # "" if it does not tell
    config: str | None  # text of its .config; None: unknown until it has booted and shown /proc/config.gz
    config_from: str  # where that text is from, or why there is none


def inspect(image: Path, arch: Arch, config: Path | None = None) -> Prebuilt:
    """Return what is known of the kernel `image`; its configuration is `config`, or lies beside it, or inside it.

    Raises BadInput if the image is no kernel, or one for another architecture than `arch`.
    """
    if not image.is_file():
        raise BadInput(f"the kernel image {image} is not {'a file' if image.exists() else 'there'}")
    data = image.read_bytes()
    plain = (_gunzip(data) or b"") if data.startswith(GZIP) else data
    found = next((row for row in ARCHES.values() if _has_magic(plain, row)), None)
    if found is None:
        hint = f"an x86_64 kernel is a bzImage, an arm64 one an Image or Image.gz; looked for {arch.image_magic[1]!r}"
        kind = "an ELF file; QEMU wants the bzImage or Image" if plain.startswith(b"\x7fELF") else "no kernel image"
        raise BadInput(f"{image} is {kind}", hint=hint)
    if found.image_magic != arch.image_magic:
        raise BadInput(f"{image} is an {found.name} kernel, but --arch says {arch.name}", hint=f"--arch {found.name}")
    if data is plain and arch.image_magic[1] == b"HdrS":
        release, kernel = _read_bzimage(image, data)
    else:
        release, kernel = "", plain
    if not release:
        # init/version.c; inside an arm64 Image it lies open.
        told = re.search(rb"Linux version (\S+) \(", kernel or b"")
        release = told[1].decode(errors="replace") if told else ""
    text, origin = _find_config(image, release, kernel, config)
    return Prebuilt(release=release, config=text, config_from=origin)


def _has_magic(data: bytes, arch: Arch) -> bool:
    offset, magic = arch.image_magic
    return data[offset : offset + len(magic)] == magic


def _find_config(image: Path, release: str, kernel: bytes | None, given: Path | None) -> tuple[str | None, str]:
    if given:
        if not given.is_file():
            raise BadInput(f"the kernel's configuration {given} is not {'a file' if given.exists() else 'there'}")
        text = given.read_text(errors="replace")
        if "CONFIG_" not in text:
            raise BadInput(f"{given} is no kernel configuration: it has no CONFIG_ line")
        return text, str(given)
    # Inside is certain; a file beside may be another kernel's, so it comes second.
    if kernel is not None and (start := kernel.find(IKCONFIG + b"\x1f\x8b")) >= 0:
        inside = _gunzip(kernel[start + len(IKCONFIG) :])
        if inside:
            return inside.decode(errors="replace"), f"inside {image.name}"
    # As distributions and `make install` name it, and as O= has it: arch/*/boot is three levels down.
    names = [image.with_name(f"config-{release}")] if release else []
    beside = [*names, image.with_name(".config"), *(image.parents[2] / ".config" for _ in image.parents[2:3])]
    for path in beside:
        if path.is_file():
            return path.read_text(errors="replace"), str(path)
    why = "the image's compression cannot be read here" if kernel is None else "the image has none inside (IKCONFIG)"
    return None, f"unknown: {why}, and there is no {' or '.join(path.name for path in beside[:2])} beside it"


def _read_bzimage(image: Path, data: bytes) -> tuple[str, bytes | None]:
    """Return release and unpacked kernel (None if it cannot be unpacked) of an x86 bzImage.

    Offsets are those of Documentation/x86/boot.rst: setup_sects 0x1f1, version 0x206, kernel_version 0x20e,
    payload_offset 0x248, payload_length 0x24c. Raises BadInput if the file ends before its payload does.
    """
    cut_short = BadInput(f"{image} is cut short: it has {len(data)} bytes", hint="copy or build it again")
    if len(data) < 0x250:
        raise cut_short
    sectors = data[0x1F1] or 4
    protocol, pointer = struct.unpack_from("<H", data, 0x206)[0], struct.unpack_from("<H", data, 0x20E)[0]
    words = data[pointer + 0x200 :].split(b"\0", 1)[0].split() if pointer else []
    release = words[0].decode(errors="replace") if words else ""
    if protocol < 0x208:
        return release, None
    offset, length = struct.unpack_from("<II", data, 0x248)
    start = (sectors + 1) * 512 + offset
    if len(data) < start + length:
        raise cut_short
    return release, _unpack(data[start : start + length])


def _unpack(payload: bytes) -> bytes | None:
    """Return the unpacked payload. Its last four bytes are the size, which is no part of the compressed data."""
    try:
        if payload.startswith(GZIP):
            return _gunzip(payload)
        if payload.startswith(b"\xfd7zXZ\0"):
            return lzma.LZMADecompressor().decompress(payload)
        if payload.startswith(b"\x5d\0\0"):
            return lzma.LZMADecompressor(lzma.FORMAT_ALONE).decompress(payload)
        if payload.startswith(b"BZh"):
            return bz2.BZ2Decompressor().decompress(payload)
    except (lzma.LZMAError, OSError, EOFError):
        return None
    words = next((words for magic, words in FILTERS.items() if payload.startswith(magic)), None)
    if words is None or not shutil.which(words[0]):
        return payload if payload.startswith(b"\x7fELF") else None
    # The size behind the data makes these programs complain after they have written everything.
    result = subprocess.run(words, input=payload, capture_output=True, check=False, start_new_session=True)
    return result.stdout or None


def _gunzip(data: bytes) -> bytes | None:
    """Return the first gzip member of `data`, as far as it goes; None if it is damaged."""
    try:
        return zlib.decompressobj(wbits=31).decompress(data)
    except zlib.error:
        return None
