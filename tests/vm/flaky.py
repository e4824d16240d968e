# SPDX-License-Identifier: MIT
"""Writes a guest program that fails the first time and passes from then on: `python -m tests.vm.flaky DIR [SECONDS]`.

Guests are clones, so what differs from one time to the next must come from outside: it is the clock. The program waits
until a moment that is written into it, and fails; begun after that moment, it passes.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

PROGRAM = """\
# SPDX-License-Identifier: MIT
import time

import hgm

TURN = {turn!r}  # seconds since the epoch


@hgm.stock_case("fails at first, and passes then", deadline_s=120, sizes="2M")
def turns(_: hgm.Context) -> None:
    early = time.time() < TURN
    time.sleep(max(0.0, TURN - time.time()))
    assert not early, "it was too early"


if __name__ == "__main__":
    hgm.main()
"""


def write(directory: Path, seconds: float) -> Path:
    """Write the program, which turns `seconds` from now, below `directory`; return the path to give to the harness."""
    place = directory / "guest_programs"
    place.mkdir(parents=True, exist_ok=True)
    (place / "flaky.py").write_text(PROGRAM.format(turn=time.time() + seconds))
    return place


if __name__ == "__main__":
    print(write(Path(sys.argv[1]), float(sys.argv[2]) if len(sys.argv) > 2 else 30.0))
