# SPDX-License-Identifier: MIT
"""The node as a pass finds it: each app's unit, what it was started with, and what it should have been."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from archy import __version__, facts, installed, paths, probed, stamp, started, systemd
from archy import units as drifted
from archy.probed import Probe

if TYPE_CHECKING:
    from archy.facts import Summary

_OLD = 600.0  # seconds
_MAX_ANSWER = 64 * 1024 * 1024
PROBE_UNIT, RECOVER_UNIT, TIMER = "archy-probe.service", "archy-recover.service", "archy-reconcile.timer"


@dataclass(frozen=True)
class AppState:
    """One installed app. `known`: it runs, and what it was started with can be compared with what it should be;
    `unrecorded`: it runs, and nobody knows what it was started with.

    `changed` are files made for it, and `own` those of its operator, that are others now than when it was started;
    `unit_changed`: so is its unit. `said` is what is wrong with it, though it can run; `failure` why it
    cannot be started. `summary` is None for an app of which no version was ever good."""

    id: str
    unit: systemd.Unit
    stopped: bool = False
    known: bool = False
    unrecorded: bool = False
    changed: tuple[str, ...] = ()
    own: tuple[str, ...] = ()
    unit_changed: bool = False
    said: tuple[str, ...] = ()
    failure: str = ""
    summary: Summary | None = None


@dataclass(frozen=True)
class NodeState:
    """The node. Times are seconds; `wall` since 1970, `monotonic` since boot.

    `recovering`: archy-recover is at work.
    """

    apps: tuple[AppState, ...]
    wall: float
    monotonic: float
    probe: Probe = field(default_factory=Probe)
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


Starts = Mapping[str, dict[str, Any]]  # what apps would be started with, by app (see derive.started)


def node(root: str, failures: Mapping[str, str], planned: Starts = {}) -> NodeState:  # noqa: B006
    """Look at the node. `failures` are of the pass just made: why apps cannot be started, what is wrong with it.

    `planned` are starts as they would be if what is planned were done.
    """
    ids = installed.ids(root)[0]
    manager = f"user@{_uid(root)}.service"
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
    size, free = _disk(root)
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
        tuple((stamp.fresh(root, "@node") or {}).get("said", ())),
        frozenset(n.removesuffix(paths.PREVIOUS) for n in installed.secret_names(root) if n.endswith(paths.PREVIOUS)),
        drifted.tried(root),
        previous(root),
    )


def previous(root: str) -> dict[str, Any]:
    """The status that the last pass of this archy left; empty if there is none, or it is not as we write it."""
    try:
        found: dict[str, Any] = json.loads(installed.read(paths.under(root, paths.STATUS), _MAX_ANSWER) or b"")
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
    found = stamp.fresh(root, app_id, seen) or {}
    record = started.load(root, app_id)
    said = tuple(found.get("said", ()))
    now = planned or found.get("started")
    runs = unit.active not in ("inactive", "failed")
    unrecorded = runs and (record is None or record.get("invocation") != unit.invocation)
    if not runs or unrecorded or record is None or now is None:
        return AppState(app_id, unit, stopped, unrecorded=unrecorded, said=said, failure=failure, summary=summary)
    return AppState(
        app_id,
        unit,
        stopped,
        True,
        False,
        tuple(started.changed(record["files"], now["files"])),
        tuple(started.changed(record["own"], now["own"])),
        record.get("unit") != (started.unit_digest(root, app_id) or record.get("unit")),
        said,
        failure,
        summary,
    )


def _uid(root: str) -> str:
    fields = installed.user_line(root).split(b":")
    return fields[2].decode() if len(fields) > 2 else ""


def _disk(root: str) -> tuple[int, int]:
    """Size, and what the service user may still fill, of the file system with the apps' data, in bytes."""
    try:
        found = os.statvfs(paths.under(root, paths.HOME))
    except OSError:
        return 0, 0
    return found.f_frsize * found.f_blocks, found.f_frsize * found.f_bavail


def _probe(root: str, unit: systemd.Unit | None) -> Probe:
    """What the last probe found; nothing, if there was none yet."""
    if unit is None or not unit.began:
        return Probe()
    if unit.active == "activating":  # what it keeps for itself is what it said last
        before = probed.load(root, paths.PROBE_CACHE)
        return Probe() if before.error else before
    found = probed.load(root)
    if unit.result != "success":
        return Probe(error=probed.error(root))
    old = time.monotonic() - found.at
    return Probe(error=f"nobody was asked for {old / 60:.0f} min") if old > _OLD and not found.error else found
