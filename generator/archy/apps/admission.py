# SPDX-License-Identifier: MIT
"""Whether a manifest is admitted: it is good, its grants are given, its data version fits, no app waits for itself.

In a circle of waits systemd drops the start of an arbitrary app ("Found ordering cycle"), and it can neither start nor
stop apps that are parts of each other ("Transaction order is cyclic").
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import pairwise

from archy import paths
from archy.apps import facts, installed
from archy.apps.installed import Source
from archy.errors import Problem, Refused
from archy.host import read
from archy.manifest import grants, load, ownership
from archy.manifest.document import Path
from archy.manifest.model import App

TYPE_CHECKING = False
if TYPE_CHECKING:
    from archy.apps.facts import Summary

# By app, the apps for whose start its own waits; and for each of these, which of the two declares that.
Waiting = dict[str, dict[str, str]]


def closed(apps: Mapping[str, Summary], suspects: Iterable[str]) -> dict[str, tuple[Path, str]]:
    """Those of `suspects` that are part of a circle: the key of their manifest, and the reason."""
    graph, suspects = waiting(apps), list(suspects)
    shares: dict[str, list[tuple[str, str]]] = {app_id: [] for app_id in suspects}
    for one, others in graph.items():
        for other, by in others.items():
            if by in shares:
                shares[by].append((one, other))
    result: dict[str, tuple[Path, str]] = {}
    for app_id, steps in shares.items():
        for one, other in sorted(steps, key=lambda step: step[0] != app_id):
            if way := _way(graph, other, one):
                needs = one == app_id
                circle = [app_id, *way] if needs else [*way, app_id]
                result[app_id] = (("app", "dependencies" if needs else "part_of"), _described(circle))
                break
    # Others may have closed it before this app was installed.
    for app_id in suspects:
        circle = next(([app_id, *way] for other in graph[app_id] if (way := _way(graph, other, app_id))), [])
        if circle and result.keys().isdisjoint(circle):
            result[app_id] = (("app", "id"), _described(circle))
    return result


def _described(circle: list[str]) -> str:
    return "closes a circle: " + ", ".join(f"{one} waits for {other}" for one, other in pairwise(circle))


def waiting(apps: Mapping[str, Summary]) -> Waiting:
    """Which app waits for which, as After= and Before= of their units have it (see `quadlet`)."""
    named: dict[str, list[str]] = {}
    for app_id, app in apps.items():
        for name in {app_id, app["provides"]}:
            named.setdefault(name, []).append(app_id)
    graph: Waiting = {app_id: {} for app_id in apps}
    for app_id, app in apps.items():
        graph[app_id] |= {other: app_id for name in app["after"] for other in named.get(name, ())}
        if app["part_of"] and app["part_of"] not in app["needs"]:
            for whole in named.get(app["part_of"], ()):
                graph[whole].setdefault(app_id, app_id)
    return graph


def _way(graph: Waiting, start: str, end: str) -> list[str]:
    """The shortest way from one app to another, both included; empty if there is none."""
    ways = [[start]]
    seen = {start}
    for way in ways:
        if way[-1] == end:
            return way
        for other in graph[way[-1]]:
            if other not in seen:
                seen.add(other)
                ways.append([*way, other])
    return []


def model(root: str, source: Source) -> tuple[App | None, tuple[Problem, ...]]:
    """The app of its current manifest, or the problems of that. An accepted manifest is not checked again."""
    if source.content is None:
        return None, (Problem(source.path, 0, 0, "", "cannot be read, or does not exist"),)
    if paths.MANIFEST not in source.files:  # it could not be kept as the last good version
        return None, (Problem(source.path, 0, 0, "", "must be a file, not a link"),)
    try:
        if installed.is_accepted(root, source):
            app, found = load.trusted(source.content, source.path), []
        else:
            app = load.check(source.content, source.path, source.id, source.files)
            found = _other_data(source, app)
        found = [*_lacking(root, app), *found]
        return (None, load.placed(source.content, source.path, found)) if found else (app, ())
    except Refused as refused:
        return None, refused.problems
    except Exception as error:  # a bug of archy must not affect other apps
        return None, (Problem(source.path, 0, 0, "", f"cannot be understood: {type(error).__name__}: {error}"),)


def _lacking(root: str, app: App) -> list[tuple[Path, str]]:
    known = apps_named_by(root, app)
    return grants.missing(app, granted(root), known) if grants.required(app, known) else []


def apps_named_by(root: str, app: App) -> frozenset[str]:
    """The known apps by whose names the app uses things: data, volumes, networks, aliases."""
    parts = {part for claim in ownership.named_resources(app) for part in ownership.parts(claim)}
    return frozenset(part for part in parts if installed.is_known(root, part))


def granted(root: str) -> grants.Grants:
    """The grants in force: the last good ones, if the file is bad."""
    for path in (paths.GRANTS, paths.ACCEPTED_GRANTS):
        try:
            return grants.parse(read.content(root, path), path)
        except Refused:
            continue
    return {}


def _other_data(source: Source, app: App) -> list[tuple[Path, str]]:
    """Refuses another version of the data than the existing one: nobody has converted it."""
    before = _accepted(source)
    if before is None or not before.data_version or before.data_version == app.data_version:
        return []
    reason = f"must stay {before.data_version}, of which there is data; to go on with another, convert the data first"
    return [(("app", "container", "data_version"), f"{reason}, then archy app remove {source.id} and install it again")]


def last_good(root: str, source: Source) -> App | None:
    """The app of the last accepted manifest, if this version of archy can use it, and it has the grants it needs."""
    app = _accepted(source)
    return app if app and not _lacking(root, app) else None


def _accepted(source: Source) -> App | None:
    if source.accepted is None:
        return None
    try:
        return load.trusted(source.accepted, source.path)
    except Exception:  # accepted by another version of archy, useless for this one
        return None


def _circles(root: str, sources: dict[str, Source], apps: dict[str, App]) -> dict[str, tuple[Problem, ...]]:
    """The problems of those of `apps` that would wait for themselves, among all installed apps."""
    new = [app_id for app_id in apps if not installed.is_accepted(root, sources[app_id])]
    if not new:
        return {}
    known = facts.load(root)["apps"]
    there = {}
    for app_id in installed.ids(root)[0]:
        # An app that is refused for the circle counts as well, also if the others are checked without it.
        judged = app_id in known or app_id in sources
        app = apps.get(app_id) or (None if judged else model(root, installed.source(root, app_id))[0])
        if app or app_id in known:
            there[app_id] = facts.summary(app) if app else known[app_id]
    found = closed(there, [app_id for app_id in new if app_id in there])
    return {
        app_id: load.placed(sources[app_id].content or b"", sources[app_id].path, [problem])
        for app_id, problem in found.items()
    }
