# SPDX-License-Identifier: MIT
"""The current state of files, for plans to compare with. Reads only; never waits, as it opens regular files alone."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from dataclasses import dataclass

from archy.host import write

MAX_FILE = 16 * 1024 * 1024  # nothing we derive is larger


def files(root: str, wanted: Iterable[str]) -> dict[str, FileState]:
    """The files that exist, each as it is now; missing ones are left out."""
    found = {}
    for path in wanted:
        above, name = os.path.split(path)
        try:
            with write.directory(root, above) as parent:
                found[path] = _found(parent, name)
        except FileNotFoundError:
            continue
    return found


def _found(parent: int, name: str) -> FileState:
    status = os.stat(name, dir_fd=parent, follow_symlinks=False)
    content = None
    if stat.S_ISREG(status.st_mode) and status.st_size <= MAX_FILE:
        descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=parent)
        with open(descriptor, "rb") as file:
            content = file.read(MAX_FILE)
    return FileState(content, status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode))


def is_directory(root: str, path: str) -> bool:
    """Whether there is a directory that archy would write into."""
    try:
        with write.directory(root, path):
            return True
    except OSError:
        return False


@dataclass(frozen=True)
class FileState:
    """A file as it is now. `content` is None if it is not a regular file."""

    content: bytes | None
    uid: int
    gid: int
    mode: int
