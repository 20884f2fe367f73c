# SPDX-License-Identifier: MIT
"""Checks before an operation: the app exists, its needs are met, its ports are free. Each raises CannotDo."""

from __future__ import annotations

import shutil

from archy import paths
from archy.apps import catalogue
from archy.apps.catalogue import Entry
from archy.bitcoin import rpc
from archy.manifest.model import BITCOIN
from archy.operations.progress import NO_SUCH_APP, REFUSED, CannotDo, progress


def find(what: str, app_id: str, every: list[Entry] | None = None, installed: bool = False) -> Entry:
    """The app of that ID, among `every` if given, also one whose manifest is refused. `installed`: it must be."""
    found = catalogue.entry("/", app_id) if every is None else next((e for e in every if e.id == app_id), None)
    if found is None:
        where = f"{paths.APPS}, {paths.CATALOGUE}"
        raise CannotDo(what, where, f"there is no app {app_id}", "archy app list shows all", NO_SUCH_APP)
    if installed and not found.installed:
        raise CannotDo(what, app_id, "is not installed", f"archy app install {app_id}", NO_SUCH_APP)
    return found


def usable(what: str, app_id: str, every: list[Entry]) -> Entry:
    """The app of that ID; its manifest must be good."""
    entry = find(what, app_id, every)
    if entry.app is None:
        for problem in entry.problems:
            progress(str(problem))
        hint = f"archy app validate {entry.folder}"
        raise CannotDo(what, entry.folder, "its manifest is refused, see above", hint, REFUSED)
    return entry


def refuse_part(what: str, entry: Entry) -> None:
    """A part of a stack cannot be installed, stopped or removed alone."""
    if entry.part_of:
        verb = what.partition(" ")[0]
        raise CannotDo(what, entry.id, f"is a part of {entry.part_of}", f"archy app {verb} {entry.part_of}", REFUSED)


def check_alternatives(what: str, every: list[Entry], new: Entry) -> None:
    """No alternative to the app may be installed."""
    for other in every:
        if other.installed and new.provides and other.provides == new.provides and other.id != new.id:
            why = f"provides {new.provides}, and so does {other.id}, which is installed: they are alternatives"
            raise CannotDo(what, new.id, why, f"archy app switch {other.id} {new.id}", REFUSED)
        if new.provides and other.id == new.provides:
            raise CannotDo(what, new.id, f"provides {new.provides}, which is the name of an app", "rename one", REFUSED)


def check_dependencies(what: str, every: list[Entry], new: list[Entry]) -> None:
    """All apps that the new ones need must be installed, or new themselves; no two may need each other."""
    available = [*(entry for entry in every if entry.installed), *new]
    for entry in new:
        assert entry.app is not None
        for need in entry.needed:
            if not catalogue.providers(available, need):
                choice = " or ".join(found.id for found in catalogue.providers(every, need)) or need
                raise CannotDo(what, entry.id, f"needs {need}, which is not installed", f"archy app install {choice}")
            back = next((e for e in every if e.id == need and e.app and entry.id in e.app.need_ids), None)
            if back and need in entry.app.need_ids:
                raise CannotDo(what, entry.id, f"needs {need}, which needs {entry.id}", f"change {back.folder}")


def check_bitcoin(what: str, every: list[Entry], new: list[Entry]) -> None:
    """The Bitcoin node must be archival, where an app needs that. If it does not answer, `archy status` tells later."""
    for entry in new:
        if entry.app and "archival" in entry.app.bitcoin:
            provider = next((found for found in catalogue.providers(every, BITCOIN) if found.installed), None)
            if provider is None:  # it provides Bitcoin itself, or is installed with what does
                continue
            try:
                missing = rpc.lacks(rpc.ask("/"))
            except OSError as error:
                progress(f"{entry.id}: needs an archival Bitcoin node; {provider.id} does not answer now: {error}")
                return
            if missing:
                reason = f"needs an archival Bitcoin node; {provider.id} {' and '.join(missing)}"
                raise CannotDo(what, entry.id, reason, f"set bitcoin.prune: 0 in {paths.NODE}", REFUSED)


def note_storage(new: list[Entry]) -> None:
    """Print which of the new apps need more disk than is free: that is no reason to refuse them."""
    free = shutil.disk_usage(paths.HOME).free
    for entry in new:
        if entry.app and entry.app.storage and entry.app.storage > free and not entry.installed:
            need = f"{entry.app.storage / 1024**3:.0f} GiB"
            progress(f"{entry.id}: needs {need} of disk; {paths.HOME} has {free / 1024**3:.0f} GiB free")


def check_ports(what: str, every: list[Entry], new: list[Entry]) -> None:
    """No port of the new apps may be one of an installed app, or of another new one."""
    new_ids = {entry.id for entry in new}
    others = [entry for entry in every if entry.installed and entry.id not in new_ids]
    for index, entry in enumerate(new):
        for holder in [*others, *new[:index]]:
            for port in entry.app.ports if entry.app else ():
                if holder.app and any(port.clashes(taken) for taken in holder.app.ports):
                    reason = f"needs port {port.host}/{port.protocol}, which {holder.id} uses"
                    raise CannotDo(what, entry.id, reason, f"archy app remove {holder.id}")
