# SPDX-License-Identifier: MIT
"""A manifest's typed data made into the model. The data must have passed `load.check`."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from typing import Any

from archy.manifest.model import (
    ALONE,
    BITCOIN,
    SHARED_NETWORK,
    App,
    Build,
    Certificate,
    Copy,
    Credential,
    GeneratedFile,
    HealthCheck,
    Hooks,
    Need,
    Network,
    Port,
    Runtime,
    Secret,
    SecretEnv,
    Volume,
)

_ENDPOINT = re.compile(
    r"(?:(?P<scheme>http|tcp)://)?(?:(?P<host>[A-Za-z0-9.-]+)?:)?(?P<port>[0-9]{1,5})(?P<path>/[!-~]*)?"
)

_STOP_GRACE = 30  # seconds
_UNITS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600}


def app_of(data: dict[str, Any]) -> App:
    """The model of a manifest's typed data (see `document.typed`); the data must have passed `load.check`."""
    app = data["app"]
    container = app["container"]
    security = app.get("security") or {}
    resources = app.get("resources") or {}
    provides = app.get("provides", "")
    network = container.get("network", SHARED_NETWORK)
    named = [provides] if provides and network not in ALONE else []
    needed = app.get("dependencies", ())
    levels = tuple(entry["bitcoin"] for entry in needed if "bitcoin" in entry)
    return App(
        **_same(app, "id", "name", "version", "provides", "companion_of", "part_of", "restart_when_changed"),
        **_same(container, "user", "entrypoint", "data_uid", "data_version"),
        **_same(security, "privileged"),
        no_new_privileges=security.get("no_new_privileges", no_new_privileges(container) is not False),
        image=container["image"] if "image" in container else build_tag(app["id"], container["build"]),
        pull={"if-not-present": "missing"}.get(policy := container.get("pull_policy", "missing"), policy),
        network=network,
        aliases=tuple(dict.fromkeys([*container.get("network_aliases", ()), *named])),
        networks=_all(Network, container.get("networks", ())),
        build=_build(container["build"]) if "build" in container else None,
        one_shot=container.get("restart") == "on-failure",
        runtime=_runtime(container),
        arguments=tuple(container.get("custom_args", ())),
        environment=tuple(pairs(app.get("environment", ()))),
        ports=tuple(port(entry) for entry in app.get("ports", ())),
        volumes=tuple(
            Volume(entry["type"], entry["source"], entry["target"], tuple(entry.get("options", ())))
            for entry in app.get("volumes", ())
        ),
        health=health_check(app["health_check"]) if "health_check" in app else None,
        capabilities=tuple(name.removeprefix("CAP_") for name in security.get("capabilities", ())),
        read_only=security.get("readonly_root", True),
        memory=size(resources["memory_limit"]) if "memory_limit" in resources else None,
        cpus=resources.get("cpu_limit"),
        pids=container.get("pids_limit"),
        stop_grace=app.get("stop_grace_secs", _STOP_GRACE),
        start_timeout=app.get("start_timeout_secs"),
        storage=max((size(entry["storage"]) for entry in needed if "storage" in entry), default=None),
        bitcoin=levels,
        needs=(*_all(Need, (entry for entry in needed if "app_id" in entry)), *([Need(BITCOIN)] if levels else [])),
        rpcwhitelist=tuple(app["bitcoin_rpc"]["rpcwhitelist"]) if "bitcoin_rpc" in app else None,
        secrets=_all(Secret, container.get("generated_secrets", ())),
        derived_env=tuple((entry["key"], entry["template"]) for entry in container.get("derived_env", ())),
        secret_env=tuple(
            SecretEnv(entry["key"], entry.get("secret_file", ""), entry.get("template", ""))
            for entry in container.get("secret_env", ())
        ),
        env_files=tuple(container.get("env_file", ())),
        certificates=_all(
            Certificate, ({"common_name": app["id"], **entry} for entry in container.get("generated_certs", ()))
        ),
        files=tuple(_file(entry, container.get("user", "")) for entry in container.get("generated_files", ())),
        credentials=tuple(
            Credential(entry["name"], entry.get("user", ""), entry["secret_file"])
            for entry in app.get("credentials", ())
        ),
        hooks=_hooks(app.get("hooks", {})),
    )


def build_tag(app_id: str, build: dict[str, Any]) -> str:
    """The reference of an image that is made on the node."""
    return str(build.get("tag", f"localhost/archy-{app_id}:built"))


def _build(entry: dict[str, Any]) -> Build:
    args = tuple(sorted(entry.get("args", {}).items()))
    context = os.path.normpath(entry.get("context", "."))
    return Build(context, entry.get("dockerfile", "Containerfile"), entry.get("target", ""), args)


def pairs(given: list[str] | dict[str, str]) -> list[str]:
    """NAME=VALUE, whether it was given as a list or as a mapping."""
    return [f"{name}={value}" for name, value in given.items()] if isinstance(given, dict) else list(given)


def _runtime(container: dict[str, Any]) -> Runtime:
    limits = {
        name: f"{given['soft']}:{given['hard']}" if isinstance(given, dict) else given
        for name, given in container.get("ulimits", {}).items()
    }
    plain = ("hostname", "extra_hosts", "ipv4_address", "dns", "group_add", "working_dir", "init", "tty", "stdin_open")
    return Runtime(
        **_same(container, *plain, "stop_signal", "tmpfs", "devices"),
        shm_size=size(container["shm_size"]) if "shm_size" in container else None,
        sysctls=tuple(pairs(container.get("sysctls", ()))),
        ulimits=tuple(f"{name}={limit}" for name, limit in limits.items()),
        unconfined=unconfined(container),
        logs=container.get("logging", {}).get("driver") != "none",
        labels=tuple(pairs(container.get("labels", ()))),
    )


def _same(given: dict[str, Any], *keys: str) -> dict[str, Any]:
    """The values of those keys that are given, for fields of the same names; lists as tuples."""
    return {key: tuple(given[key]) if isinstance(given[key], list) else given[key] for key in keys if key in given}


def _all[T](kind: type[T], entries: Iterable[dict[str, Any]]) -> tuple[T, ...]:
    """A value of this kind for each entry; all keys of these are fields of the same names."""
    return tuple(kind(**_same(entry, *entry)) for entry in entries)


def _hooks(given: dict[str, Any]) -> Hooks:
    steps = {kind: given.get(kind, ()) for kind in ("pre_start", "post_install")}
    copies = (entry["copy_from_host"] for listed in steps.values() for entry in listed if "copy_from_host" in entry)
    commands = {kind: tuple(tuple(entry["exec"]) for entry in steps[kind] if "exec" in entry) for kind in steps}
    return Hooks(_all(Copy, copies), **commands)


def port(entry: dict[str, Any]) -> Port:
    """A port of a manifest."""
    # A gated port is for the node's front, which demands a login from others.
    default = "127.0.0.1" if entry.get("auth") in ("local", "gated") else "0.0.0.0"
    first, last = span(entry["host"])
    inside, _ = span(entry.get("container", 0))
    return Port(first, inside, entry.get("protocol", "tcp"), entry.get("bind", default), last - first)


def span(given: int | str) -> tuple[int, int]:
    """The first and the last of a port, or of a range such as 6000-6010."""
    first, _, last = str(given).partition("-")
    return int(first), int(last or first)


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
    rules: dict[str, Any] = {
        key: seconds(entry.get(key, default)) for key, default in (("timeout", "5s"), ("interval", "30s"))
    }
    rules["retries"] = entry.get("retries", 3)
    if "test" in entry:
        if {"type", "command", "endpoint", "path"} & set(entry):
            raise ValueError("stands alone, without type, command, endpoint and path")
        return HealthCheck("exec", command=_test(entry["test"]), **rules)
    if entry["type"] == "exec":
        return HealthCheck("exec", command=tuple(entry["command"]), **rules)
    if "command" in entry:
        raise ValueError(f"a command belongs to the type exec, not {entry['type']}")
    match = _ENDPOINT.fullmatch(entry.get("endpoint", ""))
    if match is None or not 0 < int(match["port"]) < 65536:
        raise ValueError("must name a port of the container, such as localhost:8080")
    if match["host"] not in (None, "localhost", "127.0.0.1", "0.0.0.0"):
        raise ValueError("must be localhost: the check is made from inside the container")
    rules |= {"port": int(match["port"]), "path": entry.get("path") or match["path"] or "/"}
    return HealthCheck(entry["type"], **rules)


def _test(given: str | list[str]) -> tuple[str, ...]:
    """The command of a health check in the words of the Compose specification."""
    words = ["CMD-SHELL", given] if isinstance(given, str) else given
    if words[0] == "CMD" and len(words) > 1:
        return tuple(words[1:])
    if words[0] == "CMD-SHELL" and len(words) == 2:
        return ("/bin/sh", "-c", words[1])
    raise ValueError("must be text for a shell, or a list that begins with CMD or CMD-SHELL")


def seconds(duration: str) -> float:
    """`30s`, `5m`, `500ms` in seconds."""
    number = duration.rstrip("hms")
    return int(number) * _UNITS[duration[len(number) :]]


def size(text: str) -> int:
    """`256Mi`, `10GB`, `1024` in bytes; a bare K, M, G, T counts in powers of 1024, as Podman does."""
    number = text.rstrip("BKMGTi")
    exponent = "KMGT".find(text[len(number) : len(number) + 1] or "?") + 1
    return int(number) * int(1024**exponent)


_PRIVILEGES = "no-new-privileges"


def no_new_privileges(container: dict[str, Any]) -> bool | None:
    """Its rule for set-user-ID programs and the like, if it has one; the last one counts."""
    rules = [entry for entry in container.get("security_opt") or () if entry and entry.startswith(_PRIVILEGES)]
    return not rules[-1].endswith("false") if rules else None


def unconfined(container: dict[str, Any]) -> tuple[str, ...]:
    """The parts of Podman's confinement that are off for the container, in Podman's spelling."""
    given = container.get("security_opt", ())
    return tuple(entry.replace(":", "=") for entry in given if not entry.startswith(_PRIVILEGES))
