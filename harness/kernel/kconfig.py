# SPDX-License-Identifier: MIT
"""Reads a tree's Kconfig files far enough to say what an option depends on."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

SYMBOL = re.compile(r"\b[A-Z][A-Z0-9_]+\b")


@dataclass(slots=True)
class Entry:
    """What the Kconfig files of a tree say about one option; it may be defined in several places."""

    name: str
    depends: list[str] = field(default_factory=list)  # "depends on" lines, its own and those around it
    places: list[str] = field(default_factory=list)  # "mm/Kconfig:708"


def read_entries(tree: Path, srcarch: str) -> dict[str, Entry]:
    """Return every option that the top Kconfig of `tree` reaches for the architecture directory `srcarch`.

    Follows Documentation/kbuild/kconfig-language.rst, less macros: a source line with an unknown one is passed over.
    """
    entries: dict[str, Entry] = {}
    _read_file(tree, "Kconfig", srcarch, [], entries)
    return entries


def explain(entry: Entry | None, config: Mapping[str, str]) -> str:
    """Return where an option is defined, its "depends on" lines and the present value of each symbol in them."""
    if entry is None:
        return "this tree has no such option for this architecture"
    if not entry.depends:
        return f"depends on nothing; see {entry.places[0]} for its prompt and type"
    lines = "; ".join(f"depends on {line}" for line in dict.fromkeys(entry.depends))
    symbols = dict.fromkeys(name for line in entry.depends for name in SYMBOL.findall(line))
    values = ", ".join(f"{name}={config.get(f'CONFIG_{name}', 'n')}" for name in symbols)
    return f"{lines} ({values}) at {entry.places[0]}"


def _read_file(tree: Path, name: str, srcarch: str, around: list[str], entries: dict[str, Entry]) -> None:
    file = tree / name
    if not file.is_file():
        return
    # One element for each open block: the condition it puts on what is inside, or "".
    blocks: list[str] = []
    entry: Entry | None = None
    in_block_head = False  # between "menu" or "choice" and its first entry, where "depends on" is the block's own
    help_indent: int | None = None
    lines = file.read_text(errors="replace").replace("\\\n", " ").splitlines()
    for number, line in enumerate(lines, start=1):
        text = line.strip()
        if not text:
            continue
        indent = len(line.expandtabs()) - len(line.expandtabs().lstrip())
        if help_indent is not None:
            if help_indent < 0:
                help_indent = max(indent, 1)
            if indent >= help_indent:
                continue
            help_indent = None
        if text.startswith("#"):
            continue
        keyword, _, rest = text.partition(" ")
        rest = rest.strip()
        if keyword in ("help", "---help---"):
            help_indent = -1
        elif keyword in ("config", "menuconfig"):
            entry = entries.setdefault(rest, Entry(rest))
            entry.places.append(f"{name}:{number}")
            entry.depends += [condition for condition in (*around, *blocks) if condition]
            in_block_head = False
        elif keyword in ("menu", "choice"):
            blocks.append("")
            entry, in_block_head = None, True
        elif keyword == "if":
            blocks.append(rest)
            entry, in_block_head = None, False
        elif keyword in ("endmenu", "endif", "endchoice"):
            if blocks:
                blocks.pop()
            entry, in_block_head = None, False
        elif keyword == "comment":
            entry, in_block_head = None, False
        elif keyword in ("source", "rsource"):
            path = rest.strip('"').replace("$(SRCARCH)", srcarch).replace("$SRCARCH", srcarch)
            conditions = [condition for condition in (*around, *blocks) if condition]
            _read_file(tree, path, srcarch, conditions, entries)
            entry, in_block_head = None, False
        elif keyword == "depends" and rest.startswith("on "):
            condition = " ".join(rest.removeprefix("on ").split("#")[0].split())
            if entry:
                entry.depends.append(condition)
            elif in_block_head:
                blocks[-1] = f"({blocks[-1]}) && ({condition})" if blocks[-1] else condition
