# SPDX-License-Identifier: MIT
"""`archy image list` and `archy image load`: the images that apps want."""

from __future__ import annotations

import argparse
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
from archy.cli.output import print_json, table
from archy.host import steps, systemd
from archy.images import references
from archy.images.pull import error_of
from archy.operations.progress import FAILED, OK, CannotDo, progress

_LISTING = 60.0  # seconds
_LOADED = re.compile("^Loaded image: (.+)$", re.M)


@dataclass(frozen=True)
class Image:
    """An image that apps want. `size` is in bytes; `says` is what is said of one that an app waits for."""

    image: str
    apps: tuple[str, ...]
    there: bool
    size: int
    says: str


def list_(options: argparse.Namespace) -> int:
    """archy image list."""
    apps = facts.load("/")["apps"]
    found = wanted(apps, _sizes(options.what), systemd.units([paths.image_unit(name) for name in apps]))
    if options.json:
        print_json({"images": [asdict(image) for image in found]})
        return OK
    rows = []
    for image in found:
        size = f"{image.size / 10**6:.0f} MB" if image.there else "missing"
        rows.append([image.image, size, ", ".join(image.apps), "" if image.there else image.says])
    table(["IMAGE", "SIZE", "APPS", "NOTE"], rows, {"missing": "red"})
    return OK


def wanted(apps: Mapping[str, Any], sizes: Mapping[str, int], units: Mapping[str, systemd.Unit]) -> list[Image]:
    """Every image that an app wants, and whether it is there. Pure."""
    users: dict[str, list[str]] = {}
    for app_id, summary in sorted(apps.items()):
        users.setdefault(summary["image"], []).append(app_id)
    result = []
    for image, names in sorted(users.items()):
        size = sizes.get(references.full(image))
        said = [unit.status_text for name in names if (unit := units.get(paths.image_unit(name))) and _is_wanted(unit)]
        result.append(Image(image, tuple(names), size is not None, size or 0, next(filter(None, said), "")))
    return result


def _is_wanted(unit: systemd.Unit) -> bool:
    return unit.is_activating


def _sizes(what: str) -> dict[str, int]:
    """All images that Podman has: their names, also by digest, and sizes."""
    command = ["podman", "image", "list", "--format=json"]
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, check=False, timeout=_LISTING, **steps.as_user("/"))
    except subprocess.TimeoutExpired:
        raise CannotDo(what, "podman", f"no answer within {_LISTING:g} s", "archy status", FAILED) from None
    if done.returncode:
        raise CannotDo(what, "podman", error_of(done.stderr), "archy status", FAILED)
    result = {}
    for entry in json.loads(done.stdout or "[]"):
        for name in [*(entry.get("Names") or ()), *(entry.get("RepoDigests") or ())]:
            result[name] = entry["Size"]
    return result


def load(options: argparse.Namespace) -> int:
    """archy image load."""
    with _opened(options.what, options.file) as archive:
        done = subprocess.run(["podman", "load"], stdin=archive, check=False, **steps.as_user("/"))
    names = _LOADED.findall(done.stdout)
    if done.returncode or not names:
        why = error_of(done.stderr) or "holds no image"
        hint = "it must be an archive as podman save or docker save make it"
        raise CannotDo(options.what, options.file, f"cannot be loaded: {why}", hint, FAILED)
    apps = facts.load("/")["apps"]
    for name in names:
        users = [app_id for app_id, summary in apps.items() if references.full(summary["image"]) == name]
        print(f"{name}: loaded" + (f", for {', '.join(users)}" if users else ", which no installed app uses"))
    waiting = _waiting(apps, names)
    if waiting:
        systemd.systemctl("restart", "--no-block", "--", *map(paths.image_unit, waiting))
        progress(f"{', '.join(waiting)}: starts now, if that is its image")
    return OK


def _waiting(apps: Mapping[str, Any], names: list[str]) -> list[str]:
    """The apps that wait for an image: one of these, or one that nobody fetches at this moment."""
    units = systemd.units([paths.image_unit(name) for name in apps])
    found = {name: unit for name in apps if (unit := units.get(paths.image_unit(name))) and _is_wanted(unit)}
    return [name for name, unit in found.items() if references.full(apps[name]["image"]) in names or unit.is_restarting]


@contextlib.contextmanager
def _opened(what: str, path: str) -> Iterator[IO[bytes]]:
    """The archive, opened as root: the service user need not be able to read it."""
    if path == "-":
        if sys.stdin.isatty():
            raise CannotDo(what, "standard input", "is a terminal", "archy image load FILE", FAILED)
        yield sys.stdin.buffer
        return
    try:
        archive = open(path, "rb")  # noqa: SIM115
    except OSError as error:
        raise CannotDo(what, path, str(error.strerror), "", FAILED) from None
    with archive:
        yield archive
