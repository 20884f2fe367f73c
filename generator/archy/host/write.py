# SPDX-License-Identifier: MIT
"""The one module that writes what must survive a power cut.

What it writes is written beside the target, fsynced, renamed, and the directory fsynced, so that a reader finds the old
content or the new, never a part. It reaches the target through directories opened one by one, and refuses links that
others than root have made, because root writes here into directories of the service user.
"""

import errno
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from archy.host import volatile

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_TEMPORARY = ".archy-new-"


@contextmanager
def directory(root: str, path: str, make: Callable[[int], None] | None = None) -> Iterator[int]:
    """Open the directory `path` (a path of the node below `root`) component by component, as a file descriptor.

    A link on the way is followed only if root made it. `make` is called with the descriptor of each directory that
    had to be created; without it, a missing directory is an error.
    """
    descriptor = _walk(os.open(root, _DIRECTORY), root, path, make, 0)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _walk(descriptor: int, root: str, path: str, make: Callable[[int], None] | None, links: int) -> int:
    """The descriptor of `path` below `descriptor`, which is closed."""
    if links > 8:
        os.close(descriptor)
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)
    parts = [part for part in path.split("/") if part not in ("", ".")]
    for index, part in enumerate(parts):
        try:
            step = _step(descriptor, part, make)
        except OSError as error:
            target = _link_by_root(descriptor, part) if error.errno in (errno.ELOOP, errno.ENOTDIR) else None
            if target is None:
                os.close(descriptor)
                raise OSError(error.errno, error.strerror, path) from None
            rest = "/".join([target, *parts[index + 1 :]])
            if target.startswith("/"):
                os.close(descriptor)
                descriptor = os.open(root, _DIRECTORY)
            return _walk(descriptor, root, rest, make, links + 1)
        os.close(descriptor)
        descriptor = step
    return descriptor


def _step(descriptor: int, part: str, make: Callable[[int], None] | None) -> int:
    try:
        return os.open(part, _DIRECTORY, dir_fd=descriptor)
    except FileNotFoundError:
        if make is None:
            raise
        # Under its final name only when owner and mode are right: what exists is left as it is, also after a crash.
        temporary = f"{_TEMPORARY}{part}"
        with suppress(FileNotFoundError):
            os.rmdir(temporary, dir_fd=descriptor)
        os.mkdir(temporary, 0o700, dir_fd=descriptor)
        made = os.open(temporary, _DIRECTORY, dir_fd=descriptor)
        # The service user may own the directory above, and put another one in this place at any moment.
        status = os.fstat(made)
        if status.st_uid != os.geteuid() or stat.S_IMODE(status.st_mode) & 0o777 != 0o700 or os.listdir(made):
            os.close(made)
            raise OSError(errno.EPERM, "another directory was put in the place of a new one", part) from None
        make(made)
        now = os.stat(temporary, dir_fd=descriptor, follow_symlinks=False)
        if (now.st_dev, now.st_ino) != (status.st_dev, status.st_ino):
            os.close(made)
            raise OSError(errno.EPERM, "another directory was put in the place of a new one", part) from None
        os.rename(temporary, part, src_dir_fd=descriptor, dst_dir_fd=descriptor)
        os.fsync(descriptor)
        return made


def _link_by_root(descriptor: int, part: str) -> str | None:
    """Where a link leads that root made; None for everything else."""
    try:
        handle = os.open(part, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=descriptor)
    except OSError:
        return None
    try:
        status = os.fstat(handle)
        if not stat.S_ISLNK(status.st_mode) or status.st_uid not in (0, os.geteuid()):
            return None
        return os.readlink("", dir_fd=handle)
    finally:
        os.close(handle)


def ownership(uid: int, gid: int, mode: int) -> Callable[[int], None]:
    """For `directory(make=...)`: give a new directory its owner and mode."""

    def make(descriptor: int) -> None:
        _chown(descriptor, uid, gid)
        os.fchmod(descriptor, mode)

    return make


def make_directory(root: str, path: str, uid: int, gid: int, mode: int) -> None:
    """Make a directory, and those above it, if missing; what exists keeps its owner and mode."""
    with directory(root, path, ownership(uid, gid, mode)):
        pass


@contextmanager
def _replacing(root: str, path: str) -> Iterator[tuple[int, str]]:
    """The directory of `path`, and a free name in it: what is made under that name takes the place of `path`."""
    above, name = os.path.split(path)
    with directory(root, above) as parent:
        temporary = f"{_TEMPORARY}{name}"
        with suppress(FileNotFoundError):
            os.unlink(temporary, dir_fd=parent)
        try:
            yield parent, temporary
            os.rename(temporary, name, src_dir_fd=parent, dst_dir_fd=parent)
        except OSError as error:
            with suppress(OSError):
                os.unlink(temporary, dir_fd=parent)
            raise OSError(error.errno, error.strerror, path) from None
        os.fsync(parent)


def replace_file(root: str, path: str, content: bytes, uid: int, gid: int, mode: int) -> None:
    """Put `content` in the place of a file, whole or not at all, with owner and mode. Its directory must exist."""
    with _replacing(root, path) as (parent, temporary):
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(temporary, flags, 0o600, dir_fd=parent)
        try:
            volatile._all(descriptor, content)
            _chown(descriptor, uid, gid)
            os.fchmod(descriptor, mode)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def replace_link(root: str, path: str, target: str) -> None:
    """Make `path` a link to `target`, in the place of whatever link or file was there."""
    with _replacing(root, path) as (parent, temporary):
        os.symlink(target, temporary, dir_fd=parent)


def set_ownership(root: str, path: str, uid: int, gid: int, mode: int) -> None:
    """Give an existing regular file or directory its owner and mode, its content untouched."""
    above, name = os.path.split(path)
    with directory(root, above) as parent:
        descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=parent)
        try:
            if stat.S_IFMT(os.fstat(descriptor).st_mode) not in (stat.S_IFREG, stat.S_IFDIR):
                raise OSError(errno.EINVAL, "is neither a regular file nor a directory", path)
            _chown(descriptor, uid, gid)
            os.fchmod(descriptor, mode)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def remove(root: str, path: str) -> None:
    """Remove a file or link; nothing happens if it is gone already."""
    above, name = os.path.split(path)
    with suppress(FileNotFoundError), directory(root, above) as parent:
        os.unlink(name, dir_fd=parent)
        os.fsync(parent)


def remove_tree(root: str, path: str) -> None:
    """Remove a directory of ours and all in it; nothing happens if it is gone."""
    import shutil

    above, name = os.path.split(path)
    with suppress(OSError), directory(root, above) as parent:
        shutil.rmtree(name, ignore_errors=True, dir_fd=parent)


def move(root: str, path: str, target: str) -> None:
    """Give a file or directory another name in the same directory."""
    above, name = os.path.split(path)
    with directory(root, above) as parent:
        os.rename(name, os.path.basename(target), src_dir_fd=parent, dst_dir_fd=parent)
        os.fsync(parent)


def _chown(descriptor: int, uid: int, gid: int) -> None:
    status = os.fstat(descriptor)
    if (status.st_uid, status.st_gid) != (uid, gid):
        os.fchown(descriptor, uid, gid)
