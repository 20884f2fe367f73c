# SPDX-License-Identifier: MIT
"""All that follows from how the node is: what each app's health, the restarts and the faults of Podman are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from archy import diagnose, liveness, recovery, restarts
from archy.diagnose import Fault
from archy.liveness import Health
from archy.observe import NodeState
from archy.recovery import Recovery
from archy.restarts import Decision
from archy.steps import Step


@dataclass(frozen=True)
class Survey:
    """The node, and what follows. `recovery` is what was done about faults before."""

    node: NodeState
    health: Mapping[str, Health]
    decision: Decision
    faults: list[Fault]
    recovery: Recovery

    @property
    def steps(self) -> list[Step]:
        """What is to be done: mend Podman, let apps go on, restart them."""
        mend = recovery.steps(self.recovery, self.faults, self.node.recovering, self.node.monotonic)
        return [*mend, *self.decision.steps]

    @property
    def is_doubtful(self) -> bool:
        """Whether a second look, soon, would tell whether Podman has forgotten an app."""
        return not self.node.recovering and any(found.is_doubtful for found in self.health.values())

    @property
    def is_pending(self) -> bool:
        """Whether another pass has to look again, though all may read well."""
        return (
            any(app.changed for app in self.node.apps)
            or any(health.is_pending for health in self.health.values())
            or diagnose.is_early(self.node)
        )


def survey(node: NodeState, known: Recovery) -> Survey:
    """Look at the node as a whole. Pure."""
    health = liveness.judge(node)
    return Survey(node, health, restarts.decide(node, health), diagnose.faults(node), known)
