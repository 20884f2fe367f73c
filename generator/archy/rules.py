# SPDX-License-Identifier: MIT
"""What a JSON Schema cannot say of a manifest: values that must agree with each other, with the folder, with our rules.

A rule gets the mapping `app`, out of which what the schema refused is gone, and yields places and reasons. Each stands
alone, so that everything wrong with a file is told at once, whatever else is wrong with it.
"""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Callable, Iterator
from typing import Any

from archy import paths
from archy.document import Path
from archy.model import SHARED_NETWORK, Port, Secret, health_check, port
from archy.problem import shown

Found = Iterator[tuple[Path, str]]
Rule = Callable[[dict[str, Any]], Found]

# A network mode that is not a network of the app's own would share another namespace.
_REFUSED_NETWORKS = {"host", "none", "bridge", "private", "container", "ns", "slirp4netns", "default", "podman"}
# The unit of a network is archy-<name>-network.service, and that of the shared one archy-net-network.service.
_REFUSED_NETWORKS |= {SHARED_NETWORK.removeprefix("archy-")}
# Unit names that are ours: archy-<id>.service must never be one of them, nor one of the units Quadlet makes.
_RESERVED_IDS = {"all", "prepare", "reconcile"}
_RESERVED_ENDINGS = ("-network", "-volume", "-build", "-image", "-pod")
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
_SECRET = re.compile(r"\{\{\s*secret:([^{}]*?)\s*\}\}")


def broken(app: dict[str, Any], app_id: str, beside: frozenset[str]) -> Found:
    """Every place of a manifest that breaks a rule, and why."""
    yield from _identity(app, app_id)
    for rule in (_network, _words, _environment, _ports, _volumes, _health, _secrets):
        yield from rule(app)
    yield from _files(app, beside)


def _items(holder: dict[str, Any], key: str, needed: tuple[str, ...] = ()) -> Iterator[tuple[int, Any]]:
    """The entries of a list with their index; of mappings, those that have the needed keys."""
    for index, entry in enumerate(holder.get(key) or ()):
        if entry is not None and all(isinstance(entry, dict) and name in entry for name in needed):
            yield index, entry


def _container(app: dict[str, Any]) -> dict[str, Any]:
    container: dict[str, Any] = app.get("container") or {}
    return container


def _identity(app: dict[str, Any], app_id: str) -> Found:
    own = app.get("id", app_id)
    if own != app_id:
        yield ("app", "id"), f"must be the name of the folder, {app_id}, is {own}"
    if is_reserved(own):
        yield ("app", "id"), "is reserved for units of archy's own"
    if app.get("companion_of") == own:
        yield ("app", "companion_of"), "must be another app"
    for index, entry in _items(app, "dependencies"):
        if isinstance(entry, dict) and entry.get("app_id") == own:
            yield ("app", "dependencies", index, "app_id"), "must be another app"


def is_reserved(app_id: str) -> bool:
    """Whether archy-<id>.service would be a unit of archy's own, or archy-<id> the container of a companion."""
    return app_id in _RESERVED_IDS or app_id.endswith(_RESERVED_ENDINGS) or app_id.startswith("archy-")


def _network(app: dict[str, Any]) -> Found:
    container = _container(app)
    at: Path = ("app", "container")
    if "container" in app and "image" not in container and "build" not in container:
        yield (*at, "image"), "is missing"
    if container.get("network") in _REFUSED_NETWORKS:
        yield (*at, "network"), "must be the name of a network, or pasta; an app does not share another's namespace"
    if container.get("network") == "pasta" and container.get("network_aliases"):
        yield (*at, "network_aliases"), "need a network, pasta has no names"


def _words(app: dict[str, Any]) -> Found:
    for key in ("entrypoint", "custom_args"):
        for index, word in _items(_container(app), key):
            if _CONTROL.search(word):
                yield ("app", "container", key, index), "must not hold control characters"
            if not word and key == "custom_args":
                yield ("app", "container", key, index), "must not be empty, Quadlet cannot pass that on"


def _environment(app: dict[str, Any]) -> Found:
    names = []
    for index, entry in _items(app, "environment"):
        if _CONTROL.search(entry):
            yield ("app", "environment", index), "must not hold control characters"
        names.append((index, entry.partition("=")[0]))
    yield from _twice(("app", "environment"), names)


def _twice(path: Path, values: list[tuple[int, Any]], key: str = "") -> Found:
    seen: dict[Any, int] = {}
    for index, value in values:
        if value in seen:
            yield (*path, index, *([key] if key else [])), f"is the same as {path[-1]}[{seen[value]}]"
        seen.setdefault(value, index)


def _ports(app: dict[str, Any]) -> Found:
    taken: list[tuple[int, Port]] = []
    for index, entry in _items(app, "ports", ("host",)):
        at: Path = ("app", "ports", index)
        wanted = port(entry)
        if wanted.host < 1024:
            yield (*at, "host"), f"must be 1024 or more for a rootless container, is {wanted.host}"
        try:
            address = ipaddress.ip_address("" if "%" in wanted.bind else wanted.bind)
        except ValueError:
            yield (*at, "bind"), f"must be an IP address, is {shown(wanted.bind)}"
            continue
        if entry.get("auth") == "local" and not address.is_loopback:
            yield (*at, "bind"), "must be a loopback address where auth is local"
        for other, one in taken:
            if wanted.clashes(one):
                yield (*at, "host"), f"is the same as ports[{other}]"
                break
        taken.append((index, wanted))


def _volumes(app: dict[str, Any]) -> Found:
    volumes = list(_items(app, "volumes"))
    targets = [(index, volume["target"].rstrip("/")) for index, volume in volumes if volume.get("target")]
    yield from _twice(("app", "volumes"), targets, "target")
    for index, volume in volumes:
        at: Path = ("app", "volumes", index)
        source = volume.get("source")
        if volume.get("target") and not _is_normal(volume["target"]):
            yield (*at, "target"), "must be a plain absolute path other than /, without . or .. or a / at its end"
        if source and volume.get("type") == "bind" and (reason := data_path_problem(source)):
            yield (*at, "source"), reason
        if source and volume.get("type") == "volume" and not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}", source):
            yield (*at, "source"), "must be the plain name of a volume"
        if {"rw", "ro"} <= set(volume.get("options") or ()):
            yield (*at, "options"), "cannot be both rw and ro"


def _health(app: dict[str, Any]) -> Found:
    check = app.get("health_check")
    if not check or "type" not in check:
        return
    try:
        health_check(check)
    except ValueError as error:
        key = "command" if check["type"] == "exec" or "command" in check else "endpoint"
        yield ("app", "health_check", key), str(error)


def _secrets(app: dict[str, Any]) -> Found:
    at: Path = ("app", "container", "generated_secrets")
    named = [(index, entry["name"]) for index, entry in _items(_container(app), "generated_secrets", ("name",))]
    yield from _twice(at, named, "name")


def _files(app: dict[str, Any], beside: frozenset[str]) -> Found:
    container = _container(app)
    secrets = set()
    for _, entry in _items(container, "generated_secrets", ("name",)):
        secrets |= set(Secret(entry["name"], entry.get("kind", "")).names)
    at: Path = ("app", "container", "generated_files")
    files = list(_items(container, "generated_files", ("path",)))
    yield from _twice(at, [(index, entry["path"]) for index, entry in files], "path")
    for index, entry in files:
        if reason := data_path_problem(entry["path"]):
            yield (*at, index, "path"), reason
        if ("content" in entry) == ("template" in entry):
            yield (*at, index), "needs either content or template"
        if entry.get("template") and entry["template"] not in beside:
            yield (*at, index, "template"), f"is not a file beside the manifest: {shown(entry['template'])}"
        for name in _SECRET.findall(entry.get("content") or ""):
            if name not in secrets:
                yield (*at, index, "content"), f"names a secret that generated_secrets does not declare: {shown(name)}"


def _is_normal(path: str) -> bool:
    return path != "/" and os.path.normpath(path) == path and not path.startswith("//")


def data_path_problem(path: str) -> str:
    """Why `path` is no place for an app's data, or nothing: only /var/lib/archipelago/<name>/ and below is."""
    # Quadlet writes it into RequiresMountsFor= as it is, where a space or a quote would make systemd ignore the line.
    if not _is_normal(path) or _CONTROL.search(path) or set(path) & set(":,\"'\\") or len(path.split()) != 1:
        return "must be a plain absolute path, without . or .., spaces, quotes, colons, commas or control characters"
    first = path.removeprefix(paths.HOME + "/").split("/")[0]
    if not path.startswith(paths.HOME + "/") or first.startswith(".") or first == os.path.basename(paths.SECRETS):
        return f"must be below {paths.HOME}/<app>; a path outside the app's own data is not supported yet"
    return ""
