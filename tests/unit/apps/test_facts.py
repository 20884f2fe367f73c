# SPDX-License-Identifier: MIT
"""What templates may know of the host and of the other apps: found out, kept, and read again."""

from __future__ import annotations

import json
import os
import socket
from typing import Any

import pytest
from support import Node, app_of

from archy import __version__
from archy.apps import facts

PORTS = "ports: [{host: 8080, container: 80}]"
FACTS, KEPT = "/run/archy/facts.json", "/etc/archy/accepted/host.json"


class Size:
    f_frsize, f_blocks = 4096, 500_000_000


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Give the host an address; none is no route."""

    def put(address: str | None, name: str = "home") -> None:
        def connect(_: socket.socket, to: tuple[str, int]) -> None:
            assert to[0].startswith("192.0.2.")  # TEST-NET-1: nobody's
            if address is None:
                raise OSError(101, "Network is unreachable")

        monkeypatch.setattr(socket.socket, "connect", connect)
        monkeypatch.setattr(socket.socket, "getsockname", lambda _: (address, 1234))
        monkeypatch.setattr(os, "uname", lambda: os.uname_result(("Linux", name, "", "", "")))
        monkeypatch.setattr(os, "statvfs", lambda _: Size)

    return put


def test_the_host(node: Node, host: Any) -> None:
    host("192.168.1.7", "box.fritz.box")
    wanted = {"HOST_IP": "192.168.1.7", "HOST_MDNS": "box.local", "DISK_GB": "2048"}
    assert facts.host(node.name) == facts.host_or_kept(node.name) == wanted


@pytest.mark.parametrize(
    ("kept", "address"),
    [
        ('{"HOST_IP": "192.168.1.7"}', "192.168.1.7"),
        (None, "127.0.0.1"),
        ("", "127.0.0.1"),
        ("[]", "127.0.0.1"),
        ("{", "127.0.0.1"),
        ("7", "127.0.0.1"),
    ],
)
def test_a_pulled_cable_changes_nothing(node: Node, host: Any, kept: str | None, address: str) -> None:
    host(None)
    if kept is not None:
        node.write(KEPT, kept)
    assert "HOST_IP" not in facts.host(node.name)
    assert facts.host_or_kept(node.name) == {"HOST_IP": address, "HOST_MDNS": "home.local", "DISK_GB": "2048"}


def test_what_is_found_out_wins_over_what_was_kept(node: Node, host: Any) -> None:
    node.write(KEPT, '{"HOST_IP": "192.168.1.7", "HOST_MDNS": "old.local", "DISK_GB": "1"}')
    host("192.168.1.8")
    assert facts.host_or_kept(node.name) == {
        "HOST_IP": "192.168.1.8",
        "HOST_MDNS": "home.local",
        "DISK_GB": "2048",
    }


def test_a_disk_that_does_not_answer(node: Node, host: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    host(None)

    def failing(_: str) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "statvfs", failing)
    assert facts.host(node.name) == {"HOST_MDNS": "home.local"}
    assert facts.host_or_kept(node.name)["DISK_GB"] == "0"


def test_no_packet_is_sent() -> None:
    """UDP: to connect is to look up a route."""
    calls: list[int] = []

    class Watched(socket.socket):
        def __init__(self, family: int, kind: int) -> None:
            calls.append(kind)
            super().__init__(family, kind)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket, "socket", Watched)
        facts.host("/nowhere")
    assert calls == [socket.SOCK_DGRAM]


def test_a_summary() -> None:
    app = app_of(
        """\
network_aliases: [knots, web]
generated_secrets: [{name: a, kind: hex32, rotatable: true}, {name: b, kind: bcrypt}]
secret_env: [{key: X, secret_file: other}, {key: Y, template: y}, {key: Z, secret_file: a}]""",
        """\
provides: server
companion_of: parent
dependencies: [{app_id: x, restart: true}, {storage: 1Gi}, {app_id: y}, {app_id: z, required: false}, {bitcoin: any}]
bitcoin_rpc: {rpcwhitelist: [uptime, getblock]}
restart_when_changed: true
start_timeout_secs: 5
health_check: {type: http, endpoint: "localhost:8080", path: /live, interval: 1m, timeout: 7s, retries: 4}""",
    )
    assert facts.summary(app) == {
        "name": "Web",
        "version": "1.0.0",
        "container": "archy-web",
        "image": "docker.io/library/nginx:1.26",
        "pull": "missing",
        "network": "archy-net",
        "ports": False,
        "aliases": ["knots", "web", "server"],
        "provides": "server",
        "one_shot": False,
        "needs": ["x", "y", "bitcoin"],
        "after": ["x", "y", "z", "bitcoin"],
        "restart_after": ["x"],
        "companion_of": "parent",
        "part_of": "",
        "bitcoin": ["any"],
        "rpcwhitelist": ["uptime", "getblock"],
        "restart_when_changed": True,
        "start_timeout": 5,
        "secrets": ["a", "b", "b.pw", "other", "bitcoin-rpc-password"],
        "rotatable": ["a"],
        "health": {
            "kind": "http",
            "port": 8080,
            "path": "/live",
            "command": [],
            "timeout": 7,
            "interval": 60,
            "retries": 4,
        },
    }


def test_the_summary_of_a_plain_app() -> None:
    found = facts.summary(app_of())
    assert (found["container"], found["rpcwhitelist"], found["start_timeout"]) == ("web", None, None)
    assert (found["provides"], found["part_of"], found["companion_of"], found["bitcoin"]) == ("", "", "", [])
    assert (found["secrets"], found["needs"], found["restart_when_changed"]) == ([], [], False)
    assert found["health"] is None


def test_the_summary_of_a_part_that_waits_for_bitcoin() -> None:
    found = facts.summary(app_of(app="part_of: whole\ndependencies: [{bitcoin: archival}, {bitcoin: synced}]"))
    assert (found["container"], found["part_of"], found["companion_of"]) == ("web", "whole", "")
    assert (found["bitcoin"], found["needs"]) == (["archival", "synced"], ["bitcoin"])


def test_whether_it_has_ports() -> None:
    assert [facts.summary(app_of(app=more))["ports"] for more in ("", "ports: []", PORTS)] == [False, False, True]


def test_the_health_of_a_command_is_a_list() -> None:
    """As JSON has it: what was read from the file is what was written."""
    found = facts.summary(app_of(app='health_check: {type: exec, command: ["a", "b c"]}'))
    assert found["health"] is not None
    assert found["health"]["command"] == ["a", "b c"]
    assert (found["health"]["interval"], found["health"]["retries"]) == (30, 3)


def test_the_file(node: Node) -> None:
    everything: facts.All = {
        "by": __version__,
        "host": {"HOST_IP": "1.2.3.4"},
        "apps": {"web": facts.summary(app_of())},
    }
    node.write(FACTS, facts.pack(everything))
    assert facts.load(node.name) == everything
    assert facts.pack(facts.load(node.name)) == facts.pack(everything)


@pytest.mark.parametrize("content", [None, "", "{", "[]", "null", '{"host": {}}', '{"host": 1, "apps": {}}', "\udcff"])
def test_a_damaged_file_is_none(node: Node, content: str | None) -> None:
    if content is not None:
        node.write(FACTS, content.encode("utf-8", "surrogateescape"))
    assert facts.load(node.name) == {"by": __version__, "host": {}, "apps": {}}


def test_what_apps_said_to_another_version_is_not_believed(node: Node) -> None:
    """It may lack what this one wants to know; the host is the same."""
    old = {"by": "0.0.1", "host": {"HOST_IP": "1.2.3.4"}, "apps": {"web": {}}}
    node.write(FACTS, json.dumps(old))
    assert facts.load(node.name) == {"by": __version__, "host": {"HOST_IP": "1.2.3.4"}, "apps": {}}
