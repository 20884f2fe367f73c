# SPDX-License-Identifier: MIT
"""What an app uses that bears the name of another one: its data, its volumes, its network, its name there. Pure.

Such names are how the apps of a stack find each other, and a manifest may choose them freely. So whose they are is told
by the names of all apps that the node knows, installed or not: the longest one that a name begins with.
"""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass

from archy import paths
from archy.manifest.document import Path
from archy.manifest.model import ALONE, BITCOIN, SHARED_NETWORK, App


@dataclass(frozen=True)
class NamedResource:
    """A thing that an app names: where, the key of a grant for it, its value, and what that is of its owner's.

    `exact`: only an app's whole name is one. `reads`: the app only reads it, which it may from what it needs.
    """

    at: Path
    key: str
    value: str
    name: str
    risk: str
    exact: bool = False
    reads: bool = False


def named_resources(app: App) -> list[NamedResource]:
    """All that the app names without being sure that it is its own."""
    container: Path = ("app", "container")
    found = []
    for index, volume in enumerate(app.volumes):
        at: Path = ("app", "volumes", index, "source")
        name = volume.source if volume.kind == "volume" else folder(volume.source)
        key = "volumes" if volume.kind == "volume" else "paths"
        found.append(NamedResource(at, key, volume.source, name, "the data of {}", reads="ro" in volume.options))
    made: list[tuple[Path, str]] = [
        (("generated_files", index, "path"), file.path) for index, file in enumerate(app.files)
    ]
    made += [(("env_file", index), path) for index, path in enumerate(app.env_files)]
    for index, pair in enumerate(app.certificates):
        made += [(("generated_certs", index, key), path) for key, path in (("crt", pair.crt), ("key", pair.key))]
    found += [NamedResource((*container, *at), "paths", path, folder(path), "the data of {}") for at, path in made]
    joined = [((*container, "network"), app.network, app.aliases)]
    joined += [((*container, "networks", n, "name"), net.name, net.aliases) for n, net in enumerate(app.networks)]
    for at, network, aliases in joined:
        if network == SHARED_NETWORK:
            found += [
                NamedResource(at, "aliases", alias, alias, "the name of {}, and all that is sent to it", exact=True)
                for alias in aliases
            ]
        elif network not in ALONE:
            found.append(NamedResource(at, "networks", network, network, "the network of {}"))
    mine = own(app)
    return [claim for claim in found if claim.name and claim.name not in mine]


def of_others(app: App, known: Set[str]) -> list[tuple[NamedResource, str]]:
    """Those claims that are another app's, each with whose. `known` are the apps among the `parts` of its claims."""
    mine, needed = own(app), {need.app_id for need in app.needs}
    names = {*known, *mine, BITCOIN}
    found = []
    for claim in named_resources(app):
        owner = next((part for part in parts(claim) if part in names), "")
        if owner and owner not in (mine | needed if claim.reads else mine):
            found.append((claim, owner))
    return found


def own(app: App) -> set[str]:
    """The names that things of the app may bear: its own, and that of the app that it belongs to."""
    return {name for name in (app.id, app.provides, app.companion_of, app.part_of) if name}


def parts(claim: NamedResource) -> list[str]:
    """What may be the name of the app whose the claim's is: all of it, or its beginning; the longest first."""
    ends = () if claim.exact else (end for end, sign in enumerate(claim.name) if sign in "-_.")
    return [claim.name, *(claim.name[:end] for end in sorted(ends, reverse=True))]


def folder(path: str) -> str:
    """The folder below the home of all apps' data that a path is in; empty elsewhere, where it needs a grant anyway."""
    below = path.removeprefix(f"{paths.HOME}/")
    return "" if below == path else below.split("/")[0]


def is_own(own: set[str], path: str) -> bool:
    """Whether a path of the node belongs to one of these apps, by its name: that of the app, longer or shorter."""
    name = folder(path)
    return any(name == one or name.startswith(f"{one}-") or one.startswith(f"{name}-") for one in own if one)
