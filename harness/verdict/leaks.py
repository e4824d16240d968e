# SPDX-License-Identifier: MIT
"""Huge pages that a case has not given back: the pools after it against the pools before it."""

from __future__ import annotations

from harness.arch import size_name
from harness.guest.state import State


def pool_changes(before: State, after: State) -> list[str]:
    """Return one line for each count of a pool that is not as it was; empty if all pages are back."""
    was, now = _counts(before), _counts(after)
    return [
        f"pool {size_name(size)}: {name}_hugepages was {was.get((size, name))}, is {now.get((size, name))}"
        for size, name in was | now
        if was.get((size, name)) != now.get((size, name))
    ]


def _counts(state: State) -> dict[tuple[int, str], int]:
    return {(size, name): count for size, pool in state.pools.items() for name, count in pool.items()}
