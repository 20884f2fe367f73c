# SPDX-License-Identifier: MIT
"""Which apps must be restarted. Pure: the node as it is in, steps out.

A file that was wrong on the disk is no reason: what counts is what the running process was started with. An app that
is stopped, or is about to start anyway, is left alone.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from archy.observe import AppState, NodeState
from archy.steps import ForgetFailures, Restart, Step

# Seconds between restarts of the same app. A person may change several things one after the other; what goes on and on
# is no person, and its pauses double each time.
_FREE, _SHORT_PAUSE, _FIRST_PAUSE, _LONGEST_PAUSE = 6, 5.0, 60.0, 3600.0
_CALM = 600.0  # seconds after which an app counts as running well


@dataclass(frozen=True)
class Decision:
    """The steps; when each app was restarted last, and how often in a row; and who must wait, for how many seconds."""

    steps: list[Step]
    history: dict[str, dict[str, float]]
    waiting: dict[str, float]


def reasons(app: AppState) -> list[str]:
    """Why a restart of the app would start it with something else."""
    found = [f"{os.path.basename(path)} has changed since its start" for path in (*app.changed, *app.own)]
    return [*found, "its manifest has changed since its start"] if app.unit_changed else found


def decide(node: NodeState) -> Decision:
    """What to restart now."""
    history = {name: dict(entry) for name, entry in _history(node.previous).items()}
    for name, entry in list(history.items()):
        if node.monotonic - entry["at"] > max(_CALM, 2 * _pause(entry["count"])) or entry["at"] > node.monotonic:
            del history[name]
    wanted = {app.id for app in node.apps if _is_running(app) and _must(app, node)}
    waiting = {
        name: left
        for name in wanted
        if name in history and (left := history[name]["at"] + _pause(history[name]["count"]) - node.monotonic) > 0
    }
    now = wanted - waiting.keys()
    # Those that follow do so at once: in the next pass, what they follow is as it must be.
    due = sorted(now | _followers(node, now))
    for name in due:
        history[name] = {"at": node.monotonic, "count": history.get(name, {"count": 0})["count"] + 1}
    steps: list[Step] = []
    if due:
        said = {app.id: "; ".join(reasons(app)) or "after what it needs" for app in node.apps}
        steps.append(Restart(tuple(due), ", ".join(f"{name}: {said[name]}" for name in due)))
    calm = [app for app in node.apps if app.unit.sub == "running" and app.unit.restarts and app.id not in due]
    steps += [ForgetFailures(app.id) for app in calm if node.monotonic - app.unit.changed > _CALM]
    return Decision(steps, history, {name: left for name, left in waiting.items() if name not in due})


def _history(previous: Mapping[str, Any]) -> Mapping[str, Mapping[str, float]]:
    found = previous.get("history")
    return found if isinstance(found, dict) else {}


def _pause(count: float) -> float:
    return _SHORT_PAUSE if count <= _FREE else min(_LONGEST_PAUSE, _FIRST_PAUSE * 2 ** min(count - _FREE - 1, 20))


def _is_running(app: AppState) -> bool:
    """Whether there is a process that was started, and no job is about to change that."""
    return (app.unit.sub == "running" and not app.unit.busy) or app.unit.sub == "start"


def _must(app: AppState, node: NodeState) -> bool:
    policy = app.summary is not None and app.summary["restart_when_changed"]
    # Nobody knows which value it has, and the rotation waits until it has the new one.
    rotates = app.unrecorded and app.summary is not None and not node.rotating.isdisjoint(app.summary["secrets"])
    return bool(app.changed) or (app.unit_changed and policy) or rotates


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
