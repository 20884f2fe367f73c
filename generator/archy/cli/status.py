# SPDX-License-Identifier: MIT
"""`archy status` and `archy reconcile`: the node as a whole."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from datetime import datetime
from typing import Any

from archy import paths
from archy.apps import installed
from archy.cli.output import BROKEN, COLOURS, DEGRADED, colour, print_json, table
from archy.health import current
from archy.host import systemd
from archy.operations.progress import FAILED, OK, progress
from archy.prepare import stamps
from archy.reconcile import plan, reconcile
from archy.reconcile import status as reconcile_status
from archy.reconcile.status import Status
from archy.recover import incidents

_OLD = 90.0  # seconds; three passes
_EXITS = {"ok": OK, "degraded": DEGRADED, "broken": BROKEN}


def read() -> Status:
    """The status for root as it is now, for everybody else as the last pass saw it; empty before the first."""
    last = reconcile_status.load("/")
    return _now(last) if os.geteuid() == 0 and systemd.booted() else last


def show(as_json: bool) -> int:
    """archy status."""
    last, found = reconcile_status.load("/"), read()
    if not found:
        progress("no pass was made yet: systemctl start archy-reconcile.service")
        return BROKEN
    found = with_errors(found)
    age = time.monotonic() - last["monotonic"] if last else None
    if as_json:
        print_json(
            {**found, "last_pass": last.get("time"), "last_pass_age": round(age, 1) if age is not None else None}
        )
        return _EXITS[found["level"]]
    rows = []
    for app_id, app in found["apps"].items():
        desired = _until(app) if app["current"] == "stopped" else ""
        notes = [*app["problems"], *app["stale"], *([app["error"]] if app["error"] else []), desired]
        notes += [f"waiting for its image: {app['image']}"] if app["image"] else []
        notes += [app["held"]] if app["held"] else []
        notes += [f"waits for {', '.join(app['waits_for'])}"] if app["waits_for"] else []
        rows.append([app_id, app["current"], _span(found, app["since"]), str(app["restarts"]), _joined(notes)])
    if rows:
        table(["APP", "STATE", "FOR", "RESTARTS", "NOTES"], rows, COLOURS)
    for name, part in found["node"].items():
        for problem in part["problems"]:
            print(f"{name}: {problem}")
    _print_rest(found, age)
    return _EXITS[found["level"]]


def _until(app: dict[str, Any]) -> str:
    return "until archy app start, or unmasked" if app["desired"] == "stopped" else "until it is started, or a boot"


def _joined(notes: list[str]) -> str:
    return "; ".join(note.replace("\n", " ") for note in dict.fromkeys(notes) if note)


def _print_rest(found: Status, age: float | None) -> None:
    podman = found["node"]["podman"]
    if podman["problems"] and podman["answered"]:
        print(f"podman: answered last at {podman['answered']}")
    if jumped := found["node"]["clock"]["jumped"]:
        print(f"clock: jumped by {jumped['by']:+d} s, seen at {jumped['at']}")
    if found["node"]["passes"]["timer"] != "active":
        print("passes: archy-reconcile.timer is stopped, as after systemctl stop 'archy-*'; any app's start starts it")
    last = "no pass was made since the boot" if age is None else f"last pass {age:.0f} s ago"
    print(f"node: {colour(found['level'], COLOURS[found['level']], sys.stdout)}, {last}")


def _span(found: Status, since: str | None) -> str:
    if since is None:
        return "-"
    seconds = int(found["wall"] - datetime.fromisoformat(since).timestamp())
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds // size} {unit}"
    return f"{max(0, seconds)} s"


def _now(last: Status) -> Status:
    """The node as it is at this moment, judged as a pass would; failures of the last pass remain."""
    failures = {app_id: failure for app_id in installed.ids("/")[0] if (failure := _failure(app_id, last))}
    for name, part in ((paths.SECRETS_KEY, "secrets"), (paths.NODE_KEY, "files")):
        if last and (problems := last["node"][part]["problems"]):
            failures[name] = problems[0]
    node = current.observe("/", last, failures)
    judged = reconcile_status.assess(plan.make(node, incidents.load("/")))
    for app in node.apps:  # after a change of a moment ago, the last pass is still right
        previous = last["apps"].get(app.id) if last else None
        if previous and not app.comparable and previous["invocation"] == app.unit.invocation:
            judged["apps"][app.id]["stale"] = previous["stale"]
    if last and time.monotonic() - last["monotonic"] > _OLD and judged["node"]["passes"]["timer"] == "active":
        judged["node"]["passes"]["problems"].append("no pass was made for a long time: journalctl -u archy-reconcile")
        judged["node"]["passes"]["level"] = reconcile_status.DEGRADED
        judged["level"] = max(judged["level"], reconcile_status.DEGRADED, key=reconcile_status.LEVELS.index)
    return judged


def _failure(app_id: str, last: Status) -> str:
    """The reason why an app cannot be prepared, from its stamp, or, without one, from the last pass."""
    stamp = stamps.load("/", app_id)
    if "failure" in stamp or stamps.fresh("/", app_id) is not None:
        return str(stamp.get("failure", ""))
    return str(last["apps"].get(app_id, {}).get("failure", "")) if last else ""


def run_reconcile(dry_run: bool) -> int:
    """archy reconcile: a pass now, or its plan."""
    if dry_run:
        return reconcile.run("/", dry=True)
    done = subprocess.run(["systemctl", "start", reconcile.UNIT], check=False).returncode
    unit = systemd.units([reconcile.UNIT]).get(reconcile.UNIT)
    for line in systemd.invocation(unit.invocation) if unit else ():
        print(line)
    return FAILED if done else OK


_CONTAINER_ID = re.compile("[0-9a-f]{64}")


def with_errors(status: Status) -> Status:
    """The status with the last line of the log of each app that is not ok, for users who may read the journal.

    Not part of status.json, which everybody may read: an app may write anything into its log.
    """
    apps = {
        app_id: {**app, "error": _error(app) if app["level"] != reconcile_status.OK and not app["image"] else None}
        for app_id, app in status["apps"].items()
    }
    return {**status, "apps": apps}


def _error(app: dict[str, Any]) -> str | None:
    line = _last_line(app["unit"])
    # The unit of a refused app logs its problems.
    return None if line and any(line[:100] in problem for problem in app["problems"]) else line


def _last_line(unit: str) -> str | None:
    """The last line of the log that an app wrote, or Podman for it."""
    of_systemd = ("conmon ", unit, "Started ", "Starting ", "Stopped ", "Stopping ", "Failed to start")
    lines = [line for line in systemd.journal(unit, 12) if line.strip() and not line.startswith(of_systemd)]
    printable = ["".join(filter(str.isprintable, line)) for line in lines if not _CONTAINER_ID.fullmatch(line)]
    return printable[-1][:300] if printable else None
