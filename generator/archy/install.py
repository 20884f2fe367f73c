# SPDX-License-Identifier: MIT
"""`archy app install` and `archy app remove`.

Both are a few idempotent steps, and what is done already is not done again: cut short anywhere, the same command
finishes. Installing is a link, a reload and a start; an operator can do the same by hand.
"""

from __future__ import annotations

import os
import re
import subprocess
import time

from archy import accept, cache, catalogue, disk, installed, paths, pending, rules, systemd
from archy.catalogue import Entry
from archy.output import NO_SUCH_APP, REFUSED, CannotDo, Progress, say
from archy.prepare import locked, prepare

_POLL = 0.5  # seconds


def install(app_id: str, wait: bool) -> None:
    """Install an app and its companions, start them, and wait until each is ready or has failed."""
    what = f"install {app_id}"
    _bring_back(app_id)
    every = catalogue.entries("/")
    wanted = [_usable(what, every, name) for name in (app_id, *catalogue.companions(every, app_id))]
    _check_dependencies(what, every, wanted)
    _check_ports(what, every, wanted)
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
        start(what, names)


def apply(what: str) -> None:
    """Let what is installed now take effect: files, also of others that it concerns; units; restarts of who needs it.

    What is wrong is said; the start of that app fails, and the others are started.
    """
    prepare("/", installed.ids("/")[0])
    ctl(what, "daemon-reload")
    ctl(what, "start", "archy-reconcile.service")


def start(what: str, names: list[str]) -> None:
    """Start apps, and wait until each is ready or has failed."""
    jobs = [(name, systemd.job("start", paths.unit(name))) for name in names]
    failed = [name for name, job in jobs if not await_job(name, job, "starting", "ready")]
    for name in failed:
        for line in systemd.journal(paths.unit(name), 5):
            say(f"  {line}")
    if failed:
        unit = paths.unit(failed[0])
        raise CannotDo(what, unit, "did not start, see above", f"systemctl status {unit}")


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


def _usable(what: str, every: list[Entry], app_id: str) -> Entry:
    entry = next((e for e in every if e.id == app_id), None)
    if entry is None:
        raise CannotDo(what, paths.CATALOGUE, f"there is no app {app_id}", "archy app list shows all", NO_SUCH_APP)
    if entry.app is None:
        for problem in entry.problems:
            say(str(problem))
        raise CannotDo(
            what, entry.folder, "its manifest is refused, see above", f"archy app validate {entry.folder}", REFUSED
        )
    return entry


def _check_dependencies(what: str, every: list[Entry], wanted: list[Entry]) -> None:
    there = {entry.id for entry in every if entry.installed} | {entry.id for entry in wanted}
    for entry in wanted:
        assert entry.app is not None
        for need in (*entry.app.need_ids, *([entry.companion_of] if entry.companion_of else [])):
            if need not in there:
                raise CannotDo(what, entry.id, f"needs {need}, which is not installed", f"archy app install {need}")
            back = next((e for e in every if e.id == need and e.app and entry.id in e.app.need_ids), None)
            if back:
                raise CannotDo(what, entry.id, f"needs {need}, which needs {entry.id}", f"change {back.folder}")


def _check_ports(what: str, every: list[Entry], wanted: list[Entry]) -> None:
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


def await_job(app_id: str, job: subprocess.Popen[str], doing: str, done: str) -> bool:
    """Wait for a job, however long it takes, and say how it goes. Interrupting the wait does not interrupt the job."""
    since, progress = time.monotonic(), Progress()
    try:
        while True:
            progress.show(f"{app_id}: {doing}", f"{time.monotonic() - since:.0f} s")
            try:
                _, said = job.communicate(timeout=_POLL)
            except subprocess.TimeoutExpired:
                continue
            progress.show(f"{app_id}: {done}" if job.returncode == 0 else f"{app_id}: {' '.join(said.split())}")
            return job.returncode == 0
    finally:
        progress.done()


def remove(app_id: str) -> None:
    """Stop an app and its companions, and unlink them. Their data, volumes and secrets stay."""
    what = f"remove {app_id}"
    every = catalogue.entries("/")
    known = {entry.id: entry for entry in every}
    unit = systemd.unit(app_id)
    if app_id not in known and not (unit and unit.generated and not rules.is_reserved(app_id)):
        raise CannotDo(what, paths.APPS, f"there is no app {app_id}", "archy app list shows all", NO_SUCH_APP)
    names = [*catalogue.companions(every, app_id), app_id]
    for entry in every:
        if entry.installed and entry.app and entry.id not in names and app_id in entry.app.need_ids:
            raise CannotDo(what, entry.id, f"needs {app_id}", f"archy app remove {entry.id}")
    for name in names:
        if name != app_id and not known[name].installed:
            continue
        unit = systemd.unit(name)
        if unit and unit.loaded and not await_job(name, systemd.job("stop", unit.name), "stopping", "stopped"):
            raise CannotDo(what, unit.name, "could not be stopped, see above", f"systemctl status {unit.name}")
        with locked("/"):
            _unlink(name, known.get(name))
        say(f"{name}: removed")
    apply(what)
    systemd.sweep(list(map(paths.unit, names)))
    say(f"data and secrets are kept in {paths.HOME}")


def _unlink(app_id: str, entry: Entry | None) -> None:
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
    disk.remove_tree("/", f"{paths.SECRET_ENVIRONMENTS}/{app_id}")
