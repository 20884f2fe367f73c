# SPDX-License-Identifier: MIT
"""Passes when Podman hangs, beside other passes, and when the clock jumps; and what becomes of apps when somebody
kills, stops or masks units of archy's own: nothing."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest
from conftest import Node, fresh_node, standin

APPS = ("one", "two")
DERIVED = "/var/lib/archipelago/one/made.conf"
ONE = [
    "generated_secrets: [{name: one-password, kind: hex32}]",
    f"generated_files: [{{path: {DERIVED}, content: 'password={{{{secret:one-password}}}}', overwrite: true}}]",
]
OURS = [
    *(f"archy-reconcile.{kind}" for kind in ("service", "timer", "path")),
    *(f"archy-{name}.service" for name in ("tick", "probe", "recover", "hold", "prepare", "all", "net-network")),
    "archy.target",
    "archipelago-rearm.service",
]


@pytest.fixture(scope="module")
def node() -> Iterator[Node]:
    """A node with two stand-ins that run; one has a file and a secret."""
    with fresh_node("passes") as fresh:
        for app, container in {"one": ONE, "two": []}.items():
            fresh.write(f"/etc/archy/apps/{app}/manifest.yml", standin(app, container=container))
            fresh.out(f"archy app install {app}")
        yield fresh


@pytest.fixture
def quiet(node: Node) -> Iterator[Node]:
    """The node without ticks, so that a test makes them."""
    with node.without_ticks():
        yield node


@contextmanager
def podman_hangs(node: Node) -> Iterator[None]:
    """Podman does not answer questions about containers for a minute, and its last answer counts no more."""
    node.write("/root/slow", '#!/bin/sh\n[ "$1" != ps ] || sleep 60\nexec /opt/podman "$@"\n')
    node.out("rm -f /run/archy-probe/cache.json; chmod 755 /root/slow; cp -a /usr/bin/podman /opt/podman")
    node.out("mount --bind /root/slow /usr/bin/podman")
    try:
        yield
    finally:
        node.out("umount --lazy /usr/bin/podman")


def test_the_units_that_act_as_root_are_confined(node: Node) -> None:
    node.out("systemd-analyze security --threshold=40 archy-reconcile.service archy-prepare.service")


def test_a_hung_podman_holds_up_no_pass(quiet: Node) -> None:
    node, before = quiet, quiet.pids(*APPS)
    node.tick()
    answered = node.status()[1]["node"]["podman"]["answered"]
    with podman_hangs(node):
        node.out(f"echo garbage >> {DERIVED}")
        node.out("systemctl start archy-reconcile", timeout=40)
        assert "garbage" not in node.out(f"cat {DERIVED}")
        code, found = node.status()
        assert (code, found["level"], found["node"]["podman"]["answered"]) == (2, "broken", answered)
        said = node.run("archy status").stdout
        assert "podman: Podman does not answer: no answer within 8 s" in said
        assert f"podman: answered last at {answered}" in said
    node.with_ticks()  # status would miss them

    def is_well() -> bool:  # the recovery may have asked just before Podman answered again
        node.tick()
        return node.status()[0] == 0

    node.wait("all is well", is_well, 60)
    assert node.pids(*APPS) == before


def test_while_podman_is_asked_its_last_answer_counts(quiet: Node) -> None:
    node = quiet
    node.tick()
    with podman_hangs(node):
        # In one script, for the question ends after 8 s.
        said, _, state = node.out("""
            systemctl start --no-block archy-probe
            timeout 30 sh -c 'until [ "$(systemctl is-active archy-probe)" = activating ]; do sleep 0.1; done'
            archy status --json; systemctl is-active archy-probe; systemctl stop archy-probe
        """).rpartition("\n")
    found = json.loads(said)["node"]["podman"]
    assert (state, found["problems"], found["containers"]) == ("activating", [], len(APPS))


def test_passes_do_not_overlap(quiet: Node) -> None:
    """A start while a pass is made is the same pass; another, however slow, does not make it restart an app again."""
    node = quiet

    def passes() -> str:
        return node.show("archy-reconcile", "ExecMainStartTimestampMonotonic")

    def start(command: str) -> str:
        node.out(command)
        return passes()

    before = passes()
    with podman_hangs(node), ThreadPoolExecutor() as pool:
        starts = ["systemctl start archy-reconcile"] * 2 + ["archy reconcile"] * 2
        assert len({*pool.map(start, starts)} - {before}) == 1
    node.tick()
    runs, since = node.pids(*APPS), node.out("date +%s.%N")
    node.out("echo other > /var/lib/archipelago/secrets/one-password")
    slow = """
import time
from archy.reconcile import reconcile, restarts
decide = restarts.decide
def slowly(*arguments):
    found = decide(*arguments)
    time.sleep(5)
    return found
restarts.decide = slowly
reconcile.run("/", dry=False)
"""
    with ThreadPoolExecutor() as pool:
        by_hand = pool.submit(node.out, "python3 -", slow)
        node.wait("the file", lambda: node.out(f"cat {DERIVED}") == "password=other")
        node.out("sleep 1; systemctl start archy-reconcile")
        by_hand.result()
    node.wait("a restart", lambda: node.pid("one") not in (0, runs["one"]))
    node.tick()
    node.wait_active(*APPS)
    log = node.out(f"journalctl --unit archy-one --output cat --since @{since}")
    assert log.count("Started archy-one.service") == 1
    assert node.pid("two") == runs["two"]


def test_a_clock_that_jumps_restarts_nobody(quiet: Node) -> None:
    """The nodes share the host's clock, which nobody may set from there. So passes are told another time than it is."""
    node, before = quiet, quiet.pids(*APPS)
    shifted = "import sys, time; now = time.time; time.time = lambda: now() + {}; "
    shifted += "from archy.reconcile import reconcile; "
    for by in (1800, -1800):
        node.tick()
        node.tick()
        node.out(f"python3 -c '{shifted.format(by)} sys.exit(reconcile.main([]))'")
        assert node.run("cat /run/archy/status.json | grep -c '\"by\"'").stdout == "1\n"
        assert f"clock: jumped by {by:+d} s" in node.run("runuser -u nobody -- archy status").stdout
        node.tick()
        assert f"clock: jumped by {-by:+d} s" in node.run("archy status").stdout
    assert node.pids(*APPS) == before
    assert node.show("archy-reconcile.timer", "TimersCalendar") == ""
    assert "OnUnitActiveUSec=30s" in node.show("archy-reconcile.timer", "TimersMonotonic")


@pytest.mark.parametrize("unit", OURS)
def test_our_own_units_may_be_killed_stopped_and_masked(node: Node, unit: str) -> None:
    """Also while an app is installed: no app that runs notices, and the same command finishes the installation."""
    harms = f"""
        systemctl start --no-block {unit}; systemctl kill -s KILL {unit}; systemctl restart {unit}
        systemctl stop {unit}; systemctl start {unit}
        systemctl mask --now {unit}; systemctl start archy-reconcile; sleep 1; systemctl daemon-reload
        systemctl unmask {unit}; systemctl start {unit}; systemctl start archy-reconcile
    """
    before = node.pids(*APPS)
    node.run(harms)
    assert node.pids(*APPS) == before
    node.write("/usr/share/archy/apps/plain/manifest.yml", standin("plain", env={"READY_AFTER": "2"}))
    with ThreadPoolExecutor() as pool:
        installing = pool.submit(node.run, "archy app install plain")
        node.wait("the installation began", lambda: node.run("test -e /etc/archy/apps/plain").returncode == 0)
        node.run(harms)
        installing.result()
    assert node.show(unit, "LoadState") == "loaded"
    node.out("archy app install plain")
    assert node.active("plain") == "active"
    assert node.pids(*APPS) == before
    node.out(
        "archy app remove plain; systemctl reset-failed; systemctl start archy-reconcile.timer archy-reconcile.path"
    )

    def is_well() -> bool:
        node.tick()
        return node.status()[0] == 0

    node.wait("all is well", is_well)
    assert node.pids(*APPS) == before
