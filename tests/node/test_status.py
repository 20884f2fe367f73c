# SPDX-License-Identifier: MIT
"""What `archy status` says of apps and of the node, and that nobody is harmed by what is wrong with others."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
from conftest import AS_USER, Node, fresh_node, standin

APPS = ("one", "two")
TICK = 120  # seconds: more than it takes until the next tick, and for what that does
DERIVED = "/var/lib/archipelago/one/made.conf"
ONE = [
    "generated_secrets: [{name: one-password, kind: hex32}]",
    f"generated_files: [{{path: {DERIVED}, content: 'password={{{{secret:one-password}}}}', overwrite: true}}]",
]
# What the status of an app that is not well must tell.
REASONS = {
    "noimage": "waiting for its image: .*localhost/nowhere:1 is not on this node",
    "never": "starting for|timeout|restarted",
    "crash": "crashing|exit status 1",
    "leaves": "bye|exit status 3|status=3",
    "refused": "app.nmae: is not a known key; did you mean name",
    "lacking": "/var/lib/archipelago/secrets/not-there is not there",
}


@pytest.fixture(scope="module")
def node() -> Iterator[Node]:
    """A node with two stand-ins that run."""
    with fresh_node("status") as fresh:
        install(fresh)
        yield fresh


def install(node: Node) -> None:
    """Have both stand-ins run; one has a file and a secret."""
    for app, container in {"one": ONE, "two": []}.items():
        node.write(f"/etc/archy/apps/{app}/manifest.yml", standin(app, container=container))
        node.out(f"archy app install {app}")
    node.tick()


def test_all_is_well(node: Node) -> None:
    code, found = node.status()
    assert (code, found["level"]) == (0, "ok")
    assert {app: entry["current"] for app, entry in found["apps"].items()} == dict.fromkeys(APPS, "running")
    assert {entry["health"] for entry in found["apps"].values()} == {"healthy"}
    assert found["node"]["podman"]["containers"] == 2
    assert found["last_pass_age"] < 40
    said = node.out("archy status")
    assert said.splitlines()[-1].startswith("node: ok, last pass ")
    assert node.run("runuser -u nobody -- archy status").returncode == 0


def test_whatever_is_wrong_with_an_app_is_seen_with_its_reason(node: Node) -> None:
    before = node.pids(*APPS)
    bad = {
        "noimage": standin("noimage", "localhost/nowhere:1"),
        "never": standin("never", env={"READY_AFTER": "100000"}, extra=["start_timeout_secs: 2"], grace=1),
        "crash": standin("crash", env={"CRASH": "1"}),
        "leaves": standin("leaves", env={"EXIT_AFTER": "0", "EXIT_CODE": "3"}, health=""),
        "refused": standin("refused").replace("  name:", "  nmae:"),
        "lacking": standin("lacking", container=["secret_env: [{key: KEY, secret_file: not-there}]"]),
    }
    for app, manifest in bad.items():
        node.write(f"/etc/archy/apps/{app}/manifest.yml", manifest)
    node.run("systemctl daemon-reload; systemctl start --no-block " + " ".join(f"archy-{app}" for app in bad))

    try:
        # Before its third, nothing is said of it between two attempts.
        node.wait("three attempts", lambda: int(node.show("archy-never", "NRestarts")) >= 3, 120)
        seen: list[tuple[int, dict[str, Any]]] = []

        def all_seen() -> bool:
            node.tick()
            seen.append(node.status())
            return {seen[-1][1]["apps"][app]["level"] for app in bad} == {"degraded"}

        node.wait("all of them seen", all_seen, 120)
        code, apps = seen[-1][0], seen[-1][1]["apps"]
        told = {app: "; ".join([*apps[app]["problems"], apps[app]["error"] or ""]) for app in bad}
        assert {app: told[app] for app, reason in REASONS.items() if not re.search(reason, told[app])} == {}
        assert code == 1
        assert all(apps[app]["problems"] for app in bad)
        assert {apps[app]["level"] for app in APPS} == {"ok"}
        assert node.pids(*APPS) == before
    finally:
        for app in bad:
            node.run(f"systemctl stop archy-{app}; rm -r /etc/archy/apps/{app}")
        node.out("systemctl daemon-reload; systemctl reset-failed")
    node.passes_until("all is well", lambda: node.status()[0] == 0, TICK)


def test_stopped_ticks_are_seen_and_the_start_of_any_app_brings_them_back(node: Node) -> None:
    node.out("systemctl stop 'archy-*'")
    ticks = ("reconcile.timer", "reconcile.path")
    assert {node.active(unit) for unit in (*ticks, *APPS)} == {"inactive"}
    assert "archy-reconcile.timer is stopped" in node.run("archy status").stdout
    assert {entry["current"] for entry in node.status()[1]["apps"].values()} == {"stopped"}
    node.out("systemctl start archy-one")
    assert {node.active(unit) for unit in (*ticks, "one")} == {"active"}
    assert node.active("two") == "inactive"
    node.out("systemctl stop archy-reconcile.timer")
    code, found = node.status()
    assert (code, found["node"]["passes"]["level"]) == (1, "degraded")
    node.out("systemctl start 'archy-*'")
    node.wait_active(*APPS)

    def is_well() -> bool:
        node.tick()
        return node.status()[0] == 0

    node.wait("all is well", is_well)


def test_a_full_disk_is_said_and_costs_no_file() -> None:
    """Home, and with it all of Podman, on a small disk of its own; nothing can be written, and then it can."""
    with fresh_node("full") as node:
        node.out(f"{AS_USER} podman save --quiet --output /tmp/image.tar localhost/archy-standin:1")
        node.out("""
            systemctl stop archy-reconcile.timer archy-reconcile.path "user@$(id -u archipelago)"
            mount -t tmpfs -o size=64m,mode=750,uid=archipelago,gid=archipelago small /var/lib/archipelago
            systemd-tmpfiles --create archy.conf
            systemctl start "user@$(id -u archipelago)"
        """)
        node.podman("load --quiet --input /tmp/image.tar")
        install(node)
        before, right = node.pids(*APPS), node.out(f"cat {DERIVED}; stat -c '%u %g %a' {DERIVED}")
        with node.without_ticks():
            node.out(f"echo garbage >> {DERIVED}")
            tampered = node.out(f"cat {DERIVED}; stat -c '%u %g %a' {DERIVED}")
            node.run("for bs in 1M 4k; do dd if=/dev/zero of=/var/lib/archipelago/fill.$bs bs=$bs; done 2>/dev/null")
            node.tick()
            assert node.out(f"cat {DERIVED}; stat -c '%u %g %a' {DERIVED}") == tampered
            assert node.out("find /var/lib/archipelago /run/archy -name '.archy-new-*'") == ""
            assert "No space left on device" in node.out("journalctl --sync; journalctl -u archy-reconcile -o cat")
        said = {who: node.run(f"runuser -u {who} -- archy status") for who in ("nobody", "root")}
        for who, done in said.items():
            assert done.returncode in (1, 2)
            assert "disk: 100 % of the disk is used: 0 MiB are left" in done.stdout, who
            assert f"No space left on device: '{DERIVED}'" in done.stdout, who
        node.out("rm /var/lib/archipelago/fill.*")
        node.passes_until("all is well", lambda: node.status()[0] == 0, TICK)
        assert node.out(f"cat {DERIVED}; stat -c '%u %g %a' {DERIVED}") == right
        assert node.pids(*APPS) == before
