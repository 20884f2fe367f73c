# SPDX-License-Identifier: MIT
"""The power is cut at random moments of a tick, of a rotation and of an installation: the node is whole afterwards."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest
from conftest import Node, fresh_node
from consumers import companion

APPS = ("bitcoin-knots", "bitcoin-ui", "electrumx", "electrs-ui")
SECRETS = "/var/lib/archipelago/secrets"
# Five in every run of the tests, fifty in `make chaos`.
CUTS = [pytest.param(number, marks=[pytest.mark.sample] if number < 5 else []) for number in range(50)]
DERIVED = (
    "/var/lib/archipelago/bitcoin/bitcoin.conf",
    "/var/lib/archipelago/bitcoin-ui/nginx.conf",
    "/var/lib/archipelago/electrumx/electrumx.env",
    "/var/lib/archipelago/.config/containers/containers.conf.d/50-archy.conf",
)

pytestmark = pytest.mark.chaos


@pytest.fixture(scope="module")
def node() -> Iterator[Node]:
    """A node on regtest with bitcoind and one that needs it."""
    with fresh_node("power") as fresh:
        fresh.write("/etc/archy/node.yml", "bitcoin:\n  network: regtest\n")
        fresh.out("archy app install bitcoin-knots && archy app install electrumx", timeout=300)
        address = fresh.bitcoin("createwallet main >/dev/null && true") or fresh.bitcoin("getnewaddress")
        fresh.bitcoin(f"generatetoaddress 3 {address}")
        fresh.bitcoin("gettxoutsetinfo")  # makes bitcoind write its index, which it otherwise does once an hour
        yield fresh


def moment(number: int, seconds: float) -> float:
    """The random moment of a cut: another for each number, the same in each run."""
    return random.Random(number).uniform(0, seconds)


def cut(node: Node, command: str, after: float) -> None:
    """Begin something, and cut the power a moment later."""
    node.out(f"(setsid sh -c {command!r} >/dev/null 2>&1 &) && sleep {after:.3f}")
    node.ctl("kill")
    node.ctl("boot")


def is_well(node: Node) -> bool:
    """Whether no app, and nothing of the node, is other than it should be."""
    return node.run("archy status").returncode == 0


def check_whole(node: Node) -> None:
    """All runs, all files are the ones that belong to the secrets, and whoever logs in is let in."""
    node.passes_until("all is well", lambda: is_well(node), 120)
    # The end of a rotation takes a login away, so one restart is due a moment after it.
    node.passes_until("nothing is left to do", lambda: node.out("archy reconcile --dry-run") == "", 60)
    node.wait_active(*APPS)
    halves = "find /etc/archy /var/lib/archipelago/secrets /run/archy -name '.archy-new-*'"
    node.wait("nothing is half written", lambda: node.run(halves).stdout == "")  # a pass may just be writing
    assert {node.out(f"stat -c '%s' {path}") for path in DERIVED}.isdisjoint({"0"})
    node.nothing_failed()
    password = node.out(f"cat {SECRETS}/bitcoin-rpc-password")
    assert len(password) == 64
    assert node.bitcoin("getblockcount") == "3"
    node.wait("the companion's login works", lambda: companion(node) == 3, 120)
    node.wait("electrumx serves", lambda: electrumx_height(node) == 3, 120)


def electrumx_height(node: Node) -> int:
    """The height that ElectrumX tells its clients; -1 if it serves nobody."""
    script = (
        "import json, socket; s = socket.create_connection(('127.0.0.1', 50001), 5);"
        's.sendall(b\'{"id": 0, "method": "blockchain.headers.subscribe", "params": []}\\n\');'
        "print(json.loads(s.makefile().readline())['result']['height'])"
    )
    return int(node.run("python3 -", stdin=script).stdout or -1)


@pytest.mark.parametrize("number", CUTS)
def test_in_a_tick(node: Node, number: int) -> None:
    for path in DERIVED:
        node.out(f"echo harmed >> {path}")
    cut(node, "systemctl start archy-reconcile", moment(number, 1.0))
    check_whole(node)


@pytest.mark.parametrize("number", CUTS)
def test_in_a_rotation(node: Node, number: int) -> None:
    before = node.out(f"cat {SECRETS}/bitcoin-rpc-password")
    cut(node, "archy secret rotate bitcoin-rpc-password", moment(number, 25.0))
    gone = f"test ! -e {SECRETS}/bitcoin-rpc-password.previous"
    node.passes_until("the rotation is over", lambda: node.run(gone).returncode == 0, 150)
    check_whole(node)
    now = node.out(f"cat {SECRETS}/bitcoin-rpc-password")
    call = "curl -s -o /dev/null -w '%{http_code}' -d '{\"method\":\"uptime\"}' http://127.0.0.1:8332/ -u archipelago:"
    assert node.out(call + now) == "200"
    assert now == before or node.out(call + before) == "401"


@pytest.mark.parametrize("number", CUTS)
def test_in_the_installation_of_a_consumer(node: Node, number: int) -> None:
    node.out("archy app remove electrumx", timeout=120)
    cut(node, "archy app install electrumx", moment(number, 4.0))
    node.out("archy app install electrumx", timeout=300)
    check_whole(node)
    assert node.out("grep -c ^rpcauth=electrumx: /var/lib/archipelago/bitcoin/bitcoin.conf") == "1"
