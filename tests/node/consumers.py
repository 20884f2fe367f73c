# SPDX-License-Identifier: MIT
"""A node with all that logs in at bitcoind: what tests of it share."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from conftest import CommandFailed, Node, fresh_node

CORE = ("bitcoin-knots", "electrumx", "lnd")
APPS = (*CORE, "bitcoin-ui", "electrs-ui", "lnd-ui")
HOME = "/var/lib/archipelago"
CONF = f"{HOME}/bitcoin/bitcoin.conf"
SECRET = f"{HOME}/secrets/bitcoin-rpc-password"
TICK = 120  # seconds: more than it takes until the next tick, and for what that does


@contextmanager
def six_apps(name: str) -> Iterator[Node]:
    """A fresh node on regtest with all six apps at work."""
    with fresh_node(name) as fresh:
        fresh.write("/etc/archy/node.yml", "bitcoin:\n  network: regtest\n")
        for app in CORE:
            fresh.out(f"archy app install {app}", timeout=120)
        settle(fresh)
        fresh.out("systemctl restart archy-electrumx")  # it would wait 30 s for the bitcoind from before lnd came
        all_see_a_new_block(fresh)
        yield fresh


def settle(node: Node) -> None:
    """Have passes made until nothing is left to do."""

    def settled() -> bool:
        node.tick()
        return is_ok(node)

    node.wait("nothing is left to do", settled, 120)


def is_ok(node: Node) -> bool:
    """Whether all is well, and all runs on what it should."""
    code, found = node.status()
    apps = found["apps"].values()
    return code == 0 and all(app["current"] == "running" and not app["stale"] for app in apps)


def restarted(node: Node, before: dict[str, int]) -> set[str]:
    """The apps that do not run any more as they did."""
    return {app for app, pid in node.pids(*before).items() if pid != before[app]}


def lnd(node: Node) -> dict[str, Any]:
    """What the stand-in for lnd sees of bitcoind."""
    try:
        found: dict[str, Any] = json.loads(node.out("curl -sfk --max-time 5 https://127.0.0.1:8081/standin"))
        return found
    except CommandFailed:
        return {"rpc_ok": False, "height": None, "zmq_blocks": -1}


def electrumx(node: Node) -> int | None:
    """The height that the Electrum server tells wallets."""
    call = '{"id": 0, "method": "blockchain.headers.subscribe", "params": []}'
    ask = f"exec 3<>/dev/tcp/127.0.0.1/50001 && echo '{call}' >&3 && read -r -t 5 answer <&3 && echo \"$answer\""
    try:
        height: int = json.loads(node.out(ask))["result"]["height"]
        return height
    except CommandFailed:
        return None


def companion(node: Node) -> int | None:
    """The height that the Bitcoin page shows."""
    try:
        return node.height()
    except CommandFailed:
        return None


def all_see_a_new_block(node: Node, seconds: float = 120) -> None:
    """Each consumer logs in at bitcoind, and gets to know what is new there."""
    mine = "generatetodescriptor 1 'raw(51)'"
    node.wait("lnd's login", lambda: bool(lnd(node)["rpc_ok"]), seconds)
    before = lnd(node)["zmq_blocks"]
    node.wait("a block over ZMQ", lambda: node.bitcoin(mine) != "" and lnd(node)["zmq_blocks"] > before, 60)
    height = int(node.bitcoin("getblockcount"))

    def heights() -> set[int | None]:
        return {electrumx(node), companion(node), lnd(node)["height"]}

    node.wait(f"all are at height {height}", lambda: heights() == {height}, seconds)
