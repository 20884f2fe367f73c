# SPDX-License-Identifier: MIT
"""Records that programs of archy keep for each other and for their next run: JSON files of root's, written whole.

Fast path: no heavy imports.
"""

import json
import os

from archy import paths
from archy.host import read, write

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_MAX_BYTES = 16 * 1024 * 1024


def load(root: str, path: str) -> "dict[str, Any]":
    """What a record holds; empty if there is none, or if it is no mapping in JSON."""
    try:
        found = json.loads(read.read(paths.under(root, path), _MAX_BYTES) or b"")
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def store(root: str, path: str, record: object, mode: int = 0o600) -> None:
    """Write a record; raises OSError. `mode` 0o644 is for what anybody may read."""
    store_bytes(root, path, json.dumps(record).encode(), mode)


def store_bytes(root: str, path: str, content: bytes, mode: int = 0o600) -> None:
    """The same for bytes: the file belongs to the user of this process, which is root but in tests."""
    write.replace_file(root, path, content, os.geteuid(), os.getegid(), mode)
