# SPDX-License-Identifier: MIT
"""`archy app install` and `archy app remove`.

Both are a few idempotent steps, and what is done already is not done again: cut short anywhere, the same command
finishes. Installing is a link, a reload and a start; an operator can do the same by hand.
"""

from __future__ import annotations

import os

from archy import paths
from archy.apps import catalogue, pending
from archy.host import write
from archy.operations import jobs, preflight, remove
from archy.operations.progress import progress
from archy.prepare.prepare import locked


def install(app_id: str, wait: bool) -> None:
    """Install an app with its parts and companions, start them, and wait until each is ready or has failed."""
    what = f"install {app_id}"
    _bring_back(app_id)
    every = catalogue.entries("/")
    wanted = [preflight.usable(what, every, name) for name in (app_id, *catalogue.members(every, app_id))]
    preflight.refuse_part(what, wanted[0])
    preflight._check_alternatives(what, every, wanted[0])
    preflight._check_dependencies(what, every, wanted)
    preflight.check_ports(what, every, wanted)
    preflight._check_bitcoin(what, every, wanted)
    preflight._note_storage(wanted)
    names = [entry.id for entry in wanted]
    with pending.installing("/", names, lambda: progress("waiting for another installation to finish")):
        with locked("/"):
            write.make_directory("/", paths.APPS, 0, 0, 0o755)
            for entry in wanted:
                if not entry.installed:
                    write.replace_link("/", f"{paths.APPS}/{entry.id}", f"{paths.CATALOGUE}/{entry.id}")
                    progress(f"{entry.id}: installed")
        for name in names:
            write.remove("/", f"{paths.STOPPED}/{name}")
        jobs.apply(what)
        jobs.ctl(what, "start", "--no-block", *map(paths.unit, names))
    if wait:
        jobs.start(what, names)


def _bring_back(app_id: str) -> None:
    """Take back the operator's own app of that ID that was removed last, if it is not there again already."""
    kept = remove._kept(app_id)
    if kept and not os.path.lexists(f"{paths.APPS}/{app_id}"):
        with locked("/"):
            write.move("/", kept[-1], f"{paths.APPS}/{app_id}")
        progress(f"{app_id}: brought back from {kept[-1]}")
