# SPDX-License-Identifier: MIT
"""Work that need not be done again: the finished units of each app, kept beside its accepted version.

They are found by a digest of all that they were made from, so stale ones are never used. They serve the boot or reload
where other apps have changed. The generator only reads; `archy-prepare` writes. Fast path: no heavy imports.
"""

import hashlib
import os

from archy import __version__, paths
from archy.apps.installed import Source
from archy.host.read import read, user_line
from archy.units import snapshot

LINK = "-> "  # begins a text that stands for a link, to what follows


def toolchain(root: str) -> bytes:
    """What turns manifests into units on this node: archy, the service user, what the operator grants, and Quadlet."""
    changed = [_changed(path) for path in (paths.under(root, paths.TEMPLATES), *program())]
    granted = read(paths.under(root, paths.GRANTS)) or b""
    try:
        status = os.stat(paths.under(root, paths.QUADLET))
        quadlet = f"{status.st_size}.{status.st_mtime_ns}"
    except OSError:
        quadlet = "none"
    return f"{__version__} {changed} {quadlet}\0".encode() + user_line(root) + (b"\0" + granted if granted else b"")


def program() -> list[str]:
    """The directories of archy's own code: a package that was built again under the same number has other times."""
    package = os.path.dirname(os.path.dirname(__file__))
    return [package, *sorted(entry.path for entry in os.scandir(package) if entry.is_dir() and entry.name[0] != "_")]


def _changed(path: str) -> int:
    try:
        return os.stat(path).st_mtime_ns
    except OSError:
        return 0


def units_key(tools: bytes, source: Source) -> str:
    """The digest of everything that the units of an app depend on; `tools` is the `toolchain`."""
    files = "\0".join(sorted(source.files)).encode("utf-8", "surrogateescape")
    return _digest(tools, source.content, source.accepted, files)


def _digest(*parts: bytes | None) -> str:
    total = hashlib.sha256()
    for part in parts:
        total.update(b"none\0" if part is None else b"%d\0" % len(part) + part)
    return total.hexdigest()


def pack(key: str, texts: dict[str, str]) -> bytes:
    """The bytes of a bundle."""
    return snapshot.pack({key.encode(): b""}, {os.fsencode(name): os.fsencode(text) for name, text in texts.items()})


def unpack(root: str, path: str, key: str) -> dict[str, str] | None:
    """The texts of the bundle at `path`; None if there is none, or it is damaged, or was made from something else."""
    try:
        _, before, _, *parts = map(os.fsdecode, snapshot.load(paths.under(root, path)))
    except (OSError, ValueError):
        return None
    return dict(zip(parts[::2], parts[1::2], strict=True)) if before == key else None
