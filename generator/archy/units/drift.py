# SPDX-License-Identifier: MIT
"""Whether the units that PID 1 was given are those that the generator makes from what is installed now."""

import hashlib
import os
import time

from archy import paths
from archy.apps import installed
from archy.host import read, write
from archy.units import cache

_VERIFIED = "/run/archy/units-verified"
_TRIED = "/run/archy/units-tried"  # what a reload did not mend; its time of change is that of the reload
_PAUSE = 300.0  # seconds before another


def drift(root: str) -> str:
    """What of our units is missing, is another, or is there without need; empty if all is right.

    To compare, the generator itself is run, into another directory. As long as neither what it reads nor what it
    wrote has changed since that was found right, it is not.
    """
    state = _state(root)
    if read.read(paths.under(root, _VERIFIED)) == state:
        return ""
    import tempfile

    from archy.units import generator

    with tempfile.TemporaryDirectory(prefix="archy-") as out:
        generator.generate(root, out)
        wanted = _tree(out)
    there = _tree(paths.under(root, paths.GENERATED))
    missing = sorted(name for name in wanted if name not in there)
    other = sorted(name for name in wanted if name in there and there[name] != wanted[name])
    needless = sorted(name for name in there if name not in wanted and _is_ours(name))
    for what, names in (("missing", missing), ("not as it must be", other), ("not needed any more", needless)):
        if names:
            return f"{names[0]}{f' and {len(names) - 1} more' if names[1:] else ''}: {what}"
    write.replace_file(root, _VERIFIED, state, os.geteuid(), os.getegid(), 0o600)
    return ""


def unmended(root: str) -> str:
    """What a reload did not mend; empty if there is nothing of that kind."""
    return (read.read(paths.under(root, _TRIED)) or b"").decode(errors="replace").partition("\n")[2]


def is_futile(root: str, drifted: str) -> bool:
    """Whether a reload has not mended the same just now: is the generator masked, or does it fail?"""
    try:
        age = time.time() - os.stat(paths.under(root, _TRIED)).st_mtime
    except OSError:
        return False
    same = read.read(paths.under(root, _TRIED)) == _attempt(root, drifted)
    return same and 0 <= age < _PAUSE


def _attempt(root: str, drifted: str) -> bytes:
    return _state(root) + b"\n" + drifted.encode()


def record(root: str, drifted: str) -> None:
    """After a reload, or a pass that needed none: keep what is still wrong."""
    if drifted:
        write.replace_file(root, _TRIED, _attempt(root, drifted), os.geteuid(), os.getegid(), 0o600)
    elif unmended(root):
        write.remove(root, _TRIED)


def _is_ours(name: str) -> bool:
    return name.startswith(("archy-", "archy.target.wants/")) and name.endswith(".service")


def _tree(directory: str) -> dict[str, bytes]:
    """All files and links: relative path to content, or to a link's target."""
    result = {}
    for above, _, names in os.walk(directory):
        for name in names:
            path = os.path.join(above, name)
            target = os.readlink(path).encode() if os.path.islink(path) else read.read(path) or b""
            result[os.path.relpath(path, directory)] = target
    return result


def _state(root: str) -> bytes:
    """A digest of all that the generator reads, and of what it wrote, by names and times."""
    total = hashlib.sha256(cache.toolchain(root))
    ids, odd = installed.ids(root)
    for app_id in ids:
        source = installed.source(root, app_id)
        total.update(cache.units_key(b"", source).encode())
    leftover = sorted(installed.running(root) - set(ids))
    total.update(repr((ids, odd, leftover, sorted(installed.stopped(root)))).encode())
    for base in (paths.GENERATED, "/etc/systemd/system", "/run/systemd/system", "/usr/local/lib/systemd/system"):
        total.update(repr(_listing(paths.under(root, base), base == paths.GENERATED)).encode())
    return total.hexdigest().encode()


def _listing(directory: str, deep: bool) -> list[tuple[str, int, int]]:
    """What is in a directory: names, sizes, times of change; of the generator's also what is in directories there."""
    result = []
    try:
        with os.scandir(directory) as entries:
            for entry in entries:
                found = entry.stat(follow_symlinks=False)
                result.append((entry.name, found.st_size, found.st_mtime_ns))
                if deep and entry.is_dir(follow_symlinks=False):
                    result += [(f"{entry.name}/{name}", size, at) for name, size, at in _listing(entry.path, False)]
    except OSError:
        pass
    return sorted(result)
