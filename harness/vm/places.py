# SPDX-License-Identifier: MIT
"""How many guests may work at once on this host, whichever processes they belong to."""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator, Sequence
from typing import IO

from filelock import FileLock, Timeout

from harness.paths import cache_dir
from harness.pools import Pool
from harness.process import say
from harness.vm.command import BASE_MEMORY

POLL_SECONDS = 0.02


def number(pools: Sequence[Pool]) -> int:
    """Return how many guests with these pools may work at once: one for each core, as far as memory goes, but one.

    A clone only takes the memory that it writes to, which is at most its pools and a little more.
    """
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    size = sum(pool.size * pool.count for pool in pools)
    return max(1, min(len(os.sched_getaffinity(0)), (total - BASE_MEMORY) // (size + BASE_MEMORY)))


@contextlib.contextmanager
def taken(pools: Sequence[Pool]) -> Iterator[None]:
    """Hold one of the host's places for guests; says so where all are taken, and waits in turn."""
    directory = cache_dir() / "locks"
    directory.mkdir(exist_ok=True)
    places = [FileLock(directory / f"guest-{number}.lock") for number in range(number(pools))]
    # Who looks for a place is at the head of a queue, which the kernel keeps in order (fs/locks.c): else the one that
    # has just given up a place, and looks at once, would mostly be the one that gets it.
    with (directory / "guests.queue").open("wb") as queue:
        if not _flocked(queue, fcntl.LOCK_NB):
            say(f"other runs wait for one of {len(places)} places for guests; waiting behind them")
            _flocked(queue)
        waited = False
        while (held := next(filter(_acquired, places), None)) is None:
            if not waited:
                say(f"{len(places)} guests are at work already; waiting for one of them to end")
            waited = True
            time.sleep(POLL_SECONDS)
    try:
        yield
    finally:
        held.release()


def _flocked(file: IO[bytes], how: int = 0) -> bool:
    """Lock a file until it is closed; with LOCK_NB only if nobody else has."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | how)
    except BlockingIOError:
        return False
    return True


def _acquired(place: FileLock) -> bool:
    try:
        place.acquire(timeout=0)
    except Timeout:
        return False
    return True
