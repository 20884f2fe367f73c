# SPDX-License-Identifier: MIT
"""What tests of health and recovery are made of: what a probe found, as a pass has read it."""

from __future__ import annotations

import json
import time
from typing import Any

from support import UP

from archy.probe.checks import REFUSED
from archy.probe.report import CheckResult, ContainerReport, PodmanContainer, Report

ID, OTHER = "a" * 64, "b" * 64
ASKED = UP - 20  # when the last probe was made
HEALTH = {"kind": "tcp", "port": 80, "path": "/", "command": [], "timeout": 5, "interval": 30, "retries": 3}
YES = CheckResult(True, "", "", ASKED - 1)


def no(kind: str = REFUSED, said: str = "port 80: refused", at: float = ASKED - 1) -> CheckResult:
    """The answer of an app that does not serve."""
    return CheckResult(False, kind, said, at)


def container(check: CheckResult | None = YES, **fields: Any) -> ContainerReport:
    """A container of an app that serves, if nothing else is said."""
    return ContainerReport(**{"id": ID, "cpu": 1.0, "check": check, **fields})


def listed(identity: str = ID, state: str = "running", app: str = "web") -> PodmanContainer:
    """What Podman says of the container of an app."""
    return PodmanContainer(identity, state, app, f"archy-{app}.service")


def probe(*known: PodmanContainer, at: float = ASKED, podman_at: float | None = None, **fields: Any) -> Report:
    """What a probe found: containers that Podman knows, and in `apps` what runs."""
    return Report(at=at, containers=known, podman_at=at if podman_at is None else podman_at, **fields)


def file(containers: tuple[str, ...] = (), **fields: Any) -> dict[str, Any]:
    """The content of probe.json: apps with a container that serves, all well if nothing else is said."""
    now = time.monotonic()
    apps = {
        app: {
            "id": f"{number:064x}",
            "stopped": False,
            "main_stopped": False,
            "frozen": False,
            "cpu": 1.0,
            "forwarded": True,
            "check": {"ok": True, "kind": "", "said": "", "at": now},
            "names": None,
        }
        for number, app in enumerate(containers)
    }
    known = [[apps[app]["id"], "running", app, f"archy-{app}.service"] for app in containers]
    podman = {"at": now, "error": "", "containers": known, "seen": []}
    well = {"at": now, "load": 0.1, "apps": apps, "podman": podman, "pasta": None, "timers": [], "digest": "1"}
    return {**well, **fields}


def pack(found: dict[str, Any]) -> str:
    """The bytes of the file."""
    return json.dumps(found)
