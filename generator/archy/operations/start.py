# SPDX-License-Identifier: MIT
"""`archy app stop` and `archy app start`: what the user stopped stays stopped, also after a boot.

A file for each such app is all there is to it: the generator does not link its unit into archy.target then.
"""

from __future__ import annotations

import sys

from archy import paths
from archy.apps import catalogue, installed
from archy.apps.catalogue import Entry
from archy.host import systemd, write
from archy.operations import jobs, preflight
from archy.operations.progress import NO_SUCH_APP, CannotDo, progress
from archy.prepare.prepare import locked


def stop(app_id: str) -> None:
    """Stop an app, its parts and its companions until `archy app start`."""
    what = f"stop {app_id}"
    every = [entry for entry in catalogue.entries("/") if entry.installed]
    mine = _entry(what, every, app_id)
    names = catalogue.stopped_in_order(every, app_id)
    with locked("/"):
        write.make_directory("/", paths.STOPPED, 0, 0, 0o755)
        for name in names:
            write.replace_file("/", f"{paths.STOPPED}/{name}", b"", 0, 0, 0o644)
    jobs.ctl(what, "daemon-reload")
    for name in names:
        if not jobs.await_job(name, systemd.job("stop", paths.unit(name)), "stopping", "stopped"):
            unit = paths.unit(name)
            raise CannotDo(what, unit, "could not be stopped, see above", f"systemctl status {unit}")
    # What was failing is no fault of the node any more.
    systemd.forget_failures([unit(name) for name in names for unit in (paths.unit, paths.build_unit)])
    for entry in every:
        if entry.app and set(mine.names) & set(entry.app.need_ids) and entry.id not in names:
            progress(f"{entry.id} needs {app_id}, and does not work without it")


def start(app_id: str, yes: bool) -> None:
    """Start an app, its parts, its companions and all that it needs, and wait until they are ready. Ends `stop`.

    What it needs and the user stopped is started with `yes`, or if the user says so.
    """
    what = f"start {app_id}"
    every = [entry for entry in catalogue.entries("/") if entry.installed]
    _entry(what, every, app_id)
    needed = _needed(what, every, app_id)
    units = systemd.units(list(map(paths.unit, needed)))
    down = [name for name in needed if _is_down(units.get(paths.unit(name)))]
    if down and not yes and not _agrees(what, app_id, down):
        raise CannotDo(what, ", ".join(down), "is stopped, and stays so", f"archy app start --yes {app_id}")
    names = [app_id]
    for name in [*down, app_id]:
        names += [name, *catalogue.members(every, name)]
    names = list(dict.fromkeys(names))
    with locked("/"):
        for name in names:
            write.remove("/", f"{paths.STOPPED}/{name}")
    jobs.apply(what)
    jobs.start(what, names)


def _entry(what: str, every: list[Entry], app_id: str) -> Entry:
    found = next((entry for entry in every if entry.id == app_id), None)
    if found is None:
        raise CannotDo(what, paths.APPS, f"no such app is installed: {app_id}", "archy app list", NO_SUCH_APP)
    preflight.refuse_part(what, found)
    return found


def _needed(what: str, every: list[Entry], app_id: str) -> list[str]:
    """All that an app needs, and what that needs, the first to start first."""
    known = {entry.id: entry for entry in every}
    result: list[str] = []
    todo = [app_id]
    while todo:
        entry = known[todo.pop()]
        for name in [*(entry.app.need_ids if entry.app else ()), *([entry.parent] if entry.parent else [])]:
            found = catalogue.providers(every, name)
            if not found:
                raise CannotDo(what, entry.id, f"needs {name}, which is not installed", f"archy app install {name}")
            need = found[0].id
            if need not in result and need != app_id and found[0].part_of not in known[app_id].names:
                result.insert(0, need)
                todo.append(need)
    return result


def _is_down(unit: systemd.Unit | None) -> bool:
    """Whether nobody has asked for it: what waits in systemd's queue, for its image say, is to run."""
    return unit is None or (unit.is_inactive and not unit.has_job)


def _agrees(what: str, app_id: str, down: list[str]) -> bool:
    stopped = installed.stopped("/")
    told = [f"{name} (stopped by archy app stop)" if name in stopped else name for name in down]
    if not sys.stdin.isatty():
        why = f"needs what is stopped: {', '.join(told)}"
        raise CannotDo(what, app_id, why, f"archy app start --yes {app_id} starts that, too")
    progress(f"{app_id} needs what is stopped: {', '.join(told)}")
    return input("Start that, too? [y/N] ").strip().lower() in ("y", "yes")
