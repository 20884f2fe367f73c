# SPDX-License-Identifier: MIT
"""What apps that are not well have said last, from the journal."""

from __future__ import annotations

import re
from typing import Any

from archy import systemd
from archy.status import OK, Status

_CONTAINER_ID = re.compile("[0-9a-f]{64}")


def with_errors(status: Status) -> Status:
    """The status with the last line of the log of each app that is not well, for those who may read the journal.

    Not part of the file: that is for everybody, and nobody knows what apps write into their logs.
    """
    apps = {
        app_id: {**app, "error": _error(app) if app["level"] != OK and not app["image"] else None}
        for app_id, app in status["apps"].items()
    }
    return {**status, "apps": apps}


def _error(app: dict[str, Any]) -> str | None:
    said = _last_line(app["unit"])
    # A unit that states a refusal logs what is known as a problem already.
    return None if said and any(said[:100] in problem for problem in app["problems"]) else said


def _last_line(unit: str) -> str | None:
    """What an app, or Podman for it, said last."""
    systemds = ("conmon ", unit, "Started ", "Starting ", "Stopped ", "Stopping ", "Failed to start")
    lines = [line for line in systemd.journal(unit, 12) if line.strip() and not line.startswith(systemds)]
    said = ["".join(filter(str.isprintable, line)) for line in lines if not _CONTAINER_ID.fullmatch(line)]
    return said[-1][:300] if said else None
