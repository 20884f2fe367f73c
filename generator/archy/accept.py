# SPDX-License-Identifier: MIT
"""Last good versions: what was checked and accepted is kept under /etc/archy, for the day the original turns bad.

`/etc/archy/accepted/<id>` is a link to a directory beside it whose name holds a digest of the content, so that a new
version is put in force by one rename.
"""

from __future__ import annotations

import hashlib
import os
import shutil

from archy import cache, disk, installed, paths

MAX_BYTES = 32 * 1024 * 1024  # of an app's folder; it is copied, into /etc


def digest(directory: str, names: list[str]) -> str:
    """A digest of the files `names` in `directory`: their names and contents."""
    total = hashlib.sha256()
    for name in names:
        with open(os.path.join(directory, name), "rb") as file:
            content = hashlib.file_digest(file, "sha256").hexdigest()
        total.update(f"{len(name)}:{name}={content}\n".encode("utf-8", "surrogateescape"))
    return total.hexdigest()[:20]


def too_large(directory: str, names: list[str]) -> bool:
    """Whether an app's folder holds more than an accepted version may."""
    return sum(os.lstat(os.path.join(directory, name)).st_size for name in names) > MAX_BYTES


def store(root: str, app_id: str) -> bool:
    """Keep the installed version of an app as its last good one; False if that is what is kept already.

    The caller has checked that it is good. Old versions, and what a power cut left half written, are removed.
    """
    source = installed.folder(root, app_id)
    names = installed.tree(source)
    version = f".{app_id}-{digest(source, names)}"
    link = f"{paths.ACCEPTED}/{app_id}"
    fresh = not _is_whole(root, version, names) or _target(root, link) != version
    if fresh:
        _copy(root, source, names, version)
        disk.replace_link(root, link, version)
    _sweep(root, app_id, version)
    return fresh


def forget(root: str, app_id: str) -> None:
    """Remove the last good version of an app that is not installed any more."""
    disk.remove(root, f"{paths.ACCEPTED}/{app_id}")
    disk.remove(root, cache.text_path(app_id))
    _sweep(root, app_id, "")


def _is_whole(root: str, version: str, names: list[str]) -> bool:
    directory = paths.under(root, f"{paths.ACCEPTED}/{version}")
    try:
        return installed.tree(directory) == names and version.endswith(digest(directory, names))
    except OSError:
        return False


def _target(root: str, link: str) -> str:
    try:
        return os.readlink(paths.under(root, link))
    except OSError:
        return ""


def _copy(root: str, source: str, names: list[str], version: str) -> None:
    target = f"{paths.ACCEPTED}/{version}"
    shutil.rmtree(paths.under(root, target), ignore_errors=True)
    for name in names:
        disk.make_directory(root, os.path.dirname(f"{target}/{name}"), os.geteuid(), os.getegid(), 0o755)
        with open(os.path.join(source, name), "rb") as file:
            disk.replace_file(root, f"{target}/{name}", file.read(), os.geteuid(), os.getegid(), 0o644)


def _sweep(root: str, app_id: str, keep: str) -> None:
    base = paths.under(root, paths.ACCEPTED)
    for name in os.listdir(base) if os.path.isdir(base) else ():
        stem, _, version = name.rpartition("-")
        if stem == f".{app_id}" and len(version) == 20 and name != keep:
            shutil.rmtree(os.path.join(base, name), ignore_errors=True)
