# SPDX-License-Identifier: MIT
"""Logins to bitcoind's RPC: who uses one has it, also after a change, and may do with it what its manifest says."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from conftest import Node
from consumers import APPS, CONF, CORE, HOME, SECRET, TICK, all_see_a_new_block, restarted, settle, six_apps


@pytest.fixture(scope="module")
def node() -> Iterator[Node]:
    """A node with all six apps at work."""
    with six_apps("logins") as fresh:
        yield fresh


def logins(node: Node) -> dict[str, str]:
    """User and password of each consumer, as it was given them."""
    url = node.out("cat /run/archipelago/secret-env/electrumx/DAEMON_URL")
    conf = node.out(f"cat {HOME}/lnd/lnd.conf")
    found = re.findall(r"//(.*):(.*)@", url) + re.findall(r"rpcuser=(.*)\nbitcoind\.rpcpass=(.*)", conf)
    return {"archipelago": node.out(f"cat {SECRET}"), **dict(found)}


def answer(node: Node, user: str, password: str, call: str) -> str:
    """The HTTP status of a call."""
    ask = f"curl -s -o /dev/null -w '%{{http_code}}' -u '{user}:{password}' -d '{{\"method\": \"{call}\"}}'"
    return node.out(f"{ask} http://127.0.0.1:8332/ || true")


def locked_out(node: Node, since: str) -> list[str]:
    """What consumers log when their login is refused."""
    log = node.out(f"journalctl --unit archy-electrumx --unit archy-lnd --output cat --since @{since}")
    return [line for line in log.splitlines() if re.search(r"\b401\b|[Uu]nauthori[sz]ed|[Ii]ncorrect.*password", line)]


def whitelist(node: Node, app: str) -> list[str]:
    """The calls that a manifest names."""
    load = f"yaml.safe_load(open('/usr/share/archy/apps/{app}/manifest.yml'))['app']['bitcoin_rpc']['rpcwhitelist']"
    return node.out(f'python3 -c "import yaml; print(*{load})"').split()


def test_another_password_reaches_all_without_a_tick(node: Node) -> None:
    """The path unit begins it: the timer is off. bitcoind is back before those who log in there."""
    before, old = node.pids(*APPS), logins(node)
    node.out("systemctl stop archy-reconcile.timer")
    node.tick()  # one under way would not see it
    since = node.out("date +%s.%N")
    node.out(f"echo another-password > {SECRET}")
    node.wait("restarts", lambda: restarted(node, before) == {*CORE, "bitcoin-ui"}, TICK)
    all_see_a_new_block(node)
    settle(node)
    assert restarted(node, before) == {*CORE, "bitcoin-ui"}
    up = {app: int(node.show(f"archy-{app}", "ActiveEnterTimestampMonotonic")) for app in CORE}
    assert up["bitcoin-knots"] < min(up["electrumx"], up["lnd"])
    assert node.active("reconcile.timer") == "active"
    assert locked_out(node, since) == []
    new = logins(node)
    assert new["archipelago"] == "another-password"
    for user in new:
        assert answer(node, user, new[user], "estimatesmartfee") not in ("401", "403")
        assert answer(node, user, old[user], "estimatesmartfee") == "401"


def test_each_consumer_may_make_its_own_calls_and_no_others(node: Node) -> None:
    known = logins(node)
    assert len(set(known.values())) == 3
    for app in ("electrumx", "lnd"):
        for call in whitelist(node, app):
            assert answer(node, app, known[app], call) not in ("401", "403"), call
        for call in ("stop", "help", "getwalletinfo", "createwallet"):
            assert answer(node, app, known[app], call) == "403", call
    assert answer(node, "archipelago", known["archipelago"], "help") == "200"
    assert answer(node, "lnd", known["electrumx"], "uptime") == "401"
    assert node.active("bitcoin-knots") == "active"


def test_rotation_proves_that_the_new_value_works_and_the_old_one_does_not(node: Node) -> None:
    node.calm()
    old, since = logins(node), node.out("date +%s.%N")
    done = node.run("archy secret rotate bitcoin-rpc-password", timeout=600)
    assert done.returncode == 0, done.stderr
    new = logins(node)
    for user in ("archipelago", "electrumx", "lnd"):
        assert re.search(rf"^{user}: the new login works \(\w+\), the previous one does not$", done.stderr, re.M)
        assert answer(node, user, new[user], "estimatesmartfee") not in ("401", "403")
        assert answer(node, user, old[user], "estimatesmartfee") == "401"
    assert node.run(f"test -e {SECRET}.previous").returncode == 1
    assert node.out("grep -c ^rpcauth= " + CONF) == "3"
    said = done.stdout + done.stderr + node.out(f"journalctl --no-pager --output cat --since @{since}")
    assert [value for value in {*old.values(), *new.values()} if value in said] == []
    assert locked_out(node, since) == []
    settle(node)
    all_see_a_new_block(node)


def test_a_removed_consumer_is_not_let_in_any_more(node: Node) -> None:
    node.calm()
    password = logins(node)["electrumx"]
    assert answer(node, "electrumx", password, "getblockcount") == "200"
    node.out("archy app remove electrumx")
    assert "rpcauth=electrumx" not in node.out(f"cat {CONF}")

    def is_refused() -> bool:
        return answer(node, "electrumx", password, "getblockcount") == "401"

    node.passes_until("electrumx is refused", is_refused, TICK)
    node.calm()
    node.out("archy app install electrumx")
    settle(node)
    assert answer(node, "electrumx", password, "getblockcount") == "200"
    all_see_a_new_block(node)
