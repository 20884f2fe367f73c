# SPDX-License-Identifier: MIT
"""Whether the units that PID 1 was given are those that the generator makes from what is installed now."""

import hashlib
import os
import time

from archy import paths
from archy.apps import installed
from archy.host import read, write
from archy.units import cache, snapshot

_VERIFIED = "/run/archy/units-verified"
_TRIED = "/run/archy/units-tried"  # what a reload did not mend; its time of change is that of the reload
_PAUSE = 300.0  # seconds before another
_SETTLED = 2.0  # seconds without a change, before the times of inputs are trusted: clocks of file systems are coarse


def drift(root: str) -> str:
    """What of our units is missing, is another, or is there without need; empty if all is right.

    To compare, the generator itself is run, into another directory. As long as neither what it reads nor what it
    wrote has changed since that was found right, it is not. Right output is kept for the next boot and reload.
    """
    states = inputs(root)
    if read.read(paths.under(root, _VERIFIED)) == _state(root, states):
        return ""
    import tempfile

    from archy.units import generator

    with tempfile.TemporaryDirectory(prefix="archy-") as out:
        units = generator.UnitDir(out)
        warnings = generator.write_units(root, units)
        wanted = _tree(out)
    there = _tree(paths.under(root, paths.GENERATED))
    missing = sorted(name for name in wanted if name not in there)
    other = sorted(name for name in wanted if name in there and there[name] != wanted[name])
    needless = sorted(name for name in there if name not in wanted and _is_ours(name))
    for what, names in (("missing", missing), ("not as it must be", other), ("not needed any more", needless)):
        if names:
            write.remove(root, paths.SNAPSHOT)
            return f"{names[0]}{f' and {len(names) - 1} more' if names[1:] else ''}: {what}"
    lasting = not (warnings or units.contested & units.running or _leftovers(root))
    idle = {os.fsencode(paths.under(root, f"{paths.SLICE_CGROUP}/{unit}")): b"-" for unit in units.contested}
    if _is_kept(root, states | idle, wanted, lasting):
        write.replace_file(root, _VERIFIED, _state(root, states), os.geteuid(), os.getegid(), 0o600)
    return ""


def inputs(root: str) -> dict[bytes, bytes]:
    """The state of everything that the generator reads. Of a directory that is the list of its names.

    The files beside a manifest count by their names alone (see `cache.units_key`). A link to an app's folder changes
    with the directory that it is in. Cgroups and units of apps that are gone are not among them.
    """
    fixed = (paths.APPS, paths.CATALOGUE, paths.STOPPED, paths.GRANTS, paths.ACCEPTED_GRANTS, paths.QUADLET)
    places = [
        paths.under(root, path) for path in (*fixed, "/etc/passwd", "/etc/subuid", "/etc/subgid", paths.NATIVE[-1])
    ]
    templates = paths.under(root, paths.TEMPLATES)
    places += [*cache.program(), templates, *(f"{templates}/{name}" for name in read.tree(templates))]
    for app_id in installed.ids(root)[0]:
        folder, accepted = installed.folder(root, app_id), installed.accepted_folder(root, app_id)
        places += [f"{above}/{paths.MANIFEST}" for above in (folder, accepted)]
        places += [accepted, *(f"{folder}/{name}" for name in read.walk(folder)[1])]
    return {path: snapshot.state(path) for path in map(os.fsencode, places)}


def _is_kept(root: str, states: dict[bytes, bytes], wanted: dict[str, bytes], lasting: bool) -> bool:
    """Keep a snapshot, if the output comes from the inputs alone. False if that has to wait until they have settled."""
    newest = max((int(state.rpartition(b" ")[2]) for state in states.values() if state != b"-"), default=0)
    if 0 <= time.time() - newest / 1e9 < _SETTLED:
        return False
    files = {f"{name.rpartition('/')[0]}/": b"" for name in wanted if "/" in name} | wanted
    content = snapshot.pack(states, {os.fsencode(name): text for name, text in files.items()})
    if not lasting or newest > time.time_ns() or any(b"\0" in text for text in (*states, *files.values())):
        write.remove(root, paths.SNAPSHOT)
    elif read.read(paths.under(root, paths.SNAPSHOT), 1 << 28) != content:
        write.make_directory(root, paths.ACCEPTED, os.geteuid(), os.getegid(), 0o755)
        write.replace_file(root, paths.SNAPSHOT, content, os.geteuid(), os.getegid(), 0o644)
    return True


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
    return _state(root, inputs(root)) + b"\n" + drifted.encode()


def record(root: str, drifted: str) -> None:
    """After a reload, or a pass that needed none: keep what is still wrong."""
    if drifted:
        write.replace_file(root, _TRIED, _attempt(root, drifted), os.geteuid(), os.getegid(), 0o600)
    elif unmended(root):
        write.remove(root, _TRIED)


def _is_ours(name: str) -> bool:
    return name.startswith(("archy-", "archy.target.wants/")) and name.endswith(".service")


def _tree(directory: str) -> dict[str, bytes]:
    """All files and links: relative path to content, or for a link to what stands for it in a snapshot."""
    result = {}
    for above, _, names in os.walk(directory):
        for name in names:
            path = os.path.join(above, name)
            link = os.path.islink(path)
            content = snapshot.LINK + os.fsencode(os.readlink(path)) if link else read.read(path) or b""
            result[os.path.relpath(path, directory)] = content
    return result


def _leftovers(root: str) -> list[str]:
    return sorted(installed.running(root).difference(installed.ids(root)[0]))


def _state(root: str, states: dict[bytes, bytes]) -> bytes:
    """A digest of all that the generator reads, of what it wrote, and of what is kept of that, by names and times."""
    places = [os.fsencode(paths.under(root, path)) for path in (paths.SNAPSHOT, *paths.NATIVE)]
    written = []
    for above, folders, names in os.walk(paths.under(root, paths.GENERATED)):
        written += [(path, _changed(path)) for name in sorted(folders + names) if (path := f"{above}/{name}")]
    parts = (states, list(map(snapshot.state, places)), _leftovers(root), sorted(written))
    return hashlib.sha256(repr(parts).encode()).hexdigest().encode()


def _changed(path: str) -> tuple[int, int]:
    found = os.lstat(path)
    return found.st_size, found.st_mtime_ns
