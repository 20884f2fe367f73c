# SPDX-License-Identifier: MIT
"""Work that need not be done again: the finished units of each app, kept beside its accepted version.

A bundle of named texts is found by a digest of all that they were made from, so a stale one is never used. They serve
the boot or reload where other apps have changed. The generator only reads; `archy-prepare` writes. Fast path: no heavy
imports, not even json.
"""

import hashlib
import os

from archy import __version__, paths
from archy.apps.installed import Source
from archy.host.read import read, user_line

LINK = "-> "  # begins a text that stands for a link, to what follows
_HEAD = "# archy bundle"
_MARK = "\n--- "  # begins no line of a unit file


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
    """The bytes of a bundle; texts end with a line end."""
    body = "".join(f"{_MARK}{name}\n{text}" for name, text in texts.items()).encode("utf-8", "surrogateescape")
    return f"{_HEAD} {key} {hashlib.sha256(body).hexdigest()}".encode() + body


def unpack(root: str, path: str, key: str) -> dict[str, str] | None:
    """The texts of the bundle at `path`; None if there is none, or it is damaged, or was made from something else."""
    content = read(paths.under(root, path))
    if content is None:
        return None
    head, mark, rest = content.partition(_MARK.encode())
    body = mark + rest
    if head != f"{_HEAD} {key} {hashlib.sha256(body).hexdigest()}".encode():
        return None
    parts = body.decode("utf-8", "surrogateescape").split(_MARK)[1:]
    return {name: text for name, _, text in (part.partition("\n") for part in parts)}
