# SPDX-License-Identifier: MIT
"""What is on the disk now, for a plan to compare with. Reads only, and waits for nothing that is no regular file."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable

from archy import disk, installed, paths
from archy.derive import Found
from archy.model import App
from archy.rendering import CannotDerive

MAX_FILE = 16 * 1024 * 1024  # nothing we derive is larger


def files(root: str, wanted: Iterable[str]) -> dict[str, Found]:
    """The files that are there, each as it is now; missing ones are left out."""
    found = {}
    for path in wanted:
        above, name = os.path.split(path)
        try:
            with disk.directory(root, above) as parent:
                found[path] = _found(parent, name)
        except FileNotFoundError:
            continue
    return found


def _found(parent: int, name: str) -> Found:
    status = os.stat(name, dir_fd=parent, follow_symlinks=False)
    content = None
    if stat.S_ISREG(status.st_mode) and status.st_size <= MAX_FILE:
        descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=parent)
        with open(descriptor, "rb") as file:
            content = file.read(MAX_FILE)
    return Found(content, status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode))


def content(root: str, path: str) -> bytes | None:
    """The bytes of a file of root's; None if it is not there, and nothing that parses if it is no regular file."""
    path = paths.under(root, path)
    found = installed.read(path)
    return b"\0" if found is None and os.path.lexists(path) else found


def is_directory(root: str, path: str) -> bool:
    """Whether there is a directory that archy would write into."""
    try:
        with disk.directory(root, path):
            return True
    except OSError:
        return False


def templates(app: App, folder: str) -> dict[str, str]:
    """The texts of an app's templates, which lie in `folder`; raises CannotDerive."""
    result = {}
    for name in {file.template for file in app.files if file.template}:
        try:
            with open(os.path.join(folder, name), encoding="utf-8") as file:
                result[name] = file.read()
        except (OSError, UnicodeDecodeError) as error:
            raise CannotDerive(f"{folder}/{name}: cannot be read: {error}") from None
    return result


def check_secrets_directory(root: str) -> None:
    """Raise CannotDerive if it is not root's: the directory above belongs to the service user, who can put another one
    in this place. A wrong mode is put right by the pass over the node."""
    try:
        status = os.lstat(paths.under(root, paths.SECRETS))
    except FileNotFoundError:
        return
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != 0:
        hint = "look at what is in it, then: systemd-tmpfiles --create archy.conf"
        raise CannotDerive(f"{paths.SECRETS}: is not a directory of root's; {hint}")


def inputs(root: str, app_id: str) -> list[str]:
    """What a pass reads for any app, besides its secrets: paths as seen from outside of `root`."""
    read = [paths.APPS, f"{paths.APPS}/{app_id}", paths.NODE, "/etc/passwd", "/etc/subuid", "/etc/subgid"]
    folder = installed.folder(root, app_id)
    names = installed.source(root, app_id).beside
    return [*(paths.under(root, path) for path in read), folder, *(f"{folder}/{name}" for name in sorted(names))]
