# SPDX-License-Identifier: MIT
"""Which apps must be restarted, or continued. Pure: from the current state to steps.

An app is restarted when it runs on other content than it should, and when it does not serve. A file that was wrong on
the disk is no reason: what counts is what the running process was started with. An app that is stopped, or is about to
start anyway, is left alone.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field

from archy.health.backoff import Backoff
from archy.health.current import AppState, NodeState
from archy.health.liveness import Health
from archy.host.steps import Rebuild, ResetFailed, Restart, Resume, Step, Thaw
from archy.prepare.starts import CONTEXT

_CALM = 600.0  # seconds after which an app counts as running well
_LONGEST_PAUSE = 3600.0
# Between restarts of the same app. A person may change several things one after the other; changes that go on are not
# those of a person. An app that does not serve gets one restart at once, and then the pauses.
_CONTENT = Backoff(60.0, _LONGEST_PAUSE, _CALM, free=6, short=5.0)
_FAULT = Backoff(60.0, _LONGEST_PAUSE, _CALM)

History = dict[str, dict[str, float]]


@dataclass(frozen=True)
class Decision:
    """The steps; when each app was restarted last, and how often in a row; which apps must wait, how many seconds.

    `history` and `deferred` are about other content, `faults` and `backing_off` about apps that do not serve.
    """

    steps: list[Step]
    history: History
    deferred: dict[str, float]
    faults: History = field(default_factory=dict)
    backing_off: dict[str, float] = field(default_factory=dict)


def reasons(app: AppState) -> list[str]:
    """Why a restart of the app would start it with something else."""
    files = [f"{os.path.basename(path)} has changed since its start" for path in (*app.stale, *app.stale_own)]
    return [*files, "its manifest has changed since its start"] if app.unit_changed else files


def decide(node: NodeState, health: Mapping[str, Health]) -> Decision:
    """What to restart now."""
    history = _row(node, "history", _CONTENT, set())
    faults = _row(node, "faults", _FAULT, {name for name, app in health.items() if app.is_pending})
    outdated = {app.id for app in node.apps if _is_running(app) and _must(app, node) and not _is_built(app, node)}
    # While the recovery of the node is at work, apps fail for reasons of the node.
    dead = set() if node.recovering else {name for name, app in health.items() if app.restart_reason}
    if node.probe.podman_error:  # it could not start any of them again
        outdated, dead = set(), set()
    deferred = _pauses(outdated, history, _CONTENT, node)
    backing_off = _pauses(dead, faults, _FAULT, node)
    failing = dead - backing_off.keys()
    now = failing | (outdated - deferred.keys())
    # Apps that follow others do so at once: in the next pass, those others are as they must be.
    due = sorted(now | _followers(node, now))
    for name in due:
        row = faults if name in failing else history
        row[name] = {"at": node.monotonic, "count": row.get(name, {"count": 0})["count"] + 1}
    reason = {app.id: "; ".join(reasons(app)) or "after what it needs" for app in node.apps}
    reason |= {name: health[name].restart_reason for name in failing}
    built = [app.id for app in node.apps if app.id in due and app.id not in failing and _is_to_be_built(app, node)]
    steps: list[Step] = [Thaw((name,)) for name, app in health.items() if app.frozen]
    steps += [Resume((name,)) for name, app in health.items() if app.stopped]
    for step, names in (Rebuild, built), (Restart, [name for name in due if name not in built]):
        if names:
            steps.append(step(tuple(names), ", ".join(f"{name}: {reason[name]}" for name in names)))
    restarted = [app for app in node.apps if app.unit.is_ready and app.unit.restarts and app.id not in due]
    steps += [ResetFailed((app.id,)) for app in restarted if node.monotonic - app.unit.changed > _CALM]
    for pauses in deferred, backing_off:
        for name in pauses.keys() & set(due):
            del pauses[name]
    return Decision(steps, history, deferred, faults, backing_off)


def _row(node: NodeState, kind: str, backoff: Backoff, failing: set[str]) -> History:
    """The earlier restarts that still count; those of apps that fail again do, however slowly they fail."""
    entries = {name: (entry, node.monotonic - entry["at"]) for name, entry in node.previous.get(kind, {}).items()}
    return {
        name: dict(entry)
        for name, (entry, seconds) in entries.items()
        if seconds >= 0 and (backoff.goes_on(entry["count"], seconds) or name in failing)
    }


def _pauses(names: set[str], history: History, backoff: Backoff, node: NodeState) -> dict[str, float]:
    """The apps among these whose pause is not over, and how many seconds of it are left."""
    ends = {name: history[name]["at"] + backoff.pause(history[name]["count"]) for name in names & history.keys()}
    return {name: end - node.monotonic for name, end in ends.items() if end > node.monotonic}


def _is_running(app: AppState) -> bool:
    """Whether its process runs, and no job is about to change that. A one-shot may run to its end."""
    return app.unit.is_steady and not (app.unit.is_starting and app.is_one_shot)


def _must(app: AppState, node: NodeState) -> bool:
    policy = app.summary is not None and app.summary["restart_when_changed"]
    # It is not known which value it has, and the rotation waits until it has the new one.
    rotates = app.start_unknown and app.summary is not None and not node.rotating.isdisjoint(app.summary["secrets"])
    return bool(app.stale) or (app.unit_changed and policy) or rotates


def _is_to_be_built(app: AppState, node: NodeState) -> bool:
    """Whether all that a restart would bring is another image, which may fail to be made. An app that others follow is
    restarted with them, all in one job."""
    other_unit = app.unit_changed and app.summary is not None and app.summary["restart_when_changed"]
    return app.stale == (CONTEXT,) and not other_unit and not _followers(node, {app.id})


def _is_built(app: AppState, node: NodeState) -> bool:
    """Whether its image is being made already, or waits for the next attempt."""
    return bool(app.image_status) and _is_to_be_built(app, node)


def _followers(node: NodeState, restarted: set[str]) -> set[str]:
    """The apps that are to be restarted after one of these, and after one another."""
    result, before = set(restarted), set[str]()
    while result != before:
        before = set(result)
        result |= {
            app.id for app in node.apps if app.summary and _is_running(app) and before & {*app.summary["restart_after"]}
        }
    return result - restarted
