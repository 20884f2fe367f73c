# SPDX-License-Identifier: MIT
"""Which apps must be restarted, or let go on. Pure: the node as it is in, steps out.

An app is restarted when it runs on other content than it should, and when it does not serve. A file that was wrong on
the disk is no reason: what counts is what the running process was started with. An app that is stopped, or is about to
start anyway, is left alone.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from archy.health import backoff
from archy.health.current import AppState, NodeState
from archy.health.liveness import Health
from archy.host.steps import Rebuild, ResetFailed, Restart, Resume, Step, Thaw
from archy.prepare.starts import CONTEXT

# Seconds between restarts of the same app. A person may change several things one after the other; what goes on and on
# is no person, and its pauses double each time. What does not serve gets one restart at once, and then the pauses.
_FREE, _SHORT_PAUSE, _FIRST_PAUSE, _LONGEST_PAUSE = 6, 5.0, 60.0, 3600.0
_CALM = 600.0  # seconds after which an app counts as running well

History = dict[str, dict[str, float]]


@dataclass(frozen=True)
class Decision:
    """The steps; when each app was restarted last, and how often in a row; and who must wait, for how many seconds.

    `history` and `deferred` are about other content, `faults` and `backing_off` about apps that do not serve.
    """

    steps: list[Step]
    history: History
    deferred: dict[str, float]
    faults: History = field(default_factory=dict)
    backing_off: dict[str, float] = field(default_factory=dict)


def reasons(app: AppState) -> list[str]:
    """Why a restart of the app would start it with something else."""
    found = [f"{os.path.basename(path)} has changed since its start" for path in (*app.stale, *app.stale_own)]
    return [*found, "its manifest has changed since its start"] if app.unit_changed else found


def decide(node: NodeState, health: Mapping[str, Health]) -> Decision:
    """What to restart now."""
    history = _remembered(node, "history", _pause, set())
    wanted = {app.id for app in node.apps if _is_running(app) and _must(app, node) and not _is_built(app, node)}
    waiting = _left(wanted, history, _pause, node)
    faults = _remembered(node, "faults", _fault_pause, {name for name, found in health.items() if found.is_pending})
    # While the recovery of the node is at work, apps fail for reasons of the node.
    dead = set() if node.recovering else {name for name, found in health.items() if found.restart_reason}
    if node.probe.podman_error:  # it could start nobody again
        wanted, dead = set(), set()
    given_up = _left(dead, faults, _fault_pause, node)
    failing = dead - given_up.keys()
    now = failing | (wanted - waiting.keys())
    # Those that follow do so at once: in the next pass, what they follow is as it must be.
    due = sorted(now | _followers(node, now))
    for name in due:
        before = faults if name in failing else history
        before[name] = {"at": node.monotonic, "count": before.get(name, {"count": 0})["count"] + 1}
    steps: list[Step] = [Thaw(name) for name, found in health.items() if found.frozen]
    steps += [Resume(name) for name, found in health.items() if found.stopped]
    said = {app.id: "; ".join(reasons(app)) or "after what it needs" for app in node.apps}
    said |= {name: health[name].restart_reason for name in failing}
    built = [app.id for app in node.apps if app.id in due and app.id not in failing and _is_to_be_built(app, node)]
    for step, names in (Rebuild, built), (Restart, [name for name in due if name not in built]):
        if names:
            steps.append(step(tuple(names), ", ".join(f"{name}: {said[name]}" for name in names)))
    settled = [app for app in node.apps if app.unit.sub in ("running", "exited")]
    calm = [app for app in settled if app.unit.restarts and app.id not in due]
    steps += [ResetFailed(app.id) for app in calm if node.monotonic - app.unit.changed > _CALM]
    waiting = {name: left for name, left in waiting.items() if name not in due}
    return Decision(steps, history, waiting, faults, {name: left for name, left in given_up.items() if name not in due})


def _remembered(node: NodeState, kind: str, pause: Callable[[float], float], failing: set[str]) -> History:
    """The restarts of before that still count; those of who is failing again do, however slowly it fails."""
    result = {}
    for name, entry in node.previous.get(kind, {}).items():
        since = node.monotonic - entry["at"]
        if since >= 0 and (since <= max(_CALM, 2 * pause(entry["count"])) or name in failing):
            result[name] = dict(entry)
    return result


def _left(wanted: set[str], history: History, pause: Callable[[float], float], node: NodeState) -> dict[str, float]:
    return {
        name: left
        for name in wanted
        if name in history and (left := history[name]["at"] + pause(history[name]["count"]) - node.monotonic) > 0
    }


def _pause(count: float) -> float:
    return _SHORT_PAUSE if count <= _FREE else _fault_pause(count - _FREE)


def _fault_pause(count: float) -> float:
    return backoff.backoff(_FIRST_PAUSE, count, _LONGEST_PAUSE)


def _is_running(app: AppState) -> bool:
    """Whether there is a process that was started, and no job is about to change that. What is to end may do so."""
    starts = app.unit.sub == "start" and not (app.summary and app.summary["one_shot"])
    return (app.unit.sub == "running" and not app.unit.has_job) or starts


def _must(app: AppState, node: NodeState) -> bool:
    policy = app.summary is not None and app.summary["restart_when_changed"]
    # Nobody knows which value it has, and the rotation waits until it has the new one.
    rotates = app.start_unknown and app.summary is not None and not node.rotating.isdisjoint(app.summary["secrets"])
    return bool(app.stale) or (app.unit_changed and policy) or rotates


def _is_to_be_built(app: AppState, node: NodeState) -> bool:
    """Whether all that a restart would bring is another image, which may fail to be made. Who is followed by others is
    restarted with them, all in one job."""
    other_unit = app.unit_changed and app.summary is not None and app.summary["restart_when_changed"]
    return app.stale == (CONTEXT,) and not other_unit and not _followers(node, {app.id})


def _is_built(app: AppState, node: NodeState) -> bool:
    """Whether its image is being made already, or waits for the next attempt."""
    return bool(app.image_status) and _is_to_be_built(app, node)


def _followers(node: NodeState, restarted: set[str]) -> set[str]:
    """Those that want to be restarted after one of these, and after one another."""
    found: set[str] = set()
    while True:
        more = {
            app.id
            for app in node.apps
            if app.summary and _is_running(app) and {*restarted, *found} & {*app.summary["restart_after"]}
        }
        if more <= found | restarted:
            return found - restarted
        found |= more
