# SPDX-License-Identifier: MIT
"""What depends on the app in its Quadlet files: (key, value) pairs of the sections, quoted. Pure."""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Iterator

from archy import paths
from archy.host.idmap import Owner
from archy.manifest.model import ALONE, SHARED_NETWORK, SUBNETS, App, Build, HealthCheck, Runtime
from archy.units.cache import LINK
from archy.units.quoting import Form, prose, quote
from archy.units.templates import render

# A static busybox makes http and tcp checks in an image that has no shell, no curl and no wget.
BUSYBOX = "/usr/bin/busybox"
BUSYBOX_INSIDE = "/.archy/busybox"  # its name must begin with busybox

Pair = tuple[str, str]


def container(app: App) -> Iterator[Pair]:
    """The section [Container] of an app."""
    argument = functools.partial(quote, form=Form.ARGUMENT)
    yield "ContainerName", argument(app.container_name)
    yield "Image", argument(app.image)
    # Not NetworkAlias=, which would be for all networks of the container.
    address = [f"ip={app.runtime.ipv4_address}"] if app.runtime.ipv4_address else []
    yield "Network", argument(_network(app.network, app.aliases, address))
    for network in app.networks:
        yield "Network", argument(_network(network.name, network.aliases, []))
    if app.user:
        user, _, group = app.user.partition(":")
        yield "User", user
        if group:
            yield "Group", group
    yield "ReadOnly", _yes(app.read_only)
    if app.privileged:
        yield "PodmanArgs", "--privileged"
    else:
        yield "NoNewPrivileges", _yes(app.no_new_privileges)
        yield "DropCapability", "all"
    for capability in app.capabilities:
        yield "AddCapability", capability
    yield from _runtime(app.runtime)
    if app.entrypoint:
        yield "Entrypoint", argument(json.dumps(app.entrypoint))
    if app.arguments:
        yield "Exec", " ".join(quote(word, Form.WORD) for word in app.arguments)
    for entry in app.environment:
        yield "Environment", quote(entry, Form.WORD)
    for path in (*app.env_files, *([paths.environment_path(app.id)] if app.derived_env else [])):
        yield "EnvironmentFile", quote(path, Form.WORD)
    for variable in app.secret_env:
        yield "Secret", f"archy-{app.id}-{variable.key},type=env,target={variable.key}"
    for port in app.ports:
        bind = f"[{port.bind}]" if ":" in port.bind else port.bind
        host, inside = (f"{first}-{first + port.more}" if port.more else first for first in (port.host, port.container))
        yield "PublishPort", argument(f"{bind}:{host}:{inside}/{port.protocol}")
    for volume in app.volumes:
        yield "Volume", argument(":".join([volume.source, volume.target, *filter(None, [",".join(volume.options)])]))
    for number, copy in enumerate(app.hooks.copies):
        yield "Volume", argument(f"{paths.copy_path(app.id, number)}:{copy.dest}:ro")
    if app.health:
        yield from _health(app.health)


def _network(name: str, aliases: tuple[str, ...], more: list[str]) -> str:
    options = [*(f"alias={alias}" for alias in aliases), *more]
    return ":".join([name, *filter(None, [",".join(options)])])


def _runtime(runtime: Runtime) -> Iterator[Pair]:
    argument = functools.partial(quote, form=Form.ARGUMENT)
    one = {
        "HostName": runtime.hostname,
        "WorkingDir": runtime.working_dir,
        "StopSignal": runtime.stop_signal,
        "ShmSize": str(runtime.shm_size or ""),
        "RunInit": "true" if runtime.init else "",
        "PodmanArgs": " ".join(word for word, on in (("--tty", runtime.tty), ("-i", runtime.stdin_open)) if on),
    }
    many = {
        "AddHost": runtime.extra_hosts,
        "DNS": runtime.dns,
        "GroupAdd": runtime.group_add,
        "Tmpfs": runtime.tmpfs,
        "Ulimit": runtime.ulimits,
        "AddDevice": runtime.devices,
    }
    yield from (("PodmanArgs", f"--security-opt {one}") for one in runtime.unconfined)
    words = {"Sysctl": runtime.sysctls, "Label": runtime.labels}
    yield from ((key, argument(value)) for key, value in one.items() if value)
    yield from ((key, argument(value)) for key, values in many.items() for value in values)
    yield from ((key, quote(value, Form.WORD)) for key, values in words.items() for value in values)


def build(build: Build, tag: str, context: str) -> Iterator[Pair]:
    """The section [Build] of an image that is made on the node; `context` is a folder of the node."""
    argument = functools.partial(quote, form=Form.ARGUMENT)
    yield "ImageTag", argument(tag)
    yield "SetWorkingDirectory", argument(context)
    yield "File", argument(os.path.join(context, build.dockerfile))
    if build.target:
        yield "Target", argument(build.target)
    for name, value in build.args:
        yield "PodmanArgs", f"--build-arg {quote(f'{name}={value}', Form.WORD)}"


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


def limits(app: App) -> Iterator[Pair]:
    """Limits of the unit's cgroup: with `CgroupsMode=disabled` Podman sets none."""
    if app.memory is not None:
        yield "MemoryMax", str(app.memory)
    if app.pids is not None:
        yield "TasksMax", str(app.pids)
    if app.cpus is not None:
        yield "CPUQuota", f"{max(1, round(app.cpus * 100))}%"


def _yes(value: bool) -> str:
    return "true" if value else "false"


# Only by way of `failed`, which this leaves out, would systemd restart what is PartOf= a unit that crashes. Not for all
# apps: with it, the job of a start that fails goes on until a later attempt succeeds.
_OF_A_WHOLE = "[Service]\nRestartMode=direct\n"
STOP_MARGIN = 15  # seconds between an app's grace and the outer deadline


def files(app: App, source: str, owner: Owner, root: str, note: str = "") -> dict[str, str]:
    """The Quadlet files of an app. `source` is its manifest, `note` is added to the unit's description.

    Files of shared things (a network) are the same text for whichever app asks for them.
    """
    volumes = sorted({volume.source for volume in app.volumes if volume.kind == "volume"})
    networks = network_names(app)
    result = {
        f"archy-{app.id}.container": render(
            root,
            "app.container.j2",
            app=app,
            source=quote(source, Form.SETTING),
            description=prose(f"{app.name} {note}"),
            image=quote(app.image, Form.SETTING),
            uid=owner.uid,
            needs=[paths.unit(need.app_id) for need in app.needs],
            wants=[
                *(unit for name in networks for unit in _network_units(name)),
                *(f"archy-{name}-volume.service" for name in volumes),
                *([paths.build_unit(app.id)] if app.build else []),
                *([paths.wait_unit(app.id)] if "synced" in app.bitcoin else []),
            ],
            whole=paths.unit(app.part_of) if app.part_of else "",
            # A part is ready before its app starts, unless it needs the app itself.
            before=app.part_of not in app.need_ids,
            container=list(container(app)),
            pre_start=[quote(json.dumps(command), Form.WORD) for command in app.hooks.pre_start],
            post_install=[" ".join(quote(word, Form.WORD) for word in command) for command in app.hooks.post_install],
            name=quote(app.container_name, Form.WORD),
            limits=list(limits(app)),
            stop_margin=STOP_MARGIN,
            network="".join(f" {word}" for word in _network_words(networks)),
            secrets=" ".join([app.id, *(entry.key for entry in app.secret_env)]) if app.secret_env else "",
        )
    }
    for name in volumes:
        result[f"archy-{name}.volume"] = render(root, "volume.j2", name=name, uid=owner.uid)
    if app.build:
        context = os.path.normpath(os.path.join(os.path.dirname(source), app.build.context))
        result[f"archy-{app.id}.build"] = render(
            root, "build.j2", app=app, uid=owner.uid, build=list(build(app.build, app.image, context))
        )
    # Podman gives out free subnets from 10.89.0.0 on: the network with the fixed one comes first.
    for name in sorted({*networks, *([SHARED_NETWORK] if networks else [])}):
        first = [unit for unit in _network_units(SHARED_NETWORK) if name != SHARED_NETWORK]
        result[f"{_network_stem(name)}.network"] = render(
            root, "network.j2", name=name, subnet=SUBNETS.get(name), after=first, uid=owner.uid
        )
    return dict(sorted(result.items())) | _links(app)


def _links(app: App) -> dict[str, str]:
    """What ties units: the name of what the app provides is its own, too; an app starts its parts, and its crash does
    not restart them."""
    result = {}
    if app.provides:
        result[paths.unit(app.provides)] = f"{LINK}{paths.unit(app.id)}\n"
    if app.part_of:
        result[f"{paths.unit(app.part_of)}.wants/{paths.unit(app.id)}"] = f"{LINK}../{paths.unit(app.id)}\n"
        result[f"{paths.unit(app.part_of)}.d/50-archy-parts.conf"] = _OF_A_WHOLE
    return result


def network_names(app: App) -> list[str]:
    """The networks that an app is in, its first one first."""
    return [] if app.network in ALONE else [app.network, *(network.name for network in app.networks)]


def _network_stem(name: str) -> str:
    return name if name == SHARED_NETWORK else f"archy-{name}"


def network_of(unit: str) -> str:
    """The network that a unit makes; empty for another unit, and for the shared one, which stays."""
    if not unit.endswith("-network.service") or unit in _network_units(SHARED_NETWORK):
        return ""
    return unit.removeprefix("archy-").removesuffix("-network.service")


def _network_words(networks: list[str]) -> list[str]:
    """What archy-stop needs to make lost networks again."""
    return [",".join(filter(None, [name, SUBNETS.get(name)])) for name in networks]


def _network_units(network: str) -> list[str]:
    return [f"{_network_stem(network)}-network.service"]


def exists(root: str) -> bool:
    """Whether the node has Quadlet at all."""
    return os.access(paths.under(root, paths.QUADLET), os.X_OK)
