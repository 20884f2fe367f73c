# SPDX-License-Identifier: MIT
"""Every app of the catalogue through every event of its life; the cells are described in matrix.py."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from conftest import CommandFailed, Node
from matrix import EVENTS, World, healthy, install, on_regtest
from nodes.families import chosen, family, groups, in_order, sample

pytestmark = pytest.mark.matrix


def cells() -> Iterator[Any]:
    """All cells, in an order in which each finds the node as the one before left it."""
    for group, apps in groups().items():
        # A group stays together when several share the work (--dist loadgroup).
        marks = [pytest.mark.xdist_group(group), *([pytest.mark.sample] if group == sample() else [])]
        for event in EVENTS:
            for app in reversed(apps) if event == "remove" else apps:
                yield pytest.param(group, event, app, id=f"{app}-{event}", marks=marks)


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    """The node on which things happen."""
    with ExitStack() as stack:
        yield World(stack)


@pytest.mark.parametrize(("group", "event", "app"), cells())
def test_event(world: World, group: str, event: str, app: str, record_property: Callable[[str, object], None]) -> None:
    world.get(group)
    began, ok = time.monotonic(), False
    try:
        world.happen(group, event, app)
        ok = True
    finally:
        record_property("matrix", {"app": app, "event": event, "ok": ok, "seconds": time.monotonic() - began})


def test_all_at_once(record_property: Callable[[str, object], None]) -> None:
    """All apps that can be installed together, on one node, through a reboot."""
    every = in_order(chosen())
    ok, note, began = False, "", time.monotonic()
    try:
        with ExitStack() as stack:
            node = on_regtest("mx-all", stack)
            failed = [app for app in every if not installs(node, app)]
            node.ctl("reboot")
            for app in every:
                if app not in failed:
                    healthy(node, app)
            note = f"{len(every)} apps, {cost(node, [name for app in every for name in family(app)])}"
            assert failed == []
            ok = True
    finally:
        seconds = time.monotonic() - began
        record_property("matrix", {"app": "all", "event": "reboot", "ok": ok, "seconds": seconds, "note": note})


def installs(node: Node, app: str) -> bool:
    """Whether an app can be installed. The others are tried all the same."""
    try:
        install(node, app)
    except CommandFailed:
        return False
    return True


def cost(node: Node, names: list[str]) -> str:
    """How long the last of the apps took from the boot until it was ready, and the memory that is in use: a report."""
    units = " ".join(f"archy-{name}" for name in names)
    times = node.out(f"systemctl show --property=ActiveEnterTimestampMonotonic --value {units}").split()
    boot = int(node.out("systemctl show --property=UserspaceTimestampMonotonic --value"))
    pss = "cat $(find {} -name cgroup.procs) | sed 's,.*,/proc/&/smaps_rollup,' | xargs cat 2>/dev/null"
    total = pss + " | awk '/^Pss:/ {{ sum += $2 }} END {{ print int(sum / 1024) }}'"
    slices = "/sys/fs/cgroup/archipelago.slice/archipelago-apps.slice", "/sys/fs/cgroup"
    mine, whole = (node.out(total.format(where)) for where in slices)
    ready = (max(map(int, times)) - boot) / 1_000_000
    return f"all ready {ready:.0f} s after the boot; {mine} MiB in use by apps, {whole} MiB by the node"
