# SPDX-License-Identifier: MIT
"""Things of another app that an app uses: its data, its volumes, its network, its name there. Pure.

The apps of a stack find each other by such names, and a manifest may choose them freely. So the owner of a name is the
app, among all that the node knows, installed or not, with the longest ID that the name begins with.
"""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass

from archy import paths
from archy.manifest.document import Path
from archy.manifest.model import ALONE, BITCOIN, SHARED_NETWORK, App


@dataclass(frozen=True)
class NamedResource:
    """A thing that an app names: the place, the key and value of a grant for it, its name, and the risk for its owner.

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
    """All things that the app names and that may belong to another one."""
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
    """The named things of other apps, each with its owner. `known` are the known apps among the `parts` of them."""
    mine, needed = own(app), {need.app_id for need in app.needs}
    names = {*known, *mine, BITCOIN}
    found = []
    for claim in named_resources(app):
        owner = next((part for part in parts(claim) if part in names), "")
        if owner and owner not in (mine | needed if claim.reads else mine):
            found.append((claim, owner))
    return found


def own(app: App) -> set[str]:
    """The names that things of the app may have: its own, and that of the app that it belongs to."""
    return {name for name in (app.id, app.provides, app.companion_of, app.part_of) if name}


def parts(claim: NamedResource) -> list[str]:
    """The possible names of the owner of a resource: its whole name, or a beginning of it; the longest first."""
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
