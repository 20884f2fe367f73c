# SPDX-License-Identifier: MIT
"""The JSON Schemas of what people write: manifests, the settings of the node, grants."""

from __future__ import annotations

import functools
import json
import os
from dataclasses import replace
from typing import Any

from archy.manifest.document import Document, load, typed

_HERE = os.path.dirname(__file__)


@functools.cache
def schema(name: str) -> dict[str, Any]:
    """The schema in <name>.schema.json."""
    with open(os.path.join(_HERE, f"{name}.schema.json"), encoding="utf-8") as file:
        result: dict[str, Any] = json.load(file)
    return result


def document(content: bytes, file: str, name: str, may_be_empty: bool = False) -> Document:
    """A file that was not checked before, with numbers where its schema wants them; raises `Refused`."""
    raw = load(content, file, untrusted=True, may_be_empty=may_be_empty)
    return replace(raw, data=typed(raw.data, schema(name)))
