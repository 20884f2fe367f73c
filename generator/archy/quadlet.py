# SPDX-License-Identifier: MIT
"""An app as Quadlet text. Pure: the model in, `{file name: text}` out.

The fixed part of each file is a template; what depends on the app is a list of (key, value) pairs, quoted here.
"""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Iterator

from archy import paths
from archy.model import SHARED_NETWORK, App, HealthCheck
from archy.owner import Owner
from archy.quoting import Form, prose, quote
from archy.templates import render

# A static busybox makes http and tcp checks in an image that has no shell, no curl and no wget.
BUSYBOX = "/usr/bin/busybox"
BUSYBOX_INSIDE = "/.archy/busybox"  # its name must begin with busybox
# Fixed, because bitcoin.conf's rpcallowip takes addresses only.
SUBNETS = {SHARED_NETWORK: "10.89.0.0/24"}
STOP_MARGIN = 15  # seconds between an app's grace and the outer deadline

Pair = tuple[str, str]


def files(app: App, source: str, owner: Owner, root: str, note: str = "") -> dict[str, str]:
    """The Quadlet files of an app. `source` is its manifest, `note` is added to the unit's description.

    Files of shared things (a network) are the same text for whichever app asks for them.
    """
    volumes = sorted({volume.source for volume in app.volumes if volume.kind == "volume"})
    result = {
        f"archy-{app.id}.container": render(
            root,
            "app.container.j2",
            app=app,
            source=quote(source, Form.SETTING),
            description=prose(f"{app.name} {note}"),
            uid=owner.uid,
            needs=[paths.unit(need.app_id) for need in app.needs],
            wants=[*_network_units(app.network), *(f"archy-{name}-volume.service" for name in volumes)],
            container=list(_container(app)),
            limits=list(_limits(app)),
            stop_margin=STOP_MARGIN,
            network="".join(f" {word}" for word in _network_words(app.network)),
            secrets=" ".join([app.id, *(entry.key for entry in app.secret_env)]) if app.secret_env else "",
        )
    }
    for name in volumes:
        result[f"archy-{name}.volume"] = render(root, "volume.j2", name=name, uid=owner.uid)
    if app.network != "pasta":
        result[f"{_network_stem(app.network)}.network"] = render(
            root,
            "network.j2",
            name=app.network,
            subnet=SUBNETS.get(app.network),
            # Podman gives out free subnets from 10.89.0.0 on: the network with the fixed one comes first.
            after=[unit for unit in _network_units(SHARED_NETWORK) if app.network != SHARED_NETWORK],
            uid=owner.uid,
        )
        if app.network != SHARED_NETWORK:
            shared = render(
                root, "network.j2", name=SHARED_NETWORK, subnet=SUBNETS[SHARED_NETWORK], after=[], uid=owner.uid
            )
            result[f"{_network_stem(SHARED_NETWORK)}.network"] = shared
    return dict(sorted(result.items()))


def environment_path(app_id: str) -> str:
    """Where the variables are that an app's `derived_env` gives."""
    return f"{paths.ENVIRONMENTS}/{app_id}.env"


def _network_stem(name: str) -> str:
    return name if name == SHARED_NETWORK else f"archy-{name}"


def _network_words(network: str) -> list[str]:
    """What archy-stop needs to make a lost network again."""
    return [] if network == "pasta" else [network, *filter(None, [SUBNETS.get(network)])]


def _network_units(network: str) -> list[str]:
    return [] if network == "pasta" else [f"{_network_stem(network)}-network.service"]


def _container(app: App) -> Iterator[Pair]:
    argument = functools.partial(quote, form=Form.ARGUMENT)
    yield "ContainerName", argument(app.container_name)
    yield "Image", argument(app.image)
    yield "Pull", app.pull
    yield "Network", argument(app.network)
    for alias in app.aliases:
        yield "NetworkAlias", argument(alias)
    if app.user:
        user, _, group = app.user.partition(":")
        yield "User", user
        if group:
            yield "Group", group
    yield "ReadOnly", _yes(app.read_only)
    yield "NoNewPrivileges", _yes(app.no_new_privileges)
    yield "DropCapability", "all"
    for capability in app.capabilities:
        yield "AddCapability", capability
    if app.entrypoint:
        yield "Entrypoint", argument(json.dumps(app.entrypoint))
    if app.arguments:
        yield "Exec", " ".join(quote(word, Form.WORD) for word in app.arguments)
    for entry in app.environment:
        yield "Environment", quote(entry, Form.WORD)
    for path in (*app.env_files, *([environment_path(app.id)] if app.derived_env else [])):
        yield "EnvironmentFile", quote(path, Form.WORD)
    for variable in app.secret_env:
        yield "Secret", f"archy-{app.id}-{variable.key},type=env,target={variable.key}"
    for port in app.ports:
        bind = f"[{port.bind}]" if ":" in port.bind else port.bind
        yield "PublishPort", argument(f"{bind}:{port.host}:{port.container}/{port.protocol}")
    for volume in app.volumes:
        yield "Volume", argument(":".join([volume.source, volume.target, *filter(None, [",".join(volume.options)])]))
    if app.health:
        yield from _health(app.health)


def _health(check: HealthCheck) -> Iterator[Pair]:
    """Readiness through Podman, which feeds `Notify=healthy`. A list is executed without a shell."""
    # Seconds as busybox takes them: whole ones.
    timeout = str(max(1, round(check.timeout)))
    command = {
        "exec": check.command,
        # Debian's nc has no -z; with -e the connection is handed to a program that ends at once.
        "tcp": (BUSYBOX_INSIDE, "nc", "-w", timeout, "127.0.0.1", str(check.port), "-e", BUSYBOX_INSIDE, "true"),
        "http": (
            BUSYBOX_INSIDE,
            "wget",
            "-q",
            "-T",
            timeout,
            "-O",
            "/dev/null",
            f"http://127.0.0.1:{check.port}{check.path}",
        ),
    }[check.kind]
    if check.kind != "exec":
        yield "Volume", f"{BUSYBOX}:{BUSYBOX_INSIDE}:ro"
    timeout_ms = f"{round(check.timeout * 1000)}ms"
    text = quote(json.dumps(command), Form.ARGUMENT)
    yield "Notify", "healthy"
    # The start-up check runs until it passes once. Podman's periodic check costs 0.3 % of a core for each app, for
    # ever, so it is as rare as Podman lets it be; `disable` would turn the start-up check off too.
    yield "HealthStartupCmd", text
    yield "HealthStartupInterval", "1s"
    yield "HealthStartupTimeout", timeout_ms
    yield "HealthStartupSuccess", "1"
    yield "HealthCmd", text
    yield "HealthInterval", "1h"
    yield "HealthTimeout", timeout_ms
    yield "HealthRetries", str(check.retries)


def _limits(app: App) -> Iterator[Pair]:
    """Limits of the unit's cgroup: with `CgroupsMode=disabled` Podman sets none."""
    if app.memory is not None:
        yield "MemoryMax", str(app.memory)
    if app.cpus is not None:
        yield "CPUQuota", f"{max(1, round(app.cpus * 100))}%"


def _yes(value: bool) -> str:
    return "true" if value else "false"


def exists(root: str) -> bool:
    """Whether the node has Quadlet at all."""
    return os.access(paths.under(root, paths.QUADLET), os.X_OK)
