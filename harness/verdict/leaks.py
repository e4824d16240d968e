# SPDX-License-Identifier: MIT
"""Huge pages that a case has not given back: the pools after it against the pools before it."""

from __future__ import annotations

from harness.arch import size_name
from harness.guest.state import State


def pool_changes(before: State, after: State) -> list[str]:
    """Return one line for each count of a pool that is not as it was; empty if all pages are back."""
    return [
        f"pool {size_name(size)}: {name}_hugepages was {before.pools.get(size, {}).get(name)}, is {now}"
        for size, pool in after.pools.items()
        for name, now in pool.items()
        if before.pools.get(size, {}).get(name) != now
    ]
