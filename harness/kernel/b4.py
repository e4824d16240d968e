# SPDX-License-Identifier: MIT
"""A series by its message id: fetched by b4, where that is installed."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from harness.errors import BadInput, HostFault
from harness.paths import cache_dir, digest, used, written_whole
from harness.process import run, tail

_MESSAGE_ID = re.compile(r"(?:https://(?:lore|patch\.msgid)\S*/)?<?([^\s<>/@]+@[^\s<>/@]+?)>?/?")


def message_id(text: str) -> str:
    """Return the message id that `text` is, or that a link to a mail archive ends in; "" if it is none."""
    found = _MESSAGE_ID.fullmatch(text)
    return found[1] if found else ""


def fetch(name: str) -> Path:
    """Return the mbox of the series that the mail with id `name` is part of, fetched once and kept in the cache.

    Raises HostFault if b4 is not installed, BadInput with its words if it finds no series.
    """
    target = cache_dir() / "mail" / digest(name)
    if not target.exists():
        if not shutil.which("b4"):
            hint = "pip install b4, or save the series as an mbox and give its path"
            raise HostFault(f"b4 is needed to fetch {name} and is not there", hint=hint)
        with written_whole(target) as work:
            done = run(["b4", "am", "--no-cover", "--outdir", work, name], cwd=work, check=False)
            if done.returncode or not list(work.glob("*.mbx")):
                raise BadInput(f"b4 finds no series for {name}\n{tail(done.stderr or done.stdout)}")
    return next(used(target).glob("*.mbx"))
