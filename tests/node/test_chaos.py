# SPDX-License-Identifier: MIT
"""Harm to the node as it happens at home: installations cut short, a file corrupted, a full disk, a clock that jumps.

Twenty runs of each on a node that is fresh for that kind of harm, not for each run; see chaos.py for what must be so.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest
from chaos import RUNS, Nodes, Scenario, runs, strike
from chaos_world import look, world
from conftest import Node, standin
from consumers import CONF, HOME

pytestmark = pytest.mark.chaos

# What may become of bitcoin.conf; one after the other.
CORRUPTIONS = (
    f"head -c 2000 /dev/urandom > {CONF}",
    f"echo 'rpcauth=nobody:00' >> {CONF}",
    f"truncate -s 0 {CONF}",
    f"rm {CONF}",
    f"sed -i /rpcauth/d {CONF}",
)
LATE = standin("late", env={"READY_AFTER": "2"})


def moment(number: int, seconds: float) -> float:
    """The random moment of a harm: another for each number, the same in each run."""
    return random.Random(number).uniform(0, seconds)


def halves(node: Node, app: str) -> str:
    """What is half there of an app that was being installed; empty if all of it runs, or nothing is there."""
    installed = node.run(f"test -e /etc/archy/apps/{app}").returncode == 0
    known, active = node.show(f"archy-{app}", "LoadState") == "loaded", node.active(app)
    container = app in node.podman("ps --all --format '{{.Names}}'").split()
    found = {"installed": installed, "loaded": known, "unit": active, "container": container}
    whole = (installed, known, active, container) in ((True, True, "active", True), (False, False, "inactive", False))
    return "" if whole else f"{app} is half there: {found}"


def install_and(node: Node, number: int, app: str, harm: str, seconds: float) -> None:
    """Install an app, do harm at a random moment, have a tick made, and install it again."""
    node.out(f"archy app remove {app}", timeout=120)
    background = f"setsid archy app install {app} >/dev/null 2>&1 & pid=$!"
    node.run(f"{background}; sleep {moment(number, seconds):.3f}; {harm}; wait $pid", timeout=120)
    node.tick()
    node.wait(f"nothing of {app} is half there", lambda: halves(node, app) == "", 60)
    node.out(f"archy app install {app}", timeout=120)
    node.wait_active(app)


def late(harm: str) -> Callable[[Node, int], None]:
    """A harm to the installation of an app that needs 2 s to be ready."""

    def do(node: Node, number: int) -> None:
        node.write("/usr/share/archy/apps/late/manifest.yml", LATE)
        node.out("archy app install late")
        install_and(node, number, "late", harm, 4)
        node.out("archy app remove late; rm -r /usr/share/archy/apps/late; archy reconcile")

    return do


def consumer(node: Node, number: int) -> None:
    """The installation of an app that logs in at bitcoind, and of its companion, is killed."""
    install_and(node, number, "electrumx", "kill -9 $pid", 8)


def corrupt(node: Node, number: int) -> None:
    """bitcoin.conf is harmed; it is seen, and made again with the same content."""
    describe = f"cat {CONF}; stat -c '%u %g %a' {CONF}"
    right = node.out(describe)
    with node.without_ticks():  # so that what is wrong can be looked at
        node.out(CORRUPTIONS[number % len(CORRUPTIONS)])
        said = node.out("archy reconcile --dry-run")
        assert CONF in said, said
        node.tick()
        assert node.out(describe) == right


SCENARIOS = (
    Scenario("install-killed", late("kill -9 $pid"), restarts=()),
    Scenario("install-of-a-consumer-killed", consumer, 120),
    Scenario("reconcile-restarted-in-an-install", late("systemctl restart archy-reconcile"), restarts=()),
    Scenario("bitcoin.conf-corrupted", corrupt, restarts=(), victims=("bitcoin-knots",)),
)


@pytest.fixture(scope="module")
def nodes() -> Iterator[Nodes]:
    """The node that harm is done to."""
    with ExitStack() as stack:
        yield Nodes("chaos", stack)


@pytest.mark.parametrize(("scenario", "number"), runs(SCENARIOS))
def test_it_heals(
    nodes: Nodes, scenario: Scenario, number: int, record_property: Callable[[str, object], None]
) -> None:
    strike(nodes.get(scenario, number), scenario, number, record_property)


@pytest.fixture(scope="module")
def small() -> Iterator[Node]:
    """A node whose apps, images and data are on a small file system of their own.

    The disk of a node is a directory of its host, and nodes have no loop devices: it is a tmpfs, on the home of the
    service user, and not on all of /var.
    """
    with world("chaos-full") as node:
        uid = node.out("id -u archipelago")
        node.out(f"""set -e
            systemctl stop 'archy-*'; systemctl stop user@{uid}
            size=$(( $(du -sm {HOME} | cut -f1) + 300 ))
            mount -t tmpfs -o size=${{size}}m,mode=755 small /mnt
            cp -a {HOME}/. /mnt; chown --reference={HOME} /mnt; chmod --reference={HOME} /mnt
            mount --bind /mnt {HOME}; [ $(stat -f -c %T {HOME}) = tmpfs ]
            systemctl start user@{uid}; systemctl start 'archy-*'
        """)
        node.wait("all is well", lambda: look(node) == [], 120)
        yield node


@pytest.mark.parametrize("number", range(RUNS))
def test_a_full_disk_is_said_and_costs_nothing(
    small: Node, number: int, record_property: Callable[[str, object], None]
) -> None:
    """At 99 %: `archy status` says so, no file is cut short, nobody is restarted. With room again, all is well."""

    def fill(node: Node, number: int) -> None:
        sums = (
            f"find {HOME} -path {HOME}/.local -prune -o -name '*.conf' -type f -print0 | sort -z | xargs -0 sha256sum"
        )
        before = node.out(sums)
        node.out(f"""
            free=$(df --output=avail -B1 {HOME} | tail -1); size=$(df --output=size -B1 {HOME} | tail -1)
            fallocate -l $((free - size / 100)) {HOME}/filling
        """)
        node.tick()
        code, found = node.status()
        assert (code, found["node"]["disk"]["level"]) == (1, "degraded")
        assert "99 % of the disk is used" in " ".join(found["node"]["disk"]["problems"])
        node.out(f"echo harmed >> {CONF}")
        node.tick()
        assert node.out(sums) == before
        node.out(f"rm {HOME}/filling")

    strike(small, Scenario("disk-filled", fill, restarts=()), number, record_property)


@pytest.mark.parametrize("number", range(RUNS))
def test_a_clock_that_jumps_harms_nobody(
    nodes: Nodes, number: int, record_property: Callable[[str, object], None]
) -> None:
    """By half an hour, there and back.

    Nodes share the clock of their host and may not set it. So it is passes that are told another time than it is, each
    in a process of its own; the apps see no jump, and what they would make of one is not tried here.
    """

    def jump(node: Node, number: int) -> None:
        by = 1800 if number % 2 == 0 else -1800
        shifted = "import sys, time; now = time.time; time.time = lambda: now() + {}; "
        shifted += "from archy.reconcile import reconcile; "
        with node.without_ticks():
            node.tick()
            node.out(f"python3 -c '{shifted.format(by)} sys.exit(reconcile.main([]))'")
            # Root's look is one of its own, at the right time again.
            assert f"clock: jumped by {by:+d} s" in node.run("runuser -u nobody -- archy status").stdout
            node.tick()
            assert f"clock: jumped by {-by:+d} s" in node.run("archy status").stdout

    scenario = Scenario("clock-jumps", jump, restarts=())
    strike(nodes.get(scenario, number), scenario, number, record_property)
