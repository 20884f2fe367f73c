# SPDX-License-Identifier: MIT
"""What the node itself needs, besides its apps: settings in force, host facts, Podman's configuration, safe secrets."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from archy import paths
from archy.apps import facts
from archy.errors import Refused
from archy.host import read as host_read
from archy.host.idmap import Owner
from archy.host.steps import Directory, File, Ownership, Remove, Step, to_make
from archy.images import references
from archy.manifest import grants, settings
from archy.paths import secret_path
from archy.prepare.reader import Reader
from archy.units.templates import render

_CONF_DIRECTORY = f"{paths.HOME}/.config/containers/containers.conf.d"
CONTAINERS_CONF = f"{_CONF_DIRECTORY}/50-archy.conf"
REGISTRIES_CONF = "/etc/containers/registries.conf.d/50-archy.conf"


@dataclass(frozen=True)
class Settings:
    """The operator's settings that are in force, the steps that keep them, and the warnings about them."""

    values: dict[str, Any]
    steps: tuple[Step, ...]
    warnings: tuple[str, ...]


def settings_of(reader: Reader) -> Settings:
    """The node's settings; the last good ones, and a warning, when the file has turned bad. Raises `Refused`."""
    return _in_force(reader, paths.NODE, paths.ACCEPTED_NODE, "settings", settings.parse)


def grants_of(reader: Reader) -> Settings:
    """What the node's operator grants apps, in the same way."""
    return _in_force(reader, paths.GRANTS, paths.ACCEPTED_GRANTS, "grants", grants.parse)


def _in_force(
    reader: Reader, path: str, accepted: str, what: str, parse: Callable[[bytes | None, str], Any]
) -> Settings:
    now, before = map(reader.record, (path, accepted))
    try:
        values = parse(now, path)
    except Refused as refused:
        if before is None:
            raise
        warnings = [f"node {what} refused: {problem}" for problem in refused.problems]
        warnings.append(f"node {what}: the last good version stays in force")
        return Settings(parse(before, accepted), (), tuple(warnings))
    if (now or b"") == (before or b""):
        return Settings(values, (), ())
    return Settings(values, (File(accepted, now or b"", *_own(), 0o644, "accepted"),), ())


def _own() -> tuple[int, int]:
    """Root's IDs, or those of a test."""
    return os.geteuid(), os.getegid()


def plan(reader: Reader, owner: Owner, values: dict[str, Any]) -> list[Step]:
    """The steps that put the node's own files right. `values` are settings."""
    root, (uid, gid) = reader.root, _own()
    reader.note(paths.under(root, paths.ACCEPTED_HOST))
    host = {**facts.kept(root), **facts.host(root)}
    steps: list[Step] = []
    if host != facts.kept(root):
        content = json.dumps(host, sort_keys=True).encode()
        steps.append(File(paths.ACCEPTED_HOST, content, uid, gid, 0o644, "the host has changed"))
    conf = render(root, "containers.conf.j2").encode()
    above = Directory(_CONF_DIRECTORY, owner.uid, owner.gid, 0o755)
    steps += _file(reader, File(CONTAINERS_CONF, conf, uid, gid, 0o644), above)
    registries = references.registries(values["images"])
    if registries:
        text = render(root, "registries.conf.j2", registries=registries).encode()
        above = Directory(os.path.dirname(REGISTRIES_CONF), uid, gid, 0o755)
        steps += _file(reader, File(REGISTRIES_CONF, text, uid, gid, 0o644), above)
    elif reader.files([REGISTRIES_CONF]):
        steps.append(Remove(REGISTRIES_CONF, "no registry is set"))
    safe = reader.files([paths.SECRETS]).get(paths.SECRETS)
    if safe is not None and safe.mode != 0o700:
        steps.append(Ownership(paths.SECRETS, uid, gid, 0o700))
    secrets = reader.files(map(secret_path, host_read.secret_names(root)))
    for path, secret in secrets.items():
        if (secret.uid, secret.gid, secret.mode) != (uid, gid, 0o600):
            steps.append(Ownership(path, uid, gid, 0o600))
    return steps


def _file(reader: Reader, wanted: File, above: Directory) -> list[Step]:
    """The steps to a file, in a directory that is made if it is missing."""
    todo = to_make(wanted, reader.files([wanted.path]).get(wanted.path))
    return [above, *todo] if any(isinstance(step, File) for step in todo) else todo
