# SPDX-License-Identifier: MIT
"""The node as a pass finds it: each app's unit, what it was started with, and what it should have been."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from archy import __version__, paths
from archy.apps import facts, installed
from archy.host import read, systemd, user
from archy.images import pull
from archy.manifest.model import BITCOIN
from archy.prepare import stamps, starts
from archy.probe import report
from archy.probe.report import Report
from archy.units import drift

TYPE_CHECKING = False
if TYPE_CHECKING:
    from archy.apps.facts import Summary

_OLD = 600.0  # seconds
_MAX_ANSWER = 64 * 1024 * 1024
_BITCOIN_TIME = 3.0  # seconds; a pass does not wait for one that hangs
PROBE_UNIT, RECOVER_UNIT, TIMER = "archy-probe.service", "archy-recover.service", "archy-reconcile.timer"


@dataclass(frozen=True)
class AppState:
    """One installed app. `comparable`: it runs, and what it was started with can be compared with what it should be;
    `start_unknown`: it runs, and nobody knows what it was started with.

    `stale` are files made for it, and `stale_own` those of its operator, that are others now than when it was started;
    `unit_changed`: so is its unit. `warnings` is what is wrong with it, though it can run; `failure` why it
    cannot be started. `summary` is None for an app of which no version was ever good. `image_status` is what is said of
    its image, while it waits for that, and `wait_status` of what else holds its start."""

    id: str
    unit: systemd.Unit
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
    wait_status: str = ""


@dataclass(frozen=True)
class NodeState:
    """The node. Times are seconds; `wall` since 1970, `monotonic` since boot.

    `recovering`: archy-recover is at work.
    """

    apps: tuple[AppState, ...]
    wall: float
    monotonic: float
    probe: Report = field(default_factory=Report)
    recovering: bool = False
    timer: str = "active"
    user_manager: str = "active"
    size: int = 0
    free: int = 0
    failures: Mapping[str, str] = field(default_factory=dict)
    said: tuple[str, ...] = ()
    rotating: frozenset[str] = frozenset()
    units: str = ""
    previous: Mapping[str, Any] = field(default_factory=dict)
    bitcoin: Mapping[str, Any] = field(default_factory=dict)  # see bitcoin.ask; empty if unknown, or of no interest


Starts = Mapping[str, dict[str, Any]]  # what apps would be started with, by app (see derive.started)


def observe(root: str, failures: Mapping[str, str], planned: Starts = {}) -> NodeState:  # noqa: B006
    """Look at the node. `failures` are of the pass just made: why apps cannot be started, what is wrong with it.

    `planned` are starts as they would be if what is planned were done.
    """
    ids = installed.ids(root)[0]
    manager = f"user@{user._uid(root)}.service"
    units = systemd.units([*map(paths.unit, ids), PROBE_UNIT, RECOVER_UNIT, TIMER, manager])
    summaries = facts.load(root)["apps"]
    stopped = installed.stopped(root)
    seen: dict[str, str] = {}
    apps = tuple(
        _app(
            root,
            app_id,
            units.get(paths.unit(app_id), systemd.Unit(paths.unit(app_id))),
            app_id in stopped,
            failures.get(app_id, ""),
            summaries.get(app_id),
            planned.get(app_id),
            seen,
        )
        for app_id in ids
    )
    queues = _queues(apps)
    apps = tuple(
        replace(app, image_status=queue[0], wait_status=queue[1]) if (queue := queues.get(app.id)) else app
        for app in apps
    )
    size, free = _disk(root)
    before = previous(root)
    return NodeState(
        apps,
        time.time(),
        time.monotonic(),
        _probe(root, units.get(PROBE_UNIT)),
        _active(units, RECOVER_UNIT) == "activating",
        _active(units, TIMER),
        _active(units, manager),
        size,
        free,
        {name: said for name, said in failures.items() if name.startswith("@")},
        tuple((stamps.fresh(root, "@node") or {}).get("said", ())),
        frozenset(n.removesuffix(paths.PREVIOUS) for n in read.secret_names(root) if n.endswith(paths.PREVIOUS)),
        drift.unmended(root),
        before,
        _bitcoin(root, apps, before),
    )


def previous(root: str) -> dict[str, Any]:
    """The status that the last pass of this archy left; empty if there is none, or it is not as we write it."""
    try:
        found: dict[str, Any] = json.loads(read.read(paths.under(root, paths.STATUS), _MAX_ANSWER) or b"")
        sound = found["version"] == __version__ and all(isinstance(app, dict) for app in found["apps"].values())
        times = [found["wall"], found["monotonic"]]
        times += [
            entry[key] for kind in ("history", "faults") for entry in found[kind].values() for key in ("at", "count")
        ]
        times += [value for entry in found["liveness"].values() for key, value in entry.items() if key != "id"]
        names = ("podman", "recovery", "disk", "clock", "secrets", "files", "ticks")
        sound &= all(found["node"][name]["level"] in ("ok", "degraded", "broken") for name in names)
        return found if sound and all(isinstance(time_, int | float) for time_ in times) else {}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return {}


def _bitcoin(root: str, apps: tuple[AppState, ...], before: Mapping[str, Any]) -> Mapping[str, Any]:
    """Whether the Bitcoin node is archival, where an app must know. Asked once for each of its runs."""
    if not any(app.summary and "archival" in app.summary["bitcoin"] for app in apps):
        return {}
    runs = [app for app in apps if app.unit.active == "active" and app.summary and app.summary["provides"] == BITCOIN]
    known: Mapping[str, Any] = before.get("node", {}).get("bitcoin", {})
    if not runs or known.get("invocation") == runs[0].unit.invocation:
        return known if runs else {}
    from archy.bitcoin import rpc

    try:
        return {**rpc.ask(root, _BITCOIN_TIME), "app": runs[0].id, "invocation": runs[0].unit.invocation}
    except OSError:  # it is just starting, or its own check will tell
        return {}


def _queues(apps: Iterable[AppState]) -> dict[str, tuple[str, str]]:
    """What apps wait for, before any time of theirs begins to run: what is said of their images, and of all else.

    Systemd is asked only where an app is in its queue, or runs while its image is made anew.
    """
    queued = [app.id for app in apps if _is_queued(app.unit) or starts.CONTEXT in app.stale]
    asked = [unit(name) for name in queued for unit in (paths.image_unit, paths.build_unit, paths.wait_unit)]
    found = {name: unit for name, unit in systemd.units(asked).items() if unit.active == "activating"} if asked else {}
    result = {}
    for name in queued:
        image, made, held = (found.get(unit(name)) for unit in (paths.image_unit, paths.build_unit, paths.wait_unit))
        text = image.status_text if image else ""
        if made:
            see = f"journalctl -u {made.name}"
            text = f"{pull.CANNOT}: {made.restarts} builds failed, see {see}" if made.restarts else "it is being made"
        result[name] = (text, held.status_text if held else "")
    return result


def _is_queued(unit: systemd.Unit) -> bool:
    return unit.has_job and (unit.sub in ("dead", "failed") or unit.sub.startswith("auto-restart"))


def _active(units: Mapping[str, systemd.Unit], name: str) -> str:
    return units[name].active if name in units else "unknown"


def _app(
    root: str,
    app_id: str,
    unit: systemd.Unit,
    stopped: bool,
    failure: str,
    summary: Summary | None,
    planned: dict[str, Any] | None,
    seen: dict[str, str],
) -> AppState:
    found = stamps.fresh(root, app_id, seen) or {}
    record = starts.load(root, app_id)
    said = tuple(found.get("said", ()))
    now = planned or found.get("started")
    # What has run to its end is started with what there is then.
    unrecorded = unit.runs and (record is None or record.get("invocation") != unit.invocation)
    if not unit.runs or unrecorded or record is None or now is None:
        return AppState(
            app_id, unit, stopped, start_unknown=unrecorded, warnings=said, failure=failure, summary=summary
        )
    return AppState(
        app_id,
        unit,
        stopped,
        True,
        False,
        tuple(starts.changed(record["files"], now["files"])),
        tuple(starts.changed(record["own"], now["own"])),
        record.get("unit") != (starts.unit_digest(root, app_id) or record.get("unit")),
        said,
        failure,
        summary,
    )


def _disk(root: str) -> tuple[int, int]:
    """Size, and what the service user may still fill, of the file system with the apps' data, in bytes."""
    try:
        found = os.statvfs(paths.under(root, paths.HOME))
    except OSError:
        return 0, 0
    return found.f_frsize * found.f_blocks, found.f_frsize * found.f_bavail


def _probe(root: str, unit: systemd.Unit | None) -> Report:
    """What the last probe found; nothing, if there was none yet. Its unit may know of none: systemd forgets what it
    has no need of, as where somebody has masked the timer."""
    if unit is None or not (unit.began or os.path.exists(paths.under(root, paths.PROBE))):
        return Report()
    if unit.active == "activating":  # what it keeps for itself is what it said last
        before = report.load(root, paths.PROBE_CACHE)
        return Report() if before.error else before
    found = report.load(root)
    if unit.result != "success":
        return Report(error=report.error(root))
    old = time.monotonic() - found.at
    return Report(error=f"nobody was asked for {old / 60:.0f} min") if old > _OLD and not found.error else found
