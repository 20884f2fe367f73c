# SPDX-License-Identifier: MIT
"""The command archy on a node: progress, exit codes, and what `kill -9` at any moment leaves."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest
from conftest import Node, standin

# The moments at which the command is killed: early ones while it looks, later ones while it writes and starts. A few
# of the 50 are in every run of the tests.
_CHAOS, _SAMPLE = [pytest.mark.chaos], [pytest.mark.chaos, pytest.mark.sample]
MOMENTS = [
    pytest.param(random.Random(number).uniform(0.02, 1.5), marks=_SAMPLE if number < 5 else _CHAOS)
    for number in range(50)
]


def entry(node: Node, app: str) -> dict[str, object]:
    """An app as `archy app list --json` has it."""
    apps = json.loads(node.out("archy app list --json"))["apps"]
    found: dict[str, object] = next(one for one in apps if one["id"] == app)
    return found


def own(node: Node, app: str, **values: Any) -> None:
    """Put an app of the catalogue's making beside the shipped ones."""
    node.write(f"/usr/share/archy/apps/{app}/manifest.yml", standin(app, **values))


def test_install_list_remove(node: Node) -> None:
    own(node, "plain", port=18001)
    node.tick()  # not while the first one is made
    assert entry(node, "plain")["state"] == "not installed"
    done = node.run("archy app install plain")
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr.splitlines()[0] == "plain: installed"
    assert done.stderr.splitlines()[-1] == "plain: ready"
    assert "\x1b" not in done.stderr
    assert (entry(node, "plain")["state"], entry(node, "plain")["installed"]) == ("running", True)
    pid = node.pid("plain")
    node.out("archy app install plain")
    assert node.pid("plain") == pid
    node.out("archy app remove plain")
    node.out("archy app remove plain")
    assert entry(node, "plain")["state"] == "not installed"
    assert node.show("archy-plain", "LoadState") == "not-found"


def test_nothing_is_left_of_a_removed_app(node: Node) -> None:
    extra = ["volumes:", "  - {type: volume, source: gone-data, target: /data}"]
    own(node, "gone", container=["network: gone-net"], extra=extra)
    node.out("archy app install gone")
    assert node.active("gone-data-volume") == "active"
    node.out("archy app remove gone")
    assert node.out("systemctl list-units --all --plain --no-legend 'archy-gone*'") == ""
    assert node.out("ls -A /run/archipelago /etc/archy/accepted /run/archy/prepared | grep gone || true") == ""


def test_no_wait_still_says_what_cannot_be_started(node: Node) -> None:
    own(node, "masked")
    node.out("systemctl mask archy-masked")
    done = node.run("archy app install masked --no-wait")
    assert (done.returncode, "masked" in done.stderr) == (1, True)
    node.out("systemctl unmask archy-masked; archy app remove masked")


def test_an_own_directory_is_kept_and_comes_back(node: Node) -> None:
    for _ in range(2):
        node.drop("mine", standin("mine"))
        node.out("archy app install mine && archy app remove mine")
        assert node.run("ls /etc/archy/apps/mine").returncode == 2
    node.out("archy app install mine")
    assert node.active("mine") == "active"
    node.out("archy app remove mine")


def test_what_fails_says_what_where_why_and_what_to_do(node: Node) -> None:
    own(node, "hollow", port=18003, container=["entrypoint: [/nowhere]"])
    done = node.run("archy app install hollow")
    assert done.returncode == 1
    assert "/nowhere" in done.stderr
    assert "archy: install hollow: archy-hollow.service: did not start" in done.stderr
    assert done.stderr.splitlines()[-1] == "hint: systemctl status archy-hollow.service"
    assert "Traceback" not in done.stderr
    node.out("archy app remove hollow; rm -r /usr/share/archy/apps/hollow")
    own(node, "bad")
    node.out("echo '  nmae: x' >> /usr/share/archy/apps/bad/manifest.yml")
    done = node.run("archy app install bad")
    assert done.returncode == 3
    assert "app.nmae: is not a known key; did you mean name?" in done.stderr
    assert node.run("test -e /etc/archy/apps/bad").returncode == 1
    assert node.run("archy app install nothing").returncode == 4
    assert node.run("runuser -u nobody -- archy app install plain").returncode == 5
    node.out("rm -r /usr/share/archy/apps/bad")


def test_dependencies_and_ports_are_checked_first(node: Node) -> None:
    own(node, "base", port=18010)
    own(node, "upper", extra=["dependencies:", "  - app_id: base"])
    own(node, "rival", port=18010)
    done = node.run("archy app install upper")
    assert (done.returncode, done.stderr.splitlines()[-1]) == (1, "hint: archy app install base")
    node.out("archy app install base && archy app install upper")
    done = node.run("archy app install rival")
    assert done.returncode == 1
    assert "needs port 18010/tcp, which base uses" in done.stderr
    done = node.run("archy app remove base")
    assert (done.returncode, done.stderr.splitlines()[-1]) == (1, "hint: archy app remove upper")
    node.out("archy app remove upper && archy app remove base")


def test_companions_come_and_go_with_their_parent(node: Node) -> None:
    own(node, "parent", port=18020)
    own(node, "parent-ui", port=18021, extra=["companion_of: parent"])
    node.out("archy app install parent")
    assert {node.active("parent"), node.active("parent-ui")} == {"active"}
    assert "archy-parent-ui" in node.podman("ps --format '{{.Names}}'").split()
    node.out("archy app remove parent")
    assert node.out("ls /etc/archy/apps") == ""


@pytest.mark.parametrize("moment", MOMENTS)
def test_killed_halfway_the_same_command_finishes(node: Node, moment: float) -> None:
    own(node, "cut", port=18030, container=["generated_secrets: [{name: cut-password, kind: hex32}]"])
    node.run(f"timeout -s KILL {moment:.2f} archy app install cut")
    node.out("archy app install cut")
    assert node.active("cut") == "active"
    secret = node.out("cat /var/lib/archipelago/secrets/cut-password")
    assert len(secret) == 64
    node.run(f"timeout -s KILL {moment:.2f} archy app remove cut")
    node.out("archy app remove cut")
    assert node.show("archy-cut", "LoadState") == "not-found"
    assert node.podman("ps --all --quiet --filter name=cut") == ""
    assert node.out("ls -A /etc/archy/apps /etc/archy/accepted | grep cut || true") == ""
    assert node.out("cat /var/lib/archipelago/secrets/cut-password") == secret


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_power_cut_in_an_installation_leaves_a_whole_node(node: Node, moment: float) -> None:
    own(node, "cut", port=18030, container=["generated_secrets: [{name: cut-password, kind: hex32}]"])
    node.out("cd /var/lib/archipelago && rm -f secrets/cut-password .made-secrets/cut-password")
    node.out(f"(setsid archy app install cut >/dev/null 2>&1 &) && sleep {moment:.2f}")
    node.ctl("kill")
    node.ctl("boot")
    node.nothing_failed()
    node.out("archy app install cut")
    assert node.active("cut") == "active"
    assert len(node.out("cat /var/lib/archipelago/secrets/cut-password")) == 64
    node.out("archy app remove cut")


def test_render_touches_nothing(node: Node) -> None:
    there = "find /etc/archy /run/archy /run/systemd/generator /var/lib/archipelago/secrets | sort | sha256sum"
    with node.without_ticks():
        node.tick()
        before = node.out(there)
        text = node.out("archy app render bitcoin-knots")
        assert "### Quadlet archy-bitcoin-knots.container" in text
        assert "### unit archy-bitcoin-knots.service" in text
        assert node.out(there) == before


def test_colour_and_progress_on_terminals_only(node: Node) -> None:
    assert "\x1b" not in node.out("archy app list")
    assert "\x1b[1m" in node.out("script -qec 'archy app list' /dev/null")
    assert "\x1b" not in node.out("NO_COLOR=1 script -qec 'archy app list' /dev/null")
