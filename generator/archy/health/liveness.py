# SPDX-License-Identifier: MIT
"""Whether each app serves, and since when not. Pure: the node as it is and what the last pass made of it.

An app that is ready is asked as its manifest says; `retries` failures in a row, and it is dead. What is slow is not
dead: where the machine is busy, or the app itself, silence counts little.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from archy.health.current import AppState, NodeState
from archy.probe import report
from archy.probe.checks import TIMEOUT
from archy.probe.report import CheckResult, ContainerReport

HEALTHY, UNHEALTHY, STARTING, NONE = "healthy", "unhealthy", "starting", "none"
_RETRIES = 3  # of an app that has no health check of its own
_SHOWN = 2  # failures in a row that are worth a word
_SLOW = 0.1  # what silence counts for where it may be slowness
_BUSY = 0.1  # of a CPU, used by the app itself
_SETTLE = 5.0  # seconds after a start during which Podman's answer may be older than it
_BEGIN = 60.0  # seconds after which a container has left its first state, and systemd was told that it is ready
_SURE = 2  # answers of Podman in a row; one may have come in a bad moment
_NOT_NOTIFIED = 3  # answers of an app of which systemd does not know that it is ready

Entry = dict[str, str | float]


@dataclass(frozen=True)
class Health:
    """How an app is. `message` is what is wrong, `restart_reason` why it must be restarted for that.

    `stopped` and `frozen`: it would go on if it were let. `counters` is what the next pass must know.
    """

    state: str = NONE
    message: str = ""
    restart_reason: str = ""
    stopped: bool = False
    frozen: bool = False
    counters: Entry = field(default_factory=dict)

    @property
    def is_pending(self) -> bool:
        """Whether the next passes have to look again."""
        return (
            any(self.counters.get(key) for key in ("failed", "podman_mismatch", "not_notified"))
            or self.stopped
            or self.frozen
        )

    @property
    def needs_second_look(self) -> bool:
        """Whether Podman has said something odd of it for the first time."""
        return self.counters.get("podman_mismatch") == 1


def judge(node: NodeState) -> dict[str, Health]:
    """How every app is that has a container; the others are not in it."""
    before = node.previous.get("liveness", {})
    return {
        app.id: _health(app, probed, before.get(app.id) or {}, node)
        for app in node.apps
        if (probed := node.probe.apps.get(app.id)) and _has_process(app) and node.probe.at > app.unit.changed
    }


def _has_process(app: AppState) -> bool:
    """Whether it runs, or starts, and no job is about to change that; a start is a job itself."""
    return app.unit.sub == "start" or (app.unit.sub == "running" and not app.unit.has_job)


def _health(app: AppState, probed: ContainerReport, before: Mapping[str, str | float], node: NodeState) -> Health:
    last: dict[str, float] = {}
    if before.get("id") == probed.id:
        last = {key: value for key, value in before.items() if not isinstance(value, str)}
    check = probed.check if probed.check is None or probed.check.at > app.unit.changed else None
    entry: Entry = {
        "id": probed.id,
        **_failed(app, probed, check, last, node),
        **_podman_mismatch(app, probed, last, node),
    }
    entry |= _not_notified(app, check, last, node)
    retries = app.summary["health"]["retries"] if app.summary and app.summary["health"] else _RETRIES
    if node.recovering:  # it may fail for a reason of the node: the answer after that decides
        entry["failed"] = min(float(entry["failed"]), retries - 0.5)
    failed, mismatch, not_notified = (float(entry[key]) for key in ("failed", "podman_mismatch", "not_notified"))
    said = _held(probed) or (check.said if check and not check.ok else "")
    fault = ""
    if failed >= retries and app.unit.sub == "running":
        fault = f"does not answer, {retries} times in a row: {said}"
    elif mismatch >= _SURE and node.probe.containers is not None:
        fault = _mismatch(app, probed, node)
    elif not_notified >= _NOT_NOTIFIED:
        fault = "answers, and systemd was never told that it is ready"
    state = HEALTHY if app.unit.sub == "running" and check else NONE
    if app.unit.sub == "start":
        state = STARTING
    elif _held(probed) or failed >= min(_SHOWN, retries):
        state = UNHEALTHY
    silent = check is not None and not check.ok and probed.stopped
    stopped = (probed.main_stopped or silent) and not probed.frozen
    return Health(state, said if state == UNHEALTHY else "", fault, stopped, probed.frozen, entry)


def _held(probed: ContainerReport) -> str:
    if probed.frozen:
        return "its unit is frozen"
    return "its main process is stopped (SIGSTOP)" if probed.main_stopped else ""


def _failed(
    app: AppState, probed: ContainerReport, check: CheckResult | None, last: Mapping[str, float], node: NodeState
) -> Entry:
    """How often in a row it did not answer, each time counted once."""
    failed, at, cpu = last.get("failed", 0.0), last.get("at", 0.0), last.get("cpu", probed.cpu)
    if app.unit.sub != "running":  # it has as much time as its unit gives it
        return {"failed": 0.0, "at": at, "cpu": probed.cpu}
    asked = node.probe.at if _held(probed) else check.at if check else at
    if asked <= at:
        return {"failed": failed, "at": at, "cpu": cpu}
    if check and check.ok and not _held(probed):
        failed = 0.0
    else:
        busy = probed.cpu - cpu > _BUSY * (asked - at)
        slow = not _held(probed) and check and check.kind == TIMEOUT and (busy or node.probe.load > report.LOADED)
        failed = round(failed + (_SLOW if slow else 1), 3)
    return {"failed": failed, "at": asked, "cpu": probed.cpu}


def _podman_mismatch(app: AppState, probed: ContainerReport, last: Mapping[str, float], node: NodeState) -> Entry:
    """How often in a row Podman did not know its container, or it lacked what belongs to it."""
    count, at = last.get("podman_mismatch", 0.0), last.get("podman_mismatch_at", 0.0)
    began = app.unit.changed if app.unit.sub == "running" else app.unit.began + _BEGIN - _SETTLE
    if app.summary and app.summary["one_shot"]:  # what is to end may do so
        return {"podman_mismatch": 0.0, "podman_mismatch_at": at}
    if node.probe.containers is None or node.probe.at <= at or node.probe.podman_at <= began + _SETTLE:
        return {"podman_mismatch": count, "podman_mismatch_at": at}
    return {"podman_mismatch": count + 1 if _mismatch(app, probed, node) else 0, "podman_mismatch_at": node.probe.at}


def _mismatch(app: AppState, probed: ContainerReport, node: NodeState) -> str:
    listed = {entry.id: entry.state for entry in node.probe.containers or ()}
    if probed.id not in listed:
        return "Podman does not know its container"
    if listed[probed.id] != "running":
        return f"Podman calls its container {listed[probed.id]}"
    needs = app.summary and (app.summary["ports"] or app.summary["network"] == "pasta")
    return "nobody passes on what comes to its ports" if needs and not probed.forwarded else ""


def _not_notified(app: AppState, check: CheckResult | None, last: Mapping[str, float], node: NodeState) -> Entry:
    """How often in a row it answered though its unit waits for that."""
    count, at, busy = last.get("not_notified", 0.0), last.get("not_notified_at", 0.0), node.probe.load > report.LOADED
    if app.unit.sub != "start" or check is None or not check.ok or node.monotonic - app.unit.began < _BEGIN or busy:
        return {"not_notified": 0.0, "not_notified_at": at}
    return (
        {"not_notified": count + 1, "not_notified_at": check.at}
        if check.at > at
        else {"not_notified": count, "not_notified_at": at}
    )
