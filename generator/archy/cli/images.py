# SPDX-License-Identifier: MIT
"""`archy image list` and `archy image load`: the images of apps."""

from __future__ import annotations

import contextlib
import json
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import IO, Any

from archy import paths
from archy.apps import facts
from archy.cli.output import COLOURS, print_json, table
from archy.host import steps, systemd
from archy.images import references
from archy.images.pull import error_of
from archy.operations.progress import CannotDo, progress

_LISTING = 60.0  # seconds
_LOADED = re.compile("^Loaded image: (.+)$", re.M)


@dataclass(frozen=True)
class Image:
    """An image of apps, and whether it is here. `size` is in bytes; `says`: the status of one that an app waits for."""

    image: str
    apps: tuple[str, ...]
    there: bool
    size: int
    says: str


def list_(as_json: bool) -> None:
    """archy image list."""
    apps = facts.load("/")["apps"]
    images = _images(apps, _sizes("image list"), _waiting(apps))
    if as_json:
        print_json({"images": [asdict(image) for image in images]})
        return
    rows = []
    for image in images:
        size = f"{image.size / 10**6:.0f} MB" if image.there else "missing"
        rows.append([image.image, size, ", ".join(image.apps), "" if image.there else image.says])
    table(["IMAGE", "SIZE", "APPS", "NOTE"], rows, COLOURS)


def _images(apps: Mapping[str, Any], sizes: Mapping[str, int], waiting: Mapping[str, systemd.Unit]) -> list[Image]:
    users: dict[str, list[str]] = {}
    for app_id, summary in sorted(apps.items()):
        users.setdefault(summary["image"], []).append(app_id)
    result = []
    for image, names in sorted(users.items()):
        size = sizes.get(references.full(image))
        texts = [waiting[name].status_text for name in names if name in waiting]
        result.append(Image(image, tuple(names), size is not None, size or 0, next(filter(None, texts), "")))
    return result


def _waiting(apps: Mapping[str, Any]) -> dict[str, systemd.Unit]:
    """The apps that wait for their images, each with the unit that fetches it."""
    units = systemd.units([paths.image_unit(name) for name in apps])
    return {name: unit for name in apps if (unit := units.get(paths.image_unit(name))) and unit.is_activating}


def _sizes(what: str) -> dict[str, int]:
    """All images that Podman has: their names, also by digest, and sizes."""
    command = ["podman", "image", "list", "--format=json"]
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, check=False, timeout=_LISTING, **steps.as_user("/"))
    except subprocess.TimeoutExpired:
        raise CannotDo(what, "podman", f"no answer within {_LISTING:g} s", "archy status") from None
    if done.returncode:
        raise CannotDo(what, "podman", error_of(done.stderr), "archy status")
    result = {}
    for entry in json.loads(done.stdout or "[]"):
        for name in [*(entry.get("Names") or ()), *(entry.get("RepoDigests") or ())]:
            result[name] = entry["Size"]
    return result


def load(file: str) -> None:
    """archy image load."""
    with _opened("image load", file) as archive:
        done = subprocess.run(["podman", "load"], stdin=archive, check=False, **steps.as_user("/"))
    names = _LOADED.findall(done.stdout)
    if done.returncode or not names:
        reason = error_of(done.stderr) or "holds no image"
        hint = "it must be an archive as podman save or docker save make it"
        raise CannotDo("image load", file, f"cannot be loaded: {reason}", hint)
    apps = facts.load("/")["apps"]
    for name in names:
        users = [app_id for app_id, summary in apps.items() if references.full(summary["image"]) == name]
        print(f"{name}: loaded" + (f", for {', '.join(users)}" if users else ", which no installed app uses"))
    # Not those whose image is being fetched at this moment, unless it is one of these.
    retry = [
        name
        for name, unit in _waiting(apps).items()
        if references.full(apps[name]["image"]) in names or unit.is_restarting
    ]
    if retry:
        systemd.systemctl("restart", "--no-block", "--", *map(paths.image_unit, retry))
        progress(f"{', '.join(retry)}: starts now, if this is its image")


@contextlib.contextmanager
def _opened(what: str, path: str) -> Iterator[IO[bytes]]:
    """The archive, opened as root: the service user need not be able to read it."""
    if path == "-":
        if sys.stdin.isatty():
            raise CannotDo(what, "standard input", "is a terminal", "archy image load FILE")
        yield sys.stdin.buffer
        return
    try:
        archive = open(path, "rb")  # noqa: SIM115
    except OSError as error:
        raise CannotDo(what, path, str(error.strerror)) from None
    with archive:
        yield archive
