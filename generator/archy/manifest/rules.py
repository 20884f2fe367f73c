# SPDX-License-Identifier: MIT
"""Rules for a manifest beyond its JSON Schema: values that must agree with each other, with the folder, with the node.

A rule gets the mapping `app` without the values that the schema refused, and yields places and reasons. Each rule is
independent, so that all problems of a file are reported at once.
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
from archy.manifest.provisions import Found, container_of, is_normal, items

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
    for rule in (_network, _addresses, _own_address, _words, _environment, _ports, _volumes):
        yield from rule(app)
    yield from _confinement(app)
    yield from _health(app)
    yield from provisions.broken(app, files)


def _identity(app: dict[str, Any], app_id: str) -> Found:
    own = app.get("id", app_id)
    if own != app_id:
        yield ("app", "id"), f"must be the name of the folder, {app_id}, is {own}"
    if paths.is_reserved(own):
        yield ("app", "id"), "is reserved for units of archy's own"
    needs = items(app, "dependencies", ("app_id",))
    named: list[tuple[Path, str]] = [
        *((("app", key), app[key]) for key in ("companion_of", "part_of", "provides") if app.get(key)),
        *((("app", "dependencies", index, "app_id"), entry["app_id"]) for index, entry in needs),
    ]
    for at, name in named:
        if paths.is_reserved(name) and name != BITCOIN:
            yield at, "is reserved for units of archy's own"
        if name == own:
            yield at, "must be another app" if at[-1] != "provides" else "must be another name than the app's"


def _network(app: dict[str, Any]) -> Found:
    container = container_of(app)
    at: Path = ("app", "container")
    mode = container.get("network", SHARED_NETWORK)
    if container.get("image", "").endswith(_UNITS):
        yield (*at, "image"), f"must not end in {', '.join(_UNITS)}: that is what Quadlet calls its own files"
    if mode in _REFUSED_NETWORKS or mode.endswith(_UNITS):
        yield (*at, "network"), "must be the name of a network, or pasta; an app does not share another's namespace"
    for key in ("network_aliases", "networks", "ipv4_address") if mode in ALONE else ():
        if container.get(key):
            yield (*at, key), f"needs a network, {mode} has no names"
    for index, entry in items(container, "networks", ("name",)):
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
    build = {"context": ".", "dockerfile": ".", **(container.get("build") or {})}
    if _leads_out(build["context"]):
        yield ("app", "container", "build", "context"), "must be a folder below that of the manifest"
    if _leads_out(build["dockerfile"]):
        yield ("app", "container", "build", "dockerfile"), "must be a file below the context"


def _leads_out(path: str) -> bool:
    return os.path.isabs(path) or ".." in path.split("/")


def _environment(app: dict[str, Any]) -> Found:
    given: list[str] | dict[str, str] = app.get("environment") or []
    mapped = isinstance(given, dict)
    seen: dict[str, int] = {}
    for index, entry in enumerate(pairs(given)):
        name, _, value = (entry or "").partition("=")
        at: Path = ("app", "environment", name if mapped else index)
        if provisions.CONTROL.search(value):
            yield at, "must not hold control characters"
        if mapped and not provisions.VARIABLE.fullmatch(name):
            yield at, "must be the name of an environment variable"
        if seen.setdefault(name, index) != index:
            yield at, f"is the same as environment[{seen[name]}]"


def _ports(app: dict[str, Any]) -> Found:
    taken: list[tuple[int, Port]] = []
    for index, entry in items(app, "ports", ("host",)):
        at: Path = ("app", "ports", index)
        new = port(entry)
        spans = [span(entry[key]) for key in ("host", "container") if key in entry]
        if any(not 0 < first <= last < 65536 for first, last in spans):
            yield (*at, "host"), "must be a range of ports, the lower one first"
            continue
        if len({last - first for first, last in spans}) > 1:
            yield (*at, "container"), "must be a range as long as that of host"
        if new.host < 1024:
            yield (*at, "host"), f"must be 1024 or more for a rootless container, is {new.host}"
        try:
            address = ipaddress.ip_address("" if "%" in new.bind else new.bind)
        except ValueError:
            yield (*at, "bind"), f"must be an IP address, is {quoted(new.bind)}"
            continue
        if entry.get("auth") == "local" and not address.is_loopback:
            yield (*at, "bind"), "must be a loopback address where auth is local"
        for other, one in taken:
            if new.clashes(one):
                yield (*at, "host"), f"is the same as ports[{other}]"
                break
        taken.append((index, new))


def _volumes(app: dict[str, Any]) -> Found:
    seen: dict[str, int] = {}
    for index, volume in items(app, "volumes"):
        at: Path = ("app", "volumes", index)
        source, target = volume.get("source"), volume.get("target")
        if target and seen.setdefault(target.rstrip("/"), index) != index:
            yield (*at, "target"), f"is the same as volumes[{seen[target.rstrip('/')]}]"
        if target and not provisions.is_normal(target):
            yield (*at, "target"), "must be a plain absolute path other than /, without . or .. or a / at its end"
        if source and volume.get("type") == "bind" and (reason := provisions.path_problem(source)):
            yield (*at, "source"), reason
        if source and volume.get("type") == "volume" and (not _VOLUME.fullmatch(source) or source.endswith(_UNITS)):
            yield (*at, "source"), "must be the plain name of a volume"


def _health(app: dict[str, Any]) -> Found:
    check = app.get("health_check") or {}
    needed = "command" if check.get("type") == "exec" else "type"
    if "test" not in check and needed not in check:  # the schema says so
        return
    try:
        health_check(check)
    except ValueError as error:
        key = next((key for key in ("test", "command") if key in check), "endpoint")
        yield ("app", "health_check", key), str(error)


def _confinement(app: dict[str, Any]) -> Found:
    """Every place that breaks a rule, and why."""
    given = parse.no_new_privileges(container_of(app))
    if given is not None and given != (app.get("security") or {}).get("no_new_privileges", given):
        yield ("app", "container", "security_opt"), "says another no-new-privileges than security.no_new_privileges"
    for index, device in items(container_of(app), "devices"):
        # A grant for a directory is one for what is below it.
        if not all(is_normal(path) for path in device.split(":") if path.startswith("/")):
            yield ("app", "container", "devices", index), "must be plain paths, without . or .."
