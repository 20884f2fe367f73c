# SPDX-License-Identifier: MIT
"""The operator's settings of the node, /etc/archy/node.yml: optional, checked, with defaults."""

from __future__ import annotations

from typing import Any

from archy import paths
from archy.manifest import schema

_LEAST_PRUNE = 550  # MiB, MIN_DISK_SPACE_FOR_BLOCK_FILES in bitcoin, src/validation.h


def parse(content: bytes | None, file: str = paths.NODE) -> dict[str, Any]:
    """The settings in a file's content, with defaults for what it leaves out; raises `Refused`."""
    document = schema.document(content or b"", file, "node", may_be_empty=True)

    from archy.manifest import validation

    found = validation.problems(document, schema.schema("node"))
    bitcoin = document.data.get("bitcoin") if isinstance(document.data, dict) else None
    prune = bitcoin.get("prune") if isinstance(bitcoin, dict) else None
    if isinstance(prune, int) and 0 < prune < _LEAST_PRUNE:
        found.append((("bitcoin", "prune"), f"must be 0 or at least {_LEAST_PRUNE} (MiB), is {prune}"))
    validation.refuse(document, found)
    return _with_defaults(document.data, schema.schema("node"))


def _with_defaults(data: dict[str, Any], part: dict[str, Any]) -> dict[str, Any]:
    result = dict(data)
    for key, inner in part.get("properties", {}).items():
        if key not in result and "default" in inner:
            result[key] = inner["default"]
        if isinstance(result.get(key), dict):
            result[key] = _with_defaults(result[key], inner)
    return result
