# SPDX-License-Identifier: MIT
"""The report of archy-probe, read by root. It comes from the service user: a malformed one is no answer."""

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
_LATEST = 1e10  # seconds since the boot, later than any
_TEXT = 300  # characters of a message; they reach the journal and status.json
LOADED = 2.0  # processes that want to run, for each CPU
_IDENTITY = re.compile("[0-9a-f]{64}")
_TIMER = re.compile(r"[0-9a-f]{64}(-startup)?-[0-9a-f]{1,32}\.timer")


@dataclass(frozen=True)
class CheckResult:
    """The result of one check; `kind` and `message` are why it failed. `at` is in seconds of the monotonic clock."""

    ok: bool
    kind: str
    message: str
    at: float


@dataclass(frozen=True)
class ContainerReport:
    """A container in the cgroup of an app's unit (see containers.Container), and its answers."""

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
    """All of it; empty, if there was no probe. `error`: there is no report; `podman_error`: Podman gave no answer.

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
    """The last report."""
    content = read.read(paths.under(root, path), _MOST)
    try:
        return _report(json.loads(content or b""))
    except (ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError, OverflowError):
        return Report(error=error(root))


def error(root: str) -> str:
    """Why the last probe has no report."""
    lines = (read.read(paths.under(root, paths.PROBE_ERROR)) or b"").decode(errors="replace").strip().splitlines()
    return _text(lines[-1] if lines else "") or "no answer"


def _report(data: Any) -> Report:
    podman = data["podman"]
    podman_error = _text(podman["error"])
    apps = {name: app for name, app in data["apps"].items() if paths.is_label(name) and _IDENTITY.fullmatch(app["id"])}
    listed = [PodmanContainer(*map(_text, entry)) for entry in podman["containers"] if _IDENTITY.fullmatch(entry[0])]
    return Report(
        at=_number(data["at"]),
        load=_number(data["load"]),
        apps={name: _container(app) for name, app in apps.items()},
        containers=None if podman_error else tuple(listed),
        podman_at=_number(podman["at"]),
        podman_error=podman_error,
        pasta=None if data["pasta"] is None else bool(data["pasta"]),
        timers=tuple(name for name in data["timers"] if _TIMER.fullmatch(name)),
        digest=str(data["digest"]),
    )


def _container(data: Any) -> ContainerReport:
    fields: dict[str, Any] = {name: bool(data[name]) for name in ("stopped", "main_stopped", "frozen", "forwarded")}
    fields |= {name: _result(data[name]) for name in ("check", "names")}
    return ContainerReport(data["id"], cpu=_number(data["cpu"]), **fields)


def _result(data: Any) -> CheckResult | None:
    if data is None:
        return None
    return CheckResult(bool(data["ok"]), str(data["kind"]), _text(data["said"]), _number(data["at"]))


def _number(value: Any) -> float:
    number = float(value)
    if not (math.isfinite(number) and abs(number) < _LATEST):
        raise ValueError("out of range")
    return number


def _text(value: Any) -> str:
    return "".join(filter(str.isprintable, str(value)))[:_TEXT]
