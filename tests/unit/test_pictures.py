# SPDX-License-Identifier: MIT
"""What guest programs make of the harness's words about page tables: page frames, and pictures."""

from __future__ import annotations

import importlib
from types import ModuleType

import pytest

from harness.arch import MIB
from harness.paths import GUEST_TESTS

SMAPS = """\
7fb000000000-7fb000400000 rw-s 00000000 00:0d 2077 /memfd:hgm (deleted)
Size:               4096 kB
KernelPageSize:     2048 kB
Shared_Hugetlb:     4096 kB
VmFlags: rd wr sh mr mw me ms de ht sd
7fb000400000-7fb000401000 rw-p 00000000 00:00 0
KernelPageSize:        4 kB
VmFlags: rd wr mr mw me ac sd
"""


@pytest.fixture
def shapes(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(GUEST_TESTS / "lib")
    return importlib.import_module("shape")


@pytest.fixture
def library(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(GUEST_TESTS / "lib")
    return importlib.import_module("hgm")


def test_frames_follow_the_first_leaf(library: ModuleType) -> None:
    frames = library.frames("tables 1; 2M: hole×2 4K×3 hole×507@200000; 2M: 2M×1@40000000", 4096)
    assert len(frames) == 1024
    assert frames[:6] == [0, 0, 0x202, 0x203, 0x204, 0]
    assert frames[512:514] == [0x40000, 0x40001] and frames[-1] == 0x401FF


def test_a_leaf_that_is_elsewhere_has_no_frame_that_is_known(library: ModuleType) -> None:
    frames = library.frames("tables 1; 2M: 64K×1 4K!×1 mark×1 hole×494@200000 !! something is wrong", 4096)
    assert frames[15:19] == [0x20F, None, 0, 0]


def test_a_leaf_larger_than_the_huge_page_covers_all_of_it(library: ModuleType) -> None:
    assert library.frames("tables 0; 2M: 1G×1@40000000", 4096) == list(range(0x40000, 0x40200))


@pytest.mark.parametrize(
    ("notation", "picture", "legend"),
    [
        ("2M: 2M×1", "█" * 8, "█ 2M"),
        ("2M: hole×512", "·" * 8, ""),
        ("2M: hole×511 4K×1", "·······+", "▓ 4K"),
        ("2M: 64K×8 4K×64 hole×320", "▓▓▒·····", "▓ 64K  ▒ 4K"),
        ("2M: 4K×64 mark×448", "▓·······", "▓ 4K"),
        ("2M: 4K×32 64K×2 hole×448", "▒·······", "▓ 64K  ▒ 4K"),
        ("1G: 32M×8 2M×64 64K×2048 4K×32768 hole×98304", "▓▓▒░:···", "▓ 32M  ▒ 2M  ░ 64K  : 4K"),
        ("2M: 1G×1", "█" * 8, "█ 2M"),
    ],
)
def test_each_sign_is_the_smallest_leaf_of_its_part(
    shapes: ModuleType, notation: str, picture: str, legend: str
) -> None:
    assert shapes.picture(notation, 8) == picture
    assert shapes.legend(notation) == legend


def test_mappings_of_huge_pages_are_found(shapes: ModuleType) -> None:
    (found,) = shapes.mappings(SMAPS)
    assert (found.start, found.end - found.start) == (0x7FB0_0000_0000, 4 * MIB)
    assert (found.huge, found.name) == (2 * MIB, "/memfd:hgm (deleted)")
    assert shapes.mappings("") == []
