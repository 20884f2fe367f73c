# SPDX-License-Identifier: MIT
"""A manifest's typed data made into the model. The data must have passed `manifest.check`."""

from __future__ import annotations

import re
from typing import Any

from archy.model import (
    DEFAULT_STOP_GRACE,
    SHARED_NETWORK,
    App,
    Certificate,
    Credential,
    GeneratedFile,
    HealthCheck,
    Need,
    Port,
    Secret,
    SecretEnv,
    Volume,
)

_ENDPOINT = re.compile(
    r"(?:(?P<scheme>http|tcp)://)?(?:(?P<host>[A-Za-z0-9.-]+)?:)?(?P<port>[0-9]{1,5})(?P<path>/[!-~]*)?"
)
_UNITS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600}


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
        needs=tuple(
            Need(entry["app_id"], entry.get("restart", False))
            for entry in app.get("dependencies", ())
            if "app_id" in entry
        ),
        rpcwhitelist=tuple(app["bitcoin_rpc"]["rpcwhitelist"]) if "bitcoin_rpc" in app else None,
        restart_when_changed=app.get("restart_when_changed", False),
        secrets=tuple(
            Secret(entry["name"], entry["kind"], entry.get("rotatable", False))
            for entry in container.get("generated_secrets", ())
        ),
        derived_env=tuple((entry["key"], entry["template"]) for entry in container.get("derived_env", ())),
        secret_env=tuple(
            SecretEnv(entry["key"], entry.get("secret_file", ""), entry.get("template", ""))
            for entry in container.get("secret_env", ())
        ),
        env_files=tuple(container.get("env_file", ())),
        certificates=tuple(
            Certificate(entry["crt"], entry["key"], entry.get("common_name", app["id"]), tuple(entry.get("sans", ())))
            for entry in container.get("generated_certs", ())
        ),
        files=tuple(_file(entry, user) for entry in container.get("generated_files", ())),
        credentials=tuple(
            Credential(entry["name"], entry.get("user", ""), entry["secret_file"])
            for entry in app.get("credentials", ())
        ),
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
        "interval": seconds(entry.get("interval", "30s")),
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
