# SPDX-License-Identifier: MIT
"""`archy status`, `archy reconcile` and `archy secret`: the node as a whole."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from datetime import datetime
from typing import Any

from archy import (
    catalogue,
    facts,
    installed,
    last_words,
    observe,
    paths,
    reconcile,
    recovery,
    rotation,
    stamp,
    status,
    systemd,
)
from archy.derive import secret_path
from archy.output import BROKEN, DEGRADED, FAILED, OK, colour, emit, say, table
from archy.survey import survey

_COLOURS = {
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
    last = observe.previous("/")
    found = _now(last) if os.geteuid() == 0 and systemd.booted() else last
    if not found:
        say("no pass was made yet: systemctl start archy-reconcile.service")
        return BROKEN
    found = last_words.with_errors(found)
    age = time.monotonic() - last["monotonic"] if last else None
    if options.json:
        emit({**found, "last_pass": last.get("time"), "last_pass_age": round(age, 1) if age is not None else None})
        return _EXITS[found["level"]]
    rows = []
    for app_id, app in found["apps"].items():
        desired = _until(app) if app["actual"] == "stopped" else ""
        notes = [*app["problems"], *app["stale"], *([app["error"]] if app["error"] else []), desired]
        notes += [f"waiting for its image: {app['image']}"] if app["image"] else []
        notes += [app["held"]] if app["held"] else []
        notes += [f"waits for {', '.join(app['waits_for'])}"] if app["waits_for"] else []
        rows.append([app_id, app["actual"], _span(found, app["since"]), str(app["restarts"]), _joined(notes)])
    if rows:
        table(["APP", "STATE", "FOR", "RESTARTS", "NOTES"], rows, _COLOURS)
    for name, part in found["node"].items():
        for problem in part["problems"]:
            print(f"{name}: {problem}")
    _print_rest(found, age)
    return _EXITS[found["level"]]


def _until(app: dict[str, Any]) -> str:
    return "until archy app start, or unmasked" if app["desired"] == "stopped" else "until it is started, or a boot"


def _joined(notes: list[str]) -> str:
    return "; ".join(note.replace("\n", " ") for note in dict.fromkeys(notes) if note)


def _print_rest(found: status.Status, age: float | None) -> None:
    podman = found["node"]["podman"]
    if podman["problems"] and podman["answered"]:
        print(f"podman: answered last at {podman['answered']}")
    if jumped := found["node"]["clock"]["jumped"]:
        print(f"clock: jumped by {jumped['by']:+d} s, seen at {jumped['at']}")
    if found["node"]["ticks"]["timer"] != "active":
        said = "archy-reconcile.timer is stopped, as after systemctl stop 'archy-*'; the start of any app starts it"
        print(f"ticks: {said}")
    seen = "no pass was made since the boot" if age is None else f"last pass {age:.0f} s ago"
    print(f"node: {colour(found['level'], _COLOURS[found['level']], sys.stdout)}, {seen}")


def _span(found: status.Status, since: str | None) -> str:
    if since is None:
        return "-"
    seconds = int(found["wall"] - datetime.fromisoformat(since).timestamp())
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds // size} {unit}"
    return f"{max(0, seconds)} s"


def _now(last: status.Status) -> status.Status:
    """The node as it is at this moment, judged as a pass would; what was wrong with it then still is."""
    failures = {app_id: found for app_id in installed.ids("/")[0] if (found := _failure(app_id, last))}
    for name, part in (("@secrets", "secrets"), ("@node", "files")):
        if last and (said := last["node"][part]["problems"]):
            failures[name] = said[0]
    node = observe.node("/", failures)
    judged = status.assess(survey(node, recovery.load("/")))
    for app in node.apps:  # something was changed a moment ago: what the last pass saw is still true
        before = last["apps"].get(app.id) if last else None
        if before and not app.known and before["invocation"] == app.unit.invocation:
            judged["apps"][app.id]["stale"] = before["stale"]
    if last and time.monotonic() - last["monotonic"] > _OLD and judged["node"]["ticks"]["timer"] == "active":
        judged["node"]["ticks"]["problems"].append("no pass was made for a long time: journalctl -u archy-reconcile")
        judged["node"]["ticks"]["level"] = status.DEGRADED
        judged["level"] = max(judged["level"], status.DEGRADED, key=status.LEVELS.index)
    return judged


def _failure(app_id: str, last: status.Status) -> str:
    """Why an app cannot be prepared: as its stamp has it, or, without one, as the last pass found it."""
    found = stamp.load("/", app_id)
    if "failure" in found or stamp.fresh("/", app_id) is not None:
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


def list_secrets(options: argparse.Namespace) -> int:
    """archy secret list: names, never values."""
    users: dict[str, list[str]] = {}
    for app_id, summary in facts.load("/")["apps"].items():
        for name in summary["secrets"]:
            users.setdefault(name, []).append(app_id)
    apps = [entry.app for entry in catalogue.entries("/") if entry.installed and entry.app]
    declared = {one.name: one for app in apps for one in app.secrets}
    rows: list[dict[str, Any]] = []
    for name in sorted({*installed.secret_names("/"), *users} - {""}):
        base = name.removesuffix(paths.PREVIOUS)
        one = declared.get(name)
        rows.append(
            {
                "name": name,
                "kind": one.kind if one else "",
                "rotatable": bool(one and one.rotatable),
                "apps": users.get(base, []),
                "there": os.path.lexists(secret_path(name)),
                "rotating": base != name,
            }
        )
    if options.json:
        emit({"secrets": rows})
        return OK
    notes = {True: "the value before, while a rotation lasts"}
    shown = []
    for row in rows:
        note = notes.get(row["rotating"], "can be rotated" if row["rotatable"] else "")
        shown.append(
            [row["name"], row["kind"] or "-", ", ".join(row["apps"]) or "-", note if row["there"] else "missing"]
        )
    table(["SECRET", "KIND", "APPS", "NOTE"], shown)
    return OK


def rotate(options: argparse.Namespace) -> int:
    """archy secret rotate."""
    rotation.rotate(options.name)
    return OK
