# SPDX-License-Identifier: MIT
"""Programs whose output is not what a guest test prints. They go past the frame, which would not let them."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

# By hand, from the checkout; the harness sets PYTHONPATH itself.
sys.path.append(str(Path(__file__).resolve().parents[2] / "guest_tests/lib"))

import hgm


@hgm.stock_case("prints bytes that are no text, and ends well", deadline_s=10)
def garbage(_: hgm.Context) -> None:
    write(bytes(range(256)) * 8 + b"\nok, but not KTAP\n\xff\xfe\x00")


@hgm.stock_case("prints 64 MiB within KTAP", deadline_s=30)
def megabytes(_: hgm.Context) -> None:
    write(b"KTAP version 1\n1..1\n")
    line = b"# " + b"x" * 1021 + b"\n"
    for _number in range(64):
        write(line * 1024)
    write(b"ok 1 megabytes\n")


@hgm.stock_case("prints nothing, and ends well", deadline_s=10)
def nothing(_: hgm.Context) -> None:
    pass


@hgm.stock_case("plans three results, gives one, and ends well", deadline_s=10)
def plan_short(_: hgm.Context) -> None:
    write(b"KTAP version 1\n1..3\nok 1 plan_short\n")


@hgm.stock_case("says ok and exits with 1", deadline_s=10)
def exit_clash(_: hgm.Context) -> None:
    write(b"KTAP version 1\n1..1\nok 1 exit_clash\n")
    os._exit(1)


@hgm.stock_case("says no and never exits, long before its deadline", deadline_s=1800)
def lingers(_: hgm.Context) -> None:
    write(b"KTAP version 1\n1..1\nnot ok 1 lingers\n")
    while True:
        signal.pause()


def write(data: bytes) -> None:
    """Write all of it to stdout."""
    while data:
        data = data[os.write(1, data) :]


_PAST_THE_FRAME: tuple[Callable[[hgm.Context], None], ...] = (
    garbage, megabytes, nothing, plan_short, exit_clash, lingers
)  # fmt: skip


if __name__ == "__main__":
    for program in _PAST_THE_FRAME:
        if program.__name__ in sys.argv:
            program(hgm.Context(huge=0, base=0, hgm=False))
            sys.exit(0)
    hgm.main()
