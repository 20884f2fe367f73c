# SPDX-License-Identifier: MIT
"""`archy app install`: a link, a reload and a start; an operator can do the same by hand.

A step that is done is not done again: after an interruption, the same command completes the installation.
"""

from __future__ import annotations

import os

from archy import paths
from archy.apps import catalogue, pending
from archy.host import write
from archy.operations import jobs, preflight, remove
from archy.operations.progress import progress
from archy.prepare.prepare import locked


def install(app_id: str, no_wait: bool = False) -> None:
    """Install an app with its parts and companions, start them, and wait until each is ready or has failed; or not."""
    what = f"install {app_id}"
    _bring_back(app_id)
    every = catalogue.entries("/")
    new = [preflight.usable(what, name, every) for name in (app_id, *catalogue.members(every, app_id))]
    preflight.refuse_part(what, new[0])
    preflight.check_alternatives(what, every, new[0])
    preflight.check_dependencies(what, every, new)
    preflight.check_ports(what, every, new)
    preflight.check_bitcoin(what, every, new)
    preflight.note_storage(new)
    names = [entry.id for entry in new]
    with pending.installing("/", names, lambda: progress("waiting for another installation to finish")):
        with locked("/"):
            write.make_directory("/", paths.APPS, 0, 0, 0o755)
            for entry in new:
                if not entry.installed:
                    write.replace_link("/", f"{paths.APPS}/{entry.id}", f"{paths.CATALOGUE}/{entry.id}")
                    progress(f"{entry.id}: installed")
        for name in names:
            write.remove("/", f"{paths.STOPPED}/{name}")
        jobs.apply(what)
        jobs.ctl(what, "start", "--no-block", *map(paths.unit, names))
    if not no_wait:
        jobs.start(what, names)


def _bring_back(app_id: str) -> None:
    """Restore the operator's own app of that ID that was removed last, unless there is a new one."""
    kept = remove.kept(app_id)
    if kept and not os.path.lexists(f"{paths.APPS}/{app_id}"):
        with locked("/"):
            write.move("/", kept[-1], f"{paths.APPS}/{app_id}")
        progress(f"{app_id}: brought back from {kept[-1]}")
