# SPDX-License-Identifier: MIT
"""Problems: the place, the key and the reason, in one value type from the YAML parser to the operator's screen."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, order=True)
class Problem:
    """One problem in one file. `line` and `column` count from 1; 0 means that the place is not known.

    `key` is the path of the value as a person writes it, `app.ports[0].host`, or empty for the file as a whole.
    """

    file: str
    line: int
    column: int
    key: str
    reason: str

    def __str__(self) -> str:
        place = self.file + (f":{self.line}:{self.column}" if self.line else "")
        return ": ".join(part for part in (place, self.key, self.reason) if part)


class Refused(Exception):
    """Input that cannot be used; it has all problems, in the order of the file."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(sorted(problems))
        super().__init__("\n".join(map(str, self.problems)))


def quoted(value: Any) -> str:
    """A value as a message quotes it: short, on one line."""
    if value is None:
        return "empty"
    if isinstance(value, dict | list):
        return "a mapping" if isinstance(value, dict) else "a list"
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else text[:59] + "…"


class CannotDerive(Exception):
    """An app's derived files cannot be made; the text has the file and the reason."""
