# SPDX-License-Identifier: MIT
"""Last good versions: copies of accepted apps under /etc/archy, for the day when the original is bad.

`/etc/archy/accepted/<id>` is a link to a directory beside it, whose name holds archy's version and a digest of the
content: one rename puts a new version into force, and a version that another archy accepted is checked again.
"""

from __future__ import annotations

import hashlib
import os
import re

from archy import paths
from archy.apps import installed
from archy.host import read, write

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


def version(root: str, app_id: str) -> str:
    """The name under which the installed version of an app, as it lies on the disk now, would be kept."""
    folder = installed.folder(root, app_id)
    return installed.version_prefix(app_id) + digest(folder, read.tree(folder))


def is_kept(root: str, app_id: str, wanted: str) -> bool:
    """Whether the version `wanted` is the one that is kept, whole."""
    return _is_whole(root, wanted) and _target(root, f"{paths.ACCEPTED}/{app_id}") == wanted


def store(root: str, app_id: str, wanted: str) -> None:
    """Keep the installed version of an app as its last good one.

    `wanted` is the `version` that the caller has checked; raises OSError if it has changed since. Old versions, and
    incomplete ones after a power cut, are removed.
    """
    folder = installed.folder(root, app_id)
    if not is_kept(root, app_id, wanted):
        _copy(root, folder, read.tree(folder), wanted)
        if not _is_whole(root, wanted):
            write.remove_tree(root, f"{paths.ACCEPTED}/{wanted}")
            raise OSError(f"{folder}: has changed while it was read; it is read again at the next start")
        write.replace_link(root, f"{paths.ACCEPTED}/{app_id}", wanted)
    _sweep(root, app_id, wanted)


def forget(root: str, app_id: str) -> None:
    """Remove the last good version of an app that is not installed any more."""
    write.remove(root, f"{paths.ACCEPTED}/{app_id}")
    write.remove(root, paths.units_path(app_id))
    _sweep(root, app_id, "")


def _is_whole(root: str, version: str) -> bool:
    directory = paths.under(root, f"{paths.ACCEPTED}/{version}")
    try:
        return version.endswith("-" + digest(directory, read.tree(directory)))
    except OSError:
        return False


def _target(root: str, link: str) -> str:
    try:
        return os.readlink(paths.under(root, link))
    except OSError:
        return ""


def _copy(root: str, source: str, names: list[str], version: str) -> None:
    target = f"{paths.ACCEPTED}/{version}"
    write.remove_tree(root, target)
    for name in names:
        write.make_directory(root, os.path.dirname(f"{target}/{name}"), os.geteuid(), os.getegid(), 0o755)
        with open(os.path.join(source, name), "rb") as file:
            write.replace_file(root, f"{target}/{name}", file.read(), os.geteuid(), os.getegid(), 0o644)


def _sweep(root: str, app_id: str, keep: str) -> None:
    base = paths.under(root, paths.ACCEPTED)
    ours = re.compile(rf"\.{re.escape(app_id)}-[0-9][^-]*-[0-9a-f]{{20}}")
    for name in os.listdir(base) if os.path.isdir(base) else ():
        if ours.fullmatch(name) and name != keep:
            write.remove_tree(root, f"{paths.ACCEPTED}/{name}")
