# SPDX-License-Identifier: MIT
"""Facts for templates beyond their own app: of the host, and of each installed app.

They are in one file in /run, so that a change is detected by comparing bytes: the stamp of every app that may use facts
depends on that file. Fast path: no heavy imports.
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
        """Facts of an app for other apps, passes and `archy status`, which do not read its manifest again."""

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
        """The whole file; facts of apps written by another version of archy are not used."""

        by: str
        host: dict[str, str]
        apps: dict[str, Summary]


_NOWHERE = ("192.0.2.1", 9)  # TEST-NET-1, RFC 5737: no packet is sent, the kernel only looks up the route
_GB = 10**9
_SAME = (
    *("name", "version", "image", "pull", "network", "provides", "one_shot", "companion_of", "part_of"),
    *("restart_when_changed", "start_timeout"),
)


def summary(app: "App") -> "Summary":
    """The facts of an app."""
    health = {**vars(app.health), "command": list(app.health.command)} if app.health else None
    return {
        **{key: getattr(app, key) for key in _SAME},  # type: ignore[typeddict-item]
        "container": app.container_name,
        "ports": bool(app.ports),
        "aliases": list(app.aliases),
        "needs": app.need_ids,
        "after": [need.app_id for need in app.needs],
        "restart_after": [need.app_id for need in app.needs if need.restart],
        "bitcoin": list(app.bitcoin),
        "rpcwhitelist": None if app.rpcwhitelist is None else list(app.rpcwhitelist),
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
    """The host's current facts. Unknown ones, as the address of a host without a network, are left out."""
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
    """The host's facts; unknown ones have their last known value, so that an unplugged cable changes nothing."""
    return {"HOST_IP": "127.0.0.1", "DISK_GB": "0", **kept(root), **host(root)}
