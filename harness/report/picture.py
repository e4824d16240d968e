# SPDX-License-Identifier: MIT
"""Pictures of how a huge page is mapped, drawn from the notation of harness.pagetable.shape: inline SVG. Pure.

A picture has two lanes. The thin one is to scale, so that what is small is a hair in it; the wide one gives each run of
leaves or holes room by the fourth root of its size, so that one hole of 4K in a page of 1G can be seen and read. Lines
between them say which part is which. Where the thin lane can be read already, there is one lane, to scale.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby
from operator import itemgetter

from harness.arch import size_name

_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}
_WORD = re.compile(r"(?:(?P<gap>hole|mark)|(?P<number>\d+)(?P<unit>[KMG]?)(?P<stray>!?))×(?P<count>\d+)")
_PAGE = re.compile(r"(\d+)([KMG]?): (.+)")
COLOURED = ("4K", "64K", "2M", "32M", "512M", "1G")  # leaf sizes that have a colour of their own
THIN, GAP, WIDE = 10, 11, 26  # heights of the scaled lane, the lines between, and the lane of runs; CSS pixels
LEGIBLE = 9.0  # per cent of the width that is easily seen
TIGHT, ROOMY = 2.2, 0.8  # per cent of the width that a letter takes on a telephone, and on a desk
MOST_RUNS = 40  # that are drawn one by one in the wide lane
MOST_STRIPES = 256  # that are drawn one by one in the lane to scale
MOST_CELLS = 64  # of a run that are drawn one by one
MOST_NOTATION = 400  # characters of one that are shown
MOST_WORDS = 24  # runs that a description spells out


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """Neighbours of one kind in a huge page."""

    kind: str  # "leaf", "hole", "mark", or "more": runs that are not drawn one by one
    size: int  # bytes of a leaf; of a hole or a mark: of a base page
    count: int
    start: int  # bytes from the start of the huge page
    length: int  # bytes
    stray: bool = False  # it is not where the first leaf of the huge page puts it
    contiguous: bool = False  # each leaf is several entries with the contiguous bit

    @property
    def labels(self) -> tuple[str, ...]:
        """Short words for it, the best first."""
        if self.kind == "more":
            return f"… {self.count} more", f"…{self.count}", "…"
        if self.kind != "leaf":
            return f"{self.kind} {size_name(self.length)}", size_name(self.length)
        name = size_name(self.size) + "!" * self.stray
        return (f"{name} ×{self.count}", name) if self.count > 1 else (name,)

    @property
    def words(self) -> str:
        """What it is, in full."""
        if self.kind == "hole":
            return f"a hole of {size_name(self.length)}"
        if self.kind == "mark":
            return f"{size_name(self.length)} of entries that map nothing but are not empty"
        what = f"{self.count} {'leaves' if self.count > 1 else 'leaf'} of {size_name(self.size)}"
        return what + " (contiguous)" * self.contiguous + " out of place" * self.stray


@dataclass(frozen=True, slots=True)
class Page:
    """A huge page and what it is mapped by."""

    size: int  # bytes
    runs: tuple[Run, ...]

    @property
    def words(self) -> str:
        """The whole of it as a sentence, for those who cannot see the picture."""
        said = [run.words for run in self.runs[:MOST_WORDS]]
        rest = len(self.runs) - len(said)
        return f"Huge page of {size_name(self.size)}: " + ", ".join(said) + (f", and {rest} more runs" if rest else "")


def parse(notation: str, base: int) -> Page:
    """Return the huge page that `notation` describes, of an architecture with base pages of `base` bytes.

    Raises ValueError for anything that `harness.pagetable.shape` does not write.
    """
    whole = _PAGE.fullmatch(notation)
    if not whole:
        raise ValueError(f"{notation!r} is no shape of a huge page")
    huge = int(whole[1]) * _UNITS[whole[2]]
    runs: list[Run] = []
    position = 0
    for word in whole[3].split(" "):
        found = _WORD.fullmatch(word)
        if not found:
            raise ValueError(f"{word!r} is no part of a shape")
        count = int(found["count"])
        size = base if found["gap"] else int(found["number"]) * _UNITS[found["unit"]]
        length = huge if size > huge and count == 1 else size * count  # a leaf may be larger than the huge page
        runs.append(
            Run(
                kind=found["gap"] or "leaf",
                size=size,
                count=count,
                start=position,
                length=length,
                stray=bool(found["stray"]),
                contiguous=not found["gap"] and _contiguous(size, base),
            )
        )
        position += length
    if position != huge or not all(run.count for run in runs):
        raise ValueError(f"the parts of {notation!r} do not make up the whole")
    return Page(huge, tuple(runs))


def _contiguous(size: int, base: int) -> bool:
    """Whether no level of the tables has a leaf of this size: entries are 8 bytes, and a table fills a base page."""
    levels = (base // 8).bit_length() - 1
    return (size.bit_length() - base.bit_length()) % levels != 0


@dataclass(slots=True)
class Album:
    """The pictures of a report, each drawn once, however often it is shown."""

    _drawn: dict[tuple[str, int], Picture] = field(default_factory=dict)

    def add(self, notation: str, base: int) -> Picture:
        """Return the picture of a huge page; one without a drawing for a notation that cannot be read."""
        key = notation, base
        if key not in self._drawn:
            try:
                page = parse(notation, base)
            except ValueError:
                self._drawn[key] = Picture(notation=notation, words=notation[:MOST_NOTATION])
            else:
                drawing, height = draw(page)
                name = f"shape-{len(self._drawn)}"
                self._drawn[key] = Picture(
                    notation=notation, words=page.words, name=name, height=height, drawing=drawing,
                    kinds=tuple(dict.fromkeys(map(_kind, page.runs))),
                )  # fmt: skip
        return self._drawn[key]

    def symbols(self) -> str:
        """Return the SVG that holds every drawing; it takes no room where it stands."""
        drawings = [picture for picture in self._drawn.values() if picture.name]
        symbols = (f'<symbol id="{picture.name}">{picture.drawing}</symbol>' for picture in drawings)
        inside = f"<defs>{PATTERNS}</defs>{''.join(symbols)}"
        return f'<svg class="defs" width="0" height="0" aria-hidden="true">{inside}</svg>'


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """One drawing, by the name of its symbol."""

    notation: str
    words: str
    name: str = ""  # empty: the notation could not be read, and stands for itself
    height: int = 0  # CSS pixels
    drawing: str = ""
    kinds: tuple[str, ...] = ()  # what a legend has to explain

    @property
    def short(self) -> str:
        """The notation, or the start of it if it is long."""
        return self.notation if len(self.notation) <= MOST_NOTATION else self.notation[:MOST_NOTATION] + " …"


PATTERNS = (
    '<pattern id="hatch" width="6" height="6" patternUnits="userSpaceOnUse" patternTransform="rotate(45)">'
    '<path d="M0 0V6" class="hatch"/></pattern>'
    '<pattern id="dots" width="5" height="5" patternUnits="userSpaceOnUse">'
    '<circle cx="2" cy="2" r="1.1" class="dot"/></pattern>'
    '<pattern id="many" width="4" height="4" patternUnits="userSpaceOnUse"><path d="M0 0V4" class="cell"/></pattern>'
) + "".join(
    f'<pattern id="cells-{count}" width="{1 / count:.5f}" height="1"><path d="M0 0V{WIDE}" class="cell"/></pattern>'
    for count in range(2, MOST_CELLS + 1)
)


def draw(page: Page) -> tuple[str, int]:
    """Return a huge page as SVG elements, of which the x coordinates are per cent, and its height in CSS pixels."""
    shown = _bounded(page.runs)
    scaled = [(100 * run.start / page.size, 100 * run.length / page.size) for run in shown]
    if len(shown) == 1 or all(width >= LEGIBLE for _, width in scaled):
        return _wide(shown, scaled, 0), WIDE
    weights = [run.length**0.25 for run in shown]
    roomy, position = [], 0.0
    for weight in weights:
        width = 100 * weight / sum(weights)
        roomy.append((position, width))
        position += width
    top = THIN + GAP
    return _to_scale(page) + _lines(scaled, roomy) + _wide(shown, roomy, top), top + WIDE


def _bounded(runs: Sequence[Run]) -> list[Run]:
    """The runs to be drawn one by one, with one in place of those in the middle that are too many."""
    if len(runs) <= MOST_RUNS:
        return list(runs)
    head, tail = runs[: MOST_RUNS - 9], runs[-8:]
    left_out = runs[len(head) : -8]
    start, end = left_out[0].start, tail[0].start
    more = Run(kind="more", size=0, count=len(left_out), start=start, length=end - start)
    return [*head, more, *tail]


def _to_scale(page: Page) -> str:
    """The thin lane. Small runs come last, with a line around them, so that none is hidden by its neighbours."""
    runs: Sequence[Run] = page.runs
    if len(runs) > MOST_STRIPES:
        runs = _stripes(page)
    parts = [_rect("hole", 0, 100, 0, THIN)]
    for run in sorted(runs, key=lambda run: -run.length):
        if run.kind != "hole" or run.length * MOST_STRIPES < page.size:
            parts.append(_rect(_classes(run), 100 * run.start / page.size, 100 * run.length / page.size, 0, THIN))
    return "".join(parts)


def _stripes(page: Page) -> list[Run]:
    """Equal parts of the page, each with the look of the smallest leaf in it."""
    step = page.size // MOST_STRIPES
    finest: dict[int, Run] = {}
    for run in page.runs:
        for number in range(run.start // step, -(-(run.start + run.length) // step)):
            finest[number] = min(finest.get(number, run), run, key=_fineness)
    stripes = []
    for _, same in groupby(sorted(finest.items(), key=itemgetter(0)), key=lambda pair: _classes(pair[1])):
        (first, run), *rest = same
        stripes.append(replace(run, count=1, start=first * step, length=step * (1 + len(rest))))
    return stripes


def _fineness(run: Run) -> tuple[bool, bool, int]:
    """What comes first of this is seen where there is no room for all."""
    return not run.stray, run.kind == "hole", run.size


def _lines(scaled: Sequence[tuple[float, float]], roomy: Sequence[tuple[float, float]]) -> str:
    """From each border in the lane to scale to the same border in the wide lane."""
    return "".join(
        f'<line class="lead" x1="{left:.2f}%" y1="{THIN}" x2="{right:.2f}%" y2="{THIN + GAP}"/>'
        for (left, _), (right, _) in zip(scaled[1:], roomy[1:], strict=True)
    )


def _wide(runs: Sequence[Run], places: Sequence[tuple[float, float]], top: int) -> str:
    """The lane of runs, with the cells of each, and a word where there is room for one."""
    parts = []
    for run, (left, width) in zip(runs, places, strict=True):
        parts.append(_rect(_classes(run), left, width, top, WIDE))
        if run.kind == "leaf" and run.count > 1:
            fine = run.count > MOST_CELLS or width / run.count < 0.5
            parts.append(_rect("", left, width, top, WIDE, fill="many" if fine else f"cells-{run.count}"))
        if run.contiguous:
            parts.append(_rect("band", left, width, top, WIDE))
        if run.stray:
            parts.append(_rect("alarm", left, width, top, WIDE))
        roomy, tight = (
            next((label for label in run.labels if width >= letter * (len(label) + 1)), "") for letter in (ROOMY, TIGHT)
        )
        place = f'x="{left + width / 2:.2f}%" y="{top + WIDE // 2}"'
        over = "" if run.kind == "leaf" else " over"  # what is not a leaf has no even colour to stand on
        for classes, label in [("", roomy)] if roomy == tight else [(" roomy", roomy), (" tight", tight)]:
            if label:
                parts.append(f'<text class="word{classes}{over}" {place}>{label}</text>')
    return "".join(parts)


def _rect(classes: str, left: float, width: float, top: int, height: int, *, fill: str = "") -> str:
    look = f'class="{classes}"' if classes else f'fill="url(#{fill})"'
    return f'<rect {look} x="{left:.2f}%" y="{top}" width="{width:.2f}%" height="{height}"/>'


def _classes(run: Run) -> str:
    if run.kind != "leaf":
        return run.kind
    name = size_name(run.size)
    return f"leaf s{name if name in COLOURED else 'x'}" + " stray" * run.stray


def _kind(run: Run) -> str:
    """The word under which a legend explains it."""
    if run.kind != "leaf":
        return run.kind
    return size_name(run.size) + "!" * run.stray + " contiguous" * run.contiguous
