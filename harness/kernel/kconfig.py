# SPDX-License-Identifier: MIT
"""Reads a tree's Kconfig files far enough to say what an option depends on."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

SYMBOL = re.compile(r"\b[A-Z0-9_]*[A-Z][A-Z0-9_]+\b")
SELECTORS_SHOWN = 3
LINES_SHOWN = 6


@dataclass(slots=True)
class Entry:
    """What the Kconfig files of a tree say about one option; it may be defined in several places."""

    name: str
    depends: list[str] = field(default_factory=list)  # "depends on" lines, its own and those around it
    places: list[str] = field(default_factory=list)  # "mm/Kconfig:708"
    defaults: list[str] = field(default_factory=list)  # what it is where nobody sets it: all there is without a prompt
    prompt: bool = False  # whether a person can set it
    selected_by: list[str] = field(default_factory=list)  # "X86 if X86_MCE"


def read_entries(tree: Path, srcarch: str) -> dict[str, Entry]:
    """Return every option that the top Kconfig of `tree` reaches for the architecture directory `srcarch`.

    Follows Documentation/kbuild/kconfig-language.rst, less macros: a source line with an unknown one is passed over.
    """
    entries: dict[str, Entry] = {}
    _read_file(tree, "Kconfig", srcarch, [], entries)
    return entries


def explain(name: str, entries: Mapping[str, Entry], config: Mapping[str, str]) -> str:
    """Return the "depends on" lines of option `name` (without CONFIG_) and the present value of each symbol in them.

    Where nobody can set a symbol that is lacking, what would select it is said too.
    """
    entry = entries.get(name)
    if entry is None or not entry.places:
        return "this tree has no such option for this architecture"
    lines: list[str] = []
    todo, seen = [name], set[str]()
    while todo and len(lines) < LINES_SHOWN:
        symbol = todo.pop(0)
        known = entries.get(symbol)
        if known is None or symbol in seen or (lines and known.prompt):
            continue
        seen.add(symbol)
        reasons = [f"depends on {line}" for line in dict.fromkeys(known.depends)]
        if not known.prompt:
            reasons += [f"is {line}" for line in known.defaults if line != "y"]
            if known.selected_by:
                reasons.append(f"is selected by {', or '.join(known.selected_by[:SELECTORS_SHOWN])}")
        lines += [reason if symbol == name else f"{symbol} {reason}" for reason in reasons]
        # What a person can set needs no further words; the rest is where the cause lies.
        todo += [other for reason in reasons for other in SYMBOL.findall(reason) if _value(other, config) == "n"]
    symbols = dict.fromkeys(symbol for line in lines for symbol in SYMBOL.findall(line) if symbol != name)
    values = ", ".join(f"{symbol}={_value(symbol, config)}" for symbol in symbols)
    return ("; ".join(lines) or "depends on nothing") + (f" ({values})" if values else "") + f" at {entry.places[0]}"


def _value(symbol: str, config: Mapping[str, str]) -> str:
    return config.get(f"CONFIG_{symbol}", "n")


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
        elif entry and keyword in ("bool", "tristate", "string", "int", "hex", "prompt"):
            entry.prompt |= bool(rest)
        elif entry and keyword == "select":
            target, _, condition = rest.partition(" ")
            selected = entries.setdefault(target, Entry(target))
            selected.selected_by.append(" ".join(f"{entry.name} {condition}".split()))
        elif entry and keyword in ("def_bool", "def_tristate"):
            entry.defaults.append(rest)
