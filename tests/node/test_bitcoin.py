# SPDX-License-Identifier: MIT
"""The main job: a manifest in, and out of it a rootless, healthy, supervised bitcoind that systemctl controls."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence

import pytest
from conftest import AS_USER, CommandFailed, Node, fresh_node

APPS = ("bitcoin-knots", "bitcoin-ui")
BLOCKS = 7


@pytest.fixture(scope="module")
def node() -> Iterator[Node]:
    """A node on regtest with both apps installed and some blocks mined."""
    with fresh_node("bitcoin") as fresh:
        fresh.write("/etc/archy/node.yml", "bitcoin:\n  network: regtest\n")
        fresh.out("archy app install bitcoin-knots", timeout=120)
        address = fresh.bitcoin("createwallet main >/dev/null && true") or fresh.bitcoin("getnewaddress")
        fresh.bitcoin(f"generatetoaddress {BLOCKS} {address}")
        yield fresh


def test_shipped_manifests_are_what_runs(node: Node) -> None:
    for app in APPS:
        assert node.out(f"readlink /etc/archy/apps/{app}") == f"/usr/share/archy/apps/{app}"


def test_start_returns_when_rpc_answers(node: Node) -> None:
    node.out("systemctl stop archy-bitcoin-knots")
    assert node.run("curl -s http://127.0.0.1:8332/").returncode != 0
    node.out("systemctl start archy-bitcoin-knots")
    assert node.bitcoin("getblockcount") == str(BLOCKS)
    assert node.out(f"cat /proc/{node.pid('bitcoin-knots')}/comm") == "conmon"


def test_rootless(node: Node) -> None:
    for app in APPS:
        pids = node.processes(app)
        assert len(pids) >= 2
        users = node.out("ps -o uid= -p " + ",".join(map(str, pids))).split()
        assert "0" not in users
    names = set(node.podman("ps --format '{{.Names}}'").split())
    assert {"bitcoin-knots", "archy-bitcoin-ui"} <= names
    assert node.out("podman ps --all --quiet") == ""


def test_slice_and_log(node: Node) -> None:
    assert node.show("archy-bitcoin-knots", "Slice") == "archipelago-apps.slice"
    log = node.out("journalctl --unit archy-bitcoin-knots --output cat")
    assert "init message: Done loading" in log
    assert "Bitcoin Knots version" in log


def test_companion_shows_the_height_through_its_proxy(node: Node) -> None:
    assert node.height() == BLOCKS
    assert "<title>Bitcoin status</title>" in node.out("curl -sf http://127.0.0.1:8334/")


def test_companion_tells_the_rpc_port_as_it_is(node: Node) -> None:
    head = "curl -s -D - -o /dev/null -H 'Content-Type: application/json' -d '{}' http://127.0.0.1:8334/rpc"
    address = re.search(r"(?mi)^rpc-address: (\S+):(\d+)\s*$", node.out(head))
    assert address
    assert address[1] == node.podman(
        "inspect bitcoin-knots --format '{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}'"
    )
    assert address[2] == "8332"


def test_proxy_refuses_what_a_foreign_page_could_send(node: Node) -> None:
    call = json.dumps({"method": "stop"})
    status = "curl -s -o /dev/null -w '%{http_code}' "
    assert node.out(f"{status} -d '{call}' -H 'Content-Type: text/plain' http://127.0.0.1:8334/rpc") == "415"
    assert node.out(f"{status} -d '{call}' http://127.0.0.1:8334/rpc") == "415"
    assert node.out(f"{status} http://127.0.0.1:8334/rpc") == "403"
    rebound = "-H 'Host: evil.example:8334' -H 'Content-Type: application/json' http://127.0.0.1:8334/rpc"
    assert node.out(f"{status} -d '{call}' {rebound}") == "421"


def test_operator_settings_survive_and_count(node: Node) -> None:
    path = "/var/lib/archipelago/bitcoin/bitcoin.user.conf"
    node.out(f"echo uacomment=mine >> {path}; systemctl restart archy-bitcoin-knots")
    assert "uacomment=mine" in node.out(f"cat {path}")
    assert "(mine)" in json.loads(node.bitcoin("getnetworkinfo"))["subversion"]


def test_a_tampered_file_is_right_again_before_the_next_start(node: Node) -> None:
    path = "/var/lib/archipelago/bitcoin/bitcoin.conf"
    right = node.out(f"sha256sum {path}; stat -c '%u %g %a' {path}")
    node.out(f"echo garbage=1 >> {path}; chown root {path}; chmod 666 {path}; systemctl restart archy-bitcoin-knots")
    assert node.out(f"sha256sum {path}; stat -c '%u %g %a' {path}") == right
    node.out(f"rm {path} && systemctl restart archy-bitcoin-knots")
    assert node.out(f"sha256sum {path}; stat -c '%u %g %a' {path}") == right


def test_a_new_password_reaches_the_files_at_the_next_start(node: Node) -> None:
    node.out("echo a-new-password > /var/lib/archipelago/secrets/bitcoin-rpc-password")
    node.out("systemctl restart archy-bitcoin-knots archy-bitcoin-ui")
    assert node.out('curl -sf -u archipelago:a-new-password -d \'{"method":"uptime"}\' http://127.0.0.1:8332/')
    assert node.height() == BLOCKS


def test_no_secret_leaks(node: Node) -> None:
    node.out("rm /var/lib/archipelago/secrets/bitcoin-rpc-password")
    node.out("systemctl restart archy-bitcoin-knots archy-bitcoin-ui")
    secret = node.out("cat /var/lib/archipelago/secrets/bitcoin-rpc-password")
    assert len(secret) == 64
    basic = node.out(f"printf 'archipelago:%s' {secret} | base64 -w0")
    for needle in (secret, basic):
        patterns = f"grep -rlsF {needle}"
        assert node.run(f"{patterns} /run/systemd /etc /usr/share/archy /run/archy /run/archipelago").stdout == ""
        assert needle not in node.out("journalctl --no-pager --output cat")
        assert needle not in node.out("cat /proc/[0-9]*/cmdline /proc/[0-9]*/environ 2>/dev/null | tr '\\0' ' '")
        assert needle not in node.podman("inspect bitcoin-knots archy-bitcoin-ui")
        found = node.run(f"{patterns} /var/lib/archipelago").stdout.split()
        modes = {path: node.out(f"stat -c %a {path}") for path in found}
        assert all(mode[-1] == "0" for mode in modes.values()), modes
    assert node.out("stat -c '%U %a' /var/lib/archipelago/secrets") == "root 700"


def test_stop_and_start_by_pattern_and_target(node: Node) -> None:
    node.out("systemctl stop 'archy-*'")
    assert {node.active(app) for app in APPS} == {"inactive"}
    node.out("systemctl start archy.target")
    node.wait_active(*APPS)
    node.out("systemctl stop 'archy-*'")
    assert {node.active(app) for app in APPS} == {"inactive"}
    node.nothing_failed()
    node.wait("the handle is back", lambda: node.active("all") == "active")
    node.out("systemctl start 'archy-*'")
    node.wait_active(*APPS)
    assert node.height() == BLOCKS


@pytest.mark.chaos
@pytest.mark.sample
@pytest.mark.parametrize(
    ("harm", "harmed"),
    [
        ("kill -9 $(pgrep -x bitcoind)", ["bitcoin-knots"]),
        ("kill -9 $(systemctl show -P MainPID archy-bitcoin-knots)", ["bitcoin-knots"]),
        ("kill -9 $(systemctl show -P MainPID archy-bitcoin-ui)", ["bitcoin-ui"]),
        ("kill -9 $(systemctl show -P MainPID user@$(id -u archipelago))", APPS),
        ("systemctl restart user@$(id -u archipelago).service", APPS),
        ("systemctl restart archy-net-network.service", []),
        (f"({AS_USER} podman rm -f -t 60 bitcoin-knots) || true", ["bitcoin-knots"]),
    ],
)
def test_comes_back_by_itself(node: Node, harm: str, harmed: Sequence[str]) -> None:
    def runs() -> dict[str, str]:
        return {app: node.show(f"archy-{app}", "InvocationID") for app in APPS}

    before = runs()
    node.out(harm)
    node.wait("new runs of what was harmed", lambda: [a for a in APPS if runs()[a] != before[a]] == list(harmed))
    node.wait_active(*APPS)
    node.wait("the companion reaches the node", lambda: _height(node) == BLOCKS)
    for app in APPS:
        assert node.out(f"pgrep -c -P {node.pid(app)}") == "1"
    node.nothing_failed()


def _height(node: Node) -> int | None:
    try:
        return node.height()
    except CommandFailed:
        return None


@pytest.mark.chaos
@pytest.mark.sample
def test_reboot_and_power_cut(node: Node) -> None:
    # bitcoind keeps what it learnt in the last hour in memory only; this call makes it write.
    node.bitcoin("gettxoutsetinfo")
    for verbs in (("kill", "boot"), ("reboot",)):
        for verb in verbs:
            node.ctl(verb)
        node.wait_active(*APPS)
        node.wait("the companion reaches the node", lambda: _height(node) == BLOCKS)
        node.nothing_failed()
        order = "journalctl --boot --unit archy-prepare --unit archy-bitcoin-knots --output cat"
        log = node.out(order)
        assert log.index("Finished archy-prepare") < log.index("Starting archy-bitcoin-knots")


@pytest.mark.matrix
@pytest.mark.sample
def test_removal_keeps_data_and_reinstallation_finds_it(node: Node) -> None:
    secret = node.out("cat /var/lib/archipelago/secrets/bitcoin-rpc-password")
    node.out("archy app remove bitcoin-knots")
    assert node.podman("ps --all --quiet") == ""
    assert node.out("systemctl list-units --all --plain --no-legend 'archy-bitcoin*'") == ""
    assert node.out("ls -A /run/archipelago /etc/archy/accepted /etc/archy/apps | grep bitcoin || true") == ""
    node.out("archy app install bitcoin-knots")
    assert node.height() == BLOCKS
    assert node.out("cat /var/lib/archipelago/secrets/bitcoin-rpc-password") == secret
