# SPDX-License-Identifier: MIT
"""`archy app remove`: an app and what belongs to it are stopped and unlinked; data, volumes and secrets stay.

A step that is done is not done again: after an interruption, the same command completes the removal.
"""

from __future__ import annotations

import os
import re

from archy import paths
from archy.apps import accepted, catalogue
from archy.apps.catalogue import Entry
from archy.host import steps, systemd, write
from archy.operations import jobs, preflight
from archy.operations.progress import CannotDo, progress
from archy.prepare.prepare import locked
from archy.units import quadlet

_NETWORK_TIME = 30  # seconds


def kept(app_id: str) -> list[str]:
    """Where an operator's own apps of that ID are kept after their removal, the newest last."""
    pattern = re.compile(rf"\.removed-{re.escape(app_id)}\.([0-9]+)")
    found = [match for name in os.listdir(paths.APPS) if (match := pattern.fullmatch(name))]
    return [f"{paths.APPS}/{match[0]}" for match in sorted(found, key=lambda match: int(match[1]))]


def remove(app_id: str) -> None:
    """Stop an app with its parts and companions, and unlink them. Their data, volumes and secrets stay."""
    what = f"remove {app_id}"
    every = catalogue.entries("/")
    known = {entry.id: entry for entry in every}
    unit = systemd.unit(app_id)
    # A unit may outlive its app's folder, if the operator deleted that.
    if app_id in known or not (unit and unit.generated and not paths.is_reserved(app_id)):
        preflight.refuse_part(what, preflight.find(what, app_id, every))
    names = catalogue.stopped_in_order(every, app_id)
    for entry in catalogue.dependents(every, app_id):
        if entry.id not in names:
            raise CannotDo(what, entry.id, f"needs {app_id}", f"archy app remove {entry.id}")
    for name in names:
        if name != app_id and not known[name].installed:
            continue
        jobs.stop(what, name)
        with locked("/"):
            unlink(name, known.get(name))
        progress(f"{name}: removed")
    jobs.apply(what)
    for network in map(quadlet.network_of, systemd.sweep(list(map(paths.unit, names)))):
        if network:
            steps.run_as_user("/", ["podman", "network", "rm", network], _NETWORK_TIME)
    progress(f"data and secrets are kept in {paths.HOME}")


def unlink(app_id: str, entry: Entry | None) -> None:
    """Take an app that is stopped off the node; what is its operator's own is kept aside."""
    path = f"{paths.APPS}/{app_id}"
    if os.path.islink(path):
        write.remove("/", path)
    elif entry is not None and entry.installed:
        last = kept(app_id)[-1:]
        target = f"{paths.APPS}/.removed-{app_id}.{int(last[0].rpartition('.')[2]) + 1 if last else 0}"
        write.move("/", path, target)
        progress(f"{app_id}: its manifest is kept in {target}")
    accepted.forget("/", app_id)
    made = (f"{paths.PREPARED}/{app_id}.json", f"{paths.STARTED}/{app_id}.json", f"{paths.ENVIRONMENTS}/{app_id}.env")
    for leftover in (f"{paths.STOPPED}/{app_id}", *made):
        write.remove("/", leftover)
    for folder in (paths.SECRET_ENVIRONMENTS, paths.COPIES):
        write.remove_tree("/", f"{folder}/{app_id}")
