# SPDX-License-Identifier: MIT
"""Whether rotations of secrets are over. Pure but for the names of the files among the secrets. See `rotation`."""

from __future__ import annotations

from archy import installed, paths
from archy.observe import AppState, NodeState
from archy.steps import Remove, Step


def over(root: str, node: NodeState) -> list[Step]:
    """The steps that end rotations: nobody who runs was started with the value before."""
    return [
        Remove(f"{paths.SECRETS}/{name}", "its rotation is over")
        for name in installed.secret_names(root)
        if name.endswith(paths.PREVIOUS) and not waits_for(node, name.removesuffix(paths.PREVIOUS))
    ]


def waits_for(node: NodeState, name: str) -> list[str]:
    """The apps that a rotation of this secret still has to wait for."""
    users = [app for app in node.apps if app.summary and name in app.summary["secrets"]]
    return [app.id for app in users if app.unit.active not in ("inactive", "failed") and not _is_new(app)]


def _is_new(app: AppState) -> bool:
    return app.unit.sub == "running" and not app.unit.busy and app.known and not app.changed
