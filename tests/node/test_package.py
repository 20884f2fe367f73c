# SPDX-License-Identifier: MIT
"""The package: what installing, upgrading, removing and purging it does to a node and to what runs there."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest
from conftest import Node, fresh_node, standin

INSTALL = "DEBIAN_FRONTEND=noninteractive dpkg --force-confold -i {}"
# A later version of the package that is installed: the same files under another number.
NEXT = """
    cd /root && rm -rf next && dpkg-deb --raw-extract archy.deb next
    sed -i 's/^Version: .*/&+next/' next/DEBIAN/control && dpkg-deb --build --root-owner-group next next.deb >/dev/null
"""


@pytest.fixture(scope="module")
def node() -> Iterator[Node]:
    """A node with a stand-in that runs, and the package at hand."""
    with fresh_node("package") as fresh:
        fresh.drop("one", standin("one", env={"STOP_AFTER": "6"}, port=18001, container=SECRET))
        fresh.out("systemctl start archy-one; test -e /root/archy.deb")
        yield fresh


SECRET = ["generated_secrets: [{name: one-password, kind: hex32}]"]


def test_a_fresh_installation(node: Node) -> None:
    assert node.out("id -un $(id -u archipelago)") == "archipelago"
    assert node.out("getent passwd archipelago | cut -d: -f6,7") == "/var/lib/archipelago:/usr/sbin/nologin"
    for file in ("/etc/subuid", "/etc/subgid"):
        assert node.out(f"grep -c ^archipelago: {file}") == "1"
    assert node.out("loginctl show-user archipelago --property=Linger --value") == "yes"
    assert node.out("stat -c '%U:%G %a' /var/lib/archipelago/secrets") == "root:root 700"
    assert node.out("systemctl is-enabled archy.target") == "enabled"


def test_a_fresh_installation_starts_nothing() -> None:
    with fresh_node("bare") as bare:
        ours = {"archy-all.service", "archy-reconcile.path", "archy-reconcile.timer"}
        # Those of a pass are seen while one is made.
        listed = "systemctl list-units --plain --no-legend 'archy-*' | cut -d' ' -f1"
        bare.wait("nothing else", lambda: set(bare.out(listed).split()) == ours)
        assert bare.out("ls -A /etc/archy/apps /var/lib/archipelago/secrets").split() == [
            "/etc/archy/apps:",
            "/var/lib/archipelago/secrets:",
        ]
        assert bare.podman("ps --all --quiet") == ""


def test_an_upgrade_restarts_no_app(node: Node) -> None:
    before = node.pid("one"), node.show("archy-one", "InvocationID")
    node.out(NEXT + INSTALL.format("/root/next.deb"))
    assert node.out("dpkg-query --show --showformat='${Version}' archy").endswith("+next")
    assert (node.pid("one"), node.show("archy-one", "InvocationID")) == before
    node.out("systemctl stop archy-one")
    node.out(INSTALL.format("/root/archy.deb"))
    assert node.active("one") == "inactive"
    node.out("systemctl start archy-one")


def test_an_upgrade_with_a_bad_manifest_succeeds_and_says_so(node: Node) -> None:
    node.write("/etc/archy/apps/bad/manifest.yml", "app: [\n")
    pid = node.pid("one")
    with node.without_ticks():  # which would have said it already
        done = node.run(INSTALL.format("/root/next.deb"))
    assert done.returncode == 0
    assert "bad: not prepared: /etc/archy/apps/bad/manifest.yml:2:1: is not valid YAML" in done.stderr
    assert node.pid("one") == pid
    node.out("rm -r /etc/archy/apps/bad; systemctl daemon-reload; systemctl reset-failed")


def test_removal_gives_the_grace_and_installation_brings_the_apps_back(node: Node) -> None:
    node.out("dpkg --remove archy", timeout=120)
    log = node.out("journalctl --sync; journalctl --unit archy-one --output cat")
    assert log.rindex("got TERM") < log.rindex("bye")
    assert node.out("systemctl list-units --plain --no-legend 'archy*'") == ""
    assert node.run("pgrep -u archipelago conmon").returncode == 1
    secret = node.out("cat /var/lib/archipelago/secrets/one-password")
    node.out(INSTALL.format("/root/archy.deb"))
    node.wait_active("one")
    assert node.out("cat /var/lib/archipelago/secrets/one-password") == secret


def test_purge_leaves_data_and_says_where(node: Node) -> None:
    node.out("ln -s /usr/share/archy/apps/bitcoin-ui /etc/archy/apps/bitcoin-ui")
    said = node.out("dpkg --purge archy 2>&1", timeout=120)
    assert "/var/lib/archipelago/secrets" in said
    assert node.out("ls /etc/archy/apps") == "one"
    assert node.run("test -e /etc/archy/accepted").returncode == 1
    assert len(node.out("cat /var/lib/archipelago/secrets/one-password")) == 64
    assert node.out("id -un archipelago") == "archipelago"


def test_an_existing_user_is_adopted(node: Node) -> None:
    """As on a node of the platform: another UID, data that is there, and subordinate IDs that others have."""
    script = """
        systemctl stop user@$(id -u archipelago); loginctl disable-linger archipelago; userdel archipelago
        rm -rf /var/lib/archipelago /etc/archy; sed -i /archipelago/d /etc/subuid /etc/subgid
        groupadd --gid 1234 archipelago
        useradd --uid 1234 --gid 1234 --home-dir /var/lib/archipelago --create-home archipelago
        sed -i /archipelago/d /etc/subuid /etc/subgid; echo bob:100000:65536 >> /etc/subuid
        mkdir /var/lib/archipelago/secrets && echo old > /var/lib/archipelago/secrets/one-password
        chown -R archipelago: /var/lib/archipelago
    """
    node.out(script + INSTALL.format("/root/archy.deb"))
    assert node.out("id -u archipelago; stat -c %U /var/lib/archipelago").split() == ["1234", "archipelago"]
    ranges = [tuple(map(int, line.split(":")[1:])) for line in node.out("cat /etc/subuid").splitlines()]
    ends = sorted((first, first + count) for first, count in ranges)
    assert all(end <= start for (_, end), (start, _) in itertools.pairwise(ends)), ranges
    node.drop("one", standin("one", port=18001, container=SECRET))
    assert node.out("cat /var/lib/archipelago/secrets/one-password") == "old"
    node.out("/usr/libexec/archy/archy-prepare one")
    assert node.out("stat -c '%U %a' /var/lib/archipelago/secrets/one-password") == "root 600"
    assert node.out("cat /var/lib/archipelago/secrets/one-password") == "old"
    assert node.show("archy-one", "User") == "archipelago"
    assert "user@1234.service" in node.show("archy-one", "PartOf")


def test_a_range_of_its_own_stays(node: Node) -> None:
    before = node.out("grep ^archipelago: /etc/subuid")
    node.out(INSTALL.format("/root/next.deb"))
    assert node.out("grep ^archipelago: /etc/subuid") == before
