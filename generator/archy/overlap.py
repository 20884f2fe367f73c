# SPDX-License-Identifier: MIT
"""Whether rotations of secrets are over. Pure. See `rotation`."""

from __future__ import annotations

from archy import paths
from archy.observe import AppState, NodeState
from archy.steps import Remove, Step


def over(node: NodeState) -> list[Step]:
    """The steps that end rotations: nobody who runs was started with the value before."""
    done = [name for name in sorted(node.rotating) if not waits_for(node, name)]
    return [Remove(f"{paths.SECRETS}/{name}{paths.PREVIOUS}", "its rotation is over") for name in done]


def waits_for(node: NodeState, name: str) -> list[str]:
    """The apps that a rotation of this secret still has to wait for."""
    users = [app for app in node.apps if app.summary and name in app.summary["secrets"]]
    return [app.id for app in users if runs(app) and not _is_new(app)]


def runs(app: AppState) -> bool:
    """Whether the app runs, or is about to."""
    return app.unit.runs or app.unit.busy


def _is_new(app: AppState) -> bool:
    """Whether the app has the new value already, or will have: what is not started yet is started with it."""
    queued = app.unit.busy and app.unit.sub in ("dead", "failed")
    if queued or app.unit.sub.startswith("auto-restart"):
        return True
    settled = app.unit.sub == "start" or (app.unit.sub == "running" and not app.unit.busy)
    return settled and app.known and not app.changed
