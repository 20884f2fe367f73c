# SPDX-License-Identifier: MIT
"""`archy app switch`: from one alternative to another, as from one implementation of Bitcoin to the next.

Both work on the same data, so the first one has stopped before the second one starts. Whoever needs what they provide
follows: its files name another container then, and a pass restarts it.
"""

from __future__ import annotations

from archy import paths
from archy.apps import catalogue, installed, pending
from archy.apps.catalogue import Entry
from archy.host import systemd, write
from archy.manifest.model import App
from archy.operations import jobs, preflight, remove
from archy.operations.progress import NO_SUCH_APP, REFUSED, CannotDo, progress
from archy.prepare.prepare import locked, prepare


def switch(old_id: str, new_id: str) -> None:
    """Put one app in the place of another, and start it. Cut short anywhere, the same command finishes."""
    what = f"switch {old_id} {new_id}"
    every = catalogue.entries("/")
    old, new = preflight.known(what, every, old_id), preflight.usable(what, every, new_id)
    if not new.provides or old.provides != new.provides or old_id == new_id:
        why = f"{old_id} and {new_id} are no alternatives: they do not provide the same"
        raise CannotDo(what, new_id, why, "archy app show tells what an app provides", REFUSED)
    if not (old.installed or new.installed):
        raise CannotDo(what, old_id, "is not installed", f"archy app install {new_id}", NO_SUCH_APP)
    _check_data(what, old, new)
    preflight.check_ports(what, [entry for entry in every if entry.id != old_id], [new])
    names = [new_id, *catalogue.members(every, new_id)]
    # Killed before the links are others, the next pass starts the old one again, and after that the new one.
    with pending.installing("/", [old_id, *names], lambda: progress("waiting for another installation to finish")):
        unit = systemd.unit(old_id)
        if unit and unit.loaded and not jobs.await_job(old_id, systemd.job("stop", unit.name), "stopping", "stopped"):
            raise CannotDo(what, old_id, "could not be stopped, see above", f"systemctl status {unit.name}")
        with locked("/"):
            for name in names:
                if not next(entry for entry in every if entry.id == name).installed:
                    write.replace_link("/", f"{paths.APPS}/{name}", f"{paths.CATALOGUE}/{name}")
                write.remove("/", f"{paths.STOPPED}/{name}")
            remove.unlink(old_id, old)
        progress(f"{old_id}: removed, and {new_id} installed in its place; the data stay")
        prepare("/", installed.ids("/")[0])
        jobs.ctl(what, "daemon-reload")
        # Before the pass restarts who follows: they wait for what is about to start.
        jobs.ctl(what, "start", "--no-block", *map(paths.unit, names))
        jobs.ctl(what, "start", "archy-reconcile.service")
    jobs.start(what, names)


def _check_data(what: str, old: Entry, new: Entry) -> None:
    """The new one must work on the data of the old one, as the same user; else it would begin with none."""
    if old.app and new.app and _data(old.app) != _data(new.app):
        why = f"{old.id} and {new.id} do not keep their data in the same place, as the same user"
        raise CannotDo(what, new.folder, why, "compare volumes and data_uid of their manifests", REFUSED)


def _data(app: App) -> tuple[set[str], int | None, str]:
    return {volume.source for volume in app.volumes if "ro" not in volume.options}, app.data_uid, app.user
