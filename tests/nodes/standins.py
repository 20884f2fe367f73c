# SPDX-License-Identifier: MIT
"""Stand-ins for the images of the catalogue that have no recipe: one small layer for all, and a tiny one for each.

They are made from the manifests alone, and go into one archive, which Podman loads in a single run.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import platform
import posixpath
import tarfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from nodes import catalogue
from nodes.catalogue import App, items, numbers, part
from nodes.layers import digest, layer

PROGRAM = "/.standin/run"
PLACES = {"x86_64": "amd64", "aarch64": "arm64"}


@dataclass(frozen=True)
class StandIn:
    """An image: its reference, the environment that tells the program what to do, its links to that, and folders."""

    reference: str
    environment: tuple[str, ...]
    programs: tuple[str, ...]
    folders: tuple[tuple[str, int, int], ...]  # with user and group


def stand_ins(taken: Iterable[str]) -> list[StandIn]:
    """The stand-ins for all references of the catalogue that nothing else has."""
    users: dict[str, list[App]] = {}
    for name, app in catalogue.apps().items():
        for reference in catalogue.references(name):
            # An image cannot have a digest that is not its own. The app will say that it is not known.
            if reference not in taken and "@" not in reference:
                users.setdefault(reference, []).append(app)
    return [stand_in(reference, users[reference]) for reference in sorted(users)]


def stand_in(reference: str, users: list[App]) -> StandIn:
    """The stand-in for an image that serves all these apps."""
    ports: list[int] = []
    targets: list[str] = []
    folders: dict[str, tuple[int, int]] = {}
    programs: set[str] = set()
    hooks: set[str] = set()
    for app in users:
        ports += served(app)
        uid, _, gid = str(part(app, "container", "user") or "0").partition(":")
        for volume in items(app, "volumes"):
            target = str(part(volume, "target"))
            if "ro" not in items(volume, "options"):
                targets.append(target)
            if part(volume, "type") == "volume":  # a new one gets its owner from the image
                folders[target] = (int(uid), int(gid or uid))
        programs |= links(app)
        for command in catalogue.hook_commands(app):
            line = " ".join([posixpath.basename(command[0]), *command[1:]])
            hooks.add(hashlib.sha256(line.encode()).hexdigest())
    told = {
        "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "STANDIN_FOR": reference,
        "STANDIN_PORTS": " ".join(map(str, dict.fromkeys(ports))),
        "STANDIN_VOLUMES": ":".join(dict.fromkeys(targets)),
        "STANDIN_HOOKS": " ".join(sorted(hooks)),
    }
    environment = tuple(f"{key}={value}" for key, value in told.items())
    owned = tuple((target, *folders[target]) for target in sorted(folders))
    return StandIn(reference, environment, tuple(sorted(programs)), owned)


def served(app: App) -> list[int]:
    """The TCP ports that an app is expected to serve in its container, the one of its health check first."""
    found = [number for number in [catalogue.health_port(app)] if number]
    for port in items(app, "ports"):
        if part(port, "protocol") in ({}, "tcp"):
            found += numbers(part(port, "container"))
    return found


def links(app: App) -> set[str]:
    """Where the image must have a program: the app's own, and those of its hooks and of its health check."""
    commands = [items(app, "container", "entrypoint"), catalogue.check_command(app), *catalogue.hook_commands(app)]
    folder = str(part(app, "container", "working_dir") or "/")
    mounts = [str(part(volume, "target")) for volume in items(app, "volumes")]
    for moment in ("pre_start", "post_install"):
        mounts += [str(part(step, "copy_from_host", "dest")) for step in items(app, "hooks", moment)]
    found = set()
    for command in commands:
        if not command:
            continue
        name = str(command[0])
        name = posixpath.normpath(posixpath.join(folder if "/" in name else "/usr/local/bin", name))
        # What is mounted is there already; and a mount upon a link would be one upon the stand-in itself.
        if not any(name == mount or name.startswith(f"{mount}/") for mount in mounts):
            found.add(name)
    # These are in the layer that all have.
    return found - {"/bin/sh", "/bin/ash", "/bin/bash", "/usr/bin/bash", "/usr/bin/env"}


def own_layer(image: StandIn) -> bytes:
    """The layer of one image, as a tar that is always the same."""
    entries: dict[str, tarfile.TarInfo] = {}

    def add(path: str, kind: bytes, uid: int = 0, gid: int = 0) -> None:
        above = posixpath.dirname(path)
        if above not in ("/", "", "/bin", "/usr", "/usr/bin", "/usr/local", "/usr/local/bin") and above not in entries:
            add(above, tarfile.DIRTYPE)
        entry = tarfile.TarInfo(path.lstrip("/"))
        entry.type, entry.mode, entry.uid, entry.gid = kind, 0o755, uid, gid
        entry.linkname = PROGRAM if kind == tarfile.SYMTYPE else ""
        entries[path] = entry

    for path, uid, gid in image.folders:
        add(path, tarfile.DIRTYPE, uid, gid)
    for path in image.programs:
        add(path, tarfile.SYMTYPE)
    return packed([(entry, b"") for entry in entries.values()])


def packed(entries: Iterable[tuple[tarfile.TarInfo, bytes]]) -> bytes:
    """A tar as bytes."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for entry, content in entries:
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    return out.getvalue()


def archive(base: bytes, images: Iterable[StandIn]) -> bytes:
    """All images as `podman load` takes them, in the format of `docker save`."""
    files: dict[str, bytes] = {}
    manifest = []

    def put(content: bytes, suffix: str) -> str:
        name = hashlib.sha256(content).hexdigest() + suffix
        files[name] = content
        return name

    for image in images:
        layers = [put(content, ".tar") for content in (base, own_layer(image))]
        config = {
            "architecture": PLACES.get(platform.machine(), platform.machine()),
            "os": "linux",
            "created": "1970-01-01T00:00:00Z",
            "config": {"Env": image.environment, "Entrypoint": [PROGRAM], "WorkingDir": "/"},
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{name.removesuffix('.tar')}" for name in layers]},
        }
        name = put(json.dumps(config, sort_keys=True).encode(), ".json")
        manifest.append({"Config": name, "RepoTags": [image.reference], "Layers": layers})
    files["manifest.json"] = json.dumps(manifest).encode()
    return packed((tarfile.TarInfo(name), content) for name, content in files.items())


def archive_layer(base: Path, taken: Iterable[str]) -> Path | None:
    """The archive with all stand-ins, made where it is missing; nothing if none is needed."""
    images = stand_ins(taken)

    def build(new: Path, _: Path) -> None:
        new.write_bytes(archive(base.read_bytes(), images))

    key = digest(base.name, [(i.reference, i.environment, i.programs, i.folders) for i in images], os.uname().machine)
    return layer("standins", digest(key, Path(__file__).read_text()), build, ".tar") if images else None
