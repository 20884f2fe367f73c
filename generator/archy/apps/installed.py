# SPDX-License-Identifier: MIT
"""What is installed on this node: the entries of /etc/archy/apps, and the last version of each that was accepted.

Only reads. Imported by the generator's fast path, which runs at every boot and reload: no module is imported here
that takes long (dataclasses alone would double the time).
"""

import os

from archy import __version__, paths
from archy.host import read


class Source:
    """An installed app as it lies on the disk.

    `path` is its manifest as the node names it, `content` the manifest's bytes or None when there is none, `files`
    the relative paths of all files in its folder, `accepted` the bytes of the last good manifest or None.
    """

    __slots__ = ("accepted", "content", "files", "id", "path")

    def __init__(
        self, app_id: str, path: str, content: bytes | None, files: frozenset[str], accepted: bytes | None
    ) -> None:
        self.id = app_id
        self.path = path
        self.content = content
        self.files = files
        self.accepted = accepted


def ids(root: str) -> tuple[list[str], list[str]]:
    """The IDs of all installed apps, sorted, and the names of other entries that cannot be an app."""
    try:
        names = sorted(name for name in os.listdir(paths.under(root, paths.APPS)) if not name.startswith("."))
    except FileNotFoundError:
        return [], []
    good = [name for name in names if paths.is_label(name) and not paths.is_reserved(name)]
    return good, sorted(set(names).difference(good))


def catalogue_ids(root: str) -> list[str]:
    """The IDs of all apps of the catalogue."""
    try:
        return sorted(filter(paths.is_label, os.listdir(paths.under(root, paths.CATALOGUE))))
    except FileNotFoundError:
        return []


def is_known(root: str, name: str) -> bool:
    """Whether there is such an app, installed or not."""
    if not paths.is_label(name) or paths.is_reserved(name):
        return False
    return any(os.path.lexists(paths.under(root, f"{above}/{name}")) for above in (paths.APPS, paths.CATALOGUE))


def folder(root: str, app_id: str) -> str:
    """The directory of an installed app, its link followed within `root`."""
    path = paths.under(root, f"{paths.APPS}/{app_id}")
    try:
        target = os.readlink(path)
    except OSError:
        return path
    return paths.under(root, target) if os.path.isabs(target) else os.path.join(os.path.dirname(path), target)


def accepted_folder(root: str, app_id: str) -> str:
    """The directory of the last accepted version of an app."""
    return paths.under(root, f"{paths.ACCEPTED}/{app_id}")


def source(root: str, app_id: str) -> Source:
    """Read an installed app. What cannot be read is None: the caller says so, and other apps are not harmed."""
    directory = folder(root, app_id)
    path = f"{paths.APPS}/{app_id}/{paths.MANIFEST}"
    accepted = read.read(f"{accepted_folder(root, app_id)}/{paths.MANIFEST}")
    try:
        return Source(
            app_id, path, read.read(f"{directory}/{paths.MANIFEST}"), frozenset(read.tree(directory)), accepted
        )
    except OSError:
        return Source(app_id, path, None, frozenset(), accepted)


def accepted_ids(root: str) -> list[str]:
    """The apps of which a last good version is kept, sorted."""
    try:
        return sorted(name for name in os.listdir(paths.under(root, paths.ACCEPTED)) if paths.is_label(name))
    except FileNotFoundError:
        return []


def stopped(root: str) -> set[str]:
    """The apps that the user has stopped for good (`archy app stop`): a file each."""
    try:
        return set(os.listdir(paths.under(root, paths.STOPPED)))
    except OSError:
        return set()


def version_prefix(app_id: str) -> str:
    """How the directories begin that hold versions of an app that this archy, by its rules, has accepted."""
    return f".{app_id}-{__version__}-"


def is_accepted(root: str, source: Source) -> bool:
    """Whether the installed version of an app is the one that this archy accepted last, and so needs no checking."""
    if source.content is None or source.content != source.accepted:
        return False
    folder = accepted_folder(root, source.id)
    try:
        by_us = os.readlink(folder).startswith(version_prefix(source.id))
    except OSError:
        return False
    return by_us and source.files.issuperset(read.tree(folder))


def running(root: str) -> set[str]:
    """The IDs of all apps that have processes, by the cgroups of their units."""
    base = paths.under(root, paths.SLICE_CGROUP)
    try:
        names = os.listdir(base)
    except OSError:
        return set()
    found = (name for name in names if name.startswith("archy-") and name.endswith(".service"))
    return {name[6:-8] for name in found if b"populated 1" in (read.read(f"{base}/{name}/cgroup.events") or b"")}
