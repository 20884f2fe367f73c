# SPDX-License-Identifier: MIT
"""The catalogue as its user sees it: main apps, what comes with each, and in which order they can be installed."""

from __future__ import annotations

from nodes.catalogue import App, apps, items, part

SHARED_NETWORK = "archy-net"
GROUP = 2  # apps on a node, if they do not need each other


def mains() -> list[str]:
    """All apps that are installed by their own name: neither a companion nor a part of another."""
    return [name for name, app in apps().items() if not {"companion_of", "part_of"} & set(app)]


def label(name: str) -> str:
    """What an app provides, which is how others may call it; or its name."""
    return str(apps()[name].get("provides", name))


def main_of(name: str) -> str:
    """The main app that is meant by the name of a part, of an app, or of what apps provide."""
    app = apps().get(name, {})
    if belongs := app.get("part_of") or app.get("companion_of"):
        return main_of(belongs)
    return name if app else next((main for main in chosen() if label(main) == name), name)


def chosen() -> list[str]:
    """All main apps that can be installed together: of alternatives, the last one by its name."""
    last = {label(name): name for name in mains()}
    return [name for name in mains() if last[label(name)] == name]


def family(main: str) -> list[str]:
    """An app, its parts and its companions."""
    own = {main, label(main)}
    return [main, *(name for name, app in apps().items() if {app.get("part_of"), app.get("companion_of")} & own)]


def container(name: str) -> str:
    """The name of an app's container."""
    return f"archy-{name}" if "companion_of" in apps()[name] else name


def needs(main: str) -> set[str]:
    """The main apps that must be installed before this one."""
    found: set[str] = set()
    for name in family(main):
        for need in items(apps()[name], "dependencies"):
            if need.get("required") == "false":
                continue
            found |= {main_of(str(need[key])) for key in ("app_id",) if key in need}
            found |= {main_of("bitcoin") for key in ("bitcoin",) if key in need}
        if part(apps()[name], "bitcoin_rpc"):
            found.add(main_of("bitcoin"))
    return {need for need in found & set(mains()) if label(need) != label(main)}


def in_order(names: list[str]) -> list[str]:
    """These apps and all that they need, each one after what it needs."""
    result: list[str] = []

    def add(name: str, above: tuple[str, ...] = ()) -> None:
        for need in sorted(needs(name)):
            if need not in above:
                add(need, (*above, name))
        if name not in result:
            result.append(name)

    for name in names:
        add(name)
    return result


def groups() -> dict[str, list[str]]:
    """Which apps share a node: those that need each other, some of the others, and each further alternative alone."""
    result: dict[str, list[str]] = {}
    together = [name for name in chosen() if needs(name) or any(name in needs(other) for other in chosen())]
    for name in in_order(together):
        root = in_order([name])[0]
        result.setdefault(root, []).append(name)
    others = [name for name in chosen() if name not in together]
    for first in range(0, len(others), GROUP):
        result[f"others-{first // GROUP + 1}"] = others[first : first + GROUP]
    return result | {name: [name] for name in mains() if name not in chosen()}


def sample() -> str:
    """The group that every run of the tests tries: one with a stack, if there is one."""
    found = groups()
    small = [name for name in found if name.startswith("others-")]
    stacks = [name for name in small if any(len(family(app)) > 1 for app in found[name])]
    return next(iter([*stacks, *small, *found]))


def volumes(main: str) -> list[tuple[str, str]]:
    """The kind and source of each volume of an app and its parts that it may write to."""
    every = [volume for name in family(main) for volume in items(apps()[name], "volumes")]
    found = [(str(v["type"]), str(v["source"])) for v in every if "ro" not in items(v, "options")]
    return list(dict.fromkeys(found))


def networks(main: str) -> set[str]:
    """The networks of an app and its parts that are not everybody's."""
    found: set[str] = set()
    for name in family(main):
        container: App = part(apps()[name], "container")
        found |= {str(part(container, "network") or SHARED_NETWORK)}
        found |= {str(part(network, "name")) for network in items(container, "networks")}
    return found - {SHARED_NETWORK, "pasta", "host", "none"}
