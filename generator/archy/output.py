# SPDX-License-Identifier: MIT
"""How `archy` speaks: results on standard output, progress and errors on standard error, colour on terminals only."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TextIO

OK, FAILED, USAGE, REFUSED, NO_SUCH_APP, NOT_PERMITTED = range(6)
DEGRADED, BROKEN = 1, 2  # of `archy status` alone
_COLOURS = {"red": "31", "green": "32", "yellow": "33", "dim": "2", "bold": "1"}


@dataclass(eq=False)  # not frozen: Python itself sets attributes of an exception
class CannotDo(Exception):
    """An error as a person reads it: what could not be done, where, why, and a hint. `code` is the exit code."""

    what: str
    where: str
    why: str
    hint: str = ""
    code: int = FAILED

    def __str__(self) -> str:
        return f"{self.what}: {self.where}: {self.why}"


def colour(text: str, name: str, stream: TextIO) -> str:
    """`text` in a colour, if `stream` is a terminal and nobody asked for none (https://no-color.org)."""
    if not name or os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb" or not stream.isatty():
        return text
    return f"\x1b[{_COLOURS[name]}m{text}\x1b[0m"


def say(text: str) -> None:
    """A line of progress."""
    print(text, file=sys.stderr, flush=True)


def complain(error: CannotDo) -> None:
    """An error and its hint."""
    say(f"{colour('archy:', 'red', sys.stderr)} {error}")
    if error.hint:
        say(f"{colour('hint:', 'dim', sys.stderr)} {error.hint}")


def emit(data: Any) -> None:
    """A result for a program."""
    print(json.dumps(data, indent=2, ensure_ascii=False))


def table(head: Sequence[str], rows: Sequence[Sequence[str]], colours: dict[str, str] | None = None) -> None:
    """A result for a person. `colours` gives cells of a certain text a colour."""
    widths = [max(len(row[column]) for row in [head, *rows]) for column in range(len(head))]
    for index, row in enumerate([head, *rows]):
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=True)]
        names = ["bold" if index == 0 else (colours or {}).get(cell, "") for cell in row]
        line = "  ".join(colour(cell, name, sys.stdout) for cell, name in zip(cells, names, strict=True))
        print(line.rstrip())


class Progress:
    """One line that is rewritten on a terminal, and a line per change elsewhere."""

    def __init__(self) -> None:
        self._last = ""
        self._live = sys.stderr.isatty()

    def show(self, text: str, detail: str = "") -> None:
        """Show where things are; `detail` (a running time, say) changes too often to be printed as lines."""
        if self._live:
            sys.stderr.write(f"\r\x1b[K{text}{f' {detail}' if detail else ''}")
            sys.stderr.flush()
        elif text != self._last:
            say(text)
        self._last = text

    def done(self) -> None:
        """End the line."""
        if self._live and self._last:
            sys.stderr.write("\n")
            sys.stderr.flush()
        self._last = ""
