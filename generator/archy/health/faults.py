# SPDX-License-Identifier: MIT
"""What is wrong with Podman, and not with one app. Pure: the node as a probe found it in, faults out.

`podman info` and a green unit say nothing of most of this (design D9): silence is the danger.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from archy import paths
from archy.health.current import NodeState
from archy.host.systemd import Unit
from archy.probe.checks import TIMEOUT
from archy.probe.report import LOADED, CheckResult, PodmanContainer

PODMAN, NETWORK, STORAGE, LEFTOVERS = "podman", "network", "storage", "leftovers"
_SETTLE = 5.0  # seconds after its start in which an app's name may not be known yet
_OFTEN = 3  # starts in a row that Podman itself failed (podman-run(1): 125 to 127)
FAILED = (125, 126, 127)


@dataclass(frozen=True)
class Fault:
    """`said` is what was seen, `apps` and `containers` whom it concerns, `timers` what else is left over."""

    kind: str
    said: str
    apps: tuple[str, ...] = ()
    containers: tuple[str, ...] = ()
    timers: tuple[str, ...] = ()


def faults(node: NodeState, before: Sequence[Fault] | None = None) -> list[Fault]:
    """All faults, the one first that the others may come from.

    Where apps come and go, each look finds other leftovers, for a moment: those count that were found `before`, too.
    """
    if node.probe.podman_error:
        return [Fault(PODMAN, node.probe.podman_error)]
    if node.probe.error or node.probe.containers is None:
        return []
    return [*_network(node), *_storage(node), *_leftovers(node, before)]


def could_see(node: NodeState, fault: Fault) -> bool:
    """Whether a fault would be among those of this node, if it were there still."""
    if node.probe.error or (node.probe.containers is None and not node.probe.podman_error):
        return False
    if fault.kind == PODMAN:
        return True
    units = {app.id: app.unit for app in node.apps}
    there = [units[app] for app in fault.apps if app in units and units[app].active not in ("inactive", "failed")]
    answers = [node.probe.apps[app].names for app in fault.apps if app in node.probe.apps]
    if fault.kind == NETWORK and any(answer and _is_slow(answer, node) for answer in answers):
        return False
    if node.probe.podman_error:
        return False
    seen = [unit.sub in ("running", "exited") and node.probe.at > unit.changed + _SETTLE for unit in there]
    # The network is that of all: one of its apps is enough. Another may take an hour to stop, or never be ready.
    return any(seen or [True]) if fault.kind == NETWORK else all(seen)


def is_early(node: NodeState) -> bool:
    """Whether something may be a fault at the next look though nothing changes: it is just too soon, or too busy."""
    young = any(app.unit.active == "active" and node.probe.at <= app.unit.changed + _SETTLE for app in node.apps)
    return young or any(app.names and not app.names.ok for app in node.probe.apps.values())


def _network(node: NodeState) -> list[Fault]:
    """Names that do not resolve, containers without a way out, and the program that is the way out of all."""
    settled = {app.id for app in node.apps if app.unit.sub == "running" and node.probe.at > app.unit.changed + _SETTLE}
    # What Podman has forgotten is restarted anyway, and connected anew with that.
    known = {entry.id for entry in node.probe.containers or ()}
    asked = {
        name: (app.id, app.names)
        for name, app in sorted(node.probe.apps.items())
        if name in settled and app.id in known and app.names
    }
    found = {n: (i, a) for n, (i, a) in asked.items() if not (a.ok or _is_slow(a, node))}
    said = [f"{name}: {answer.said}" for name, (_, answer) in found.items()]
    if node.probe.pasta is False and settled:
        said.insert(0, "pasta does not run: no way out")
    if not said:
        return []
    whole = "all apps: " if len(found) == len(asked) > 1 else ""
    containers = tuple(identity for identity, _ in found.values())
    return [Fault(NETWORK, whole + "; ".join(said[:4]), tuple(found), containers)]


def _is_slow(answer: CheckResult, node: NodeState) -> bool:
    """Whether silence may come of a busy machine."""
    return not answer.ok and answer.kind == TIMEOUT and node.probe.load > LOADED


def _storage(node: NodeState) -> list[Fault]:
    """Apps whose start fails in Podman, again and again. It may be the image, and it may be all of its storage."""
    found = [
        app.id
        for app in node.apps
        if app.unit.exit_status in FAILED and app.unit.restarts >= _OFTEN and app.unit.active == "activating"
    ]
    return [Fault(STORAGE, f"Podman fails to start {', '.join(found)}", tuple(found))] if found else []


def _leftovers(node: NodeState, before: Sequence[Fault] | None) -> list[Fault]:
    """Containers of ours that no unit has, and health timers of containers that are gone."""
    seen = None if before is None else {what for fault in before for what in (*fault.containers, *fault.timers)}
    units = {paths.unit(app.id): app.unit for app in node.apps}
    living = {app.id for app in node.probe.apps.values()}
    containers = [
        entry
        for entry in node.probe.containers or ()
        if entry.unit in units and entry.id not in living and _is_left(entry, units[entry.unit], node)
        if seen is None or entry.id in seen
    ]
    known = {*living, *(entry.id for entry in node.probe.containers or ())}
    timers = [
        timer for timer in node.probe.timers if timer.partition("-")[0] not in known and (seen is None or timer in seen)
    ]
    said = [f"container {entry.name} of {entry.unit}, {entry.state}" for entry in containers]
    said += [f"{len(timers)} health timers of containers that are gone"] if timers else []
    if not said:
        return []
    return [Fault(LEFTOVERS, "; ".join(said), (), tuple(entry.id for entry in containers), tuple(timers))]


def _is_left(entry: PodmanContainer, unit: Unit, node: NodeState) -> bool:
    """Whether nobody is about to make, or to remove, the unit's container; one that runs may be a unit's elsewhere."""
    settled = unit.sub in ("dead", "failed", "running", "exited") and node.probe.podman_at > unit.changed + _SETTLE
    return settled and unit.generated and (entry.state != "running" or unit.sub != "running")
