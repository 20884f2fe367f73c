# SPDX-License-Identifier: MIT
"""What archy-probe found, read by root. It comes from the service user: what is not as it should be is no answer."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from archy import paths
from archy.host import read

_MOST = 16 * 1024 * 1024
_LATEST = 1e10  # seconds since the boot that nobody will see
_TEXT = 300  # characters of what it says; they reach the journal and status.json
_IDENTITY = re.compile("[0-9a-f]{64}")
_TIMER = re.compile(r"[0-9a-f]{64}(-startup)?-[0-9a-f]{1,32}\.timer")


@dataclass(frozen=True)
class CheckResult:
    """What came of one question: `kind` and `said` tell why not. `at` is when, in seconds of the monotonic clock."""

    ok: bool
    kind: str
    said: str
    at: float


@dataclass(frozen=True)
class ContainerReport:
    """A container in the cgroup of an app's unit (see containers.Container), and what it answered."""

    id: str
    stopped: bool = False
    main_stopped: bool = False
    frozen: bool = False
    cpu: float = 0
    forwarded: bool = True
    check: CheckResult | None = None
    names: CheckResult | None = None


@dataclass(frozen=True)
class PodmanContainer:
    """A container as Podman knows it. `unit` is the one that started it, for a container of ours."""

    id: str
    state: str
    name: str
    unit: str


@dataclass(frozen=True)
class Report:
    """All of it; nothing, if nobody was asked. `error`: there is no answer at all; `podman_error`: Podman gave none.

    `load` is the number of processes that want to run, for each CPU.
    """

    at: float = 0
    load: float = 0
    apps: Mapping[str, ContainerReport] = field(default_factory=dict)
    containers: tuple[PodmanContainer, ...] | None = None
    podman_at: float = 0
    podman_error: str = ""
    pasta: bool | None = None
    timers: tuple[str, ...] = ()
    error: str = ""
    digest: str = ""


def load(root: str, path: str = paths.PROBE) -> Report:
    """What the last probe found."""
    content = read.read(paths.under(root, path), _MOST)
    try:
        return _probe(json.loads(content or b""))
    except (ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError, OverflowError):
        return Report(error=error(root))


def error(root: str) -> str:
    """Why the last probe found nothing."""
    said = (read.read(paths.under(root, paths.PROBE_ERROR)) or b"").decode(errors="replace").strip()
    return (_text(said.splitlines()[-1]) if said else "") or "no answer"


def _probe(found: Any) -> Report:
    podman = found["podman"]
    error = _text(podman["error"])
    return Report(
        _number(found["at"]),
        _number(found["load"]),
        {
            name: _probed(app)
            for name, app in found["apps"].items()
            if paths.is_label(name) and _IDENTITY.fullmatch(app["id"])
        },
        None if error else tuple(_listed(*entry) for entry in podman["containers"] if _IDENTITY.fullmatch(entry[0])),
        _number(podman["at"]),
        error,
        None if found["pasta"] is None else bool(found["pasta"]),
        tuple(name for name in found["timers"] if _TIMER.fullmatch(name)),
        digest=str(found["digest"]),
    )


def _probed(app: Any) -> ContainerReport:
    return ContainerReport(
        app["id"],
        bool(app["stopped"]),
        bool(app["main_stopped"]),
        bool(app["frozen"]),
        _number(app["cpu"]),
        bool(app["forwarded"]),
        _answer(app["check"]),
        _answer(app["names"]),
    )


def _answer(found: Any) -> CheckResult | None:
    if found is None:
        return None
    return CheckResult(bool(found["ok"]), str(found["kind"]), _text(found["said"]), _number(found["at"]))


def _listed(identity: str, state: str, name: str, unit: str) -> PodmanContainer:
    return PodmanContainer(identity, _text(state), _text(name), _text(unit))


def _number(value: Any) -> float:
    number = float(value)
    if not (math.isfinite(number) and abs(number) < _LATEST):
        raise ValueError("no number that could be")
    return number


def _text(value: Any) -> str:
    return "".join(filter(str.isprintable, str(value)))[:_TEXT]


LOADED = 2.0  # processes that want to run, for each CPU
