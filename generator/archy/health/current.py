# SPDX-License-Identifier: MIT
"""The current state of the node: of each app its unit, what it was started with, and what it should have been."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from archy import paths
from archy.apps import facts, installed
from archy.host import read, systemd, user
from archy.host.systemd import Unit
from archy.manifest.model import BITCOIN
from archy.prepare import stamps, starts
from archy.probe import report
from archy.probe.report import Report
from archy.units import drift

TYPE_CHECKING = False
if TYPE_CHECKING:
    from archy.apps.facts import Summary

_OLD = 600.0  # seconds
_BITCOIN_TIMEOUT = 3.0  # seconds; a pass does not wait for one that hangs
OFTEN = 3  # restarts since the app last ran well for ten minutes
PROBE_UNIT, RECOVER_UNIT, TIMER = "archy-probe.service", "archy-recover.service", "archy-reconcile.timer"


@dataclass(frozen=True)
class AppState:
    """One installed app. `comparable`: it runs, and what it was started with can be compared with what it should be;
    `start_unknown`: it runs, and there is no record of what it was started with.

    `stale` are derived files, and `stale_own` files of its operator, that have changed since it was started;
    `unit_changed`: so has its unit. `warnings` are problems with which it can run; `failure` why it
    cannot be started. `summary` is None for an app of which no version was ever good. `image_status` is the status of
    its image, while it waits for that, and `wait_status` what else holds its start."""

    id: str
    unit: Unit
    stopped: bool = False
    comparable: bool = False
    start_unknown: bool = False
    stale: tuple[str, ...] = ()
    stale_own: tuple[str, ...] = ()
    unit_changed: bool = False
    warnings: tuple[str, ...] = ()
    failure: str = ""
    summary: Summary | None = None
    image_status: str = ""
    image_failed: bool = False  # the last attempt to get it has
    wait_status: str = ""

    @property
    def is_one_shot(self) -> bool:
        """Whether it is to run to its end."""
        return self.summary is not None and self.summary["one_shot"]

    @property
    def restarts_often(self) -> bool:
        """Whether systemd has restarted it so often that something is wrong."""
        return self.unit.restarts >= OFTEN

    @property
    def state(self) -> str:
        """The current state, in the word that `archy status` and `archy app list` show."""
        unit = self.unit
        if unit.is_inactive and not unit.loaded:
            return "stopped" if unit.masked else "unknown"
        if self.wait_status or (self.image_status and not unit.is_up):
            return "waiting"
        if unit.has_exited:
            return "completed"
        if unit.is_up:
            return "running"
        if unit.is_activating or (unit.is_inactive and unit.has_job):
            return "restarting" if unit.is_restarting or self.restarts_often else "starting"
        if unit.is_stopping:
            return "stopping"
        return "failed" if unit.is_failed and not self.is_one_shot else "stopped"  # a one-shot was stopped halfway


_UP = Unit("", active="active")


@dataclass(frozen=True)
class NodeState:
    """The node. Times are seconds; `wall` since 1970, `monotonic` since boot. `size` and `free` are bytes of the disk.

    `recovering`: archy-recover is at work. `failures` and `warnings` are of the node itself. `rotating` are the secrets
    whose rotation goes on, and `unmended` what a reload did not mend in units. `previous` is the status that the pass
    before has left, and `bitcoin` the answer of bitcoind (see bitcoin.rpc); empty if unknown, or of no interest.
    """

    apps: tuple[AppState, ...]
    wall: float
    monotonic: float
    probe: Report = field(default_factory=Report)
    recovering: bool = False
    timer: Unit = _UP
    user_manager: Unit = _UP
    size: int = 0
    free: int = 0
    failures: Mapping[str, str] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    rotating: frozenset[str] = frozenset()
    unmended: str = ""
    previous: Mapping[str, Any] = field(default_factory=dict)
    bitcoin: Mapping[str, Any] = field(default_factory=dict)


Starts = Mapping[str, dict[str, Any]]  # what apps would be started with, by app (see prepare.starts)


def observe(
    root: str, previous: Mapping[str, Any], failures: Mapping[str, str] | None = None, planned: Starts | None = None
) -> NodeState:
    """The current state of the node. `previous` is the status that the last pass has left.

    `failures` are of the pass just made: why apps cannot be started, and what is wrong with the node. `planned` are
    starts as they would be if what is planned were done.
    """
    failures, planned = failures or {}, planned or {}
    ids = installed.ids(root)[0]
    manager = user.manager(root)
    units = _units([*map(paths.unit, ids), PROBE_UNIT, RECOVER_UNIT, TIMER, manager])
    digests: dict[str, str] = {}  # of files that several apps share
    started = (
        _with_start(root, replace(app, failure=failures.get(app.id, "")), planned.get(app.id), digests)
        for app in _apps(root, ids, units)
    )
    now = _with_queues(started)
    size, free = _disk(root)
    return NodeState(
        apps=now,
        wall=time.time(),
        monotonic=time.monotonic(),
        probe=_probe(root, units[PROBE_UNIT]),
        recovering=units[RECOVER_UNIT].is_activating,
        timer=units[TIMER],
        user_manager=units[manager],
        size=size,
        free=free,
        failures={name: failure for name, failure in failures.items() if name.startswith("@")},
        warnings=tuple((stamps.fresh(root, paths.NODE_KEY) or {}).get("said", ())),
        rotating=frozenset(
            n.removesuffix(paths.PREVIOUS) for n in read.secret_names(root) if n.endswith(paths.PREVIOUS)
        ),
        unmended=drift.unmended(root),
        previous=previous,
        bitcoin=_bitcoin(root, now, previous),
    )


def apps(root: str, ids: Sequence[str]) -> dict[str, AppState]:
    """These apps as their units are, by ID. Needs no rights."""
    return {app.id: app for app in _with_queues(_apps(root, ids, _units([*map(paths.unit, ids)])))}


def _units(names: Sequence[str]) -> dict[str, Unit]:
    """The units with these names; systemd may know nothing of one, as of one that it has no need of."""
    return {name: Unit(name) for name in names} | systemd.units(names)


def _apps(root: str, ids: Sequence[str], units: Mapping[str, Unit]) -> tuple[AppState, ...]:
    """The apps as their units are."""
    summaries, stopped = facts.load(root)["apps"], installed.stopped(root)
    return tuple(AppState(i, units[paths.unit(i)], i in stopped, summary=summaries.get(i)) for i in ids)


def _with_start(root: str, app: AppState, planned: dict[str, Any] | None, digests: dict[str, str]) -> AppState:
    """The app with what it was started with, compared with what it would be started with now."""
    stamp = stamps.fresh(root, app.id, digests) or {}
    app = replace(app, warnings=tuple(stamp.get("said", ())))
    if not app.unit.is_alive:  # it will be started with what there is then
        return app
    record, now = starts.load(root, app.id), planned or stamp.get("started")
    if record is None or record.get("invocation") != app.unit.invocation:
        return replace(app, start_unknown=True)
    if now is None:
        return app
    unit = record.get("unit")
    return replace(
        app,
        comparable=True,
        stale=tuple(starts.changed(record["files"], now["files"])),
        stale_own=tuple(starts.changed(record["own"], now["own"])),
        unit_changed=unit != (starts.unit_digest(root, app.id) or unit),
    )


def _with_queues(apps: Iterable[AppState]) -> tuple[AppState, ...]:
    """The apps with what they wait for, before any time of theirs begins to run: their images, and all else.

    Systemd is asked only where an app is in its queue, or runs while its image is made anew.
    """
    apps = tuple(apps)
    waiting = {app.id for app in apps if app.unit.is_queued or starts.CONTEXT in app.stale}
    names = [unit(i) for i in sorted(waiting) for unit in (paths.image_unit, paths.build_unit, paths.wait_unit)]
    at_work = {name: unit for name, unit in systemd.units(names).items() if unit.is_activating} if names else {}
    return tuple(_with_queue(app, at_work) if app.id in waiting else app for app in apps)


def _with_queue(app: AppState, at_work: Mapping[str, Unit]) -> AppState:
    image, build, wait = (at_work.get(unit(app.id)) for unit in (paths.image_unit, paths.build_unit, paths.wait_unit))
    status, failed = (image.status_text, image.status_errno != 0) if image else ("", False)
    if build:
        error = f"cannot be had: {build.restarts} builds failed, see journalctl -u {build.name}"
        status, failed = error if build.restarts else "it is being made", build.restarts > 0
    return replace(app, image_status=status, image_failed=failed, wait_status=wait.status_text if wait else "")


def _bitcoin(root: str, apps: tuple[AppState, ...], previous: Mapping[str, Any]) -> Mapping[str, Any]:
    """Whether the Bitcoin node is archival, where an app must know. Asked once for each of its runs."""
    if not any(app.summary and "archival" in app.summary["bitcoin"] for app in apps):
        return {}
    node = next((app for app in apps if app.unit.is_up and app.summary and app.summary["provides"] == BITCOIN), None)
    if node is None:
        return {}
    known: Mapping[str, Any] = previous.get("node", {}).get("bitcoin", {})
    if known.get("invocation") == node.unit.invocation:
        return known
    from archy.bitcoin import rpc

    try:
        return {**rpc.ask(root, _BITCOIN_TIMEOUT), "app": node.id, "invocation": node.unit.invocation}
    except OSError:  # it is just starting, or its own check will tell
        return {}


def _disk(root: str) -> tuple[int, int]:
    """Size, and what the service user may still fill, of the file system with the apps' data, in bytes."""
    try:
        disk = os.statvfs(paths.under(root, paths.HOME))
    except OSError:
        return 0, 0
    return disk.f_frsize * disk.f_blocks, disk.f_frsize * disk.f_bavail


def _probe(root: str, unit: Unit) -> Report:
    """The last report of the probe; an empty one, if there was none yet. Systemd may have forgotten its unit: it keeps
    none that it has no need of, as where somebody has masked the timer."""
    if not (unit.began or os.path.exists(paths.under(root, paths.PROBE))):
        return Report()
    if unit.is_activating:  # its own copy is of the last report
        last = report.load(root, paths.PROBE_CACHE)
        return Report() if last.error else last
    if unit.result != "success":
        return Report(error=report.error(root))
    last = report.load(root)
    age = time.monotonic() - last.at
    return Report(error=f"the last probe was {age / 60:.0f} min ago") if age > _OLD and not last.error else last
