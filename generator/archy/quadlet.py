# SPDX-License-Identifier: MIT
"""An app as Quadlet text. Pure: the model in, `{file name: text}` out.

The fixed part of each file is a template; what depends on the app is a list of (key, value) pairs, see `quadlet_keys`.
"""

from __future__ import annotations

import json
import os

from archy import paths, quadlet_keys
from archy.cache import LINK
from archy.model import ALONE, SHARED_NETWORK, SUBNETS, App
from archy.owner import Owner
from archy.quoting import Form, prose, quote
from archy.templates import render

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
            container=list(quadlet_keys.container(app)),
            pre_start=[quote(json.dumps(command), Form.WORD) for command in app.hooks.pre_start],
            post_install=[" ".join(quote(word, Form.WORD) for word in command) for command in app.hooks.post_install],
            name=quote(app.container_name, Form.WORD),
            limits=list(quadlet_keys.limits(app)),
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
            root, "build.j2", app=app, uid=owner.uid, build=list(quadlet_keys.build(app.build, app.image, context))
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
