# SPDX-License-Identifier: MIT
"""Whether a pass would find nothing to do, told without making it: most passes of a node are like that.

A pass that ended well leaves behind what systemd said of our units. As long as systemd says the same, and no stamp is
stale, all that a pass would look at is as it was. Fast path: no heavy imports.
"""

import json
import os
import time

from archy import paths
from archy.apps import installed
from archy.host import read, user, write

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_STATE = "/run/archy/unchanged"
_LONGEST = 540.0  # seconds without a whole pass, whatever this says: a probe that is 600 s old is a problem
_JUMP = 5.0  # seconds
_FULL = 0.05  # of the disk left
_MOST = 16 * 1024 * 1024


def listing(root: str) -> bytes:
    """What systemd says of our units, and of the service user's manager: state and jobs of each, in one cheap call."""
    command = ["systemctl", "list-units", "--all", "--plain", "--no-legend", "--full", "archy*", user.manager(root)]
    lines = [line for line in map(_lasting, output(command).splitlines()) if line]
    return b"\n".join(lines) + _invocations(root) + _records(root)


def _lasting(line: bytes) -> bytes:
    """The line of a unit; of what starts passes without what a pass itself changes, and nothing of passes and ticks."""
    words = line.split(maxsplit=4)
    name = words[0].decode(errors="replace") if words else ""
    if f"invocation:{name}" in _OURS - {"invocation:archy-recover.service"}:
        return b""
    return b" ".join(words[:3]) if name in ("archy-reconcile.timer", "archy-reconcile.path") else line


def output(command: list[str]) -> bytes:
    """What a command prints. Without subprocess, which takes 10 ms to load. Raises OSError if it fails."""
    descriptor = os.memfd_create("output")
    try:
        actions = [(os.POSIX_SPAWN_DUP2, descriptor, 1)]
        child = os.posix_spawnp(command[0], command, os.environ, file_actions=actions)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        if code:
            raise OSError(f"{command[0]} ended with status {code}")
        return os.pread(descriptor, _MOST, 0)
    finally:
        os.close(descriptor)


def _records(root: str) -> bytes:
    """When what passes and starts leave behind was written last, and what the user has stopped."""
    result = [f"{name}\n" for name in sorted(installed.stopped(root))]
    for directory in (paths.PREPARED, paths.STARTED):
        try:
            with os.scandir(paths.under(root, directory)) as entries:
                result += sorted(f"{entry.name} {entry.stat().st_mtime_ns}\n" for entry in entries)
        except OSError:
            continue
    return "".join(result).encode()


def _invocations(root: str) -> bytes:
    """Which start of each unit is running: a restart between two passes changes nothing else."""
    base = paths.under(root, "/run/systemd/units")
    result = []
    try:
        for name in sorted(os.listdir(base)):
            if name.startswith("invocation:archy-") and name not in _OURS:
                result.append(f"{name} {os.readlink(f'{base}/{name}')}")
    except OSError:
        pass
    return "\n".join(result).encode()


# Those that come and go with each pass.
_OURS = {f"invocation:archy-{name}.service" for name in ("reconcile", "probe", "recover", "tick")}


def record(root: str, status: "dict[str, Any]", pending: bool, seen: bytes, probe: str) -> None:
    """After a whole pass, if it found all well, and nothing that time alone would change.

    `seen` is the listing before it, and `probe` the digest of what the probe had found.
    """
    apps = status["apps"].values()
    moving = any(app["restarts"] or app["current"] not in ("running", "completed", "stopped") for app in apps)
    rotating = any(name.endswith(paths.PREVIOUS) for name in read.secret_names(root))
    if status["level"] == "ok" and not (pending or moving or rotating):
        found = {"monotonic": status["monotonic"], "seen": seen.decode(errors="replace"), "probe": probe}
        content = json.dumps(found)
        write.replace_file(root, _STATE, content.encode(), os.geteuid(), os.getegid(), 0o600)
    else:
        write.remove(root, _STATE)


def remembered(root: str) -> bool:
    """Whether the last whole pass found all well; if not, the next one is whole, whatever else is seen."""
    return os.path.exists(paths.under(root, _STATE))


def holds(root: str, digest: bytes | None = None) -> bool:
    """Whether all is as after the last whole pass; if so, the status is brought up to date.

    `digest` is that of a probe of this moment, which is compared and not read; without it, the last probe is read.
    """
    try:
        last = json.loads(read.read(paths.under(root, _STATE)) or b"")
        status = json.loads(read.read(paths.under(root, paths.STATUS), _MOST) or b"")
        wall, monotonic = time.time(), time.monotonic()
        passed = monotonic - status["monotonic"]
        found = os.statvfs(paths.under(root, paths.HOME))
        answered = monotonic  # what is the same now as it was then
        if digest is None:
            probe = json.loads(read.read(paths.under(root, paths.PROBE), _MOST) or b"")
            digest, answered = probe["digest"].encode(), probe["podman"]["at"]
        if (
            not 0 <= monotonic - last["monotonic"] < _LONGEST
            or abs(wall - status["wall"] - passed) > _JUMP
            or found.f_bavail < _FULL * found.f_blocks
            or last["probe"].encode() != digest
            or last["seen"] != listing(root).decode(errors="replace")
        ):
            return False
        status["time"], status["wall"], status["monotonic"] = iso(wall), wall, monotonic
        status["node"]["podman"]["answered"] = iso(wall - monotonic + answered)
        status["node"]["disk"]["free"] = found.f_frsize * found.f_bavail
        content = json.dumps(status, indent=1, ensure_ascii=False).encode()
        write.replace_file(root, paths.STATUS, content, os.geteuid(), os.getegid(), 0o644)
    except (OSError, ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RecursionError):
        return False
    return True


def iso(wall: float) -> str:
    """A time of the clock, as status.json has it."""
    return time.strftime("%Y-%m-%dT%H:%M:%S+00:00", time.gmtime(wall))
