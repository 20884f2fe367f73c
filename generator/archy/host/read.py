# SPDX-License-Identifier: MIT
"""Reads files and directories safely: a FIFO or a device in the place of a file cannot make the reader wait.

Imported by the generator's fast path, which runs at every boot and reload: no module is imported here that takes long
(dataclasses alone would double the time).
"""

import errno
import os
import stat

from archy import paths

# Of a manifest that is larger, enough is read to be refused (see document.MAX_BYTES).
_MAX_BYTES = 1024 * 1024
_MAX_FILES, _MAX_DEPTH = 2000, 16


def secret_names(root: str) -> list[str]:
    """The names of all files in the directory of secrets."""
    try:
        with os.scandir(paths.under(root, paths.SECRETS)) as entries:
            return sorted(entry.name for entry in entries if entry.is_file(follow_symlinks=False))
    except OSError:
        return []


def tree(directory: str) -> list[str]:
    """The relative paths of all regular files below a directory, sorted; links are not followed.

    Raises OSError if there are too many, or they lie too deep, for the folder of an app.
    """
    return sorted(walk(directory)[0])


def walk(directory: str) -> tuple[list[str], list[str]]:
    """What `tree` finds, and the relative paths of the directories where it looks, each with a slash at its end."""
    result: list[str] = []
    todo, folders = [""], []
    while todo:
        prefix = todo.pop()
        folders.append(prefix)
        try:
            entries = list(os.scandir(os.path.join(directory, prefix)))
        except OSError:
            continue
        todo += [f"{prefix}{entry.name}/" for entry in entries if entry.is_dir(follow_symlinks=False)]
        result += [prefix + entry.name for entry in entries if entry.is_file(follow_symlinks=False)]
        if len(result) + len(todo) > _MAX_FILES or prefix.count("/") > _MAX_DEPTH:
            raise OSError(errno.E2BIG, "holds more than the folder of an app may", directory)
    return result, folders


def read(path: str, most: int = _MAX_BYTES) -> bytes | None:
    """At most `most` bytes of a regular file; None for anything else, which could keep its reader waiting for ever."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        # Unbuffered: a manifest is small, and there may be a thousand of them.
        with open(descriptor, "rb", 0) as file:
            return file.read(most) if stat.S_ISREG(os.fstat(descriptor).st_mode) else None
    except OSError:
        return None


def user_line(root: str) -> bytes:
    """The service user's line of passwd, by which cached units are recognised as this node's."""
    prefix = paths.USER.encode() + b":"
    lines = (read(paths.under(root, "/etc/passwd")) or b"").splitlines()
    return next((line for line in lines if line.startswith(prefix)), b"")


def user_ids(root: str) -> tuple[str, str]:
    """The UID and the GID of the service user, as passwd has them; empty if there is no such user."""
    _, _, uid, gid, *_ = [*user_line(root).decode("utf-8", "surrogateescape").split(":"), "", "", "", ""]
    return uid, gid


def content(root: str, path: str) -> bytes | None:
    """The bytes of a file of root's; None if it is not there, and nothing that parses if it is no regular file."""
    path = paths.under(root, path)
    found = read(path)
    return b"\0" if found is None and os.path.lexists(path) else found
