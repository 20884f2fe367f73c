# SPDX-License-Identifier: MIT
"""Implementations of Bitcoin: one at a time, on the same data; whoever needs one follows; and what one must be like."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from conftest import AS_USER, Node, fresh_node, standin
from consumers import CORE, HOME, SECRET, companion, electrumx, lnd

KNOTS, BITCOIN_CORE = "bitcoin-knots", "bitcoin-core"
BOTH = (KNOTS, BITCOIN_CORE)
FOLLOWERS = ("electrumx", "lnd")  # the page of bitcoin-ui knows the node by the name that both have
USER_CONF = f"{HOME}/bitcoin/bitcoin.user.conf"
CORE_IMAGE, KNOTS_IMAGE = "docker.io/bitcoin/bitcoin:29.3", "docker.io/bitcoinknots/bitcoin:29.3.knots20260508"
# Two in every run of the tests, twenty in `make chaos`.
MOMENTS = [
    pytest.param(number, marks=[pytest.mark.chaos, *([pytest.mark.sample] if number < 2 else [])])
    for number in range(20)
]
SAMPLER = """
import os, time
base = "/sys/fs/cgroup/archipelago.slice/archipelago-apps.slice/archy-bitcoin-"
def runs(name):
    try:
        pids = open(f"{base}{name}.service/cgroup.procs").read().split()
    except OSError:
        return False
    for pid in pids:
        try:
            if open(f"/proc/{pid}/comm").read() == "bitcoind\\n":
                return True
        except OSError:
            pass
    return False
count = 0
while True:
    if all([runs("knots"), runs("core")]):
        open("/run/two-bitcoinds", "a").write("x")
    count += 1
    open("/run/samples.new", "w").write(str(count))
    os.replace("/run/samples.new", "/run/samples")
    time.sleep(0.02)
"""


@pytest.fixture(scope="module")
def node() -> Iterator[Node]:
    """A node on regtest with Bitcoin Knots, those who need it, and the image of Bitcoin Core."""
    with fresh_node("alternat") as fresh:
        fresh.write("/etc/archy/node.yml", "bitcoin:\n  network: regtest\n")
        if fresh.run(f"{AS_USER} podman image exists {CORE_IMAGE}").returncode:
            fresh.podman(f"tag {KNOTS_IMAGE} {CORE_IMAGE}")
        for app in CORE:
            fresh.out(f"archy app install {app}", timeout=180)
        mine(fresh, 5)
        cli(fresh, "gettxoutsetinfo")  # makes bitcoind write its index, which it otherwise does once an hour
        yield fresh


def current(node: Node) -> str:
    """Which of the two runs."""
    found = [app for app in BOTH if node.active(app) == "active"]
    assert len(found) == 1, found
    return found[0]


def cli(node: Node, arguments: str) -> str:
    """The output of bitcoin-cli in the container of the one that runs."""
    return node.podman(f"exec {current(node)} bitcoin-cli -datadir=/data -conf=/data/bitcoin.conf {arguments}")


def mine(node: Node, blocks: int = 1) -> None:
    """Make blocks."""
    cli(node, f"generatetodescriptor {blocks} 'raw(51)'")


def tip(node: Node) -> tuple[str, str]:
    """Height and hash of the best block."""
    return cli(node, "getblockcount"), cli(node, "getbestblockhash")


@contextmanager
def never_two(node: Node) -> Iterator[None]:
    """Watch the cgroups of both for two bitcoinds at a time."""
    node.out(f"rm -f /run/two-bitcoinds; cat > /root/sampler.py <<'END'\n{SAMPLER}END\n")
    node.out("systemd-run --quiet --collect --unit sampler python3 /root/sampler.py")
    try:
        yield
    finally:
        node.out("systemctl stop sampler")
    assert int(node.out("cat /run/samples")) > 20
    assert node.run("test -e /run/two-bitcoinds").returncode != 0


def check_followers(node: Node) -> None:
    """Everybody names the container of the one that runs, logs in there, and sees what is new."""
    app = current(node)
    other = next(one for one in BOTH if one != app)
    node.wait("lnd's login", lambda: bool(lnd(node)["rpc_ok"]), 120)
    assert f"@{app}:8332/" in node.podman("exec electrumx cat /proc/1/environ")
    conf = node.out(f"cat {HOME}/lnd/lnd.conf")
    assert (app in conf, other in conf) == (True, False)
    blocks = lnd(node)["zmq_blocks"]

    def told() -> bool:
        mine(node)
        return bool(lnd(node)["zmq_blocks"] > blocks)

    node.wait("a block over ZMQ", told, 120)
    height = int(cli(node, "getblockcount"))

    def heights() -> set[int | None]:
        return {electrumx(node), companion(node), lnd(node)["height"]}

    node.wait(f"all are at height {height}", lambda: heights() == {height}, 120)


def check_switched(node: Node, old: str, new: str, before: tuple[str, str]) -> None:
    """The new one is there alone, on the data of the old one."""
    node.wait_active(new)
    assert tip(node) == before
    assert node.show(f"archy-{old}", "LoadState") == "not-found"
    assert node.processes(old) == []
    assert sorted(set(BOTH) & set(node.out("ls /etc/archy/apps").split())) == [new]
    assert node.out("systemctl show -P Id archy-bitcoin.service") == f"archy-{new}.service"


@pytest.mark.parametrize(("old", "new"), [BOTH, BOTH[::-1]])
def test_a_switch_keeps_the_chain_and_all_follow(node: Node, old: str, new: str) -> None:
    node.calm()
    check_followers(node)
    before, pids, secret = tip(node), node.pids(*FOLLOWERS), node.out(f"cat {SECRET}")
    with never_two(node):
        node.out(f"archy app switch {old} {new}", timeout=300)
    check_switched(node, old, new, before)
    node.passes_until(
        "restarts of all that follow", lambda: not set(node.pids(*FOLLOWERS).items()) & set(pids.items()), 240
    )
    node.wait_active(*FOLLOWERS)
    check_followers(node)
    assert node.out(f"cat {SECRET}") == secret
    node.passes_until("all is well", lambda: node.run("archy status").returncode == 0, 90)
    # Done already: nothing happens.
    pids = node.pids(new, *FOLLOWERS)
    node.out(f"archy app switch {old} {new}", timeout=300)
    assert node.pids(new, *FOLLOWERS) == pids


def test_the_other_one_is_not_installed_beside_it(node: Node) -> None:
    pids = node.pids(KNOTS, *FOLLOWERS)
    done = node.run("archy app install bitcoin-core")
    assert done.returncode == 3
    assert "provides bitcoin, and so does bitcoin-knots, which is installed" in done.stderr
    assert "hint: archy app switch bitcoin-knots bitcoin-core" in done.stderr
    done = node.run("archy app switch bitcoin-knots lnd")
    assert (done.returncode, "are no alternatives" in done.stderr) == (3, True)
    done = node.run("archy app switch bitcoin-knots nothing")
    assert done.returncode == 4
    done = node.run("archy app remove bitcoin-knots")
    assert (done.returncode, "needs bitcoin-knots" in done.stderr) == (1, True)
    assert node.pids(KNOTS, *FOLLOWERS) == pids


@pytest.mark.parametrize("number", MOMENTS)
def test_a_killed_switch_is_finished_by_the_next(node: Node, number: int) -> None:
    old = current(node)
    new = next(app for app in BOTH if app != old)
    before, moment = tip(node), random.Random(number).uniform(0.1, 8)
    with never_two(node):
        node.out(f"setsid archy app switch {old} {new} >/dev/null 2>&1 & sleep {moment:.2f}; kill -9 $! || true")
        node.out(f"archy app switch {old} {new}", timeout=300)
    check_switched(node, old, new, before)


@pytest.mark.parametrize("number", MOMENTS)
def test_a_power_cut_in_a_switch_leaves_one_of_them(node: Node, number: int) -> None:
    old = current(node)
    new = next(app for app in BOTH if app != old)
    cli(node, "gettxoutsetinfo")
    before, moment = tip(node), random.Random(100 + number).uniform(0.1, 8)
    node.out(f"(setsid archy app switch {old} {new} >/dev/null 2>&1 &) && sleep {moment:.2f}")
    node.ctl("kill")
    node.ctl("boot")
    node.wait("one of them runs", lambda: "active" in {node.active(app) for app in BOTH}, 120)
    assert tip(node) == before
    with never_two(node):
        node.out(f"archy app switch {old} {new}", timeout=300)
    check_switched(node, old, new, before)


def test_both_by_hand_and_one_of_them_runs(node: Node) -> None:
    one = current(node)
    other = next(app for app in BOTH if app != one)
    with never_two(node):
        node.out(f"ln -s /usr/share/archy/apps/{other} /etc/archy/apps/{other}; systemctl daemon-reload")
        node.out(f"systemctl start --no-block archy-{other}")
        hint = f"archy app switch {one} {other}"
        log = "journalctl --sync; " + "; ".join(f"journalctl -u archy-{app} --no-pager --lines 30" for app in BOTH)
        node.wait("one is refused", lambda: "they are alternatives" in node.out(log) and hint in node.out(log), 120)
        node.tick()
        assert {node.active(app) == "active" for app in BOTH} == {True, False}

        def is_said() -> bool:
            done = node.run("archy status")
            return hint in done.stdout and done.returncode == 1

        node.wait("status says so", is_said, 120)
    node.out(f"systemctl stop archy-{other}; rm /etc/archy/apps/{other}; systemctl daemon-reload")
    node.out(f"systemctl start archy-{one}")
    node.wait_active(one)


def test_who_needs_an_archive_is_refused_without_one(node: Node) -> None:
    node.out("archy app remove electrumx", timeout=180)
    node.write("/etc/archy/node.yml", "bitcoin:\n  network: regtest\n  prune: 550\n")
    node.tick()
    node.out("systemctl restart archy-bitcoin")
    assert json.loads(cli(node, "getblockchaininfo"))["pruned"] is True
    done = node.run("archy app install electrumx")
    assert done.returncode == 3
    assert f"needs an archival Bitcoin node; {current(node)} is pruned and has no txindex" in done.stderr
    assert "bitcoin.prune: 0" in done.stderr
    node.write("/etc/archy/node.yml", "bitcoin:\n  network: regtest\n")
    node.tick()
    node.out("systemctl restart archy-bitcoin")
    node.out("archy app install electrumx", timeout=180)


def test_status_says_that_the_archive_is_gone(node: Node) -> None:
    node.out(f"cp {USER_CONF} /root/user.conf; printf '[regtest]\\ntxindex=0\\nprune=550\\n' >> {USER_CONF}")
    node.out("systemctl restart archy-bitcoin")
    said = f"needs an archival Bitcoin node: {current(node)} is pruned and has no txindex"
    node.wait("status says so", lambda: said in " ".join(node.status()[1]["apps"]["electrumx"]["problems"]), 120)
    node.tick()
    assert json.loads(node.out("cat /run/archy/status.json"))["node"]["bitcoin"]["pruned"] is True  # a pass may ask
    node.out(f"cat /root/user.conf > {USER_CONF}; systemctl restart archy-bitcoin")
    node.wait("status says it no more", lambda: "archival" not in node.run("archy status").stdout, 90)


def test_who_waits_until_bitcoin_is_synced(node: Node) -> None:
    node.out(
        f"cp {USER_CONF} /root/user.conf; echo maxtipage=5 >> {USER_CONF}; sleep 6; systemctl restart archy-bitcoin"
    )
    assert json.loads(cli(node, "getblockchaininfo"))["initialblockdownload"] is True
    for app in ("waits", "stopped"):
        manifest = standin(app, extra=["dependencies: [{bitcoin: synced}]"])
        node.write(f"/usr/share/archy/apps/{app}/manifest.yml", manifest)
        node.out(f"archy app install --no-wait {app}")
    for app in ("waits", "stopped"):
        assert f"archy-{app}.service" in node.out("systemctl list-jobs --no-legend | grep waiting")
        assert node.processes(app) == []
    node.wait("status says why", lambda: "Bitcoin is syncing" in node.run("archy status").stdout, 90)
    node.out("systemctl stop archy-stopped")
    assert "archy-stopped.service" not in node.out("systemctl list-jobs --no-legend")
    mine(node)
    assert json.loads(cli(node, "getblockchaininfo"))["initialblockdownload"] is False
    node.wait_active("waits", seconds=120)
    assert node.active("stopped") == "inactive"
    node.out("systemctl start archy-stopped")
    assert node.active("stopped") == "active"
    node.out(f"cat /root/user.conf > {USER_CONF}; archy app remove waits; archy app remove stopped")
