# SPDX-License-Identifier: MIT
"""`archy app switch`: from one alternative to another, as from one implementation of Bitcoin to the next.

Both use the same data, so the first one has stopped before the second one starts. Apps that need what they provide
follow: their files name another container then, and a pass restarts them.
"""

from __future__ import annotations

from archy import paths
from archy.apps import catalogue, installed, pending
from archy.apps.catalogue import Entry
from archy.host import write
from archy.manifest.model import App
from archy.operations import jobs, preflight, remove
from archy.operations.progress import NO_SUCH_APP, REFUSED, CannotDo, progress
from archy.prepare.prepare import locked, prepare


def switch(old_id: str, new_id: str) -> None:
    """Put one app in the place of another, and start it. Cut short anywhere, the same command finishes."""
    what = f"switch {old_id} {new_id}"
    every = catalogue.entries("/")
    old, new = preflight.find(what, old_id, every), preflight.usable(what, new_id, every)
    if not new.provides or old.provides != new.provides or old_id == new_id:
        reason = f"{old_id} and {new_id} are no alternatives: they do not provide the same"
        raise CannotDo(what, new_id, reason, "archy app show tells what an app provides", REFUSED)
    if not (old.installed or new.installed):
        raise CannotDo(what, old_id, "is not installed", f"archy app install {new_id}", NO_SUCH_APP)
    _check_data(what, old, new)
    preflight.check_ports(what, [entry for entry in every if entry.id != old_id], [new])
    names = [new_id, *catalogue.members(every, new_id)]
    # After a kill, the next pass starts the old one again if the links are still the old ones, else the new one.
    with pending.installing("/", [old_id, *names], lambda: progress("waiting for another installation to finish")):
        jobs.stop(what, old_id)
        with locked("/"):
            for name in names:
                if not preflight.find(what, name, every).installed:
                    write.replace_link("/", f"{paths.APPS}/{name}", f"{paths.CATALOGUE}/{name}")
                write.remove("/", f"{paths.STOPPED}/{name}")
            remove.unlink(old_id, old)
        progress(f"{old_id}: removed, and {new_id} installed in its place; the data stay")
        prepare("/", installed.ids("/")[0])
        jobs.ctl(what, "daemon-reload")
        # Before the pass, which restarts the apps that follow: they wait for the new one.
        jobs.ctl(what, "start", "--no-block", *map(paths.unit, names))
        jobs.ctl(what, "start", "archy-reconcile.service")
    jobs.start(what, names)


def _check_data(what: str, old: Entry, new: Entry) -> None:
    """The new one must use the data of the old one, as the same user; else it would start without data."""
    if old.app and new.app and _data(old.app) != _data(new.app):
        reason = f"{old.id} and {new.id} do not keep their data in the same place, as the same user"
        raise CannotDo(what, new.folder, reason, "compare volumes and data_uid of their manifests", REFUSED)


def _data(app: App) -> tuple[set[str], int | None, str]:
    return {volume.source for volume in app.volumes if "ro" not in volume.options}, app.data_uid, app.user
