# SPDX-License-Identifier: MIT
"""What templates may know beyond their own app: facts of the host, and what each installed app says of itself.

Kept in one file in /run, so that a change is seen by comparing bytes: every app that may use facts has that file among
the things its stamp depends on. Fast path: no heavy imports.
"""

import json
import os
import socket

from archy import __version__, paths
from archy.host import read

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, TypedDict

    from archy.manifest.model import App

    class Summary(TypedDict):
        """What other apps, the tick and `archy status` must know of an app, without reading its manifest again."""

        name: str
        version: str
        container: str
        image: str
        pull: str
        network: str
        ports: bool
        aliases: list[str]
        provides: str
        one_shot: bool
        needs: list[str]
        after: list[str]
        restart_after: list[str]
        companion_of: str
        part_of: str
        bitcoin: list[str]
        rpcwhitelist: list[str] | None
        restart_when_changed: bool
        start_timeout: int | None
        secrets: list[str]
        rotatable: list[str]
        health: dict[str, Any] | None  # the fields of model.HealthCheck

    class All(TypedDict):
        """The whole file; what apps say is of no use to another version."""

        by: str
        host: dict[str, str]
        apps: dict[str, Summary]


_NOWHERE = ("192.0.2.1", 9)  # TEST-NET-1, RFC 5737: no packet is sent, the kernel only looks up the route
_GB = 10**9


def summary(app: "App") -> "Summary":
    """What is kept of an app."""
    health = {**vars(app.health), "command": list(app.health.command)} if app.health else None
    return {
        "name": app.name,
        "version": app.version,
        "container": app.container_name,
        "image": app.image,
        "pull": app.pull,
        "network": app.network,
        "ports": bool(app.ports),
        "aliases": list(app.aliases),
        "provides": app.provides,
        "one_shot": app.one_shot,
        "needs": app.need_ids,
        "after": [need.app_id for need in app.needs],
        "restart_after": [need.app_id for need in app.needs if need.restart],
        "companion_of": app.companion_of,
        "part_of": app.part_of,
        "bitcoin": list(app.bitcoin),
        "rpcwhitelist": None if app.rpcwhitelist is None else list(app.rpcwhitelist),
        "restart_when_changed": app.restart_when_changed,
        "start_timeout": app.start_timeout,
        "secrets": app.secret_names,
        "rotatable": [declared.name for declared in app.secrets if declared.rotatable],
        "health": health,
    }


def load(root: str) -> "All":
    """The facts as the last pass left them; empty before the first."""
    try:
        found: All = json.loads(read.read(paths.under(root, paths.FACTS)) or b"")
        return {
            "by": __version__,
            "host": dict(found["host"]),
            "apps": dict(found["apps"]) if found["by"] == __version__ else {},
        }
    except (ValueError, KeyError, TypeError):
        return {"by": __version__, "host": {}, "apps": {}}


def pack(everything: "All") -> bytes:
    """The bytes of the file."""
    return json.dumps(everything, sort_keys=True).encode()


def host(root: str) -> dict[str, str]:
    """The host's facts now. What cannot be found out, as the address of a host without a network, is left out."""
    result = {"HOST_MDNS": os.uname().nodename.partition(".")[0] + ".local"}
    try:
        size = os.statvfs(paths.under(root, paths.HOME))
        result["DISK_GB"] = str(size.f_frsize * size.f_blocks // _GB)
    except OSError:
        pass
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(_NOWHERE)
            result["HOST_IP"] = probe.getsockname()[0]
        except OSError:
            pass
    return result


def kept(root: str) -> dict[str, str]:
    """The host's facts as they were last known, also before the last boot."""
    try:
        found = json.loads(read.read(paths.under(root, paths.ACCEPTED_HOST)) or b"")
        return {str(name): str(value) for name, value in found.items()}
    except (ValueError, AttributeError):
        return {}


def host_or_kept(root: str) -> dict[str, str]:
    """The host's facts; what cannot be found out now is as it was last, so that a cable pulled changes nothing."""
    return {"HOST_IP": "127.0.0.1", "DISK_GB": "0", **kept(root), **host(root)}
