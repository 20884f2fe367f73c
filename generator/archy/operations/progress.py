# SPDX-License-Identifier: MIT
"""How an operation speaks: lines of progress on standard error, and one kind of error, with its exit code."""

from __future__ import annotations

import sys
from dataclasses import dataclass

OK, FAILED, USAGE, REFUSED, NO_SUCH_APP, NOT_PERMITTED = range(6)


@dataclass(eq=False)  # not frozen: Python itself sets attributes of an exception
class CannotDo(Exception):
    """An error as a person reads it: what could not be done, where, the reason, a hint, and the exit code."""

    what: str
    where: str
    reason: str
    hint: str = ""
    code: int = FAILED

    def __str__(self) -> str:
        return f"{self.what}: {self.where}: {self.reason}"


def progress(text: str) -> None:
    """A line of progress."""
    print(text, file=sys.stderr, flush=True)


class Progress:
    """One line that is rewritten on a terminal, and a line per change elsewhere."""

    def __init__(self) -> None:
        self._last = ""
        self._live = sys.stderr.isatty()

    def show(self, text: str, detail: str = "") -> None:
        """Show a state; `detail` (a running time, say) changes too often to be printed as lines."""
        if self._live:
            sys.stderr.write(f"\r\x1b[K{text}{f' {detail}' if detail else ''}")
            sys.stderr.flush()
        elif text != self._last:
            progress(text)
        self._last = text

    def done(self) -> None:
        """End the line."""
        if self._live and self._last:
            sys.stderr.write("\n")
            sys.stderr.flush()
        self._last = ""
