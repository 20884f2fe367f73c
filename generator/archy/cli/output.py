# SPDX-License-Identifier: MIT
"""How `archy` speaks: results on standard output, progress and errors on standard error, colour on terminals only."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from typing import Any, TextIO

from archy.operations import progress
from archy.operations.progress import CannotDo

DEGRADED, BROKEN = 1, 2  # of `archy status` alone
_CODES = {"red": "31", "green": "32", "yellow": "33", "dim": "2", "bold": "1"}
COLOURS = {
    **dict.fromkeys(("ok", "running", "completed"), "green"),
    **dict.fromkeys(("degraded", "starting", "waiting", "restarting"), "yellow"),
    **dict.fromkeys(("broken", "failed", "missing"), "red"),
    **dict.fromkeys(("stopped", "not installed"), "dim"),
}


def colour(text: str, name: str, stream: TextIO) -> str:
    """`text` in a colour, if `stream` is a terminal and the user did not turn colours off (https://no-color.org)."""
    if not name or os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb" or not stream.isatty():
        return text
    return f"\x1b[{_CODES[name]}m{text}\x1b[0m"


def print_error(error: CannotDo) -> None:
    """An error and its hint."""
    progress.progress(f"{colour('archy:', 'red', sys.stderr)} {error}")
    if error.hint:
        progress.progress(f"{colour('hint:', 'dim', sys.stderr)} {error.hint}")


def print_json(data: Any) -> None:
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
