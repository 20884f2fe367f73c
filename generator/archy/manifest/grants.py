# SPDX-License-Identifier: MIT
"""What an app asks for beyond its own container and its own data, and whether the node's operator grants it.

An app can break out of its container with any of these, or read what is not its own. So a manifest alone never gets
them: the operator says so in /etc/archy/grants.yml, app by app and thing by thing.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Set
from dataclasses import dataclass
from typing import Any

from archy import paths
from archy.errors import Refused
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
    found = []
    if app.privileged:
        found.append(
            Permission(("app", "security", "privileged"), "privileged", "true", "all that the service user may do")
        )
    if app.network == "host":
        at: Path = ("app", "container", "network")
        found.append(
            Permission(at, "network", "host", "all services of the node, also those that only it should reach")
        )
    for index, device in enumerate(app.runtime.devices):
        path = device.partition(":")[0]
        found.append(Permission(("app", "container", "devices", index), "devices", path, "the device"))
    for one in app.runtime.unconfined:
        at = ("app", "container", "security_opt")
        found.append(Permission(at, "security_opt", one, "more of the kernel than a container has"))
    for index, volume in enumerate(app.volumes):
        at = ("app", "volumes", index, "source")
        if volume.kind == "bind" and not _is_own(app, volume.source, "ro" in volume.options):
            socket = os.path.basename(volume.source) in _SOCKETS
            risk = "all containers of the node, by the socket" if socket else "data that is not the app's own"
            found.append(Permission(at, "paths", volume.source, risk))
    asked = {wish.at for wish in found}
    found += [
        Permission(claim.at, claim.key, claim.value, claim.risk.format(f"{owner}, another app"))
        for claim, owner in ownership.of_others(app, known)
        if claim.at not in asked
    ]
    return found


def _is_own(app: App, path: str, read_only: bool) -> bool:
    others = {need.app_id for need in app.needs} if read_only else set()
    return ownership.is_own(ownership.own(app) | others, path)


def missing(app: App, granted: Grants, known: Set[str] = frozenset()) -> list[tuple[Path, str]]:
    """What the app asks for and was not granted: places in its manifest, and what to do."""
    mine = granted.get(app.id, {})
    found = []
    for wish in required(app, known):
        if not _has(mine, wish):
            hint = f"to allow that, write into {paths.GRANTS}: {app.id}: {wish.grant}"
            found.append((wish.at, f"needs a grant of the node's operator ({wish.value}: {wish.risk}); {hint}"))
    return found


def _has(mine: Mapping[str, Any], wish: Permission) -> bool:
    given = mine.get(wish.key)
    if isinstance(given, list):
        return any(wish.value == one or wish.value.startswith(one.rstrip("/") + "/") for one in given)
    return given is True or given == wish.value


def parse(content: bytes | None, file: str = paths.GRANTS) -> Grants:
    """The grants in a file's content; raises `Refused`."""
    if not content:  # as on most nodes: nothing heavy is imported for that
        return {}
    document = schema.document(content, file, "grants", may_be_empty=True)

    from archy.manifest import validation

    found = validation.problems(document, schema.schema("grants"))
    if found or document.problems:
        raise Refused({*document.problems, *(document.problem(path, reason) for path, reason in found)})
    result: Grants = document.data
    return result
