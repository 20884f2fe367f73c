# SPDX-License-Identifier: MIT
"""All that follows from the current state: each app's health, the restarts, the faults of Podman. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from archy import paths
from archy.health import faults as health_faults
from archy.health import liveness
from archy.health.current import AppState, NodeState
from archy.health.faults import Fault
from archy.health.liveness import Health
from archy.host.steps import Remove, Step
from archy.reconcile import restarts
from archy.reconcile.restarts import Decision
from archy.recover import incidents as recover_incidents
from archy.recover.incidents import Incidents


@dataclass(frozen=True)
class Plan:
    """The current state, and what follows. `incidents` is what was done about faults before."""

    node: NodeState
    health: Mapping[str, Health]
    decision: Decision
    faults: list[Fault]
    incidents: Incidents

    @property
    def steps(self) -> list[Step]:
        """What is to be done: mend Podman, let apps go on, restart them."""
        mend = recover_incidents.steps(self.incidents, self.faults, self.node.recovering, self.node.monotonic)
        return [*mend, *self.decision.steps]

    @property
    def needs_second_look(self) -> bool:
        """Whether a second look, soon, would tell whether Podman has forgotten an app."""
        return not self.node.recovering and any(app.needs_second_look for app in self.health.values())

    @property
    def is_pending(self) -> bool:
        """Whether another pass has to look again, though all may read well."""
        return (
            any(app.stale for app in self.node.apps)
            or any(app.is_pending for app in self.health.values())
            or health_faults.is_early(self.node)
        )


def make(node: NodeState, incidents: Incidents) -> Plan:
    """The plan for this state."""
    health = liveness.judge(node)
    return Plan(node, health, restarts.decide(node, health), health_faults.faults(node), incidents)


def finished_rotations(node: NodeState) -> list[Step]:
    """The steps that end rotations: no app runs that was started with the previous value."""
    done = [name for name in sorted(node.rotating) if not outdated_users(node, name)]
    return [Remove(f"{paths.SECRETS}/{name}{paths.PREVIOUS}", "its rotation is over") for name in done]


def outdated_users(node: NodeState, name: str) -> list[str]:
    """The apps that a rotation of this secret still has to wait for."""
    users = [app for app in node.apps if app.summary and name in app.summary["secrets"]]
    return [app.id for app in users if runs(app) and not _is_new(app)]


def runs(app: AppState) -> bool:
    """Whether the app runs, or is about to."""
    return app.unit.is_alive or app.unit.has_job


def _is_new(app: AppState) -> bool:
    """Whether the app has the new value already, or will have: what is not started yet is started with it."""
    if app.unit.is_queued or app.unit.is_restarting:
        return True
    return app.unit.is_steady and app.comparable and not app.stale
