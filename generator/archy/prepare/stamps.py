# SPDX-License-Identifier: MIT
"""Whether anything changed since an app was last prepared, without rendering anything.

A stamp lists every path that a pass read or wrote, with a fingerprint of each. If all are the same, a new pass would
find nothing to do. Kept in /run, readable by root only. Fast path: no heavy imports.
"""

import hashlib
import json
import os
import stat
import time

from archy import paths
from archy.host import records
from archy.units import cache

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

_MAX_BYTES = 16 * 1024 * 1024  # nothing we derive is larger


def fingerprint(path: str) -> str:
    """What is at `path` now: content, owner and mode of a file, the names in a directory, the target of a link."""
    try:
        status = os.lstat(path)
        if stat.S_ISLNK(status.st_mode):
            return "link " + os.readlink(path)
        if stat.S_ISDIR(status.st_mode):
            names = "\0".join(sorted(os.listdir(path)))
            return f"directory {status.st_mode:o} {status.st_uid} {names}"
        if not stat.S_ISREG(status.st_mode) or status.st_size > _MAX_BYTES:
            return f"other {status.st_mode:o} {status.st_size} {status.st_mtime_ns}"
        # The directory may be the service user's, who can put something else there meanwhile.
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(descriptor, "rb", 0) as file:
            content = hashlib.sha256(file.read(_MAX_BYTES) or b"").hexdigest()
        return f"file {status.st_mode:o} {status.st_uid} {status.st_gid} {content}"
    except OSError as error:
        return f"error {error.errno}"


def of_file(content: bytes, uid: int, gid: int, mode: int) -> str:
    """The fingerprint of a file with this content, owner and mode."""
    return f"file {stat.S_IFREG | mode:o} {uid} {gid} {hashlib.sha256(content).hexdigest()}"


def with_owner(before: str, uid: int, gid: int, mode: int) -> str:
    """The fingerprint of a file whose owner and mode were changed, and its content not."""
    return f"file {stat.S_IFREG | mode:o} {uid} {gid} {before.rpartition(' ')[2]}"


def content(root: str, seen: dict[str, str], directories: "Iterable[str]", **more: object) -> bytes:
    """The bytes of a stamp over fingerprints, and over directories that only must be there.

    `more` is kept with it: `started`, what a process is started with from now on (see `files.started`); `said`, what
    is wrong though the app can start; `failure`, why it cannot; `until`, the time (in s since 1970) of the next pass.
    """
    return json.dumps({"program": _program(root), "paths": seen, "directories": sorted(directories), **more}).encode()


def _program(root: str) -> str:
    return f"archy {cache.toolchain(root)!r}"


def load(root: str, name: str) -> "dict[str, Any]":
    """What was kept with a stamp, fresh or not; empty if there is none."""
    return records.load(root, f"{paths.PREPARED}/{name}.json")


def fresh(root: str, name: str, seen: "dict[str, str] | None" = None) -> "dict[str, Any] | None":
    """What was kept with a stamp if everything that its pass read or wrote is still the same; else None.

    `seen` are fingerprints taken a moment ago, so that many stamps can be checked at once; more are added.
    """
    seen = {} if seen is None else seen
    found = load(root, name)
    try:
        if (
            found["program"] == _program(root)
            and not 0 < found.get("until", 0) < time.time()
            and all(_seen(path, seen) == before for path, before in found["paths"].items())
            and all(os.path.isdir(path) for path in found["directories"])
        ):
            return found
    except (KeyError, TypeError, AttributeError):
        pass
    return None


def _seen(path: str, seen: dict[str, str]) -> str:
    if path not in seen:
        seen[path] = fingerprint(path)
    return seen[path]
