# SPDX-License-Identifier: MIT
"""Pauses between attempts at the same thing, which double as long as it goes on. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Backoff:
    """How long to wait after so many attempts in a row. Times are in seconds.

    `short` is the pause after each of the `free` attempts; those after them have pauses that begin with `first` and
    double, up to `longest`. The row ends when `calm`, or twice the pause, has passed without another attempt.
    """

    first: float
    longest: float
    calm: float
    free: int = 0
    short: float = 0

    def pause(self, count: float) -> float:
        """The pause after this number of attempts in a row."""
        if count <= self.free:
            return self.short
        return min(self.longest, math.ldexp(self.first, min(int(count - self.free) - 1, 20)))

    def goes_on(self, count: float, seconds: float) -> bool:
        """Whether another attempt, so many seconds after the last one, belongs to the same row."""
        return seconds <= max(self.calm, 2 * self.pause(count))
