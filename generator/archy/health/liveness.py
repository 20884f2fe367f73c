# SPDX-License-Identifier: MIT
"""Whether each app serves, and since when not. Pure: from the current state and the counters of the last pass.

An app that is ready is checked as its manifest says; after `retries` failures in a row it counts as dead. A slow app is
not dead: where the machine is busy, or the app itself, a timeout counts little.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from archy.health.current import AppState, NodeState
from archy.probe import report
from archy.probe.checks import TIMEOUT
from archy.probe.report import CheckResult, ContainerReport

HEALTHY, UNHEALTHY, STARTING, NONE = "healthy", "unhealthy", "starting", "none"
_RETRIES = 3  # of an app that has no health check of its own
_SHOWN = 2  # failures in a row from which on the app is unhealthy
_SLOW = 0.1  # what a timeout counts for where the machine or the app is busy
_BUSY = 0.1  # of a CPU, used by the app itself
_SETTLE = 5.0  # seconds after a start during which Podman's answer may be older than it
_BEGIN = 60.0  # seconds after a start; then a container is "running", and systemd knows that it is ready
_SURE = 2  # answers of Podman in a row; a single one may be from a bad moment
_NOT_NOTIFIED = 3  # answers of an app of which systemd does not know that it is ready

_ROWS = ("failed", "podman_mismatch", "not_notified")

Counters = dict[str, str | float]  # the container's ID and CPU time; of each row its count, and NAME_at


@dataclass(frozen=True)
class Health:
    """Whether an app serves. `message` is what is wrong, `restart_reason` why it must be restarted for that.

    `stopped` and `frozen`: its processes are, and can be continued. `counters` are for the next pass.
    """

    state: str = NONE
    message: str = ""
    restart_reason: str = ""
    stopped: bool = False
    frozen: bool = False
    counters: Counters = field(default_factory=dict)

    @property
    def is_pending(self) -> bool:
        """Whether the next passes have to look again."""
        return self.stopped or self.frozen or any(self.counters.get(name) for name in _ROWS)

    @property
    def needs_second_look(self) -> bool:
        """Whether Podman did not know it as it is, for the first time."""
        return self.counters.get("podman_mismatch") == 1


@dataclass(frozen=True)
class _Row:
    """How often something was so in a row, and when that was asked last. Each answer counts once."""

    count: float = 0.0
    at: float = 0.0

    def add(self, at: float, amount: float) -> _Row:
        """The row with an answer of this moment; 0 ends the row."""
        return self if at <= self.at else _Row(round(self.count + amount, 3) if amount else 0.0, at)

    def ended(self) -> _Row:
        """The row after something else than an answer has ended it."""
        return _Row(0.0, self.at)


def judge(node: NodeState) -> dict[str, Health]:
    """The health of every app that has a container; the others are not in it."""
    last = node.previous.get("liveness", {})
    return {
        app.id: _health(app, container, last.get(app.id) or {}, node)
        for app in node.apps
        if (container := node.probe.apps.get(app.id)) and app.unit.is_steady and node.probe.at > app.unit.changed
    }


def _health(app: AppState, container: ContainerReport, last: Counters, node: NodeState) -> Health:
    check = container.check if container.check and container.check.at > app.unit.changed else None
    if last.get("id") != container.id:
        last = {}
    rows = {name: _Row(float(last.get(name, 0)), float(last.get(f"{name}_at", 0))) for name in _ROWS}
    cpu = float(last.get("cpu", container.cpu))
    failed = _failed(app, container, check, rows["failed"], cpu, node)
    mismatch = _podman_mismatch(app, container, rows["podman_mismatch"], node)
    not_notified = _not_notified(app, check, rows["not_notified"], node)
    if failed.at > rows["failed"].at or not app.unit.is_running:
        cpu = container.cpu
    retries = app.summary["health"]["retries"] if app.summary and app.summary["health"] else _RETRIES
    if node.recovering:  # it may fail for a reason of the node: the answer after that decides
        failed = replace(failed, count=min(failed.count, retries - 0.5))
    counters: Counters = {"id": container.id, "cpu": cpu}
    for name, row in zip(_ROWS, (failed, mismatch, not_notified), strict=True):
        counters |= {name: row.count, f"{name}_at": row.at}

    message = _held(container) or (check.message if check and not check.ok else "")
    reason = ""
    if failed.count >= retries and app.unit.is_running:
        reason = f"does not answer, {retries} times in a row: {message}"
    elif mismatch.count >= _SURE and node.probe.containers is not None:
        reason = _mismatch(app, container, node)
    elif not_notified.count >= _NOT_NOTIFIED:
        reason = "answers, but systemd was never told that it is ready"
    state = HEALTHY if app.unit.is_running and check else NONE
    if app.unit.is_starting:
        state = STARTING
    elif _held(container) or failed.count >= min(_SHOWN, retries):
        state = UNHEALTHY
    silent = check is not None and not check.ok and container.stopped
    stopped = (container.main_stopped or silent) and not container.frozen
    return Health(state, message if state == UNHEALTHY else "", reason, stopped, container.frozen, counters)


def _held(container: ContainerReport) -> str:
    if container.frozen:
        return "its unit is frozen"
    return "its main process is stopped (SIGSTOP)" if container.main_stopped else ""


def _failed(
    app: AppState, container: ContainerReport, check: CheckResult | None, row: _Row, cpu: float, node: NodeState
) -> _Row:
    """How often in a row it did not answer. `cpu` is the CPU time at the answer before."""
    if not app.unit.is_running:  # it has as much time as its unit gives it
        return row.ended()
    if _held(container):
        return row.add(node.probe.at, 1)
    if check is None:
        return row
    busy = container.cpu - cpu > _BUSY * (check.at - row.at) or node.probe.load > report.LOADED
    return row.add(check.at, 0 if check.ok else _SLOW if check.kind == TIMEOUT and busy else 1)


def _podman_mismatch(app: AppState, container: ContainerReport, row: _Row, node: NodeState) -> _Row:
    """How often in a row Podman did not know its container, or its container lacked what belongs to it."""
    began = app.unit.changed if app.unit.is_running else app.unit.began + _BEGIN - _SETTLE
    if app.is_one_shot:  # it may end
        return row.ended()
    if node.probe.containers is None or node.probe.podman_at <= began + _SETTLE:
        return row
    return row.add(node.probe.at, 1 if _mismatch(app, container, node) else 0)


def _mismatch(app: AppState, container: ContainerReport, node: NodeState) -> str:
    listed = {entry.id: entry.state for entry in node.probe.containers or ()}
    if container.id not in listed:
        return "Podman does not know its container"
    if listed[container.id] != "running":
        return f"Podman calls its container {listed[container.id]}"
    needs = app.summary and (app.summary["ports"] or app.summary["network"] == "pasta")
    return "nothing forwards its ports" if needs and not container.forwarded else ""


def _not_notified(app: AppState, check: CheckResult | None, row: _Row, node: NodeState) -> _Row:
    """How often in a row it answered though its unit waits for that."""
    busy, early = node.probe.load > report.LOADED, node.monotonic - app.unit.began < _BEGIN
    if not app.unit.is_starting or check is None or not check.ok or early or busy:
        return row.ended()
    return row.add(check.at, 1)
