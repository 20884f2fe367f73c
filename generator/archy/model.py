# SPDX-License-Identifier: MIT
"""The typed model of an app, built from a manifest's data once that is known to be valid."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

SHARED_NETWORK = "archy-net"
DEFAULT_STOP_GRACE = 30  # seconds
_ENDPOINT = re.compile(
    r"(?:(?P<scheme>http|tcp)://)?(?:(?P<host>[A-Za-z0-9.-]+)?:)?(?P<port>[0-9]{1,5})(?P<path>/[!-~]*)?"
)
_UNITS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600}


@dataclass(frozen=True)
class Port:
    host: int
    container: int
    protocol: str = "tcp"
    bind: str = "0.0.0.0"

    def clashes(self, other: Port) -> bool:
        """Whether both want the same port of the node on addresses that overlap."""
        everywhere = {"0.0.0.0", "::"} & {self.bind, other.bind}
        return (self.host, self.protocol) == (other.host, other.protocol) and bool(
            everywhere or self.bind == other.bind
        )


@dataclass(frozen=True)
class Volume:
    """A bind mount (`source` is an absolute path of the node) or a named volume."""

    kind: str
    source: str
    target: str
    options: tuple[str, ...] = ()


@dataclass(frozen=True)
class HealthCheck:
    """How readiness is asked, from inside the container. `command` is a list to execute, without a shell.

    `timeout` is in seconds; `port` and `path` belong to the kinds `http` and `tcp`.
    """

    kind: str
    port: int = 0
    path: str = "/"
    command: tuple[str, ...] = ()
    timeout: float = 5
    retries: int = 3


@dataclass(frozen=True)
class Secret:
    name: str
    kind: str

    @property
    def names(self) -> tuple[str, ...]:
        """The files that hold it: bcrypt has the hash, and the plain text for a person to log in with."""
        return (self.name, f"{self.name}.pw") if self.kind == "bcrypt" else (self.name,)


@dataclass(frozen=True)
class GeneratedFile:
    """A file on the node that is made for the app. `owner` and `group` are IDs as the container sees them."""

    path: str
    content: str | None
    template: str | None
    mode: int
    owner: int
    group: int
    overwrite: bool


@dataclass(frozen=True)
class App:
    """One app, as its manifest describes it. Times are in seconds, sizes in bytes."""

    id: str
    name: str
    version: str
    image: str
    pull: str
    network: str
    aliases: tuple[str, ...]
    user: str
    entrypoint: tuple[str, ...]
    arguments: tuple[str, ...]
    environment: tuple[str, ...]
    ports: tuple[Port, ...]
    volumes: tuple[Volume, ...]
    health: HealthCheck | None
    capabilities: tuple[str, ...]
    read_only: bool
    no_new_privileges: bool
    memory: int | None
    cpus: float | None
    stop_grace: int
    start_timeout: int | None
    companion_of: str
    needs: tuple[str, ...]
    secrets: tuple[Secret, ...]
    files: tuple[GeneratedFile, ...]
    data_uid: int | None

    @property
    def container_name(self) -> str:
        """Companions are named after their unit, other apps keep their bare name."""
        return f"archy-{self.id}" if self.companion_of else self.id


def app_of(data: dict[str, Any]) -> App:
    """The model of a manifest's typed data (see `document.typed`); the data must have passed `manifest.check`."""
    app = data["app"]
    container = app["container"]
    security = app.get("security") or {}
    resources = app.get("resources") or {}
    user = container.get("user", "")
    return App(
        id=app["id"],
        name=app["name"],
        version=app["version"],
        image=container["image"],
        pull={"if-not-present": "missing"}.get(policy := container.get("pull_policy", "missing"), policy),
        network=container.get("network", SHARED_NETWORK),
        aliases=tuple(container.get("network_aliases", ())),
        user=user,
        entrypoint=tuple(container.get("entrypoint", ())),
        arguments=tuple(container.get("custom_args", ())),
        environment=tuple(app.get("environment", ())),
        ports=tuple(port(entry) for entry in app.get("ports", ())),
        volumes=tuple(
            Volume(entry["type"], entry["source"], entry["target"], tuple(entry.get("options", ())))
            for entry in app.get("volumes", ())
        ),
        health=health_check(app["health_check"]) if "health_check" in app else None,
        capabilities=tuple(name.removeprefix("CAP_") for name in security.get("capabilities", ())),
        read_only=security.get("readonly_root", True),
        no_new_privileges=security.get("no_new_privileges", True),
        memory=size(resources["memory_limit"]) if "memory_limit" in resources else None,
        cpus=resources.get("cpu_limit"),
        stop_grace=app.get("stop_grace_secs", DEFAULT_STOP_GRACE),
        start_timeout=app.get("start_timeout_secs"),
        companion_of=app.get("companion_of", ""),
        needs=tuple(entry["app_id"] for entry in app.get("dependencies", ()) if "app_id" in entry),
        secrets=tuple(Secret(entry["name"], entry["kind"]) for entry in container.get("generated_secrets", ())),
        files=tuple(_file(entry, user) for entry in container.get("generated_files", ())),
        data_uid=container.get("data_uid"),
    )


def port(entry: dict[str, Any]) -> Port:
    """A port of a manifest."""
    everywhere = "127.0.0.1" if entry.get("auth") == "local" else "0.0.0.0"
    return Port(entry["host"], entry.get("container", 0), entry.get("protocol", "tcp"), entry.get("bind", everywhere))


def _file(entry: dict[str, Any], user: str) -> GeneratedFile:
    owner, _, group = entry.get("owner", user or "0").partition(":")
    return GeneratedFile(
        path=entry["path"],
        content=entry.get("content"),
        template=entry.get("template"),
        mode=int(entry.get("mode", "0640"), 8),
        owner=int(owner),
        group=int(group or owner),
        overwrite=entry.get("overwrite", False),
    )


def health_check(entry: dict[str, Any]) -> HealthCheck:
    """The health check of a manifest; raises ValueError with the reason when its endpoint cannot be understood."""
    rules = {
        "timeout": seconds(entry.get("timeout", "5s")),
        "retries": entry.get("retries", 3),
    }
    if entry["type"] == "exec":
        if "command" not in entry:
            raise ValueError("an exec check needs a command")
        return HealthCheck("exec", command=tuple(entry["command"]), **rules)
    if "command" in entry:
        raise ValueError(f"a command belongs to the type exec, not {entry['type']}")
    match = _ENDPOINT.fullmatch(entry.get("endpoint", ""))
    if match is None or not 0 < int(match["port"]) < 65536:
        raise ValueError("must name a port of the container, such as localhost:8080")
    if match["host"] not in (None, "localhost", "127.0.0.1", "0.0.0.0"):
        raise ValueError("must be localhost: the check is made from inside the container")
    path = entry.get("path") or match["path"] or "/"
    return HealthCheck(entry["type"], port=int(match["port"]), path=path, **rules)


def seconds(duration: str) -> float:
    """`30s`, `5m`, `500ms` in seconds."""
    number = duration.rstrip("hms")
    return int(number) * _UNITS[duration[len(number) :]]


def size(text: str) -> int:
    """`256Mi`, `10GB`, `1024` in bytes; a bare K, M, G, T counts in powers of 1024, as Podman does."""
    number = text.rstrip("BKMGTi")
    exponent = "KMGT".find(text[len(number) : len(number) + 1] or "?") + 1
    return int(number) * int(1024**exponent)
