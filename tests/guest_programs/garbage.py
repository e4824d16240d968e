# SPDX-License-Identifier: MIT
"""Programs whose output is no KTAP: the harness's own tests see that each is reported as what it is."""

from __future__ import annotations

import os
import sys

import hgm


@hgm.stock_case("bytes that are no text, and no KTAP")
def garbage(size: int) -> None:
    """Runs in place of main: see below."""


@hgm.stock_case("more output than anybody wants")
def megabytes(size: int) -> None:
    """Print 64 MiB."""
    for _ in range(64):
        print("x" * (1 << 20))


@hgm.stock_case("no output at all")
def nothing(size: int) -> None:
    """Runs in place of main: see below."""


@hgm.stock_case("fewer results than planned")
def plan_short(size: int) -> None:
    """Runs in place of main: see below."""


INSTEAD = {
    "garbage": bytes(range(256)) * 16,
    "nothing": b"",
    "plan_short": b"KTAP version 1\n1..3\nok 1 plan_short\n",
}

if __name__ == "__main__":
    chosen = next((name for name in INSTEAD if name in sys.argv), None)
    if chosen is None:
        hgm.main()
    else:
        os.write(1, INSTEAD[chosen])
