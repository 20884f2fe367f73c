# SPDX-License-Identifier: MIT
"""What apps that are not well have said last, from the journal."""

from __future__ import annotations

import re

from archy import systemd
from archy.status import OK, Status

_CONTAINER_ID = re.compile("[0-9a-f]{64}")


def with_errors(status: Status) -> Status:
    """The status with the last line of the log of each app that is not well, for those who may read the journal.

    Not part of the file: that is for everybody, and nobody knows what apps write into their logs.
    """
    apps = {
        app_id: {**app, "error": _last_line(app["unit"]) if app["level"] != OK else None}
        for app_id, app in status["apps"].items()
    }
    return {**status, "apps": apps}


def _last_line(unit: str) -> str | None:
    """What an app, or Podman for it, said last."""
    systemds = ("conmon ", unit, "Started ", "Starting ", "Stopped ", "Stopping ", "Failed to start")
    lines = [line for line in systemd.journal(unit, 12) if line.strip() and not line.startswith(systemds)]
    said = ["".join(filter(str.isprintable, line)) for line in lines if not _CONTAINER_ID.fullmatch(line)]
    return said[-1][:300] if said else None
