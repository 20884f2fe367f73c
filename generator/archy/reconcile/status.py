# SPDX-License-Identifier: MIT
"""How well the node and its apps are: the judgement over the current state. Pure, but for the reader of status.json.

`level` is `ok`, `degraded` or `broken`. An app can be degraded; broken is the node, when no app can be relied upon.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from typing import Any

from archy import __version__, paths
from archy.bitcoin import rpc
from archy.health.current import AppState, NodeState
from archy.health.liveness import HEALTHY, NONE, STARTING
from archy.host import read
from archy.reconcile.plan import Plan
from archy.reconcile.restarts import reasons
from archy.reconcile.unchanged import iso
from archy.recover import incidents

OK, DEGRADED, BROKEN = LEVELS = ("ok", "degraded", "broken")
_MAX_SIZE = 64 * 1024 * 1024
_TOO_LONG = 600.0  # seconds that a start may take where the manifest does not say
_FULL = 0.95
_JUMP = 60.0  # seconds by which the clock differs from the monotonic one
_LAST_JUMP_SHOWN = 3600.0

Status = dict[str, Any]


def assess(plan: Plan) -> Status:
    """The status: the content of status.json."""
    node = plan.node
    apps = {app.id: _app(app, plan) for app in node.apps}
    parts = {
        "podman": _podman(node),
        "recovery": _recovery(plan),
        "disk": _disk(node),
        "clock": _clock(node),
        "secrets": _judged(BROKEN, node.failures.get(paths.SECRETS_KEY)),
        "files": _judged(BROKEN, node.failures.get(paths.NODE_KEY)),
        "settings": _judged(DEGRADED, *node.warnings),
        "passes": _passes(node),
        "bitcoin": _judged(OK) | dict(node.bitcoin),
    }
    levels = [part["level"] for part in (*apps.values(), *parts.values())]
    return {
        "version": __version__,
        "time": iso(node.wall),
        "wall": node.wall,
        "monotonic": node.monotonic,
        "level": max(levels, key=LEVELS.index, default=OK),
        "node": parts,
        "apps": apps,
        "history": plan.decision.history,
        "faults": plan.decision.faults,
        # An app that the probe does not report now, as while the probe is at work, keeps its counters.
        "liveness": node.previous.get("liveness", {}) | {name: app.counters for name, app in plan.health.items()},
    }


def pack(status: Status) -> bytes:
    """The bytes of the file."""
    return json.dumps(status, indent=1, ensure_ascii=False).encode()


def load(root: str) -> Status:
    """The status that the last pass of this archy left; empty if there is none, or it is not as `assess` makes it."""
    try:
        status: Status = json.loads(read.read(paths.under(root, paths.STATUS), _MAX_SIZE) or b"")
        parts, counts = status["node"], [entry for kind in ("history", "faults") for entry in status[kind].values()]
        numbers = [status["wall"], status["monotonic"], *(entry[key] for entry in counts for key in ("at", "count"))]
        numbers += [value for entry in status["liveness"].values() for key, value in entry.items() if key != "id"]
        names = ("podman", "recovery", "disk", "clock", "secrets", "files", "passes")
        sound = status["version"] == __version__ and all(parts[name]["level"] in LEVELS for name in names)
        sound &= all(isinstance(app, dict) and "current" in app for app in status["apps"].values())
        return status if sound and all(isinstance(number, int | float) for number in numbers) else {}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return {}


def _judged(level: str, *problems: str | None) -> Status:
    """A part of the status that has this level if there is a problem."""
    there = [problem for problem in problems if problem]
    return {"level": level if there else OK, "problems": there}


def _app(app: AppState, plan: Plan) -> Status:
    unit, state = app.unit, app.state
    desired = "stopped" if app.stopped or unit.masked else "running"
    problems = _judged(DEGRADED, *_problems(app, plan))["problems"]
    up = {name for other in plan.node.apps if other.unit.is_up for name in _names(other)}
    missing = [name for name in (app.summary["needs"] if app.summary else ()) if name not in up]
    return {
        "level": DEGRADED if problems and not desired == state == "stopped" else OK,
        "desired": desired,
        "current": state,
        "since": iso(plan.node.wall - (plan.node.monotonic - unit.changed)) if unit.changed else None,
        "restarts": unit.restarts,
        "health": _health(app, plan),
        "stale": reasons(app) if unit.is_up or unit.is_activating else [],
        "image": app.image_status,
        "held": app.wait_status,
        "waits_for": missing if state != "stopped" else [],
        "problems": problems,
        "failure": app.failure,
        "unit": unit.name,
        "invocation": unit.invocation,
        "version": app.summary["version"] if app.summary else None,
    }


def _problems(app: AppState, plan: Plan) -> Iterator[str]:
    """All that is wrong with an app; empty texts do not count."""
    node, health = plan.node, plan.health.get(app.id)
    yield from app.warnings
    yield app.failure or _state_problem(app, node)
    if app.start_unknown and app.unit.is_running:
        yield f"it is not known what it was started with: systemctl restart {app.unit.name}"
    if app.stale and (seconds := plan.decision.deferred.get(app.id)):
        yield f"will be restarted in {seconds:.0f} s; it was restarted not long ago"
    if health:
        yield health.restart_reason or (health.message and f"does not serve: {health.message}")
    if seconds := plan.decision.backing_off.get(app.id):
        count = plan.decision.faults[app.id]["count"]
        restarts = "one restart has" if count == 1 else f"{count:.0f} restarts have"
        yield f"gave up until {iso(node.wall + seconds)}, because {restarts} not helped"
    if app.summary and "archival" in app.summary["bitcoin"] and node.bitcoin and (lacks := rpc.lacks(node.bitcoin)):
        yield f"needs an archival Bitcoin node: {node.bitcoin['app']} {' and '.join(lacks)}"


def _names(app: AppState) -> set[str]:
    return {app.id, app.summary["provides"]} if app.summary else {app.id}


def _health(app: AppState, plan: Plan) -> str:
    """The result of its check; before the first one, what systemd was told at its start."""
    health = plan.health.get(app.id)
    if health and health.state != NONE:
        return health.state
    checked = app.summary is not None and app.summary["health"] is not None
    return {"running": HEALTHY, "starting": STARTING}.get(app.state, NONE) if checked else NONE


def _state_problem(app: AppState, node: NodeState) -> str:
    """What is wrong with the state that the app is in; empty if nothing."""
    unit, summary = app.unit, app.summary
    # The first attempt to get an image may take long, and is no fault.
    image = f"waiting for its image: {app.image_status}" if app.image_failed else ""
    often = f"was restarted {unit.restarts} times" if app.restarts_often else ""
    if often and unit.exit_status:
        often += f", ended last with exit status {unit.exit_status}"
    elif often and unit.result not in ("", "success"):
        often += f", failed last by {unit.result}"
    match app.state:
        case "unknown":
            return "systemd has no unit for it: systemctl daemon-reload"
        case "waiting":
            return image
        case "running" if not (unit.loaded or unit.masked):
            return "systemd has lost its unit: systemctl daemon-reload"
        case "running":
            return often or image
        case "restarting" | "stopping":
            return often
        case "starting" if unit.is_activating:
            limit = (summary and summary["start_timeout"]) or _TOO_LONG
            seconds = node.monotonic - (unit.began or node.monotonic)
            return f"has been starting for {seconds / 60:.0f} min" if seconds > limit else ""
        case "failed":
            return f"has failed ({unit.result})"
    return ""


def _podman(node: NodeState) -> Status:
    """Whether Podman answers. What is done about it is the recovery's."""
    probe = node.probe
    if probe.error or probe.containers is None:
        error = probe.podman_error or probe.error
        last = node.previous.get("node", {}).get("podman", {})
        answer = {"containers": last.get("containers"), "answered": last.get("answered")}
        return _judged(BROKEN, error and f"Podman does not answer: {error}") | answer
    answered = iso(node.wall - (node.monotonic - probe.podman_at))
    return _judged(OK) | {"containers": len(probe.containers), "answered": answered}


def _recovery(plan: Plan) -> Status:
    """What is wrong with Podman or its network, what was tried, and until when nothing more is."""
    node = plan.node

    def shown(moment: float) -> str:
        return iso(node.wall - node.monotonic + moment)

    broken, problems = incidents.problems(plan.incidents, plan.faults, node.recovering, node.monotonic, shown)
    last = {
        kind: {
            "result": incident.result,
            "tried": list(incident.tried),
            "times": incident.count,
            "saw": incident.message,
            "at": shown(incident.ended),
            "took": round(incident.ended - incident.since, 1),
        }
        for kind, incident in plan.incidents.items()
    }
    return _judged(BROKEN if broken else DEGRADED, *problems) | {"last": last}


def _disk(node: NodeState) -> Status:
    used = 1 - node.free / node.size if node.size else 1.0
    full = f"{100 * used:.0f} % of the disk is used: {node.free // 1024**2} MiB are left" if used > _FULL else ""
    return _judged(DEGRADED, full) | {"size": node.size, "free": node.free}


def _clock(node: NodeState) -> Status:
    """The clock may jump, and nothing comes of it. A wrong one makes certificates look out of date."""
    last = node.previous
    jumped: Mapping[str, Any] | None = last.get("node", {}).get("clock", {}).get("jumped")
    if jumped and not 0 <= node.monotonic - jumped["monotonic"] < _LAST_JUMP_SHOWN:
        jumped = None
    if isinstance(last.get("monotonic"), float) and last["monotonic"] < node.monotonic:
        by = (node.wall - last["wall"]) - (node.monotonic - last["monotonic"])
        if abs(by) > _JUMP:
            jumped = {"by": round(by), "at": iso(node.wall), "monotonic": node.monotonic}
    early = node.wall < os.stat(__file__).st_mtime - 86400
    problem = f"the clock shows {iso(node.wall)}, before archy was built" if early else ""
    return _judged(DEGRADED, problem) | {"jumped": jumped}


def _passes(node: NodeState) -> Status:
    problems = []
    if node.unmended:
        problems.append(f"units are not as they must be, and a reload does not mend it: {node.unmended}")
    if not node.timer.is_up and any(not app.unit.is_inactive for app in node.apps):
        problems.append("no passes are made: systemctl start archy-reconcile.timer archy-reconcile.path")
    if node.apps and not (node.user_manager.is_up or node.user_manager.is_activating):
        problems.append("the service user's manager does not run, so no app can")
    return _judged(DEGRADED, *problems) | {"timer": node.timer.active}
