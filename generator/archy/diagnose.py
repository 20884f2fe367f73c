# SPDX-License-Identifier: MIT
"""What is wrong with Podman, and not with one app. Pure: the node as a probe found it in, faults out.

`podman info` and a green unit say nothing of most of this (design D9): silence is the danger.
"""

from __future__ import annotations

from dataclasses import dataclass

from archy import paths
from archy.checks import SILENT
from archy.liveness import LOADED
from archy.observe import NodeState
from archy.probed import Answer, Listed
from archy.systemd import Unit

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


def faults(node: NodeState) -> list[Fault]:
    """All faults, the one first that the others may come from."""
    if node.probe.podman_error:
        return [Fault(PODMAN, node.probe.podman_error)]
    if node.probe.error or node.probe.containers is None:
        return []
    return [*_network(node), *_storage(node), *_leftovers(node)]


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
    return not node.probe.podman_error and all(
        unit.sub == "running" and node.probe.at > unit.changed + _SETTLE for unit in there
    )


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


def _is_slow(answer: Answer, node: NodeState) -> bool:
    """Whether silence may come of a busy machine."""
    return not answer.ok and answer.kind == SILENT and node.probe.load > LOADED


def _storage(node: NodeState) -> list[Fault]:
    """Apps whose start fails in Podman, again and again. It may be the image, and it may be all of its storage."""
    found = [
        app.id
        for app in node.apps
        if app.unit.status in FAILED and app.unit.restarts >= _OFTEN and app.unit.active == "activating"
    ]
    return [Fault(STORAGE, f"Podman fails to start {', '.join(found)}", tuple(found))] if found else []


def _leftovers(node: NodeState) -> list[Fault]:
    """Containers of ours that no unit has, and health timers of containers that are gone."""
    units = {paths.unit(app.id): app.unit for app in node.apps}
    living = {app.id for app in node.probe.apps.values()}
    containers = [
        entry
        for entry in node.probe.containers or ()
        if entry.unit in units and entry.id not in living and _is_left(entry, units[entry.unit], node)
    ]
    known = {*living, *(entry.id for entry in node.probe.containers or ())}
    timers = [timer for timer in node.probe.timers if timer.partition("-")[0] not in known]
    said = [f"container {entry.name} of {entry.unit}, {entry.state}" for entry in containers]
    said += [f"{len(timers)} health timers of containers that are gone"] if timers else []
    if not said:
        return []
    return [Fault(LEFTOVERS, "; ".join(said), (), tuple(entry.id for entry in containers), tuple(timers))]


def _is_left(entry: Listed, unit: Unit, node: NodeState) -> bool:
    """Whether nobody is about to make, or to remove, the unit's container; one that runs may be a unit's elsewhere."""
    settled = unit.sub in ("dead", "failed", "running") and node.probe.podman_at > unit.changed + _SETTLE
    return settled and unit.generated and (entry.state != "running" or unit.sub != "running")
