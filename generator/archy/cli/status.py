# SPDX-License-Identifier: MIT
"""`archy status`, `archy reconcile` and `archy secret`: the node as a whole."""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import time
from datetime import datetime
from typing import Any

from archy.apps import installed
from archy.cli.output import BROKEN, DEGRADED, colour, print_json, table
from archy.health import current
from archy.host import systemd
from archy.operations.progress import FAILED, OK, progress
from archy.prepare import stamps
from archy.reconcile import plan, reconcile
from archy.reconcile import status as reconcile_status
from archy.reconcile.status import Status
from archy.recover import incidents

COLOURS = {
    "ok": "green",
    "degraded": "yellow",
    "broken": "red",
    "running": "green",
    "completed": "green",
    "failed": "red",
    "starting": "yellow",
    "waiting": "yellow",
    "restarting": "yellow",
    "stopped": "dim",
}

_OLD = 90.0  # seconds; three ticks
_EXITS = {"ok": OK, "degraded": DEGRADED, "broken": BROKEN}


def show(options: argparse.Namespace) -> int:
    """archy status: root sees the node as it is now, everybody else as the last pass saw it."""
    last = reconcile_status.load("/")
    found = _now(last) if os.geteuid() == 0 and systemd.booted() else last
    if not found:
        progress("no pass was made yet: systemctl start archy-reconcile.service")
        return BROKEN
    found = with_errors(found)
    age = time.monotonic() - last["monotonic"] if last else None
    if options.json:
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


def _print_rest(found: reconcile_status.Status, age: float | None) -> None:
    podman = found["node"]["podman"]
    if podman["problems"] and podman["answered"]:
        print(f"podman: answered last at {podman['answered']}")
    if jumped := found["node"]["clock"]["jumped"]:
        print(f"clock: jumped by {jumped['by']:+d} s, seen at {jumped['at']}")
    if found["node"]["passes"]["timer"] != "active":
        said = "archy-reconcile.timer is stopped, as after systemctl stop 'archy-*'; the start of any app starts it"
        print(f"passes: {said}")
    seen = "no pass was made since the boot" if age is None else f"last pass {age:.0f} s ago"
    print(f"node: {colour(found['level'], COLOURS[found['level']], sys.stdout)}, {seen}")


def _span(found: reconcile_status.Status, since: str | None) -> str:
    if since is None:
        return "-"
    seconds = int(found["wall"] - datetime.fromisoformat(since).timestamp())
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds // size} {unit}"
    return f"{max(0, seconds)} s"


def _now(last: reconcile_status.Status) -> reconcile_status.Status:
    """The node as it is at this moment, judged as a pass would; what was wrong with it then still is."""
    failures = {app_id: found for app_id in installed.ids("/")[0] if (found := _failure(app_id, last))}
    for name, part in (("@secrets", "secrets"), ("@node", "files")):
        if last and (said := last["node"][part]["problems"]):
            failures[name] = said[0]
    node = current.observe("/", last, failures)
    judged = reconcile_status.assess(plan.make(node, incidents.load("/")))
    for app in node.apps:  # something was changed a moment ago: what the last pass saw is still true
        before = last["apps"].get(app.id) if last else None
        if before and not app.comparable and before["invocation"] == app.unit.invocation:
            judged["apps"][app.id]["stale"] = before["stale"]
    if last and time.monotonic() - last["monotonic"] > _OLD and judged["node"]["passes"]["timer"] == "active":
        judged["node"]["passes"]["problems"].append("no pass was made for a long time: journalctl -u archy-reconcile")
        judged["node"]["passes"]["level"] = reconcile_status.DEGRADED
        judged["level"] = max(judged["level"], reconcile_status.DEGRADED, key=reconcile_status.LEVELS.index)
    return judged


def _failure(app_id: str, last: reconcile_status.Status) -> str:
    """Why an app cannot be prepared: as its stamp has it, or, without one, as the last pass found it."""
    found = stamps.load("/", app_id)
    if "failure" in found or stamps.fresh("/", app_id) is not None:
        return str(found.get("failure", ""))
    return str(last["apps"].get(app_id, {}).get("failure", "")) if last else ""


def run_reconcile(options: argparse.Namespace) -> int:
    """archy reconcile: a pass now, as the timer makes them, or what one would do."""
    if options.dry_run:
        return reconcile.run("/", dry=True)
    done = subprocess.run(["systemctl", "start", reconcile.UNIT], check=False).returncode
    unit = systemd.units([reconcile.UNIT]).get(reconcile.UNIT)
    for line in systemd.invocation(unit.invocation) if unit else ():
        print(line)
    return FAILED if done else OK


_CONTAINER_ID = re.compile("[0-9a-f]{64}")


def with_errors(status: Status) -> Status:
    """The status with the last line of the log of each app that is not well, for those who may read the journal.

    Not part of the file: that is for everybody, and nobody knows what apps write into their logs.
    """
    apps = {
        app_id: {**app, "error": _error(app) if app["level"] != reconcile_status.OK and not app["image"] else None}
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
