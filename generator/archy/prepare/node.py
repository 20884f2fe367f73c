# SPDX-License-Identifier: MIT
"""What the node itself needs, besides its apps: settings in force, host facts, Podman's configuration, safe secrets."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from archy import paths
from archy.apps import facts
from archy.errors import Refused
from archy.host import read as host_read
from archy.host import stat
from archy.host.idmap import Owner
from archy.host.steps import Directory, File, Ownership, Remove, Step
from archy.images import references
from archy.manifest import grants, settings
from archy.paths import secret_path
from archy.units.templates import render

NAME = "@node"  # among apps: no app can be called so
_CONF_DIRECTORY = f"{paths.HOME}/.config/containers/containers.conf.d"
CONTAINERS_CONF = f"{_CONF_DIRECTORY}/50-archy.conf"
REGISTRIES_CONF = "/etc/containers/registries.conf.d/50-archy.conf"


@dataclass(frozen=True)
class Settings:
    """The operator's settings that are in force, the steps that keep them, and what is to be said about them."""

    values: dict[str, Any]
    steps: tuple[Step, ...]
    said: tuple[str, ...]


def inputs(root: str) -> list[str]:
    """All paths that `plan` reads or writes."""
    secrets = [paths.SECRETS, *map(secret_path, host_read.secret_names(root))]
    chosen = [paths.NODE, paths.ACCEPTED_NODE, paths.GRANTS, paths.ACCEPTED_GRANTS]
    read = [*chosen, paths.ACCEPTED_HOST, "/etc/passwd", CONTAINERS_CONF, REGISTRIES_CONF]
    return [paths.under(root, path) for path in (*read, *secrets)]


def settings_of(root: str, uid: int, gid: int) -> Settings:
    """The node's settings; the last good ones, and a warning, when the file has turned bad. Raises `Refused`."""
    return _in_force(root, paths.NODE, paths.ACCEPTED_NODE, "settings", settings.parse, uid, gid)


def grants_of(root: str, uid: int, gid: int) -> Settings:
    """What the node's operator grants apps, in the same way."""
    return _in_force(root, paths.GRANTS, paths.ACCEPTED_GRANTS, "grants", grants.parse, uid, gid)


def _in_force(
    root: str, path: str, accepted: str, what: str, parse: Callable[[bytes | None, str], Any], uid: int, gid: int
) -> Settings:
    now, before = (host_read.content(root, one) for one in (path, accepted))
    try:
        values = parse(now, path)
    except Refused as refused:
        said = [f"node {what} refused: {problem}" for problem in refused.problems]
        if before is None:
            raise
        said.append(f"node {what}: the last good version stays in force")
        return Settings(parse(before, accepted), (), tuple(said))
    if (now or b"") == (before or b""):
        return Settings(values, (), ())
    return Settings(values, (File(accepted, now or b"", uid, gid, 0o644, "accepted"),), ())


def plan(root: str, owner: Owner, values: dict[str, Any], uid: int, gid: int) -> list[Step]:
    """The steps that put the node's own files right. `values` are settings; `uid` and `gid` are root's, or a test's."""
    host = {**facts.kept(root), **facts.host(root)}
    steps: list[Step] = []
    if host != facts.kept(root):
        content = json.dumps(host, sort_keys=True).encode()
        steps.append(File(paths.ACCEPTED_HOST, content, uid, gid, 0o644, "the host has changed"))
    conf = render(root, "containers.conf.j2").encode()
    above = Directory(_CONF_DIRECTORY, owner.uid, owner.gid, 0o755)
    steps += _drift(root, File(CONTAINERS_CONF, conf, uid, gid, 0o644, "wanted"), above)
    registries = references.registries(values["images"])
    if registries:
        text = render(root, "registries.conf.j2", registries=registries).encode()
        above = Directory(os.path.dirname(REGISTRIES_CONF), uid, gid, 0o755)
        steps += _drift(root, File(REGISTRIES_CONF, text, uid, gid, 0o644, "wanted"), above)
    elif stat.files(root, [REGISTRIES_CONF]):
        steps.append(Remove(REGISTRIES_CONF, "no registry is set"))
    safe = stat.files(root, [paths.SECRETS]).get(paths.SECRETS)
    if safe is not None and safe.mode != 0o700:
        steps.append(Ownership(paths.SECRETS, uid, gid, 0o700))
    secrets = stat.files(root, map(secret_path, host_read.secret_names(root)))
    for path, secret in secrets.items():
        if (secret.uid, secret.gid, secret.mode) != (uid, gid, 0o600):
            steps.append(Ownership(path, uid, gid, 0o600))
    return steps


def _drift(root: str, wanted: File, above: Directory) -> list[Step]:
    """The steps that give a file its content, in a directory that is made if it is missing, its owner and its mode."""
    found = stat.files(root, [wanted.path]).get(wanted.path)
    if found is None or found.content != wanted.content:
        return [above, replace(wanted, why="content differs" if found else "missing")]
    if (found.uid, found.gid, found.mode) != (wanted.uid, wanted.gid, wanted.mode):
        return [Ownership(wanted.path, wanted.uid, wanted.gid, wanted.mode)]
    return []
