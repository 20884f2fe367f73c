# SPDX-License-Identifier: MIT
"""An app that runs to its end: who needs it starts once it has succeeded, and it is not started for ever."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from conftest import Node, fresh_node, standin

HOME = "/var/lib/archipelago"
DATA = f"{HOME}/shop-setup"
# Fails until there is a file; counts its runs; says what it does.
SCRIPT = 'echo one more >>/data/runs; echo "setting up"; sleep 1; [ -e /data/ready ] && [ "$PASSWORD" ]'
SETUP = [
    "restart: on-failure",
    f"entrypoint: [sh, -c, '{SCRIPT}']",
    "generated_secrets: [{name: shop-password, kind: hex16}]",
    "secret_env: [{key: PASSWORD, secret_file: shop-password}]",
]
MOUNT = ["volumes:", f"  - {{type: bind, source: {DATA}, target: /data}}"]


@pytest.fixture(scope="module")
def node() -> Iterator[Node]:
    """A node with a stack in its catalogue, of which one part makes something and ends."""
    with fresh_node("one-shot") as fresh:
        setup = standin("shop-setup", container=SETUP, extra=["part_of: shop", *MOUNT], health="")
        shop = standin("shop", extra=["dependencies: [{app_id: shop-setup}]"])
        for app, manifest in {"shop": shop, "shop-setup": setup}.items():
            fresh.write(f"/usr/share/archy/apps/{app}/manifest.yml", manifest)
        yield fresh


def runs(node: Node) -> int:
    """How often it has run."""
    return int(node.run(f"cat {DATA}/runs 2>/dev/null | wc -l").stdout or 0)


def states(node: Node) -> dict[str, str]:
    """What `archy status` calls them."""
    return {name: app["current"] for name, app in node.status()[1]["apps"].items()}


def test_who_needs_it_waits_until_it_has_succeeded(node: Node) -> None:
    done = node.run("archy app install shop", timeout=120)
    assert done.returncode != 0
    assert "shop-setup" in done.stderr
    node.wait("attempts", lambda: runs(node) > 2)
    node.wait("another attempt", lambda: node.active("shop-setup") == "activating")
    assert node.active("shop") == "inactive"
    assert "setting up" in node.out("journalctl -u archy-shop-setup -o cat --no-pager").splitlines()
    node.wait("status says so", lambda: bool(node.status()[1]["apps"]["shop-setup"]["problems"]))
    node.out(f"touch {DATA}/ready")
    node.wait_active("shop", seconds=90)
    assert states(node) == {"shop": "running", "shop-setup": "completed"}
    node.nothing_failed()


def test_it_is_done_and_left_alone(node: Node) -> None:
    before, pid = runs(node), node.pid("shop")
    for _ in range(2):
        node.tick()
    assert node.status()[0] == 0
    assert node.processes("shop-setup") == []
    assert "shop-setup" not in node.podman("ps --all --format '{{.Names}}'").split()
    node.out(f"kill -9 {pid}")
    node.wait("the app is back", lambda: node.pid("shop") not in (0, pid))
    node.wait_active("shop")
    assert runs(node) == before


def test_a_secret_of_it_is_rotated_without_it(node: Node) -> None:
    before = runs(node)
    node.out("echo -n another > /var/lib/archipelago/secrets/shop-password")
    node.tick()
    code, found = node.status()
    assert (code, found["apps"]["shop-setup"]["stale"], runs(node)) == (0, [], before)


def test_it_runs_again_with_its_stack_and_at_boot(node: Node) -> None:
    before = runs(node)
    node.out("systemctl restart archy-shop")
    node.wait_active("shop")
    assert runs(node) == before + 1
    node.ctl("reboot")
    node.wait_active("shop")
    assert runs(node) == before + 2
    node.tick()
    assert states(node) == {"shop": "running", "shop-setup": "completed"}


def test_a_stop_ends_it(node: Node) -> None:
    node.out("archy app stop shop")
    node.out(f"rm {DATA}/ready; archy app start shop >/dev/null 2>&1 &")
    node.wait("it runs", lambda: node.processes("shop-setup") != [])
    node.out("archy app stop shop")
    node.wait("both are down", lambda: states(node) == {"shop": "stopped", "shop-setup": "stopped"})
    assert node.processes("shop-setup") == []
    node.nothing_failed()


def test_nothing_is_left_of_it(node: Node) -> None:
    node.out("archy app remove shop")
    assert node.podman("ps --all --format '{{.Names}}'") == ""
    assert node.podman("secret ls --format '{{.Name}}'") == ""
    assert node.run("ls /run/archipelago/*.cid").stdout == ""
