# SPDX-License-Identifier: MIT
"""Pictures of huge pages: what the notation says is what is drawn, and nothing is too small to be seen."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET

import pytest

from harness.arch import ARM64, ARM64_64K, GIB, KIB, MIB, X86_64, Arch
from harness.pagetable.shape import shape
from harness.pagetable.walk import Leaf, Walk
from harness.report.picture import MOST_RUNS, MOST_STRIPES, WIDE, Album, Page, draw, parse

BASE = X86_64.base_page


def elements(page: Page) -> list[ET.Element]:
    drawing, height = draw(page)
    return list(ET.fromstring(f'<svg height="{height}">{drawing}</svg>'))


def wide_lane(page: Page) -> list[tuple[str, float, float]]:
    """Class, left end and width of each run in the lane of runs."""
    _, height = draw(page)
    return [
        (one.get("class", ""), float(one.get("x", "")[:-1]), float(one.get("width", "")[:-1]))
        for one in elements(page)
        if one.tag == "rect" and one.get("y") == str(height - WIDE) and one.get("class") not in (None, "band", "alarm")
    ]


def test_runs_have_places() -> None:
    page = parse("2M: 4K×16 hole×24 4K×1 hole×471", BASE)
    assert page.size == 2 * MIB
    assert [(run.kind, run.size, run.count, run.start // BASE, run.length // BASE) for run in page.runs] == [
        ("leaf", 4 * KIB, 16, 0, 16),
        ("hole", 4 * KIB, 24, 16, 24),
        ("leaf", 4 * KIB, 1, 40, 1),
        ("hole", 4 * KIB, 471, 41, 471),
    ]
    assert page.words == (
        "Huge page of 2M: 16 leaves of 4K, a hole of 96K, 1 leaf of 4K, a hole of 1884K"
    )  # fmt: skip


def test_what_shape_writes_can_be_read() -> None:
    def leaf(virtual: int, size: int, physical: int) -> Leaf:
        return Leaf(
            virtual=virtual, size=size, physical=physical, level=1, contiguous=size > 4 * KIB, user=True, writable=True,
            executable=False, accessed=True, dirty=True,
        )  # fmt: skip

    walk = Walk(start=0, end=2 * MIB)
    walk.pieces += [leaf(0, 64 * KIB, 0x200000)]
    walk.hole(64 * KIB, 64 * KIB)
    walk.hole(128 * KIB, 64 * KIB, entry=7)
    walk.pieces += [leaf(192 * KIB, 4 * KIB, 0x900000)]
    walk.hole(196 * KIB, 2 * MIB - 196 * KIB)
    (words,) = shape(walk, 2 * MIB, 4 * KIB)
    page = parse(words, 4 * KIB)
    assert [(run.kind, run.stray, run.contiguous) for run in page.runs] == [
        ("leaf", False, True), ("hole", False, False), ("mark", False, False), ("leaf", True, False),
        ("hole", False, False),
    ]  # fmt: skip


def test_a_leaf_larger_than_the_huge_page_fills_it() -> None:
    (run,) = parse("2M: 1G×1", BASE).runs
    assert (run.length, run.size) == (2 * MIB, GIB)


@pytest.mark.parametrize(
    ("arch", "notation", "contiguous"),
    [
        (X86_64, "1G: 2M×512", False),
        (ARM64, "64K: 64K×1", True),
        (ARM64, "2M: 2M×1", False),
        (ARM64, "32M: 32M×1", True),
        (ARM64, "1G: 1G×1", False),
        (ARM64_64K, "2M: 2M×1", True),
        (ARM64_64K, "2M: 64K×32", False),
        (ARM64_64K, "512M: 512M×1", False),
    ],
)
def test_contiguous_leaves_are_those_of_no_level(arch: Arch, notation: str, contiguous: bool) -> None:
    assert parse(notation, arch.base_page).runs[0].contiguous == contiguous


@pytest.mark.parametrize(
    "notation",
    ["", "nonsense", "2M: ", "2M: 4K×1", "2M: hole×513", "2M: 2M×0 hole×512", "2M: 4K×<b>", "2M: 3Q×1", "2M 2M×1"],
)
def test_what_is_no_shape_is_refused(notation: str) -> None:
    with pytest.raises(ValueError, match=r"shape|whole"):
        parse(notation, BASE)


def test_a_hole_of_one_base_page_in_a_huge_page_of_1g_is_seen() -> None:
    page = parse("1G: 2M×256 4K×511 hole×1 2M×255", BASE)
    lane = wide_lane(page)
    assert [look for look, _, _ in lane] == ["leaf s2M", "leaf s4K", "hole", "leaf s2M"]
    assert min(width for _, _, width in lane) > 2
    assert lane[-1][1] + lane[-1][2] == pytest.approx(100, abs=0.1)
    # The lane to scale is drawn with a line around each part, and small ones last, so that it shows there, too.
    thin = [one.get("class") for one in elements(page) if one.tag == "rect" and one.get("y") == "0"]
    assert thin[-1] == "hole"


def test_what_can_be_read_to_scale_has_one_lane() -> None:
    for notation in ("2M: 2M×1", "2M: hole×512", "2M: 4K×256 hole×256"):
        assert draw(parse(notation, BASE))[1] == WIDE
    lane = wide_lane(parse("2M: 4K×128 hole×384", BASE))
    assert [width for _, _, width in lane] == [25, 75]


@pytest.mark.parametrize(("huge", "count"), [("2M", 255), ("1G", 1 << 13)])
def test_many_runs_are_bounded(huge: str, count: int) -> None:
    rest = {"2M": 2 * MIB, "1G": GIB}[huge] // BASE - 2 * count
    notation = f"{huge}: {'4K×1 hole×1 ' * count}4K×1 hole×{rest - 1}"
    page = parse(notation, BASE)
    assert len(wide_lane(page)) <= MOST_RUNS + 1
    assert len(elements(page)) < 3 * MOST_RUNS + MOST_STRIPES + MOST_RUNS
    assert "more runs" in page.words
    assert len(Album().add(notation, BASE).short) < 500


def test_strays_and_contiguous_leaves_are_marked() -> None:
    drawing, _ = draw(parse("2M: 64K×8 4K!×64 hole×320", ARM64.base_page))
    assert re.findall(r'class="(band|alarm)"', drawing) == ["band", "alarm"]
    assert ">4K! ×64<" in drawing


def test_an_album_draws_each_shape_once() -> None:
    album = Album()
    first, second = album.add("2M: 2M×1", BASE), album.add("2M: 2M×1", BASE)
    assert first is second
    assert album.symbols().count("<symbol") == 1


def test_a_shape_that_cannot_be_read_stands_for_itself() -> None:
    picture = Album().add("tables 3; what is <this>?", BASE)
    assert (picture.name, picture.notation) == ("", "tables 3; what is <this>?")
