# SPDX-License-Identifier: MIT
"""What a JSON Schema cannot say of a manifest: values that must agree with each other, with the folder, with our rules.

A rule gets the mapping `app`, out of which what the schema refused is gone, and yields places and reasons. Each stands
alone, so that everything wrong with a file is told at once, whatever else is wrong with it.
"""

from __future__ import annotations

import ipaddress
import os
import re
from typing import Any

from archy import paths
from archy.errors import quoted
from archy.manifest import parse, provisions
from archy.manifest.document import Path
from archy.manifest.model import ALONE, BITCOIN, SHARED_NETWORK, SUBNETS, Port
from archy.manifest.parse import health_check, pairs, port, span
from archy.manifest.provisions import Found, container_of, is_normal, items, twice

# A network mode that is not a network of the app's own would share another namespace.
_REFUSED_NETWORKS = {"none", "bridge", "private", "container", "ns", "slirp4netns", "default", "podman"}

# The unit of a network is archy-<name>-network.service, and that of the shared one archy-net-network.service.
_REFUSED_NETWORKS |= {SHARED_NETWORK.removeprefix("archy-")}

# A name with such an end is one of Quadlet's own files to it: `web.container` is the namespace of that container.
_UNITS = (".container", ".network", ".volume", ".image", ".build", ".pod", ".kube")
_VOLUME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}")


def broken(app: dict[str, Any], app_id: str, files: frozenset[str]) -> Found:
    """Every place of a manifest that breaks a rule, and why."""
    yield from _identity(app, app_id)
    for rule in (_dependencies, _network, _addresses, _own_address, _words, _environment, _ports, _volumes):
        yield from rule(app)
    yield from _one_shot(app)
    yield from _confinement(app)
    yield from _health(app)
    yield from provisions.broken(app, files)


def _identity(app: dict[str, Any], app_id: str) -> Found:
    own = app.get("id", app_id)
    if own != app_id:
        yield ("app", "id"), f"must be the name of the folder, {app_id}, is {own}"
    if paths.is_reserved(own):
        yield ("app", "id"), "is reserved for units of archy's own"
    named: list[tuple[Path, str]] = [
        (("app", key), app[key]) for key in ("companion_of", "part_of", "provides") if app.get(key)
    ]
    named += [
        (("app", "dependencies", index, "app_id"), entry["app_id"])
        for index, entry in items(app, "dependencies", ("app_id",))
    ]
    for at, name in named:
        if paths.is_reserved(name) and name != BITCOIN:
            yield at, "is reserved for units of archy's own"
        if name == own:
            yield at, "must be another app" if at[-1] != "provides" else "must be another name than the app's"
    if app.get("companion_of") and app.get("part_of"):
        yield ("app", "part_of"), "cannot stand beside companion_of"


def _dependencies(app: dict[str, Any]) -> Found:
    for index, entry in items(app, "dependencies", ()):
        if len({*entry} - {"restart", "required"}) != 1:
            yield ("app", "dependencies", index), "must hold one of storage, app_id, bitcoin"
        elif "app_id" not in entry:
            yield from (
                (("app", "dependencies", index, key), "belongs to an app_id")
                for key in entry
                if key in ("restart", "required")
            )


def _one_shot(app: dict[str, Any]) -> Found:
    container = container_of(app)
    if container.get("restart") != "on-failure":
        return
    why = "cannot stand beside restart: on-failure, as the app runs to its end"
    if "health_check" in app:
        yield ("app", "health_check"), why
    if (app.get("hooks") or {}).get("post_install"):
        yield ("app", "hooks", "post_install"), why
    for key in ("tty", "stdin_open", "stop_signal"):
        if container.get(key):
            yield ("app", "container", key), why


def _network(app: dict[str, Any]) -> Found:
    container = container_of(app)
    at: Path = ("app", "container")
    if "container" in app and "image" not in container and "build" not in container:
        yield (*at, "image"), "is missing; give image, or build"
    if "image" in container and "build" in container:
        yield (*at, "build"), "cannot stand beside image: give one of the two"
    mode = container.get("network", SHARED_NETWORK)
    if container.get("image", "").endswith(_UNITS):
        yield (*at, "image"), f"must not end in {', '.join(_UNITS)}: that is what Quadlet calls its own files"
    if mode in _REFUSED_NETWORKS or mode.endswith(_UNITS):
        yield (*at, "network"), "must be the name of a network, or pasta; an app does not share another's namespace"
    for key in ("network_aliases", "networks", "ipv4_address") if mode in ALONE else ():
        if container.get(key):
            yield (*at, key), f"needs a network, {mode} has no names"
    further = list(items(container, "networks", ("name",)))
    yield from twice((*at, "networks"), [(index, entry["name"]) for index, entry in further], "name")
    for index, entry in further:
        if entry["name"] == mode:
            yield (*at, "networks", index, "name"), "is the same as network"
        if entry["name"] in {*_REFUSED_NETWORKS, *ALONE} or entry["name"].endswith(_UNITS):
            yield (*at, "networks", index, "name"), "must be the name of a network"
    if mode == "host" and app.get("ports"):
        yield ("app", "ports"), "cannot stand beside the network host, in which every port is one of the node's"


def _addresses(app: dict[str, Any]) -> Found:
    container = container_of(app)
    at: Path = ("app", "container")
    hosts = [((*at, "extra_hosts", index), entry.partition(":")[2]) for index, entry in items(container, "extra_hosts")]
    servers = [((*at, "dns", index), entry) for index, entry in items(container, "dns")]
    for place, address in (*hosts, *servers):
        try:
            if address != "host-gateway" and "%" in str(ipaddress.ip_address(address)):
                raise ValueError
        except ValueError:
            yield place, f"must be an IP address, is {quoted(address)}"


def _own_address(app: dict[str, Any]) -> Found:
    container = container_of(app)
    address, name = container.get("ipv4_address"), container.get("network", SHARED_NETWORK)
    try:
        if not address or (name in SUBNETS and ipaddress.ip_address(address) in ipaddress.ip_network(SUBNETS[name])):
            return
    except ValueError:
        pass
    known = ", ".join(f"{network} ({subnet})" for network, subnet in SUBNETS.items())
    yield ("app", "container", "ipv4_address"), f"must be an address of a network with fixed ones: {known}"


def _words(app: dict[str, Any]) -> Found:
    container = container_of(app)
    for key in ("entrypoint", "custom_args"):
        for index, word in items(container, key):
            if provisions.CONTROL.search(word):
                yield ("app", "container", key, index), "must not hold control characters"
            if not word and key == "custom_args":
                yield ("app", "container", key, index), "must not be empty, Quadlet cannot pass that on"
    for holder, above in ((container, ()), (container.get("build") or {}, ("build",))):
        for key in ("labels", "sysctls", "ulimits", "args"):
            given = holder.get(key)
            for name, value in given.items() if isinstance(given, dict) else ():
                at: Path = ("app", "container", *above, key, name)
                if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_./-]*", name):
                    yield at, "must be a plain name"
                elif isinstance(value, str) and provisions.CONTROL.search(value):
                    yield at, "must not hold control characters"
    places = {
        "context": "must be a folder below that of the manifest",
        "dockerfile": "must be a file below the context",
    }
    for key, why in places.items():
        path = (container.get("build") or {}).get(key, ".")
        if os.path.isabs(path) or ".." in path.split("/"):
            yield ("app", "container", "build", key), why


def _environment(app: dict[str, Any]) -> Found:
    given: list[str] | dict[str, str] = app.get("environment") or []
    mapped = isinstance(given, dict)
    names = []
    for index, entry in enumerate(pairs(given)):
        name, _, value = (entry or "").partition("=")
        at: Path = ("app", "environment", name if mapped else index)
        if provisions.CONTROL.search(value):
            yield at, "must not hold control characters"
        if mapped and not provisions.VARIABLE.fullmatch(name):
            yield at, "must be the name of an environment variable"
        names.append((index, name))
    if not mapped:
        yield from twice(("app", "environment"), names)


def _ports(app: dict[str, Any]) -> Found:
    taken: list[tuple[int, Port]] = []
    for index, entry in items(app, "ports", ("host",)):
        at: Path = ("app", "ports", index)
        wanted = port(entry)
        spans = [span(entry[key]) for key in ("host", "container") if key in entry]
        if any(not 0 < first <= last < 65536 for first, last in spans):
            yield (*at, "host"), "must be a range of ports, the lower one first"
            continue
        if len({last - first for first, last in spans}) > 1:
            yield (*at, "container"), "must be a range as long as that of host"
        if wanted.host < 1024:
            yield (*at, "host"), f"must be 1024 or more for a rootless container, is {wanted.host}"
        try:
            address = ipaddress.ip_address("" if "%" in wanted.bind else wanted.bind)
        except ValueError:
            yield (*at, "bind"), f"must be an IP address, is {quoted(wanted.bind)}"
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
        if source and volume.get("type") == "bind" and (reason := provisions.path_problem(source)):
            yield (*at, "source"), reason
        if source and volume.get("type") == "volume" and (not _VOLUME.fullmatch(source) or source.endswith(_UNITS)):
            yield (*at, "source"), "must be the plain name of a volume"
        if {"rw", "ro"} <= set(volume.get("options") or ()):
            yield (*at, "options"), "cannot be both rw and ro"


def _health(app: dict[str, Any]) -> Found:
    check = app.get("health_check")
    if not check:
        return
    try:
        health_check(check)
    except ValueError as error:
        kind = "command" if check.get("type") == "exec" or "command" in check else "endpoint"
        key = "test" if "test" in check else kind if "type" in check else "type"
        yield ("app", "health_check", key), str(error)


def _confinement(app: dict[str, Any]) -> Found:
    """Every place that breaks a rule, and why."""
    told = parse.no_new_privileges(container_of(app))
    if told is not None and told != (app.get("security") or {}).get("no_new_privileges", told):
        yield ("app", "container", "security_opt"), "says another no-new-privileges than security.no_new_privileges"
    for index, device in items(container_of(app), "devices"):
        # A grant for a directory is one for what is below it.
        if not all(is_normal(path) for path in device.split(":") if path.startswith("/")):
            yield ("app", "container", "devices", index), "must be plain paths, without . or .."
