# SPDX-License-Identifier: MIT
"""What the header of a seeded bug says of it. The lines are explained in patches/seeded-bugs/README.md."""

from __future__ import annotations

import difflib
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.arch import ARCHES, Arch
from harness.errors import BadInput
from harness.guest.cases import STRESS, Case
from harness.kernel import series
from harness.paths import ROOT

SEEDED = ROOT / "patches/seeded-bugs"
TAG = "SEEDED BUG: "
FLAVOURS = ("fast", "debug")
KEYS = ("Category", "Arch", "Notices", "Flavour", "Stress", "Sign")

_LINE = re.compile(r"([A-Z][a-z]+): +(\S.*)")
_SOURCE = re.compile(r" *\[[^\[\]]*\]$")  # what a claim stands on, at its end


@dataclass(frozen=True, slots=True, kw_only=True)
class Bug:
    """One seeded bug."""

    path: Path
    title: str  # what is broken, in a line
    category: str  # whose cases should notice
    arches: tuple[Arch, ...]  # that have the bug; the first one will do
    notices: tuple[str, ...]  # the claims that must fail, without what they stand on
    flavour: str = "fast"  # of the kernel on which it shows
    stress_s: int = 0  # how long the stress cases run, if it needs them
    sign: str = ""  # words in the kernel's own complaint, if that is what should show

    @property
    def name(self) -> str:
        """Its name, which is that of the file."""
        return self.path.stem

    def names(self, claim: str) -> bool:
        """Whether `claim` is one that must fail."""
        return rule(claim) in self.notices


def rule(claim: str) -> str:
    """Return a claim without what it stands on, which is in brackets at its end."""
    return _SOURCE.sub("", " ".join(claim.split()))


def read_all(directory: Path, cases: Sequence[Case]) -> list[Bug]:
    """Return the bugs in `directory` by name. Raises BadInput as `read` does, or if there are none."""
    bugs = [read(path, cases) for path in sorted(directory.glob("*.patch"))]
    if not bugs:
        raise BadInput(f"there are no seeded bugs in {directory}")
    return bugs


def read(path: Path, cases: Sequence[Case]) -> Bug:
    """Return the bug that a patch seeds. Raises BadInput, with the line that is wrong, for a header that does not do.

    `cases` are those there are: a claim that no case makes any more would let a bug be caught for another reason.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise _wrong(path, f"it cannot be read: {error}", hint="it is a mail in UTF-8") from error
    patch, *others = series.read(path)
    if others:
        raise _wrong(path, f"it has {1 + len(others)} patches, and a bug is one")
    message = text.partition("\n---\n")[0]
    paragraphs = [" ".join(part.split()) for part in message.split("\n\n")]
    said = _lines(path, message.rpartition("\n\n")[2])
    _, tagged, title = patch.subject.partition(TAG)
    if not tagged:
        raise _wrong(path, f"its subject does not say {TAG.strip()}")
    if not any(paragraph.startswith("A user ") for paragraph in paragraphs):
        raise _wrong(path, "no paragraph says what a user would suffer", hint='it begins with "A user would"')
    flavour, stress = _one(path, said, "Flavour", "fast"), _one(path, said, "Stress", "0")
    if flavour not in FLAVOURS:
        raise _wrong(path, f"Flavour: {flavour}", hint=f"one of {', '.join(FLAVOURS)}")
    if not re.fullmatch(r"\d+", stress, re.ASCII):
        raise _wrong(path, f"Stress: {stress}", hint="a number of seconds")
    category, categories = _one(path, said, "Category"), {case.category for case in cases} - {STRESS}
    if category not in categories:
        raise _wrong(path, f"Category: {category}", hint=f"one of {', '.join(sorted(categories))}")
    arches = _one(path, said, "Arch").split()
    if unknown := [name for name in arches if name not in ARCHES]:
        raise _wrong(path, f"Arch: {unknown[0]}", hint=f"one or more of {', '.join(ARCHES)}")
    bug = Bug(
        path=path,
        title=title,
        category=category,
        arches=tuple(ARCHES[name] for name in arches),
        notices=tuple(map(rule, said.get("Notices", []))),
        flavour=flavour,
        stress_s=int(stress),
        sign=_one(path, said, "Sign", ""),
    )
    _check_notices(bug, cases)
    return bug


def choose(bugs: Sequence[Bug], names: Iterable[str]) -> list[Bug]:
    """Return the bugs called `names`, or all. Raises BadInput for a name that is none, with the nearest ones."""
    by_name = {bug.name: bug for bug in bugs}
    chosen: dict[str, Bug] = {}
    for name in names:
        wanted = Path(name).name.removesuffix(".patch")
        if wanted not in by_name:
            near = difflib.get_close_matches(wanted, by_name, n=3, cutoff=0.4)
            raise BadInput(
                f"no seeded bug is called {name}",
                hint=f"did you mean {', '.join(near)}?" if near else "./hgm mutants --list names them",
            )
        chosen[wanted] = by_name[wanted]
    return list((chosen or by_name).values())


def sample(bugs: Sequence[Bug], count: int, turn: int) -> list[Bug]:
    """Return `count` of the bugs. With `turn` 0, 1, 2 and so on every one comes up, as often as any other.

    Each sample is spread over the categories: neighbours in the order they are taken from are of different ones.
    """
    ranked = []
    for category, total in Counter(bug.category for bug in bugs).items():
        of_it = [bug for bug in bugs if bug.category == category]
        ranked += [((place + 0.5) / total, bug.name, bug) for place, bug in enumerate(of_it)]
    order = [bug for *_, bug in sorted(ranked, key=lambda one: one[:2])]
    start = turn * count % len(order)
    return (order[start:] + order[:start])[:count]


def _lines(path: Path, paragraph: str) -> dict[str, list[str]]:
    said: dict[str, list[str]] = {}
    for line in paragraph.splitlines():
        match = _LINE.fullmatch(line.rstrip())
        if not match or match[1] not in KEYS:
            near = difflib.get_close_matches(line.partition(":")[0], KEYS, n=1) or KEYS
            raise _wrong(path, f"{line!r} in its last paragraph is not understood", hint=f"known: {', '.join(near)}")
        said.setdefault(match[1], []).append(match[2])
    return said


def _one(path: Path, said: dict[str, list[str]], key: str, default: str | None = None) -> str:
    values = said.get(key, [] if default is None else [default])
    if len(values) != 1:
        raise _wrong(path, f"there {'are several lines' if values else 'is no line'} {key}:")
    return values[0]


def _check_notices(bug: Bug, cases: Sequence[Case]) -> None:
    if not bug.notices:
        raise _wrong(bug.path, "there is no line Notices:")
    for claim in bug.notices:
        having = [case for case in cases if rule(case.claim) == claim]
        if not having:
            near = difflib.get_close_matches(claim, [rule(case.claim) for case in cases], n=1, cutoff=0.3)
            raise _wrong(bug.path, f"no case claims: {claim}", hint=f"the nearest is: {near[0]}" if near else "")
        for arch in bug.arches:
            if not any(case.sizes_on(arch) for case in having):
                raise _wrong(bug.path, f"no case of {arch.name} claims: {claim}")
        if bool(bug.stress_s) != any(case.category == STRESS for case in having):
            raise _wrong(bug.path, f"a line Stress: and a claim of a stress case go together: {claim}")


def _wrong(path: Path, what: str, *, hint: str = "") -> BadInput:
    return BadInput(f"{path}: {what}", hint=hint or f"{SEEDED.relative_to(ROOT)}/README.md says what a header holds")
