# SPDX-License-Identifier: MIT
"""The whole output of the generator, kept on disk with the state of every input that it was made from.

At a boot or reload where no input has changed, this output is written again, and nothing else is done. In any doubt
the generator itself runs. `drift` keeps a snapshot once it has found the units right. Only builtin modules are
imported here: to load `os` takes a quarter of the time in which the interpreter starts.
"""

import posix
import zlib

from archy import paths

LINK = b"-> "  # begins a content that stands for a link, to what follows (as in `cache`)
_FORMAT = b"archy units 1 %08x\n"
_READ = posix.O_RDONLY | posix.O_NOFOLLOW | posix.O_NONBLOCK | posix.O_CLOEXEC
_WRITE = posix.O_WRONLY | posix.O_CREAT | posix.O_EXCL | posix.O_CLOEXEC
_FILE = 0o100644  # the type and mode of a snapshot


def state(path: bytes) -> bytes:
    """What changes whenever a file, or the list of names in a directory, does; links are followed.

    The time of change (ctime) comes last: nobody can set it back, as the time of modification can be.
    """
    try:
        found = posix.stat(path)
    except OSError:
        return b"-"
    fields = (found.st_ino, found.st_mode, found.st_size, found.st_mtime_ns, found.st_ctime_ns)
    return b"%d %o %d %d %d" % fields


def pack(inputs: dict[bytes, bytes], files: dict[bytes, bytes]) -> bytes:
    """The bytes of a snapshot: `inputs` are states by path, `files` contents by relative path.

    A directory in the output has a path that ends with a slash, and stands before what it holds. No part holds a NUL.
    """
    parts = [b"%d" % len(inputs)]
    for pairs in (inputs, files):
        for pair in pairs.items():
            parts += pair
    body = b"\0".join(parts)
    return _FORMAT % zlib.crc32(body) + body


def restore(root: str, out: str) -> bool:
    """Write the kept output into the empty directory `out`; False if there is none that is certainly right."""
    try:
        parts = iter(load(paths.under(root, paths.SNAPSHOT)))
        for _ in range(int(next(parts))):
            if state(next(parts)) != next(parts):
                return False
        files = dict(zip(parts, parts, strict=True))
        if _has_leftovers(paths.under(root, paths.SLICE_CGROUP), files):
            return False
        _write(out.encode("utf-8", "surrogateescape"), files)
    except (OSError, ValueError, StopIteration):
        return False
    return True


def load(path: str) -> list[bytes]:
    """What `pack` was given, in its order; raises OSError or ValueError if that cannot be had, or not be trusted."""
    descriptor = posix.open(path, _READ)
    try:
        found = posix.fstat(descriptor)
        content = posix.read(descriptor, found.st_size)
    finally:
        posix.close(descriptor)
    head, body = content[: len(_FORMAT % 0)], content[len(_FORMAT % 0) :]
    if found.st_mode != _FILE or found.st_uid != posix.geteuid() or head != _FORMAT % zlib.crc32(body):
        raise ValueError("is damaged, or somebody else's")
    return body.split(b"\0")


def _has_leftovers(base: str, files: dict[bytes, bytes]) -> bool:
    """Whether something runs that has no unit in the output: it gets one only to be stopped."""
    try:
        names = posix.listdir(base)
    except OSError:
        return False
    for name in names:
        if name.startswith("archy-") and name.endswith(".service") and name.encode() not in files:
            descriptor = posix.open(f"{base}/{name}/cgroup.events", _READ)
            content = posix.read(descriptor, 4096)
            posix.close(descriptor)
            if b"populated 0" not in content:
                return True
    return False


def _write(out: bytes, files: dict[bytes, bytes]) -> None:
    for name, content in files.items():
        path = b"%b/%b" % (out, name)
        if name.endswith(b"/"):
            posix.mkdir(path)
        elif content.startswith(LINK):
            posix.symlink(content[len(LINK) :], path)
        else:
            descriptor = posix.open(path, _WRITE, 0o644)
            written = posix.write(descriptor, content)
            posix.close(descriptor)
            if written != len(content):
                raise OSError("the disk is full")
