# SPDX-License-Identifier: MIT
"""report.html: one file that needs nothing else, made from the result model and the files of cases. Pure.

It is read without scripts, too; with them it can be filtered. No network: its policy allows only its own style and
script, by their hashes, so that words of a guest that got past the escaping would still be nothing but words.
"""

from __future__ import annotations

import base64
import hashlib
import re
from importlib import resources

import jinja2
from markupsafe import Markup

from harness.report.results import RunResult
from harness.report.views import Files, Report

# What HTML has no place for; a guest may print anything. Each control character gets the sign that stands for it.
_CONTROLS = {code: 0x2400 + code for code in range(32) if code not in (9, 10)} | {0x7F: 0x2421}
_OTHERS = re.compile("[\u0080-\u009f\ud800-\udfff\u202a-\u202e\u2066-\u2069\ufffe\uffff]")  # C1, surrogates, bidi


def render(result: RunResult, files: Files) -> str:
    """Return the report of a run; of what its cases left in `files` it holds some, and links the rest."""
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(_source),
        undefined=jinja2.StrictUndefined,
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_printable,
    )
    style, script = _source("report.css"), _source("report.js")
    return environment.get_template("report.html.j2").render(
        report=Report(result, files),
        style=Markup(style),
        script=Markup(script),
        style_hash=_hash(style),
        script_hash=_hash(script),
    )


def _source(name: str) -> str:
    return (resources.files("harness.report") / name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _printable(value: object) -> object:
    """What a template's expression shows: text without the characters that would not be seen, or not as they are."""
    if isinstance(value, Markup) or not isinstance(value, str):
        return value
    return _OTHERS.sub("\ufffd", value.translate(_CONTROLS))
