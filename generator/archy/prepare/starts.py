# SPDX-License-Identifier: MIT
"""What each running app was started with, recorded by its ExecStartPre=, and how it differs from what it should have.

Fast path: no heavy imports.
"""

import hashlib
import os

from archy import paths
from archy.host import read, records
from archy.prepare import stamps

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

# The one entry of an app's `files` that is no path: the digest of all that its image is built from.
CONTEXT = "the context of its build"


def record(root: str, app_id: str, invocation: str) -> None:
    """Record that an app starts now, with what its last pass has made. `invocation` is its unit's invocation ID."""
    # Also a stale stamp: it was right a moment ago, and a change since then must count as a change since the start.
    made = stamps.load(root, app_id).get("started")
    if not isinstance(made, dict):
        return
    content = {**made, "invocation": invocation, "unit": unit_digest(root, app_id)}
    try:
        os.makedirs(paths.under(root, paths.STARTED), mode=0o700, exist_ok=True)
        path = f"{paths.STARTED}/{app_id}.json"
        records.store(root, path, content)
    except OSError as error:  # no reason not to start
        print(f"{app_id}: what it is started with is not kept: {error}")


def load(root: str, app_id: str) -> "dict[str, Any] | None":
    """The record of an app's last start; None if there is none."""
    found = records.load(root, f"{paths.STARTED}/{app_id}.json")
    return found if all(isinstance(found.get(key), dict) for key in ("files", "own")) else None


def unit_digest(root: str, app_id: str) -> str:
    """A digest of the app's unit as the generator wrote it; empty if the generator has written none."""
    content = read.read(paths.under(root, f"{paths.GENERATED}/{paths.unit(app_id)}"))
    return hashlib.sha256(content).hexdigest() if content else ""


def changed(before: "dict[str, str]", now: "dict[str, str]") -> list[str]:
    """The paths whose content is another now, or that came or went, sorted."""
    return sorted(path for path in before.keys() | now.keys() if before.get(path) != now.get(path))
