# SPDX-License-Identifier: MIT
"""`archy app install` and `archy app remove`.

Both are a few idempotent steps, and what is done already is not done again: cut short anywhere, the same command
finishes. Installing is a link, a reload and a start; an operator can do the same by hand.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess

from archy import (
    accept,
    bitcoin,
    cache,
    catalogue,
    disk,
    installed,
    jobs,
    paths,
    pending,
    quadlet,
    steps,
    systemd,
)
from archy.catalogue import Entry
from archy.output import NO_SUCH_APP, REFUSED, CannotDo, say
from archy.prepare import locked, prepare

_NETWORK_TIME = 30  # seconds


def install(app_id: str, wait: bool) -> None:
    """Install an app with its parts and companions, start them, and wait until each is ready or has failed."""
    what = f"install {app_id}"
    _bring_back(app_id)
    every = catalogue.entries("/")
    wanted = [usable(what, every, name) for name in (app_id, *catalogue.belonging(every, app_id))]
    refuse_part(what, wanted[0])
    _check_alternatives(what, every, wanted[0])
    _check_dependencies(what, every, wanted)
    check_ports(what, every, wanted)
    _check_bitcoin(what, every, wanted)
    _note_storage(wanted)
    names = [entry.id for entry in wanted]
    with pending.during("/", names, lambda: say("waiting for another installation to finish")):
        with locked("/"):
            disk.make_directory("/", paths.APPS, 0, 0, 0o755)
            for entry in wanted:
                if not entry.installed:
                    disk.replace_link("/", f"{paths.APPS}/{entry.id}", f"{paths.CATALOGUE}/{entry.id}")
                    say(f"{entry.id}: installed")
        for name in names:
            disk.remove("/", f"{paths.STOPPED}/{name}")
        apply(what)
        ctl(what, "start", "--no-block", *map(paths.unit, names))
    if wait:
        jobs.start(what, names)


def apply(what: str) -> None:
    """Let what is installed now take effect: files, also of others that it concerns; units; restarts of who needs it.

    What is wrong is said; the start of that app fails, and the others are started.
    """
    prepare("/", installed.ids("/")[0])
    ctl(what, "daemon-reload")
    ctl(what, "start", "archy-reconcile.service")


def _bring_back(app_id: str) -> None:
    """Take back the operator's own app of that ID that was removed last, if it is not there again already."""
    kept = _kept(app_id)
    if kept and not os.path.lexists(f"{paths.APPS}/{app_id}"):
        with locked("/"):
            disk.move("/", kept[-1], f"{paths.APPS}/{app_id}")
        say(f"{app_id}: brought back from {kept[-1]}")


def _kept(app_id: str) -> list[str]:
    """Where an operator's own apps of that ID are kept after their removal, the newest last."""
    pattern = re.compile(rf"\.removed-{re.escape(app_id)}\.([0-9]+)")
    found = [match for name in os.listdir(paths.APPS) if (match := pattern.fullmatch(name))]
    return [f"{paths.APPS}/{match[0]}" for match in sorted(found, key=lambda match: int(match[1]))]


def known(what: str, every: list[Entry], app_id: str) -> Entry:
    """The app of that ID, usable or not; raises CannotDo if there is none."""
    entry = next((e for e in every if e.id == app_id), None)
    if entry is None:
        raise CannotDo(what, paths.CATALOGUE, f"there is no app {app_id}", "archy app list shows all", NO_SUCH_APP)
    return entry


def usable(what: str, every: list[Entry], app_id: str) -> Entry:
    """The app of that ID; raises CannotDo if there is none, or with all that is wrong with its manifest."""
    entry = known(what, every, app_id)
    if entry.app is None:
        for problem in entry.problems:
            say(str(problem))
        raise CannotDo(
            what, entry.folder, "its manifest is refused, see above", f"archy app validate {entry.folder}", REFUSED
        )
    return entry


def refuse_part(what: str, entry: Entry) -> None:
    """A part of a stack is nothing by itself; raises CannotDo."""
    if entry.part_of:
        verb = what.partition(" ")[0]
        raise CannotDo(what, entry.id, f"is a part of {entry.part_of}", f"archy app {verb} {entry.part_of}", REFUSED)


def _check_alternatives(what: str, every: list[Entry], new: Entry) -> None:
    for other in every:
        if other.installed and new.provides and other.provides == new.provides and other.id != new.id:
            why = f"provides {new.provides}, and so does {other.id}, which is installed: they are alternatives"
            raise CannotDo(what, new.id, why, f"archy app switch {other.id} {new.id}", REFUSED)
        if new.provides and other.id == new.provides:
            raise CannotDo(what, new.id, f"provides {new.provides}, which is the name of an app", "rename one", REFUSED)


def _check_dependencies(what: str, every: list[Entry], wanted: list[Entry]) -> None:
    there = [*(entry for entry in every if entry.installed), *wanted]
    for entry in wanted:
        assert entry.app is not None
        for need in (*entry.app.need_ids, *([entry.whole] if entry.whole else [])):
            if not catalogue.called(there, need):
                choice = " or ".join(found.id for found in catalogue.called(every, need)) or need
                raise CannotDo(what, entry.id, f"needs {need}, which is not installed", f"archy app install {choice}")
            back = next((e for e in every if e.id == need and e.app and entry.id in e.app.need_ids), None)
            if back and need in entry.app.need_ids:
                raise CannotDo(what, entry.id, f"needs {need}, which needs {entry.id}", f"change {back.folder}")


def _check_bitcoin(what: str, every: list[Entry], wanted: list[Entry]) -> None:
    """Ask the real node whether it is archival, where an app needs that; what cannot be asked now, status will say."""
    for entry in wanted:
        if entry.app and "archival" in entry.app.bitcoin:
            provider = next((found for found in catalogue.called(every, bitcoin.NAME) if found.installed), None)
            if provider is None:  # it provides Bitcoin itself, or is installed with what does
                continue
            try:
                lacking = bitcoin.lacks(bitcoin.ask("/"))
            except OSError as error:
                say(f"{entry.id}: needs an archival Bitcoin node; {provider.id} cannot be asked just now: {error}")
                return
            if lacking:
                why = f"needs an archival Bitcoin node; {provider.id} {' and '.join(lacking)}"
                raise CannotDo(what, entry.id, why, f"set bitcoin.prune: 0 in {paths.NODE}", REFUSED)


def _note_storage(wanted: list[Entry]) -> None:
    free = shutil.disk_usage(paths.HOME).free
    for entry in wanted:
        if entry.app and entry.app.storage and entry.app.storage > free and not entry.installed:
            there, gib = free / 1024**3, entry.app.storage / 1024**3
            say(f"{entry.id}: wants {gib:.0f} GiB on disk; {paths.HOME} has {there:.0f} GiB free")


def check_ports(what: str, every: list[Entry], wanted: list[Entry]) -> None:
    """Raise CannotDo if a port of these apps is one of an installed app's."""
    new = {entry.id for entry in wanted}
    others = [e for e in every if e.installed and e.id not in new]
    for index, entry in enumerate(wanted):
        for holder in [*others, *wanted[:index]]:
            for port in entry.app.ports if entry.app else ():
                if holder.app and any(port.clashes(taken) for taken in holder.app.ports):
                    why = f"wants port {port.host}/{port.protocol}, which {holder.id} has"
                    raise CannotDo(what, entry.id, why, f"archy app remove {holder.id}")


def ctl(what: str, *arguments: str) -> None:
    """Run systemctl; raises CannotDo with what it says."""
    try:
        systemd.ctl(*arguments)
    except subprocess.CalledProcessError as error:
        why = " ".join(error.stderr.split())
        raise CannotDo(what, "systemctl " + " ".join(arguments), why, f"mend that, then: archy app {what}") from None


def remove(app_id: str) -> None:
    """Stop an app with its parts and companions, and unlink them. Their data, volumes and secrets stay."""
    what = f"remove {app_id}"
    every = catalogue.entries("/")
    known = {entry.id: entry for entry in every}
    unit = systemd.unit(app_id)
    if app_id not in known and not (unit and unit.generated and not installed.is_reserved(app_id)):
        raise CannotDo(what, paths.APPS, f"there is no app {app_id}", "archy app list shows all", NO_SUCH_APP)
    names = catalogue.stopped_in_order(every, app_id)
    own = known[app_id].names if app_id in known else (app_id,)
    if app_id in known:
        refuse_part(what, known[app_id])
    for entry in every:
        if entry.installed and entry.app and entry.id not in names and set(own) & set(entry.app.need_ids):
            raise CannotDo(what, entry.id, f"needs {app_id}", f"archy app remove {entry.id}")
    for name in names:
        if name != app_id and not known[name].installed:
            continue
        unit = systemd.unit(name)
        if unit and unit.loaded and not jobs.await_job(name, systemd.job("stop", unit.name), "stopping", "stopped"):
            raise CannotDo(what, unit.name, "could not be stopped, see above", f"systemctl status {unit.name}")
        with locked("/"):
            unlink(name, known.get(name))
        say(f"{name}: removed")
    apply(what)
    for network in map(quadlet.network_of, systemd.sweep(list(map(paths.unit, names)))):
        if network:
            steps.run_as_user("/", ["podman", "network", "rm", network], _NETWORK_TIME)
    say(f"data and secrets are kept in {paths.HOME}")


def unlink(app_id: str, entry: Entry | None) -> None:
    """Take an app that is stopped off the node; what is its operator's own is kept aside."""
    path = f"{paths.APPS}/{app_id}"
    if os.path.islink(path):
        disk.remove("/", path)
    elif entry is not None and entry.installed:
        last = _kept(app_id)[-1:]
        kept = f"{paths.APPS}/.removed-{app_id}.{int(last[0].rpartition('.')[2]) + 1 if last else 0}"
        disk.move("/", path, kept)
        say(f"{app_id}: its manifest is kept in {kept}")
    accept.forget("/", app_id)
    made = (f"{paths.PREPARED}/{app_id}.json", f"{paths.STARTED}/{app_id}.json", f"{paths.ENVIRONMENTS}/{app_id}.env")
    for leftover in (cache.units_path(app_id), f"{paths.STOPPED}/{app_id}", *made):
        disk.remove("/", leftover)
    for folder in (paths.SECRET_ENVIRONMENTS, paths.COPIES):
        disk.remove_tree("/", f"{folder}/{app_id}")
