# SPDX-License-Identifier: MIT
"""A point in time after which waiting is over; handed down instead of bare numbers of seconds."""

from __future__ import annotations

import time


class Deadline:
    """Ends `seconds` from now (host's monotonic clock). Waits that share one deadline share its time."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.started = time.monotonic()

    @property
    def passed(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self.started

    @property
    def left(self) -> float:
        """Seconds left, never negative."""
        return max(0.0, self.seconds - self.passed)

    @property
    def over(self) -> bool:
        """Whether no time is left."""
        return self.left == 0.0
