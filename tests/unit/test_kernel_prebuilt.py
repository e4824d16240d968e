# SPDX-License-Identifier: MIT
"""Kernel images built elsewhere: told apart, read, and refused with a reason."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import os
import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from harness.arch import ARM64, X86_64, Arch
from harness.errors import BadInput
from harness.kernel.build import KernelRequest, prepare
from harness.kernel.config import fragments
from harness.kernel.prebuilt import inspect
from harness.kernel.source import SourceSpec

RELEASE = "6.1.7-test"


def good_config(arch: Arch) -> str:
    return "".join(piece.text for piece in fragments(arch, "fast", hgm=False, hvo=arch is X86_64))


def kernel_with(config: str | None) -> bytes:
    inside = b"IKCFG_ST" + gzip.compress(config.encode()) + b"IKCFG_ED" if config is not None else b""
    return b"\x7fELF" + b"code" * 99 + f"Linux version {RELEASE} (me@here)".encode() + inside + b"more code"


def bzimage(kernel: bytes, compress: Callable[[bytes], bytes] = gzip.compress, *, sectors: int = 1) -> bytes:
    """The least that Documentation/x86/boot.rst asks of a bzImage."""
    payload = compress(kernel) + struct.pack("<I", len(kernel))
    setup = bytearray(((sectors or 4) + 1) * 512)
    setup[0x1F1] = sectors
    setup[0x202:0x206] = b"HdrS"
    struct.pack_into("<H", setup, 0x206, 0x20F)
    struct.pack_into("<H", setup, 0x20E, 0x300 - 0x200)
    text = f"{RELEASE} (me@here) #1\0".encode()
    setup[0x300 : 0x300 + len(text)] = text
    struct.pack_into("<II", setup, 0x248, 64, len(payload))
    return bytes(setup) + bytes(64) + payload


def arm64_image(kernel: bytes) -> bytes:
    return bytes(0x38) + b"ARM\x64" + bytes(4) + kernel


def lzma_alone(data: bytes) -> bytes:
    return lzma.compress(data, lzma.FORMAT_ALONE)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HGM_CACHE", os.fspath(tmp_path / "cache"))


def image(tmp_path: Path, data: bytes, name: str = "vmlinuz") -> Path:
    path = tmp_path / "images" / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("compress", [gzip.compress, lzma.compress, lzma_alone, bz2.compress])
def test_the_configuration_inside_a_bzimage(tmp_path: Path, compress: Callable[[bytes], bytes]) -> None:
    known = inspect(image(tmp_path, bzimage(kernel_with("CONFIG_A=y\n"), compress)), X86_64)
    assert (known.release, known.config, known.config_from) == (RELEASE, "CONFIG_A=y\n", "inside vmlinuz")


@pytest.mark.parametrize("sectors", [0, 1, 4, 39])
def test_a_payload_behind_more_or_less_of_setup(tmp_path: Path, sectors: int) -> None:
    known = inspect(image(tmp_path, bzimage(kernel_with("CONFIG_A=y\n"), sectors=sectors)), X86_64)
    assert known.config == "CONFIG_A=y\n"


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_the_configuration_inside_an_arm64_image(tmp_path: Path, pack: Callable[[bytes], bytes]) -> None:
    known = inspect(image(tmp_path, pack(arm64_image(kernel_with("CONFIG_A=y\n")))), ARM64)
    assert (known.release, known.config) == (RELEASE, "CONFIG_A=y\n")


def test_the_configuration_given_or_beside(tmp_path: Path) -> None:
    path = image(tmp_path, bzimage(kernel_with(None)))
    assert inspect(path, X86_64).config is None
    (path.parent / ".config").write_text("CONFIG_DOT=y\n")
    assert inspect(path, X86_64).config == "CONFIG_DOT=y\n"
    (path.parent / f"config-{RELEASE}").write_text("CONFIG_RELEASE=y\n")
    assert inspect(path, X86_64).config == "CONFIG_RELEASE=y\n"
    (tmp_path / "mine").write_text("CONFIG_MINE=y\n")
    assert inspect(path, X86_64, tmp_path / "mine").config == "CONFIG_MINE=y\n"
    for name, text, told in (("nowhere", None, "not there"), ("other", "hello\n", "no CONFIG_ line")):
        if text:
            (tmp_path / name).write_text(text)
        with pytest.raises(BadInput, match=told):
            inspect(path, X86_64, tmp_path / name)


def test_the_configuration_inside_wins_over_one_beside(tmp_path: Path) -> None:
    path = image(tmp_path, bzimage(kernel_with("CONFIG_A=y\n")))
    for name in (".config", f"config-{RELEASE}"):
        (path.parent / name).write_text("CONFIG_OTHER=y\n")
    assert inspect(path, X86_64).config == "CONFIG_A=y\n"


def test_an_unreadable_payload_is_unknown_and_said_so(tmp_path: Path) -> None:
    path = image(tmp_path, bzimage(b"", lambda _: b"\x89LZX" + bytes(99)))
    kernel = prepare(KernelRequest(arch=X86_64, image=path))
    assert kernel.config is None and kernel.options() == {}
    assert "compression cannot be read" in kernel.notes[0]


def test_an_image_of_the_wrong_architecture(tmp_path: Path) -> None:
    x86, arm = bzimage(kernel_with(None)), arm64_image(kernel_with(None))
    with pytest.raises(BadInput, match="is an x86_64 kernel, but --arch says arm64"):
        prepare(KernelRequest(arch=ARM64, image=image(tmp_path, x86)))
    for data in (arm, gzip.compress(arm)):
        with pytest.raises(BadInput, match="is an arm64 kernel, but --arch says x86_64"):
            prepare(KernelRequest(arch=X86_64, image=image(tmp_path, data)))


def test_what_is_no_kernel(tmp_path: Path) -> None:
    cases = (b"", b"hello\n" * 999, gzip.compress(b"hello"), b"\x1f\x8b\x08garbage", bzimage(b"")[:0x210][:0x1FF])
    for data in cases:
        with pytest.raises(BadInput, match="no kernel image"):
            prepare(KernelRequest(arch=X86_64, image=image(tmp_path, data)))
    with pytest.raises(BadInput, match="an ELF file"):
        prepare(KernelRequest(arch=X86_64, image=image(tmp_path, kernel_with(None))))
    with pytest.raises(BadInput, match="not there"):
        prepare(KernelRequest(arch=X86_64, image=tmp_path / "nowhere"))
    with pytest.raises(BadInput, match="not a file"):
        prepare(KernelRequest(arch=X86_64, image=tmp_path))


def test_an_image_that_is_cut_short(tmp_path: Path) -> None:
    whole = bzimage(kernel_with("CONFIG_A=y\n"))
    for size in (0x206, 0x208, 0x210, 0x24A, 0x2FF, 1100):
        with pytest.raises(BadInput, match=f"cut short: it has {size} bytes"):
            inspect(image(tmp_path, whole[:size]), X86_64)


def test_an_image_without_the_options_names_them(tmp_path: Path) -> None:
    config = good_config(X86_64).replace("CONFIG_USERFAULTFD=y\n", "").replace("VIRTIO_BLK=y", "VIRTIO_BLK=m")
    with pytest.raises(BadInput) as caught:
        prepare(KernelRequest(arch=X86_64, image=image(tmp_path, bzimage(kernel_with(config)))))
    lines = str(caught.value).splitlines()
    assert "inside vmlinuz" in lines[0]
    assert [line.strip() for line in lines[1:3]] == [
        "CONFIG_VIRTIO_BLK=m, needed =y to boot",
        "CONFIG_USERFAULTFD=n, needed =y for the tests",
    ]


@pytest.mark.parametrize("option", ["LKDTM", "PTDUMP_DEBUGFS", "DEBUG_VM", "EXPERT"])
def test_options_that_only_sharpen_a_verdict_are_not_demanded(tmp_path: Path, option: str) -> None:
    config = good_config(X86_64).replace(f"CONFIG_{option}=y\n", "")
    prepare(KernelRequest(arch=X86_64, image=image(tmp_path, bzimage(kernel_with(config)))))


def test_a_good_image_is_kept_as_it_was(tmp_path: Path) -> None:
    path = image(tmp_path, bzimage(kernel_with(good_config(X86_64))))
    kernel = prepare(KernelRequest(arch=X86_64, image=path))
    assert kernel.image.read_bytes() == path.read_bytes()
    assert kernel.options()["CONFIG_USERFAULTFD"] == "y"
    assert kernel.release == RELEASE
    assert prepare(KernelRequest(arch=X86_64, image=path)) == kernel
    assert json.loads(json.dumps(kernel.to_json()))["arch"] == "x86_64"
    path.write_bytes(bzimage(kernel_with(good_config(X86_64) + "CONFIG_MORE=y\n")))
    assert prepare(KernelRequest(arch=X86_64, image=path)).key != kernel.key


def test_the_same_image_with_another_configuration_is_another_kernel(tmp_path: Path) -> None:
    path, kernels = image(tmp_path, bzimage(kernel_with(None))), []
    for name in ("one", "two"):
        (tmp_path / name).write_text(good_config(X86_64) + f"CONFIG_{name.upper()}=y\n")
        kernels.append(prepare(KernelRequest(arch=X86_64, image=path, config=tmp_path / name)))
    assert ["CONFIG_TWO" in kernel.options() for kernel in kernels] == [False, True]


def test_what_cannot_go_with_an_image(tmp_path: Path) -> None:
    path = image(tmp_path, bzimage(kernel_with(good_config(X86_64))))
    for request in (
        KernelRequest(arch=X86_64, image=path, series=(tmp_path,)),
        KernelRequest(arch=X86_64, image=path, source=SourceSpec(tree=tmp_path)),
        KernelRequest(arch=X86_64, image=path, source=SourceSpec(commit="HEAD")),
        KernelRequest(arch=X86_64, image=path, source=SourceSpec(package="linux-source")),
        KernelRequest(arch=X86_64, image=path, source=SourceSpec(tarball=tmp_path)),
        KernelRequest(arch=X86_64, image=path, kconfig=(tmp_path / "x",)),
    ):
        with pytest.raises(BadInput, match="built already"):
            prepare(request)
    with pytest.raises(BadInput, match="without --kernel"):
        prepare(KernelRequest(arch=X86_64, config=tmp_path / "x"))
