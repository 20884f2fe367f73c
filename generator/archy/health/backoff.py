# SPDX-License-Identifier: MIT
"""Which apps must be restarted, or let go on. Pure: the node as it is in, steps out.

An app is restarted when it runs on other content than it should, and when it does not serve. A file that was wrong on
the disk is no reason: what counts is what the running process was started with. An app that is stopped, or is about to
start anyway, is left alone.
"""

from __future__ import annotations

import math


def backoff(first: float, count: float, longest: float) -> float:
    """A pause, in seconds, that doubles with each attempt."""
    return min(longest, math.ldexp(first, min(int(count) - 1, 20)))
