# SPDX-License-Identifier: MIT
"""How the node and its apps are: the judgement over what a pass saw. Pure; the result is the content of status.json.

`level` is `ok`, `degraded` or `broken`. An app can be degraded; broken is the node, when no app can be relied upon.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from archy import __version__
from archy.bitcoin import rpc
from archy.health.current import AppState, NodeState
from archy.health.liveness import HEALTHY, NONE, STARTING
from archy.host.systemd import Unit
from archy.images import pull
from archy.reconcile.plan import Plan
from archy.reconcile.restarts import reasons
from archy.recover import incidents

OK, DEGRADED, BROKEN = LEVELS = ("ok", "degraded", "broken")
_TOO_LONG = 600.0  # seconds that a start may take where the manifest does not say
_OFTEN = 3  # restarts since the app last ran well for ten minutes
_FULL = 0.95
_JUMP = 60.0  # seconds between the clock's way and the monotonic one's
_LAST_JUMP_SHOWN = 3600.0

Status = dict[str, Any]


def assess(plan: Plan) -> Status:
    """Judge the node."""
    node = plan.node
    apps = {app.id: _app(app, plan) for app in node.apps}
    about = {
        "podman": _podman(node),
        "recovery": _recovery(plan),
        "disk": _disk(node),
        "clock": _clock(node),
        "secrets": _failed(node, "@secrets"),
        "files": _failed(node, "@node"),
        "settings": _judged(DEGRADED if node.said else OK, *node.said),
        "ticks": _ticks(node),
        "bitcoin": _judged(OK) | dict(node.bitcoin),
    }
    found = [part["level"] for part in (*apps.values(), *about.values())]
    return {
        "version": __version__,
        "time": _iso(node.wall),
        "wall": node.wall,
        "monotonic": node.monotonic,
        "level": max(found, key=LEVELS.index, default=OK),
        "node": about,
        "apps": apps,
        "history": plan.decision.history,
        "faults": plan.decision.faults,
        # Of whom the probe says nothing now, as while it is at work, all counts as before.
        "liveness": node.previous.get("liveness", {}) | {name: found.counters for name, found in plan.health.items()},
    }


def pack(status: Status) -> bytes:
    """The bytes of the file."""
    return json.dumps(status, indent=1, ensure_ascii=False).encode()


def _judged(level: str, *problems: str) -> Status:
    return {"level": level, "problems": list(problems)}


def _failed(node: NodeState, name: str) -> Status:
    problems = [node.failures[name]] if name in node.failures else []
    return _judged(BROKEN if problems else OK, *problems)


def _app(app: AppState, plan: Plan) -> Status:
    node, health = plan.node, plan.health.get(app.id)
    unit, problems = app.unit, [*app.warnings, *filter(None, [app.failure])]
    needs = app.summary["needs"] if app.summary else []
    actual, why = _actual(app, node)
    stale = reasons(app) if unit.active in ("active", "activating") else []
    if why and not app.failure:
        problems.append(why)
    if app.start_unknown and unit.sub == "running":
        problems.append(f"nobody knows what it was started with: systemctl restart {unit.name}")
    if app.stale and (waiting := plan.decision.deferred.get(app.id)):
        problems.append(f"is to be restarted in {waiting:.0f} s, not to do it too often")
    if health and (said := health.restart_reason or (health.message and f"does not serve: {health.message}")):
        problems.append(said)
    if left := plan.decision.backing_off.get(app.id):
        count = plan.decision.faults[app.id]["count"]
        tries = "one restart has" if count == 1 else f"{count:.0f} restarts have"
        problems.append(f"gave up until {_iso(node.wall + left)}, because {tries} not helped")
    if app.summary and "archival" in app.summary["bitcoin"] and node.bitcoin and (lacks := rpc.lacks(node.bitcoin)):
        problems.append(f"needs an archival Bitcoin node: {node.bitcoin['app']} {' and '.join(lacks)}")
    up = {name for other in node.apps if _is_up(other.unit) for name in _names(other)}
    lacking = [name for name in needs if name not in up]
    return {
        "level": DEGRADED if problems and not _is_down_by_hand(app, actual) else OK,
        "desired": "stopped" if app.stopped or unit.masked else "running",
        "actual": actual,
        "since": _iso(node.wall - (node.monotonic - unit.changed)) if unit.changed else None,
        "restarts": unit.restarts,
        "health": _health(app, plan, actual),
        "stale": stale,
        "image": app.image_status,
        "held": app.wait_status,
        "waits_for": lacking if actual != "stopped" else [],
        "problems": problems,
        "failure": app.failure,
        "unit": unit.name,
        "invocation": unit.invocation,
        "version": app.summary["version"] if app.summary else None,
    }


def _names(app: AppState) -> set[str]:
    return {app.id, app.summary["provides"]} if app.summary else {app.id}


def _health(app: AppState, plan: Plan, actual: str) -> str:
    """What it answers; before it was asked the first time, what systemd was told at its start."""
    health = plan.health.get(app.id)
    if health and health.state != NONE:
        return health.state
    checked = app.summary is not None and app.summary["health"] is not None
    return {"running": HEALTHY, "starting": STARTING}.get(actual, NONE) if checked else NONE


def _is_up(unit: Unit) -> bool:
    return unit.active in ("active", "reloading")


def _is_down_by_hand(app: AppState, actual: str) -> bool:
    return (app.stopped or app.unit.masked) and actual == "stopped"


def _actual(app: AppState, node: NodeState) -> tuple[str, str]:
    """The state as a person calls it, and what is wrong with it, if anything."""
    unit = app.unit
    if unit.masked and unit.active == "inactive":
        return "stopped", ""
    if not unit.loaded and unit.active == "inactive":
        return "unknown", "systemd has no unit for it: systemctl daemon-reload"
    # Its first attempt may take long, and is no fault.
    waits = f"waiting for its image: {app.image_status}" if app.image_status.startswith(pull.CANNOT) else ""
    if app.image_status and not _is_up(unit):
        return "waiting", waits
    if app.wait_status:
        return "waiting", ""
    often = f"was restarted {unit.restarts} times" if unit.restarts >= _OFTEN else ""
    if often and unit.exit_status:
        often += f", ended last with exit status {unit.exit_status}"
    elif often and unit.result not in ("", "success"):
        often += f", failed last by {unit.result}"
    if unit.sub == "exited":
        return "completed", ""
    if _is_up(unit):
        lost = "" if unit.loaded or unit.masked else "systemd has lost its unit: systemctl daemon-reload"
        return "running", lost or often or waits
    if unit.active == "inactive" and unit.has_job:
        return "restarting" if often else "starting", often
    if unit.sub == "auto-restart" or (unit.active == "activating" and often):
        return "restarting", often
    if unit.active == "activating":
        limit = (app.summary and app.summary["start_timeout"]) or _TOO_LONG
        long = node.monotonic - (unit.began or node.monotonic)
        return "starting", f"has been starting for {long / 60:.0f} min" if long > limit else ""
    if unit.active == "deactivating":
        return "stopping", often
    if unit.active == "failed" and not (app.summary and app.summary["one_shot"]):  # that one was stopped halfway
        return "failed", f"has failed ({unit.result})"
    return "stopped", ""


def _podman(node: NodeState) -> Status:
    """Whether Podman answers. What is done about it is the recovery's."""
    probe = node.probe
    before = node.previous.get("node", {}).get("podman", {})
    if probe.error or probe.containers is None:
        error = probe.podman_error or probe.error
        problems = [f"Podman does not answer: {error}"] if error else []
        return _judged(BROKEN if problems else OK, *problems) | {
            "containers": before.get("containers"),
            "answered": before.get("answered"),
        }
    return _judged(OK) | {
        "containers": len(probe.containers),
        "answered": _iso(node.wall - (node.monotonic - probe.podman_at)),
    }


def _recovery(plan: Plan) -> Status:
    """What is wrong with Podman or its network, what was tried, and until when nothing more is."""
    node, known = plan.node, plan.recovery

    def shown(moment: float) -> str:
        return _iso(node.wall - node.monotonic + moment)

    broken, problems = incidents.problems(known, plan.faults, node.recovering, node.monotonic, shown)
    level = BROKEN if broken else DEGRADED if problems else OK
    last = {
        kind: {"result": episode.result, "tried": list(episode.tried), "times": episode.count, "saw": episode.said}
        | {"at": shown(episode.ended), "took": round(episode.ended - episode.since, 1)}
        for kind, episode in known.episodes.items()
    }
    return _judged(level, *problems) | {"last": last}


def _disk(node: NodeState) -> Status:
    used = 1 - node.free / node.size if node.size else 1.0
    said = f"{100 * used:.0f} % of the disk is used: {node.free // 1024**2} MiB are left"
    return _judged(DEGRADED if used > _FULL else OK, *([said] if used > _FULL else [])) | {
        "size": node.size,
        "free": node.free,
    }


def _clock(node: NodeState) -> Status:
    """The clock may jump, and nothing comes of it. A wrong one makes certificates look out of date."""
    before = node.previous
    jumped: Mapping[str, Any] | None = before.get("node", {}).get("clock", {}).get("jumped")
    if jumped and not 0 <= node.monotonic - jumped["monotonic"] < _LAST_JUMP_SHOWN:
        jumped = None
    if isinstance(before.get("monotonic"), float) and before["monotonic"] < node.monotonic:
        by = (node.wall - before["wall"]) - (node.monotonic - before["monotonic"])
        if abs(by) > _JUMP:
            jumped = {"by": round(by), "at": _iso(node.wall), "monotonic": node.monotonic}
    built = os.stat(__file__).st_mtime
    problems = [f"the clock says {_iso(node.wall)}, before archy was built"] if node.wall < built - 86400 else []
    return _judged(DEGRADED if problems else OK, *problems) | {"jumped": jumped}


def _ticks(node: NodeState) -> Status:
    runs = [app for app in node.apps if app.unit.active != "inactive"]
    problems = [f"units are not as they must be, and a reload does not mend it: {node.units}"] if node.units else []
    if node.timer != "active" and runs:
        problems.append("nobody looks for drift: systemctl start archy-reconcile.timer archy-reconcile.path")
    if node.user_manager not in ("active", "activating") and node.apps:
        problems.append("the manager of the service user does not run, so no app can")
    return _judged(DEGRADED if problems else OK, *problems) | {"timer": node.timer}


def _iso(wall: float) -> str:
    return datetime.fromtimestamp(wall, UTC).isoformat(timespec="seconds")
