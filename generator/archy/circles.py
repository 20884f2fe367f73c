# SPDX-License-Identifier: MIT
"""Whose start waits for whose, and who would close a circle of that. Pure.

Of a circle systemd drops the start of one app, whichever it is ("Found ordering cycle"), and what are parts of each
other it can neither start nor stop ("Transaction order is cyclic").
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import pairwise
from typing import TYPE_CHECKING

from archy.document import Path

if TYPE_CHECKING:
    from archy.facts import Summary

# By app, those whose start its own waits for; and of each, which of the two apps says so.
Waiting = dict[str, dict[str, str]]


def closed(apps: Mapping[str, Summary], suspects: Iterable[str]) -> dict[str, tuple[Path, str]]:
    """Those of `suspects` that have a share in a circle: the key of their manifest, and what is wrong with it."""
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
                result[app_id] = (("app", "dependencies" if needs else "part_of"), _said(circle))
                break
    # Others may have closed it before there was this one.
    for app_id in suspects:
        circle = next(([app_id, *way] for other in graph[app_id] if (way := _way(graph, other, app_id))), [])
        if circle and result.keys().isdisjoint(circle):
            result[app_id] = (("app", "id"), _said(circle))
    return result


def _said(circle: list[str]) -> str:
    return "closes a circle: " + ", ".join(f"{one} waits for {other}" for one, other in pairwise(circle))


def waiting(apps: Mapping[str, Summary]) -> Waiting:
    """Who waits for whom, as the units say by After= and Before= (see `quadlet`)."""
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
