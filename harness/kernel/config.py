# SPDX-License-Identifier: MIT
"""The kernel's configuration: fragments from kconfigs/, what they ask for, and whether it was given."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from harness.arch import Arch
from harness.errors import BadInput
from harness.kernel import kconfig
from harness.paths import ROOT

KCONFIGS = ROOT / "kconfigs"
HGM = "CONFIG_HUGETLB_HIGH_GRANULARITY_MAPPING"
TUNING = "tuning"  # the fragment of what no verdict depends on
FLAVOURS = {"fast": ("fast",), "debug": ("fast", "debug")}
# What a kernel built elsewhere must have, by fragment, and why.
DEMANDED = {"boot": "to boot", "tests": "for the tests"}
LINE = re.compile(r"^(?:(CONFIG_\w+)=(.*)|# (CONFIG_\w+) is not set)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Fragment:
    """A piece of configuration, rendered."""

    name: str
    text: str


@dataclass(frozen=True, slots=True)
class Lost:
    """An option that was asked for and is not so in the final configuration."""

    name: str
    asked: str
    got: str
    fragment: str

    @property
    def symbol(self) -> str:
        """Its name as Kconfig files have it."""
        return self.name.removeprefix("CONFIG_")


def fragments(arch: Arch, flavour: str, *, hgm: bool, hvo: bool, extra: Sequence[Path] = ()) -> tuple[Fragment, ...]:
    """Return the fragments for a kernel, in the order in which they are merged: the user's come last and win.

    `hgm` and `hvo` say whether the tree has high-granularity mapping, and the vmemmap optimisation for `arch`. Raises
    BadInput for an unknown flavour or a fragment that is not there or has a line that is none.
    """
    if flavour not in FLAVOURS:
        raise BadInput(f"unknown kernel flavour {flavour!r}", hint=f"known: {', '.join(FLAVOURS)}")
    names = [TUNING, *DEMANDED, "observe", *FLAVOURS[flavour], *(["hgm"] if hgm else [])]
    return (*(_render(name, arch, flavour, hvo=hvo) for name in names), *(read(path) for path in extra))


def read(path: Path) -> Fragment:
    """Return the user's fragment. Raises BadInput if it is not there, or has a line that is none."""
    if not path.is_file():
        raise BadInput(f"the kconfig fragment {path} is not {'a file' if path.exists() else 'there'}")
    text = path.read_text(errors="replace")
    for number, line in enumerate(text.splitlines(), start=1):
        if line.strip() and not LINE.fullmatch(line.rstrip()) and not line.startswith("#"):
            raise BadInput(
                f"{path}:{number}: {line.strip()!r} is no kconfig line",
                hint="CONFIG_NAME=y, or # CONFIG_NAME is not set",
            )
    return Fragment(str(path), "\n".join(line.rstrip() for line in text.splitlines()) + "\n")


def parse(text: str) -> dict[str, str]:
    """Return the options of a fragment or .config: "y", "m", a number, a quoted string, or "n" for "is not set"."""
    return {found[1] or found[3]: found[2].strip() if found[1] else "n" for found in LINE.finditer(text)}


def requested(pieces: Sequence[Fragment]) -> dict[str, tuple[str, str]]:
    """Return what the fragments ask for, the last one winning: option to (value, fragment's name)."""
    return {name: (value, piece.name) for piece in pieces for name, value in parse(piece.text).items()}


def lost(pieces: Sequence[Fragment], config: Mapping[str, str]) -> list[Lost]:
    """Return every option of the fragments that differs in the final configuration `config`."""
    return [
        Lost(name, asked, config.get(name, "n"), fragment)
        for name, (asked, fragment) in requested(pieces).items()
        if config.get(name, "n") != asked
    ]


def check(pieces: Sequence[Fragment], config: Mapping[str, str], tree: Path, srcarch: str) -> str:
    """Raise BadInput that names each lost option, the value asked for and got, and what it depends on.

    There are two exceptions. What only makes the kernel quicker may be unknown to the tree: Linux 6.12 has no EMBEDDED
    any more. And a series may have high-granularity mapping for one architecture only: then the reason is returned
    (else ""), and whoever expects the feature asks the kernel.
    """
    if not lost(pieces, config):
        return ""
    entries = kconfig.read_entries(tree, srcarch)
    known = {symbol for symbol, entry in entries.items() if entry.places}
    gone = [item for item in lost(pieces, config) if item.fragment != TUNING or item.symbol in known]
    said = {item.name: kconfig.explain(item.symbol, entries, config) for item in gone}
    excused = ""
    if HGM in said and re.search(r"\bARCH_\w+=n", said[HGM]):
        excused = f"{HGM} cannot be had for this architecture: it {said[HGM]}"
        gone = [item for item in gone if item.name != HGM]
    if gone:
        lines = [
            f"{item.name}: asked {item.asked} (kconfigs fragment {item.fragment}), got {item.got}; {said[item.name]}"
            for item in gone
        ]
        raise BadInput(
            "\n  ".join(["the kernel's configuration drops what was asked for:", *lines]),
            hint="give the options they depend on with --kconfig FILE, or take the line out of the fragment",
        )
    return excused


def missing_options(config_text: str, arch: Arch) -> list[str]:
    """Return what a kernel built elsewhere lacks, as "CONFIG_X=m, needed =y to boot"; empty if it will do.

    The harness loads no modules, so "m" counts as lacking. Only the fragments in DEMANDED count.
    """
    config = parse(config_text)
    # Whether this image's source could have had it with high-granularity mapping is not to be seen.
    hvo = arch.kernel_arch == "x86_64" and config.get(HGM) != "y"
    return [
        f"{name}={config.get(name, 'n')}, needed ={value} {reason}"
        for fragment, reason in DEMANDED.items()
        for name, value in parse(_render(fragment, arch, "fast", hvo=hvo).text).items()
        if value != "n" and config.get(name, "n") != value
    ]


def _render(name: str, arch: Arch, flavour: str, *, hvo: bool) -> Fragment:
    environment = Environment(
        loader=FileSystemLoader(KCONFIGS),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    template = environment.get_template(f"{name}.config.j2")
    return Fragment(name, template.render(arch=arch, flavour=flavour, hvo=hvo))
