# SPDX-License-Identifier: MIT
"""Permissions of an app beyond its own container and its own data, and whether the node's operator grants them.

With any of these an app can break out of its container, or read data of others. So a manifest alone never gets them:
the operator grants them one by one in /etc/archy/grants.yml.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping, Set
from dataclasses import dataclass
from typing import Any

from archy import paths
from archy.manifest import ownership, schema
from archy.manifest.document import Path
from archy.manifest.model import App

Grants = Mapping[str, Mapping[str, Any]]

_PLAIN = re.compile(r"[A-Za-z0-9/._-]+")  # what YAML needs no quotes for
_LISTS = ("devices", "paths", "security_opt", "volumes", "networks", "aliases")
_SOCKETS = ("podman.sock", "docker.sock")


@dataclass(frozen=True)
class Permission:
    """One thing that needs a grant: where the manifest asks for it, the key and the value of the grant, and a risk."""

    at: Path
    key: str
    value: str
    risk: str

    def __str__(self) -> str:
        return f"{self.key}: {self.value}"

    @property
    def grant(self) -> str:
        """The grant as it stands in the file, after the app's ID."""
        value = self.value if _PLAIN.fullmatch(self.value) else json.dumps(self.value)
        return f"{{{self.key}: {f'[{value}]' if self.key in _LISTS else value}}}"


def required(app: App, known: Set[str] = frozenset()) -> list[Permission]:
    """Everything that the app needs a grant for. `known` are the node's apps whose names its things bear."""
    found = list(_outside(app))
    places = {one.at for one in found}
    return found + [
        Permission(claim.at, claim.key, claim.value, claim.risk.format(f"{owner}, another app"))
        for claim, owner in ownership.of_others(app, known)
        if claim.at not in places
    ]


def _outside(app: App) -> Iterator[Permission]:
    """The permissions for things of the node."""
    container: Path = ("app", "container")
    if app.privileged:
        yield Permission(("app", "security", "privileged"), "privileged", "true", "all that the service user may do")
    if app.network == "host":
        risk = "all services of the node, also those that only it should reach"
        yield Permission((*container, "network"), "network", "host", risk)
    for index, device in enumerate(app.runtime.devices):
        yield Permission((*container, "devices", index), "devices", device.partition(":")[0], "the device")
    for one in app.runtime.unconfined:
        risk = "more of the kernel than a container has"
        yield Permission((*container, "security_opt"), "security_opt", one, risk)
    for index, volume in enumerate(app.volumes):
        if volume.kind == "bind" and not _is_own(app, volume.source, "ro" in volume.options):
            socket = os.path.basename(volume.source) in _SOCKETS
            risk = "all containers of the node, by the socket" if socket else "data that is not the app's own"
            yield Permission(("app", "volumes", index, "source"), "paths", volume.source, risk)


def _is_own(app: App, path: str, read_only: bool) -> bool:
    others = {need.app_id for need in app.needs} if read_only else set()
    return ownership.is_own(ownership.own(app) | others, path)


def missing(app: App, granted: Grants, known: Set[str] = frozenset()) -> list[tuple[Path, str]]:
    """The permissions that the app needs and does not have: places in its manifest, and what to do."""
    mine = granted.get(app.id, {})
    reason = "needs a grant of the node's operator ({0.value}: {0.risk}); to allow that, write into {1}: {2}: {0.grant}"
    return [
        (one.at, reason.format(one, paths.GRANTS, app.id)) for one in required(app, known) if not _is_granted(mine, one)
    ]


def _is_granted(mine: Mapping[str, Any], needed: Permission) -> bool:
    given = mine.get(needed.key)
    if isinstance(given, list):
        return any(needed.value == one or needed.value.startswith(one.rstrip("/") + "/") for one in given)
    return given is True or given == needed.value


def parse(content: bytes | None, file: str = paths.GRANTS) -> Grants:
    """The grants in a file's content; raises `Refused`."""
    if not content:  # as on most nodes: nothing heavy is imported for that
        return {}
    document = schema.document(content, file, "grants", may_be_empty=True)

    from archy.manifest import validation

    validation.refuse(document, validation.problems(document, schema.schema("grants")))
    result: Grants = document.data
    return result
