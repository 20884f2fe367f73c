# SPDX-License-Identifier: MIT
"""What is wrong with Podman, and not with one app. Pure: from the current state to faults.

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
FAILED = (125, 126, 127)  # exit status of a start that Podman itself failed (podman-run(1))


@dataclass(frozen=True)
class Fault:
    """`apps` and `containers` are those that it concerns, `timers` what else is left over."""

    kind: str
    message: str
    apps: tuple[str, ...] = ()
    containers: tuple[str, ...] = ()
    timers: tuple[str, ...] = ()


def faults(node: NodeState, previous: Sequence[Fault] | None = None) -> list[Fault]:
    """All faults, the one first that the others may come from.

    Where apps come and go, there are other leftovers at each look, for a moment: those of the `previous` look count.
    """
    if node.probe.podman_error:
        return [Fault(PODMAN, node.probe.podman_error)]
    if node.probe.error or node.probe.containers is None:
        return []
    return [*_network(node), *_storage(node), *_leftovers(node, previous)]


def could_see(node: NodeState, fault: Fault) -> bool:
    """Whether a fault that still existed would be among the faults of this node."""
    if node.probe.error or (node.probe.containers is None and not node.probe.podman_error):
        return False
    if fault.kind == PODMAN:
        return True
    units = {app.id: app.unit for app in node.apps}
    up = [units[app] for app in fault.apps if app in units and not units[app].is_down]
    answers = [node.probe.apps[app].names for app in fault.apps if app in node.probe.apps]
    if fault.kind == NETWORK and any(answer and _is_slow(answer, node) for answer in answers):
        return False
    if node.probe.podman_error:
        return False
    seen = [unit.is_ready and node.probe.at > unit.changed + _SETTLE for unit in up]
    # All apps share the network: one of them is enough. Another may take an hour to stop, or never be ready.
    return any(seen or [True]) if fault.kind == NETWORK else all(seen)


def is_early(node: NodeState) -> bool:
    """Whether the next look may see a fault though nothing changes: it is too soon now, or the machine too busy."""
    young = any(app.unit.is_up and node.probe.at <= app.unit.changed + _SETTLE for app in node.apps)
    return young or any(app.names and not app.names.ok for app in node.probe.apps.values())


def _network(node: NodeState) -> list[Fault]:
    """Names that do not resolve, containers without a way out, and the program that is the way out of all."""
    settled = {app.id for app in node.apps if app.unit.is_running and node.probe.at > app.unit.changed + _SETTLE}
    # A container that Podman has forgotten is restarted anyway, and connected anew with that.
    known = {container.id for container in node.probe.containers or ()}
    asked = {
        name: (app.id, app.names)
        for name, app in sorted(node.probe.apps.items())
        if name in settled and app.id in known and app.names
    }
    failed = {name: pair for name, pair in asked.items() if not (pair[1].ok or _is_slow(pair[1], node))}
    messages = ["pasta does not run: no way out"] if node.probe.pasta is False and settled else []
    messages += [f"{name}: {names.message}" for name, (_, names) in failed.items()]
    if not messages:
        return []
    prefix = "all apps: " if len(failed) == len(asked) > 1 else ""
    containers = tuple(identity for identity, _ in failed.values())
    return [Fault(NETWORK, prefix + "; ".join(messages[:4]), tuple(failed), containers)]


def _is_slow(answer: CheckResult, node: NodeState) -> bool:
    """Whether the answer may be missing because the machine is busy."""
    return not answer.ok and answer.kind == TIMEOUT and node.probe.load > LOADED


def _storage(node: NodeState) -> list[Fault]:
    """Apps whose start fails in Podman, again and again. It may be the image, and it may be all of its storage."""
    units = {app.id: app.unit for app in node.apps if app.restarts_often}
    failing = tuple(name for name, unit in units.items() if unit.is_activating and unit.exit_status in FAILED)
    return [Fault(STORAGE, f"Podman fails to start {', '.join(failing)}", failing)] if failing else []


def _leftovers(node: NodeState, previous: Sequence[Fault] | None) -> list[Fault]:
    """Containers of ours that no unit has, and health timers of containers that are gone."""
    units = {paths.unit(app.id): app.unit for app in node.apps}
    in_use = {app.id for app in node.probe.apps.values()}
    listed = node.probe.containers or ()
    known = {*in_use, *(container.id for container in listed)}
    containers = [one for one in listed if one.id not in in_use and _is_left(one, units.get(one.unit), node)]
    timers = [timer for timer in node.probe.timers if timer.partition("-")[0] not in known]
    if previous is not None:
        seen = {name for fault in previous for name in (*fault.containers, *fault.timers)}
        containers = [container for container in containers if container.id in seen]
        timers = [timer for timer in timers if timer in seen]
    messages = [f"container {container.name} of {container.unit}, {container.state}" for container in containers]
    messages += [f"{len(timers)} health timers of containers that are gone"] if timers else []
    if not messages:
        return []
    return [Fault(LEFTOVERS, "; ".join(messages), (), tuple(one.id for one in containers), tuple(timers))]


def _is_left(container: PodmanContainer, unit: Unit | None, node: NodeState) -> bool:
    """Whether nothing is about to make, or to remove, the unit's container; a running one may be a unit's elsewhere."""
    if unit is None or not unit.generated:
        return False
    settled = (unit.is_down or unit.is_ready) and node.probe.podman_at > unit.changed + _SETTLE
    return settled and not (container.state == "running" and unit.is_running)
