# SPDX-License-Identifier: MIT
"""Directories and derived files of an app: as they must be, and the steps to that. Pure."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from datetime import datetime

from archy import paths
from archy.errors import CannotDerive
from archy.host.idmap import Owner
from archy.host.stat import FileState
from archy.host.steps import Directory, File, Step, to_make
from archy.manifest import grants
from archy.manifest.model import App
from archy.paths import environment_path
from archy.prepare import certificates as prepare_certificates
from archy.prepare import render
from archy.prepare.render import Inputs

# Existing manifests give the owner of an app's data as an ID on a node whose subordinate IDs start here.
_CLASSIC_SUBUID = 100_000


def directories(app: App, owner: Owner) -> list[Directory]:
    """The sources of the app's bind mounts, which Podman does not create; those of its files. What exists is left."""
    made = {file.path for file in app.files} | {path for pair in app.certificates for path in (pair.crt, pair.key)}
    uid, gid = data_owner(app, owner)
    # What needs a grant is not the app's own: it is there already, and may be a file or a socket.
    granted = {wish.value for wish in grants.required(app)}
    sources = {volume.source for volume in app.volumes if volume.kind == "bind"} - made - granted
    above = {os.path.dirname(path) for path in made}
    result = [Directory(path, uid, gid, 0o750) for path in sorted(sources | above)]
    if app.derived_env:
        result.append(Directory(paths.ENVIRONMENTS, 0, 0, 0o755))
    if app.secret_env:
        result.append(Directory(f"{paths.SECRET_ENVIRONMENTS}/{app.id}", owner.uid, owner.gid, 0o700))
    return result


def data_owner(app: App, owner: Owner) -> tuple[int, int]:
    """The IDs on the node that own an app's data: by `data_uid`, else the user its container runs as."""
    if app.data_uid is not None and app.data_uid >= _CLASSIC_SUBUID:
        inside = app.data_uid - _CLASSIC_SUBUID + 1
        return owner.host_uid(inside), owner.host_gid(inside)
    if app.data_uid is not None:
        return app.data_uid, app.data_uid
    user, _, group = (app.user or "0").partition(":")
    return owner.host_uid(int(user)), owner.host_gid(int(group or user))


def file_paths(app: App) -> list[str]:
    """The paths of all files that are made for the app."""
    made = [file.path for file in app.files]
    made += [path for pair in app.certificates for path in (pair.key, pair.crt)]
    made += [environment_path(app.id)] if app.derived_env else []
    return made + [paths.secret_environment_path(app.id, entry.key) for entry in app.secret_env]


def files(material: Inputs) -> list[File]:
    """The app's generated files and its environment as they must be."""
    app, owner = material.app, material.facts.owner
    wanted = []
    for file in app.files:
        content = _encoded(file.template or file.path, render.content(material, file))
        wanted.append(File(file.path, content, owner.host_uid(file.owner), owner.host_gid(file.group), file.mode))
    if app.derived_env:
        lines = "".join(f"{key}={value}\n" for key, value in render.environment(material).items())
        wanted.append(File(environment_path(app.id), lines.encode(), 0, 0, 0o644))
    for key, value in render.secret_environment(material).items():
        path = paths.secret_environment_path(app.id, key)
        wanted.append(File(path, value.encode(), owner.uid, owner.gid, 0o400))
    return wanted


def certificates(material: Inputs, found: Mapping[str, FileState], now: datetime) -> list[File]:
    """The app's keys, made once, and its certificates, made again when they are not right any more."""
    wanted = []
    uid, gid = data_owner(material.app, material.facts.owner)
    for pair in material.app.certificates:
        key, crt = (found.get(path) for path in (pair.key, pair.crt))
        if key is None and crt is not None and crt.content:
            raise CannotDerive(f"{pair.key}: is missing; restore it, or remove {pair.crt} to have both made again")
        name = render.substitute(material, "generated_certs", pair.common_name)
        sans = [render.substitute(material, "generated_certs", san) for san in pair.sans]
        private = prepare_certificates.new_key() if key is None else key.content
        try:
            if private is None:
                raise ValueError("is not a file")
            why = prepare_certificates.why_not(crt.content if crt else None, private, name, sans, now)
            public = prepare_certificates.issue(private, name, sans, now) if why or crt is None else crt.content
        except ValueError as error:
            raise CannotDerive(f"{pair.key}: {error}") from None
        wanted.append(File(pair.key, private, uid, gid, 0o400))
        wanted.append(File(pair.crt, public or b"", uid, gid, 0o444))
    return wanted


def drift(app: App, wanted: list[File], found: Mapping[str, FileState]) -> list[Step]:
    """The steps from the current files to the desired ones; none when nothing differs."""
    once = render.own_paths(app)
    steps: list[Step] = []
    for file in wanted:
        now = found.get(file.path)
        if now is None or file.path not in once:
            steps += to_make(file, now)
        elif now.content is None:  # as a link, it would lead the app's mounts to where it likes
            raise CannotDerive(f"{file.path}: is not a file; remove it to have it made again")
    return steps


def started(app: App, wanted: list[File], found: Mapping[str, FileState]) -> dict[str, dict[str, str]]:
    """What a process that starts now is started with: digests of the files made for it, and of its operator's own."""
    once = render.own_paths(app)
    own = {file.path: now.content if (now := found.get(file.path)) else file.content for file in wanted}
    return {
        "files": {file.path: _digest(file.content) for file in wanted if file.path not in once},
        "own": {path: _digest(content or b"") for path, content in own.items() if path in once},
    }


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _encoded(where: str, text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise CannotDerive(f"{where}: {error}") from None
