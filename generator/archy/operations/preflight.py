# SPDX-License-Identifier: MIT
"""`archy app install` and `archy app remove`.

Both are a few idempotent steps, and what is done already is not done again: cut short anywhere, the same command
finishes. Installing is a link, a reload and a start; an operator can do the same by hand.
"""

from __future__ import annotations

import shutil

from archy import paths
from archy.apps import catalogue
from archy.apps.catalogue import Entry
from archy.bitcoin import rpc
from archy.operations.progress import NO_SUCH_APP, REFUSED, CannotDo, progress


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
            progress(str(problem))
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
        for need in (*entry.app.need_ids, *([entry.parent] if entry.parent else [])):
            if not catalogue.providers(there, need):
                choice = " or ".join(found.id for found in catalogue.providers(every, need)) or need
                raise CannotDo(what, entry.id, f"needs {need}, which is not installed", f"archy app install {choice}")
            back = next((e for e in every if e.id == need and e.app and entry.id in e.app.need_ids), None)
            if back and need in entry.app.need_ids:
                raise CannotDo(what, entry.id, f"needs {need}, which needs {entry.id}", f"change {back.folder}")


def _check_bitcoin(what: str, every: list[Entry], wanted: list[Entry]) -> None:
    """Ask the real node whether it is archival, where an app needs that; what cannot be asked now, status will say."""
    for entry in wanted:
        if entry.app and "archival" in entry.app.bitcoin:
            provider = next((found for found in catalogue.providers(every, rpc.NAME) if found.installed), None)
            if provider is None:  # it provides Bitcoin itself, or is installed with what does
                continue
            try:
                lacking = rpc.lacks(rpc.ask("/"))
            except OSError as error:
                progress(f"{entry.id}: needs an archival Bitcoin node; {provider.id} cannot be asked just now: {error}")
                return
            if lacking:
                why = f"needs an archival Bitcoin node; {provider.id} {' and '.join(lacking)}"
                raise CannotDo(what, entry.id, why, f"set bitcoin.prune: 0 in {paths.NODE}", REFUSED)


def _note_storage(wanted: list[Entry]) -> None:
    free = shutil.disk_usage(paths.HOME).free
    for entry in wanted:
        if entry.app and entry.app.storage and entry.app.storage > free and not entry.installed:
            there, gib = free / 1024**3, entry.app.storage / 1024**3
            progress(f"{entry.id}: wants {gib:.0f} GiB on disk; {paths.HOME} has {there:.0f} GiB free")


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
