# SPDX-License-Identifier: MIT
"""What is installed on this node: the entries of /etc/archy/apps, and the last version of each that was accepted.

Only reads. Imported by the generator's fast path, which runs at every boot and reload: no module is imported here
that takes long (dataclasses alone would double the time).
"""

import errno
import os
import stat

from archy import __version__, paths

_LABEL = frozenset("abcdefghijklmnopqrstuvwxyz0123456789-")
# Unit names that are ours: archy-<id>.service must never be one of them, nor one of the units Quadlet makes.
_RESERVED = frozenset(
    (
        "all",
        "archipelago",
        "bitcoin",
        "hold",
        "image",
        "podman",
        "prepare",
        "probe",
        "rebuild",
        "reconcile",
        "recover",
        "wait",
    )
)
_RESERVED_ENDINGS = ("-network", "-volume", "-build", "-image", "-pod")

# Of a manifest that is larger, enough is read to be refused (see document.MAX_BYTES).
_MAX_BYTES = 1024 * 1024
_MAX_FILES, _MAX_DEPTH = 2000, 16


class Source:
    """An installed app as it lies on the disk.

    `path` is its manifest as the node names it, `content` the manifest's bytes or None when there is none, `beside`
    the relative paths of all files in its folder, `accepted` the bytes of the last good manifest or None.
    """

    __slots__ = ("accepted", "beside", "content", "id", "path")

    def __init__(
        self, app_id: str, path: str, content: bytes | None, beside: frozenset[str], accepted: bytes | None
    ) -> None:
        self.id = app_id
        self.path = path
        self.content = content
        self.beside = beside
        self.accepted = accepted


def is_label(name: str) -> bool:
    """Whether `name` can be the ID of an app, and so a part of a unit's name."""
    return 0 < len(name) <= 63 and _LABEL.issuperset(name) and name[0] != "-" and name[-1] != "-"


def is_reserved(app_id: str) -> bool:
    """Whether archy-<id>.service would be a unit of archy's own, or archy-<id> the container of a companion."""
    return app_id in _RESERVED or app_id.endswith(_RESERVED_ENDINGS) or app_id.startswith("archy-")


def ids(root: str) -> tuple[list[str], list[str]]:
    """The IDs of all installed apps, sorted, and the names of other entries that cannot be an app."""
    try:
        names = sorted(name for name in os.listdir(paths.under(root, paths.APPS)) if not name.startswith("."))
    except FileNotFoundError:
        return [], []
    good = [name for name in names if is_label(name) and not is_reserved(name)]
    return good, sorted(set(names).difference(good))


def shelf(root: str) -> list[str]:
    """The IDs of all apps of the catalogue."""
    try:
        return sorted(filter(is_label, os.listdir(paths.under(root, paths.CATALOGUE))))
    except FileNotFoundError:
        return []


def is_known(root: str, name: str) -> bool:
    """Whether there is such an app, installed or not."""
    if not is_label(name) or is_reserved(name):
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
    accepted = read(f"{accepted_folder(root, app_id)}/{paths.MANIFEST}")
    try:
        return Source(app_id, path, read(f"{directory}/{paths.MANIFEST}"), frozenset(tree(directory)), accepted)
    except OSError:
        return Source(app_id, path, None, frozenset(), accepted)


def accepted_ids(root: str) -> list[str]:
    """The apps of which a last good version is kept, sorted."""
    try:
        return sorted(name for name in os.listdir(paths.under(root, paths.ACCEPTED)) if is_label(name))
    except FileNotFoundError:
        return []


def stopped(root: str) -> set[str]:
    """The apps that the user has stopped for good (`archy app stop`): a file each."""
    try:
        return set(os.listdir(paths.under(root, paths.STOPPED)))
    except OSError:
        return set()


def secret_names(root: str) -> list[str]:
    """All files among the secrets, whoever put them there."""
    try:
        with os.scandir(paths.under(root, paths.SECRETS)) as entries:
            return sorted(entry.name for entry in entries if entry.is_file(follow_symlinks=False))
    except OSError:
        return []


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
    return by_us and source.beside.issuperset(tree(folder))


def tree(directory: str) -> list[str]:
    """The relative paths of all regular files below a directory, sorted; links are not followed.

    Raises OSError if there are too many, or they lie too deep, for the folder of an app.
    """
    result: list[str] = []
    todo = [""]
    while todo:
        prefix = todo.pop()
        try:
            entries = list(os.scandir(os.path.join(directory, prefix)))
        except OSError:
            continue
        todo += [f"{prefix}{entry.name}/" for entry in entries if entry.is_dir(follow_symlinks=False)]
        result += [prefix + entry.name for entry in entries if entry.is_file(follow_symlinks=False)]
        if len(result) + len(todo) > _MAX_FILES or prefix.count("/") > _MAX_DEPTH:
            raise OSError(errno.E2BIG, "holds more than the folder of an app may", directory)
    return sorted(result)


def read(path: str, most: int = _MAX_BYTES) -> bytes | None:
    """At most `most` bytes of a regular file; None for anything else, which could keep its reader waiting for ever."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        # Unbuffered: a manifest is small, and there may be a thousand of them.
        with open(descriptor, "rb", 0) as file:
            return file.read(most) if stat.S_ISREG(os.fstat(descriptor).st_mode) else None
    except OSError:
        return None


def running(root: str) -> set[str]:
    """The IDs of all apps that have processes, by the cgroups of their units."""
    base = paths.under(root, paths.SLICE_CGROUP)
    try:
        names = os.listdir(base)
    except OSError:
        return set()
    found = (name for name in names if name.startswith("archy-") and name.endswith(".service"))
    return {name[6:-8] for name in found if b"populated 1" in (read(f"{base}/{name}/cgroup.events") or b"")}


def user_line(root: str) -> bytes:
    """The service user's line of passwd, by which cached units are recognised as this node's."""
    prefix = paths.USER.encode() + b":"
    lines = (read(paths.under(root, "/etc/passwd")) or b"").splitlines()
    return next((line for line in lines if line.startswith(prefix)), b"")
