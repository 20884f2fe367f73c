# SPDX-License-Identifier: MIT
"""Podman's own state: mended with the least force that works, not for ever, and loud where it cannot be mended."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from conftest import AS_USER, Node, fresh_node, standin

APPS = ("one", "two")
STORAGE = "/var/lib/archipelago/.local/share/containers/storage"
NETWORKS = "/run/user/$(id -u archipelago)/containers/networks"
KILL_NAMES = f"kill -9 $(cat {NETWORKS}/aardvark-dns/aardvark.pid)"
KILL_PASTA = f"kill -9 $(cat {NETWORKS}/rootless-netns/rootless-netns-conn.pid)"


@pytest.fixture(scope="module")
def node() -> Iterator[Node]:
    """A node with two stand-ins, where ticks come by hand only."""
    with fresh_node("recovery") as fresh:
        for app in APPS:
            fresh.drop(app, standin(app))
        fresh.out("systemctl start " + " ".join(f"archy-{app}" for app in APPS))
        fresh.tick()
        with fresh.without_ticks():
            fresh.out("sleep 6")
            yield fresh


@pytest.fixture
def fresh(node: Node) -> Node:
    """All is well, and nothing was mended before."""
    node.wait("no recovery", lambda: node.active("recover") in ("inactive", "failed"))
    node.out("rm -f /run/archy/recovery.json /run/archy/status.json")
    settle(node)
    node.out("rm -f /run/archy/recovery.json /run/archy/status.json; sleep 6")
    return node


def settle(node: Node) -> None:
    """Ticks, until nothing is left to mend."""

    def is_well() -> bool:
        node.tick()
        return node.active("recover") in ("inactive", "failed") and problems(node) == []

    node.wait("nothing is left to mend", is_well, 120)


def problems(node: Node) -> list[str]:
    """What is wrong with the apps and with Podman; that ticks come by hand is not."""
    found = node.status()[1]
    parts = [found["node"]["podman"], found["node"]["recovery"], *found["apps"].values()]
    return [problem for part in parts for problem in part["problems"]]


def recovered(node: Node, harm: str) -> str:
    """Harm, a pass, and what the recovery that it began has said."""
    story = "journalctl -o cat --cursor-file=/run/cursor -u archy-recover -u archy-reconcile"
    node.out(story)
    node.out(harm)
    node.tick()
    node.run("systemctl start archy-recover")  # waits for the one that is at work
    found = node.out(f"journalctl --sync; {story}")
    assert "systemctl start archy-recover.service (" in found
    return found


@pytest.mark.parametrize(
    ("harm", "rung"),
    [
        pytest.param(KILL_NAMES, "start the name server again, with one container", id="name-server"),
        pytest.param(KILL_PASTA, "start pasta again", id="pasta"),
        # pasta exits by itself once its namespace has lost its name (passt(1), --no-netns-quit).
        pytest.param(
            f"({AS_USER} podman unshare sh -c 'umount -l {NETWORKS}/rootless-netns/rootless-netns;"
            f" rm {NETWORKS}/rootless-netns/rootless-netns'); {KILL_NAMES}; {KILL_PASTA} || true",
            "connect all containers again",
            id="namespace",
        ),
        pytest.param(
            f"echo $(printf %064d 7) 10.89.0.77  one,7 >> {NETWORKS}/aardvark-dns/archy-net;"
            f" kill -HUP $(cat {NETWORKS}/aardvark-dns/aardvark.pid)",
            "let the name server forget what it knows",
            id="a-dead-address",
        ),
    ],
)
def test_the_network_is_mended_and_no_app_restarted(fresh: Node, harm: str, rung: str) -> None:
    node = fresh
    before = node.pids(*APPS)
    story = recovered(node, harm)
    assert f"network: {rung}" in story
    assert "network: mended in " in story
    settle(node)
    assert node.pids(*APPS) == before
    assert "Address" in node.podman("exec one nslookup two")


def test_a_leftover_is_removed_and_what_is_not_ours_stays(fresh: Node) -> None:
    node = fresh
    before = node.pids(*APPS)
    image = "localhost/archy-standin:1"
    node.podman(f"create --name own {image}")
    lost = f"{AS_USER} podman create --name lost --label PODMAN_SYSTEMD_UNIT=archy-two.service {image}"
    assert "leftovers: mended" in recovered(node, f"({lost})")
    assert set(node.podman("ps -a --format {{.Names}}").split()) == {*APPS, "own"}
    assert node.pids(*APPS) == before
    node.podman("rm own")


def test_a_broken_database_is_kept_and_the_apps_come_back(fresh: Node) -> None:
    node = fresh
    before = node.pids(*APPS)
    harm = f"head -c 20000 /dev/urandom > {STORAGE}/db.sql; sha256sum < {STORAGE}/db.sql > /tmp/sum"
    assert "podman: set the database aside" in recovered(node, harm)
    # Podman has forgotten the containers: their apps are restarted, and what is left of these is removed.

    def are_restarted() -> bool:
        node.tick()
        return all(node.pid(app) not in (0, before[app]) for app in APPS)

    node.wait("their restarts", are_restarted, 120)
    node.wait_active(*APPS)
    node.out("sleep 6")
    settle(node)
    kept = node.out(f"ls {STORAGE}/db.sql.broken-*")
    assert node.out(f"sha256sum < {kept}") == node.out("cat /tmp/sum")
    node.out(f"rm {kept}")


def test_what_returns_is_not_mended_for_ever(fresh: Node) -> None:
    node = fresh
    for _ in range(4):
        assert "network: mended" in recovered(node, KILL_NAMES)
    node.wait("its last pass is over", lambda: node.active("reconcile") == "inactive")
    node.out(KILL_NAMES)
    node.tick()
    assert node.active("recover") == "inactive"
    found = node.status()[1]["node"]["recovery"]
    assert found["level"] == "degraded"
    assert "gave up until " in found["problems"][0]
    assert "because it was mended 4 times, and returned each time" in found["problems"][0]
    node.out("rm /run/archy/recovery.json")
    assert "network: mended" in recovered(node, "true")


def test_what_cannot_be_mended_is_loud_and_stops_nobody(fresh: Node) -> None:
    node = fresh
    before = node.pids(*APPS)
    harm = f"mv {STORAGE}/db.sql {STORAGE}/kept && mkdir {STORAGE}/db.sql && touch {STORAGE}/db.sql/x"
    try:
        story = recovered(node, harm)
        assert "podman: gave up" in story
        code, found = node.status()
        assert (code, found["level"]) == (2, "broken")
        said = "; ".join(found["node"]["recovery"]["problems"])
        assert "gave up until " in said
        assert "Apps that run go on" in said
        assert node.pids(*APPS) == before
        assert all(node.active(app) == "active" for app in APPS)
        node.tick()
        assert node.active("recover") in ("inactive", "failed")  # not before its time
    finally:
        node.out(f"rm -r {STORAGE}/db.sql && mv {STORAGE}/kept {STORAGE}/db.sql")
    settle(node)
    assert node.pids(*APPS) == before
