# SPDX-License-Identifier: MIT
"""What the guest's kernel says of itself between cases: taint, lockdep, and the huge page pools."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from harness.errors import GuestFault

# One shell line that prints NAME=VALUE; grep prints FILE:VALUE for the pools. Without lockdep its file is missing.
COMMAND = (
    "echo tainted=$(cat /proc/sys/kernel/tainted); "
    "[ ! -e /proc/lockdep_stats ] || sed -n 's/^ debug_locks: */debug_locks=/p' /proc/lockdep_stats; "
    "cd /sys/kernel/mm/hugepages && grep -r . */nr_hugepages */free_hugepages */resv_hugepages */surplus_hugepages"
)
_POOL = re.compile(r"^hugepages-(\d+)kB/(\w+)_hugepages:(\d+)$")


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """A look at the guest's kernel."""

    tainted: int
    debug_locks: int | None = None  # 1: lockdep is on, 0: it has switched itself off; None: it is not built in
    pools: Mapping[int, Mapping[str, int]] = field(default_factory=dict)  # by size in bytes: nr, free, resv, surplus


def parse(text: str) -> State:
    """Read COMMAND's output. Raises GuestFault if the taint or the pools are not in it."""
    values: dict[str, int] = {}
    pools: dict[int, dict[str, int]] = {}
    for line in text.splitlines():
        if match := _POOL.match(line):
            pools.setdefault(int(match[1]) * 1024, {})[match[2]] = int(match[3])
        elif "=" in line and line.partition("=")[2].strip().isdigit():
            name, _, value = line.partition("=")
            values[name] = int(value)
    if "tainted" not in values or not pools:
        raise GuestFault(f"the guest's state cannot be read: {text!r}", hint="is hugetlb built into this kernel?")
    return State(tainted=values["tainted"], debug_locks=values.get("debug_locks"), pools=pools)
