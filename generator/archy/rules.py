# SPDX-License-Identifier: MIT
"""What a JSON Schema cannot say of a manifest: values that must agree with each other, with the folder, with our rules.

A rule gets the mapping `app`, out of which what the schema refused is gone, and yields places and reasons. Each stands
alone, so that everything wrong with a file is told at once, whatever else is wrong with it.
"""

from __future__ import annotations

import ipaddress
import re
from typing import Any

from archy import provisions, rpc
from archy.document import Path
from archy.model import SHARED_NETWORK, Port
from archy.parse import health_check, port
from archy.problem import shown
from archy.provisions import Found, container_of, items, twice

# A network mode that is not a network of the app's own would share another namespace.
_REFUSED_NETWORKS = {"host", "none", "bridge", "private", "container", "ns", "slirp4netns", "default", "podman"}
# The unit of a network is archy-<name>-network.service, and that of the shared one archy-net-network.service.
_REFUSED_NETWORKS |= {SHARED_NETWORK.removeprefix("archy-")}
# Unit names that are ours: archy-<id>.service must never be one of them, nor one of the units Quadlet makes.
_RESERVED_IDS = {"all", "podman", "prepare", "probe", "reconcile", "recover", rpc.USER}
_RESERVED_ENDINGS = ("-network", "-volume", "-build", "-image", "-pod")


def broken(app: dict[str, Any], app_id: str, beside: frozenset[str]) -> Found:
    """Every place of a manifest that breaks a rule, and why."""
    yield from _identity(app, app_id)
    for rule in (_dependencies, _network, _words, _environment, _ports, _volumes, _health):
        yield from rule(app)
    yield from provisions.broken(app, beside)


def _identity(app: dict[str, Any], app_id: str) -> Found:
    own = app.get("id", app_id)
    if own != app_id:
        yield ("app", "id"), f"must be the name of the folder, {app_id}, is {own}"
    if is_reserved(own):
        yield ("app", "id"), "is reserved for units of archy's own"
    if app.get("companion_of") == own:
        yield ("app", "companion_of"), "must be another app"
    for index, entry in items(app, "dependencies", ("app_id",)):
        if entry["app_id"] == own:
            yield ("app", "dependencies", index, "app_id"), "must be another app"


def _dependencies(app: dict[str, Any]) -> Found:
    for index, entry in items(app, "dependencies", ()):
        if isinstance(entry, dict) and len({*entry} - {"restart"}) != 1:
            yield ("app", "dependencies", index), "must hold one of storage, app_id, bitcoin"
        elif isinstance(entry, dict) and "restart" in entry and "app_id" not in entry:
            yield ("app", "dependencies", index, "restart"), "belongs to an app_id"


def is_reserved(app_id: str) -> bool:
    """Whether archy-<id>.service would be a unit of archy's own, or archy-<id> the container of a companion."""
    return app_id in _RESERVED_IDS or app_id.endswith(_RESERVED_ENDINGS) or app_id.startswith("archy-")


def _network(app: dict[str, Any]) -> Found:
    container = container_of(app)
    at: Path = ("app", "container")
    if "container" in app and "image" not in container and "build" not in container:
        yield (*at, "image"), "is missing"
    if container.get("network") in _REFUSED_NETWORKS:
        yield (*at, "network"), "must be the name of a network, or pasta; an app does not share another's namespace"
    if container.get("network") == "pasta" and container.get("network_aliases"):
        yield (*at, "network_aliases"), "need a network, pasta has no names"


def _words(app: dict[str, Any]) -> Found:
    for key in ("entrypoint", "custom_args"):
        for index, word in items(container_of(app), key):
            if provisions.CONTROL.search(word):
                yield ("app", "container", key, index), "must not hold control characters"
            if not word and key == "custom_args":
                yield ("app", "container", key, index), "must not be empty, Quadlet cannot pass that on"


def _environment(app: dict[str, Any]) -> Found:
    names = []
    for index, entry in items(app, "environment"):
        if provisions.CONTROL.search(entry):
            yield ("app", "environment", index), "must not hold control characters"
        names.append((index, entry.partition("=")[0]))
    yield from twice(("app", "environment"), names)


def _ports(app: dict[str, Any]) -> Found:
    taken: list[tuple[int, Port]] = []
    for index, entry in items(app, "ports", ("host",)):
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
    volumes = list(items(app, "volumes"))
    targets = [(index, volume["target"].rstrip("/")) for index, volume in volumes if volume.get("target")]
    yield from twice(("app", "volumes"), targets, "target")
    for index, volume in volumes:
        at: Path = ("app", "volumes", index)
        source = volume.get("source")
        if volume.get("target") and not provisions.is_normal(volume["target"]):
            yield (*at, "target"), "must be a plain absolute path other than /, without . or .. or a / at its end"
        if source and volume.get("type") == "bind" and (reason := provisions.data_path_problem(source)):
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
