# SPDX-License-Identifier: MIT
"""Finished units of an app, kept in /run so that a reload that changes nothing renders nothing.

An entry is found by a digest of all that the units are made from, so a stale one is never used. The generator only
reads; `archy-prepare` writes. Fast path: no heavy imports.
"""

import hashlib
import json
import os

from archy import __version__, paths
from archy.installed import Source, user_line


def toolchain(root: str) -> bytes:
    """What turns manifests into units on this node: archy, Quadlet, and the service user."""
    try:
        status = os.stat(paths.under(root, paths.QUADLET))
        quadlet = f"{status.st_size}.{status.st_mtime_ns}"
    except OSError:
        quadlet = "none"
    return f"{__version__}\0{quadlet}\0".encode() + user_line(root)


def key(tools: bytes, source: Source) -> str:
    """The digest of everything that the units of an app depend on."""
    digest = hashlib.sha256(tools)
    for part in (source.content, source.accepted, "\0".join(sorted(source.beside)).encode("utf-8", "surrogateescape")):
        digest.update(b"\0none" if part is None else b"\0%d\0" % len(part) + part)
    return digest.hexdigest()


def path(root: str, app_id: str) -> str:
    """Where the entry of an app is."""
    return paths.under(root, f"{paths.UNIT_CACHE}/{app_id}.json")


def entry(found: str, units: dict[str, str], refused: bool) -> bytes:
    """The bytes of an entry: its key, the units by file name, and whether they only state a refusal."""
    return json.dumps({"key": found, "units": units, "refused": refused}).encode()


def units(root: str, app_id: str, wanted: str) -> tuple[dict[str, str], bool] | None:
    """The cached units of an app and whether they state a refusal, or None if there is no entry under that key."""
    try:
        with open(path(root, app_id), "rb", 0) as file:
            found = json.loads(file.read())
        return (dict(found["units"]), bool(found["refused"])) if found["key"] == wanted else None
    except (OSError, ValueError, KeyError, TypeError):
        return None
