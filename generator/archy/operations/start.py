# SPDX-License-Identifier: MIT
"""`archy app stop` and `archy app start`: an app that the user stopped stays stopped, also after a boot.

A file in /etc/archy/stopped marks each such app: the generator does not link its unit into archy.target.
"""

from __future__ import annotations

from archy import paths
from archy.apps import catalogue, installed
from archy.apps.catalogue import Entry
from archy.host import systemd, write
from archy.operations import jobs, preflight
from archy.operations.progress import CannotDo, progress
from archy.prepare.prepare import locked


def stop(app_id: str) -> None:
    """Stop an app, its parts and its companions until `archy app start`."""
    what = f"stop {app_id}"
    every = _installed(what, app_id)
    names = catalogue.stopped_in_order(every, app_id)
    with locked("/"):
        write.make_directory("/", paths.STOPPED, 0, 0, 0o755)
        for name in names:
            write.replace_file("/", f"{paths.STOPPED}/{name}", b"", 0, 0, 0o644)
    jobs.ctl(what, "daemon-reload")
    for name in names:
        jobs.stop(what, name)
    # A stopped app that had failed is no problem of the node.
    systemd.forget_failures([unit(name) for name in names for unit in (paths.unit, paths.build_unit)])
    for entry in catalogue.dependents(every, app_id):
        if entry.id not in names:
            progress(f"{entry.id} needs {app_id}, and does not work without it")


def start(app_id: str, with_needs: bool) -> None:
    """Start an app, its parts, its companions and the apps that it needs, and wait until they are ready. Ends `stop`.

    `with_needs`: also those of its needs that are stopped (`stopped_needs`); else they are a reason to refuse.
    """
    what = f"start {app_id}"
    every = _installed(what, app_id)
    down = _stopped_needs(what, every, app_id)
    if down and not with_needs:
        reason = f"needs apps that are stopped: {', '.join(_described(down))}"
        raise CannotDo(what, app_id, reason, f"archy app start --yes {app_id} starts them, too")
    names = [app_id]
    for name in [*down, app_id]:
        names += [name, *catalogue.members(every, name)]
    names = list(dict.fromkeys(names))
    with locked("/"):
        for name in names:
            write.remove("/", f"{paths.STOPPED}/{name}")
    jobs.apply(what)
    jobs.start(what, names)


def stopped_needs(app_id: str) -> list[str]:
    """The apps that `start` would start as well, in words for the question whether it may."""
    what = f"start {app_id}"
    return _described(_stopped_needs(what, _installed(what, app_id), app_id))


def _described(names: list[str]) -> list[str]:
    stopped = installed.stopped("/")
    return [f"{name} (stopped by archy app stop)" if name in stopped else name for name in names]


def _installed(what: str, app_id: str) -> list[Entry]:
    """All installed apps; this one must be among them, and be no part of another."""
    every = catalogue.entries("/")
    preflight.refuse_part(what, preflight.find(what, app_id, every, installed=True))
    return [entry for entry in every if entry.installed]


def _stopped_needs(what: str, every: list[Entry], app_id: str) -> list[str]:
    needed = _needed(what, every, app_id)
    units = systemd.units(list(map(paths.unit, needed)))
    return [name for name in needed if _is_stopped(units.get(paths.unit(name)))]


def _needed(what: str, every: list[Entry], app_id: str) -> list[str]:
    """The apps that an app needs, and those that they need, in the order of their starts."""
    known = {entry.id: entry for entry in every}
    result: list[str] = []
    todo = [app_id]
    while todo:
        entry = known[todo.pop()]
        for name in entry.needed:
            found = catalogue.providers(every, name)
            if not found:
                raise CannotDo(what, entry.id, f"needs {name}, which is not installed", f"archy app install {name}")
            need = found[0].id
            if need not in result and need != app_id and found[0].part_of not in known[app_id].names:
                result.insert(0, need)
                todo.append(need)
    return result


def _is_stopped(unit: systemd.Unit | None) -> bool:
    """Whether no start of it was requested: a unit in systemd's queue, waiting for its image say, is going to run."""
    return unit is None or (unit.is_inactive and not unit.has_job)
