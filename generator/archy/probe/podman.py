# SPDX-License-Identifier: MIT
"""What Podman says that runs, and what it leaves in the service user's runtime directory. Only asks and looks.

Podman is slow: 50 ms of CPU for its list, for ever, on every node. Its answer is kept as long as nothing of what it is
made from has changed, and for five minutes at most. Fast path: no heavy imports.
"""

import os
import time

from archy import paths
from archy.host import read

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from subprocess import Popen
    from typing import Any

    from archy.probe.containers import Container

_TIME = 8.0  # seconds
_OLD = 300.0  # seconds after which it is asked, whatever we think
_MOST = 16 * 1024 * 1024
_LISTING = '{{.ID}}\t{{.State}}\t{{.Names}}\t{{index .Labels "PODMAN_SYSTEMD_UNIT"}}'


class ContainerList:
    """All containers that Podman knows: it is asked while the apps are."""

    def __init__(self, runtime: str, running: "list[Container]", last: "Mapping[str, Any] | None") -> None:
        self.seen = _fingerprint(runtime, running)
        self.last = dict(last or {})
        self.process: Popen[bytes] | None = None
        known = {entry[0] for entry in self.last.get("containers") or () if entry[1] == "running"}
        unknown = any(container.id not in known for container in running)
        old = time.monotonic() - self.last.get("at", 0) > _OLD
        if old or unknown or self.last.get("error") != "" or self.last.get("seen") != self.seen:
            # Files in memory, not pipes: nobody reads while the apps are asked.
            self.out, self.errors = os.memfd_create("out"), os.memfd_create("errors")
            self.began = time.monotonic()
            self.process = _list(self.out, self.errors)

    def answer(self) -> "dict[str, Any]":
        """What it said, now or when it was asked last. `at` is when it was asked, `error` why it did not answer."""
        if self.process is None:
            return self.last
        from subprocess import TimeoutExpired

        try:
            code = self.process.wait(max(0.1, self.began + _TIME - time.monotonic()))
        except TimeoutExpired:
            self.process.kill()
            return {"at": self.began, "error": f"no answer within {_TIME:g} s", "containers": [], "seen": None}
        if code:
            # It may quote what it could not read: whatever that is, and over however many lines.
            before, _, after = _content(self.errors).partition("Error: ")
            error = " ".join((after or before).split())[:1000] or f"podman ps ended with status {code}"
            return {"at": self.began, "error": error, "containers": [], "seen": None}
        listed = [line.split("\t") for line in _content(self.out).splitlines()]
        stored = _stored()
        containers = [_seen(line, stored) for line in listed if len(line) == 4]
        return {"at": self.began, "error": "", "containers": containers, "seen": self.seen}


def _stored() -> bytes:
    """What the storage says of containers; empty if it cannot be read."""
    base = f"{paths.STORAGE}/overlay-containers"
    found = (read.read(f"{base}/{name}.json", _MOST) for name in ("containers", "volatile-containers"))
    return b"\n".join(store for store in found if store)


def _seen(entry: list[str], stored: bytes) -> list[str]:
    """The entry of a container, in another state if its storage has forgotten it: nobody could enter or remove it."""
    lost = entry[1] == "running" and stored and entry[0].encode() not in stored
    return [entry[0], "unknown to its storage", *entry[2:]] if lost else entry


def _list(out: int, errors: int) -> "Popen[bytes]":
    import subprocess  # it costs more than all else here

    command = ["podman", "ps", "--all", "--no-trunc", "--format", _LISTING]
    return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=errors, cwd="/")


def _content(descriptor: int) -> str:
    os.lseek(descriptor, 0, os.SEEK_SET)
    with open(descriptor, "rb") as file:
        return file.read(_MOST).decode(errors="replace")


def _fingerprint(runtime: str, running: "Iterable[Container]") -> list[str]:
    """What changes when Podman's state does: as long as this is the same, so is its answer."""
    watched = [
        *(f"{paths.STORAGE}/{name}" for name in ("db.sql", "networks", "volumes", "overlay-images/images.json")),
        *(f"{paths.STORAGE}/overlay-containers/{name}.json" for name in ("containers", "volatile-containers")),
        *(f"{paths.STORAGE}/overlay-layers/{name}.json" for name in ("layers", "volatile-layers")),
        *(f"{runtime}/{name}" for name in ("libpod/tmp/alive", "libpod/tmp/pause.pid", "containers/overlay")),
        f"/dev/shm/libpod_rootless_lock_{os.getuid()}",
        f"{paths.HOME}/.config/containers/containers.conf.d",
    ]
    result = sorted(container.id for container in running)
    for path in watched:
        try:
            found = os.stat(path)
            result.append(f"{found.st_ino} {found.st_size} {found.st_mtime_ns}")
        except OSError:
            result.append("-")
    return result


def pasta(runtime: str) -> bool | None:
    """Whether the program lives that connects containers to the node's network; None if there is no need of it."""
    base = f"{runtime}/containers/networks/rootless-netns"
    if not os.path.exists(f"{base}/rootless-netns"):
        return None
    try:
        pid = int(read.read(f"{base}/rootless-netns-conn.pid") or b"")
        return (read.read(f"/proc/{pid}/comm") or b"").startswith((b"pasta", b"slirp4netns"))
    except ValueError:
        return False


def stale_addresses(runtime: str, known: "set[str]") -> set[str]:
    """Addresses that name servers give out for containers that Podman does not know (aardvark-dns(1), its files)."""
    result: set[str] = set()
    base = f"{runtime}/containers/networks/aardvark-dns"
    try:
        names = os.listdir(base)
    except OSError:
        return result
    for name in names:
        for line in (read.read(f"{base}/{name}", _MOST) or b"").decode(errors="replace").splitlines():
            fields = line.split()
            if len(fields) > 2 and len(fields[0]) == 64 and fields[0] not in known:
                result.update(fields[1].split(","))
    return result


def health_timers(runtime: str) -> list[str]:
    """The timers in the user's manager by which Podman asks containers how they are; each has a container's ID first.

    A container is there before its timer. So who wants to know which timers have none must ask for these first.
    """
    try:
        names = os.listdir(f"{runtime}/systemd/transient")
    except OSError:
        return []
    return sorted(name for name in names if name.endswith(".timer") and len(name.partition("-")[0]) == 64)
