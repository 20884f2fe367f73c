# SPDX-License-Identifier: MIT
"""What the node itself needs, besides its apps: settings in force, host facts, Podman's configuration, safe secrets."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from archy import facts, installed, look, paths, settings
from archy.derive import secret_path
from archy.owner import Owner
from archy.problem import Refused
from archy.steps import Directory, File, Ownership, Step
from archy.templates import render

NAME = "@node"  # among apps: no app can be called so
_CONF_DIRECTORY = f"{paths.HOME}/.config/containers/containers.conf.d"
CONTAINERS_CONF = f"{_CONF_DIRECTORY}/50-archy.conf"


@dataclass(frozen=True)
class Settings:
    """The operator's settings that are in force, the steps that keep them, and what is to be said about them."""

    values: dict[str, Any]
    steps: tuple[Step, ...]
    said: tuple[str, ...]


def inputs(root: str) -> list[str]:
    """All paths that `plan` reads or writes."""
    secrets = [paths.SECRETS, *map(secret_path, installed.secret_names(root))]
    read = [paths.NODE, paths.ACCEPTED_NODE, paths.ACCEPTED_HOST, "/etc/passwd", CONTAINERS_CONF]
    return [paths.under(root, path) for path in (*read, *secrets)]


def settings_of(root: str, uid: int, gid: int) -> Settings:
    """The node's settings; the last good ones, and a warning, when the file has turned bad. Raises `Refused`."""
    now, before = (look.content(root, path) for path in (paths.NODE, paths.ACCEPTED_NODE))
    try:
        values = settings.parse(now)
    except Refused as refused:
        said = [f"node settings refused: {problem}" for problem in refused.problems]
        if before is None:
            raise
        said.append("node settings: the last good version stays in force")
        return Settings(settings.parse(before, paths.ACCEPTED_NODE), (), tuple(said))
    if (now or b"") == (before or b""):
        return Settings(values, (), ())
    return Settings(values, (File(paths.ACCEPTED_NODE, now or b"", uid, gid, 0o644, "accepted"),), ())


def plan(root: str, owner: Owner, uid: int, gid: int) -> list[Step]:
    """The steps that put the node's own files right; `uid` and `gid` are root's, or a test's."""
    host = {**facts.kept(root), **facts.host(root)}
    steps: list[Step] = []
    if host != facts.kept(root):
        content = json.dumps(host, sort_keys=True).encode()
        steps.append(File(paths.ACCEPTED_HOST, content, uid, gid, 0o644, "the host has changed"))
    conf = render(root, "containers.conf.j2").encode()
    found = look.files(root, [CONTAINERS_CONF]).get(CONTAINERS_CONF)
    if found is None or found.content != conf:
        steps.append(Directory(_CONF_DIRECTORY, owner.uid, owner.gid, 0o755))
        why = "content differs" if found else "missing"
        steps.append(File(CONTAINERS_CONF, conf, uid, gid, 0o644, why))
    elif (found.uid, found.gid, found.mode) != (uid, gid, 0o644):
        steps.append(Ownership(CONTAINERS_CONF, uid, gid, 0o644))
    safe = look.files(root, [paths.SECRETS]).get(paths.SECRETS)
    if safe is not None and safe.mode != 0o700:
        steps.append(Ownership(paths.SECRETS, uid, gid, 0o700))
    secrets = look.files(root, map(secret_path, installed.secret_names(root)))
    for path, secret in secrets.items():
        if (secret.uid, secret.gid, secret.mode) != (uid, gid, 0o600):
            steps.append(Ownership(path, uid, gid, 0o600))
    return steps
