# SPDX-License-Identifier: MIT
"""Harm to a node, and what must be so afterwards, without a hand: what tests of chaos share."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from chaos_world import APPS, look, mark, marks, world
from conftest import AS_USER, Node
from consumers import HOME

RUNS = 20
STORAGE = f"{HOME}/.local/share/containers/storage"
WATCH = "chaos-watch"


# What the scripts that do harm may use. APP is whom it is done to, NUMBER the number of the run.
PRELUDE = f"""
U=$(id -u archipelago) STORAGE={STORAGE}
R=/run/user/$U
as() {{ {AS_USER.removeprefix("cd / && exec ").replace("env -i", "env -i -C /")} "$@"; }}
conmon() {{ systemctl show --property=MainPID --value "archy-$1"; }}
main() {{ pgrep -P "$(conmon "$1")"; }}
"""


@dataclass(frozen=True)
class Scenario:
    """One kind of harm. `harm` and `gone` are scripts for the node, with PRELUDE before them."""

    name: str
    harm: str | Callable[[Node, int], None]
    heal: float = 60  # seconds that it should take at most; what is asserted is far more generous
    restarts: tuple[str, ...] | None = None  # who may be restarted, apart from whom it is done to; None: anybody
    victims: tuple[str, ...] = tuple(APPS)  # whom it is done to, one after the other
    gone: str = ""  # succeeds when what is peculiar to this harm has been mended
    prepare: str = ""  # once on a fresh node
    sample: bool = False  # whether its first run is made by `make test`, too

    def victim(self, number: int) -> str:
        """Whom the harm of this run is done to."""
        return self.victims[number % len(self.victims)]


def runs(scenarios: tuple[Scenario, ...]) -> list[Any]:
    """All runs of all scenarios as parameters of a test; first those of a sample, which share a node."""
    pairs = [(scenario, number) for scenario in scenarios for number in range(RUNS)]
    pairs.sort(key=lambda pair: not is_sample(*pair))
    marks = {True: [pytest.mark.sample], False: []}
    return [pytest.param(s, n, id=f"{s.name}-{n:02}", marks=marks[is_sample(s, n)]) for s, n in pairs]


def is_sample(scenario: Scenario, number: int) -> bool:
    """Whether this run is made in every run of the tests."""
    return scenario.sample and number == 0


class Nodes:
    """One node at a time: a fresh one for each scenario (not for each run), and when the one before did not recover."""

    def __init__(self, name: str, stack: ExitStack) -> None:
        """Begin without a node."""
        self.name, self.stack, self.key = name, stack, ""
        self.node: Node | None = None

    def get(self, scenario: Scenario, number: int) -> Node:
        """A node that is well, with all apps at work."""
        key = "sample" if is_sample(scenario, number) else scenario.name
        if self.node is None or key != self.key or not is_steady(self.node):
            self.stack.close()
            self.node = self.stack.enter_context(world(self.name))
            self.key = key
            if scenario.prepare:
                self.node.out(PRELUDE + scenario.prepare)
        return self.node


def is_steady(node: Node) -> bool:
    """Whether all is well, or will be within a minute."""
    end = time.monotonic() + 60
    while look(node):
        if time.monotonic() > end:
            return False
        time.sleep(1)
    return True


@contextmanager
def watched(node: Node) -> Iterator[dict[str, Any]]:
    """Have copies and restarts of apps counted meanwhile; see chaos_watch.py."""
    names = json.dumps({app.container: name for name, app in APPS.items()})
    node.run(f"systemctl reset-failed {WATCH}")
    node.out(f"systemd-run -q --unit={WATCH} --collect python3 /root/chaos_watch.py /run/chaos.json '{names}'")
    found: dict[str, Any] = {}
    try:
        yield found
    finally:
        node.out(f"systemctl stop {WATCH}")
        found |= json.loads(node.out("cat /run/chaos.json; rm /run/chaos.json"))


def do_harm(node: Node, scenario: Scenario, number: int) -> None:
    """Do the harm of a scenario."""
    if callable(scenario.harm):
        scenario.harm(node, number)
    else:
        node.out(f"{PRELUDE} APP={scenario.victim(number)} NUMBER={number}\n{scenario.harm}")


def await_healing(node: Node, scenario: Scenario) -> tuple[float, list[str]]:
    """Wait until all is well, and still is some seconds later; the seconds that it took, and what is not well."""
    began = time.monotonic()
    while True:
        since = time.monotonic()
        wrong = look(node)
        if not wrong and scenario.gone and node.run(PRELUDE + scenario.gone).returncode:
            wrong = [f"not yet: {scenario.gone.strip()}"]
        if not wrong:
            time.sleep(3)
            if not look(node):
                return since - began, []
        if time.monotonic() - began > 3 * scenario.heal + 120:
            return time.monotonic() - began, wrong or ["it does not last"]
        time.sleep(2)  # who looks all the time keeps the node from healing


def strike(node: Node, scenario: Scenario, number: int, record: Callable[[str, object], None]) -> None:
    """Do harm to a node that is well; insist that it recovers, with one copy of each app at all times, and all data."""
    # As if the runs before had been long ago: they are not what is tried.
    node.out("systemctl reset-failed 'archy-*'; rm -f /run/archy/{status,recovery}.json")
    node.tick()
    mark(node)
    before = marks(node)
    with watched(node) as seen:
        do_harm(node, scenario, number)
        seconds, wrong = await_healing(node, scenario)
    row = {"scenario": scenario.name, "run": number, "healed": not wrong, "seconds": round(seconds, 1), **seen}
    record("chaos", row)
    if "ARCHY_CHAOS_RESULTS" in os.environ:
        with (Path(os.environ["ARCHY_CHAOS_RESULTS"]) / "results.jsonl").open("a") as out:
            out.write(json.dumps(row) + "\n")
    if wrong:
        log = node.run("archy status; journalctl --no-pager -n 60 -u 'archy-*'").stdout
        pytest.fail(f"{scenario.name} did not heal within {seconds:.0f} s:\n" + "\n".join([*wrong, "", log]))
    assert seen["evidence"] == []
    assert {app: number for app, number in seen["copies"].items() if number > 1} == {}
    assert marks(node) == before
    if scenario.restarts is not None:
        assert set(seen["restarts"]) <= {*scenario.restarts, scenario.victim(number)}


def table(rows: list[dict[str, Any]]) -> list[str]:
    """What came of all runs, a line for each scenario."""
    lines = [f"{'scenario':32} {'runs':>4} {'healed':>6} {'median':>7} {'max':>6} {'copies':>6}  restarts in a run"]
    for name in dict.fromkeys(row["scenario"] for row in rows):
        mine = [row for row in rows if row["scenario"] == name]
        took = sorted(row["seconds"] for row in mine)
        restarts = sorted(sum(row["restarts"].values()) for row in mine)
        healed = sum(row["healed"] for row in mine)
        most = max((n for row in mine for n in row["copies"].values()), default=0)
        lines.append(
            f"{name:32} {len(mine):4} {healed:6} {took[len(took) // 2]:6.1f}s {took[-1]:5.1f}s {most:6}"
            f"  {restarts[0]} to {restarts[-1]}"
        )
    return lines
