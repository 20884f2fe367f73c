# SPDX-License-Identifier: MIT
"""A pass on a node that is at work: what has drifted is right again, and nobody is restarted who need not be."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from conftest import AS_USER, Node, standin
from consumers import APPS, CONF, CORE, HOME, SECRET, TICK, all_see_a_new_block, restarted, settle, six_apps

GENERATED = "/run/systemd/generator"
SANS = "openssl x509 -noout -ext subjectAltName | tail -n 1 | xargs"
PAGES = ("bitcoin-ui", "electrs-ui", "lnd-ui")
DERIVED = [
    CONF,
    f"{HOME}/lnd/lnd.conf",
    f"{HOME}/electrumx/electrumx.env",
    "/run/archipelago/secret-env/electrumx/DAEMON_URL",
    *(f"{HOME}/{page}/nginx.conf" for page in PAGES),
    *(f"{HOME}/{page}/html/index.html" for page in PAGES),
    *(f"{HOME}/{page}/html/page.{kind}" for page in PAGES[1:] for kind in ("css", "js")),
    f"{HOME}/.config/containers/containers.conf.d/50-archy.conf",
]
HARMS = [
    "echo garbage >> {}",
    "truncate -s 0 {}",
    "truncate -s 7 {}",
    "rm {}",
    "chmod 666 {}",
    "chown 12345:12345 {}",
    "ln -sf /etc/passwd {}",
    "rm {0} && mkfifo {0}",
]


@pytest.fixture(scope="module")
def node() -> Iterator[Node]:
    """A node with all six apps at work."""
    with six_apps("reconcile") as fresh:
        yield fresh


def look(node: Node, *paths: str) -> str:
    """Kind, owner, mode and content of files; nothing of one that is not there."""
    names = " ".join(paths)
    return node.run(f"for f in {names}; do stat -c '%n %F %u %g %a' $f && [ -f $f ] && sha256sum <$f; done").stdout


@pytest.mark.parametrize("harm", HARMS)
def test_whatever_befalls_derived_files_they_are_right_again_after_a_pass(node: Node, harm: str) -> None:
    before, right = node.pids(*APPS), {path: look(node, path) for path in DERIVED}
    with node.without_ticks():
        node.out("; ".join(harm.format(path) for path in DERIVED))
        assert all(look(node, path) != right[path] for path in DERIVED)
        node.tick()
        assert {path: look(node, path) for path in DERIVED} == right
    settle(node)  # Podman is asked before files are put right, and cannot answer without its configuration
    assert restarted(node, before) == set()


def test_the_timer_alone_does_it_too(node: Node) -> None:
    before, right = node.pids(*APPS), look(node, CONF)
    node.out(f"truncate -s 100 {CONF}")
    node.wait("a tick", lambda: look(node, CONF) == right, TICK)
    assert restarted(node, before) == set()


def test_a_secret_that_others_could_read_belongs_to_root_again(node: Node) -> None:
    before, right = node.pids(*APPS), look(node, SECRET)
    node.out(f"chown archipelago {SECRET}; chmod 644 {SECRET}")
    node.tick()
    assert look(node, SECRET) == right
    assert restarted(node, before) == set()


def test_the_same_value_written_again_restarts_nobody(node: Node) -> None:
    before, value = node.pids(*APPS), node.out(f"cat {SECRET}") + "\n"
    for write in (f"tee {SECRET}", f"cat > {SECRET}.new && mv {SECRET}.new {SECRET}"):
        node.out(write, stdin=value)
        node.tick()
    assert restarted(node, before) == set()
    settle(node)


@pytest.mark.parametrize(
    "harm",
    [
        "rm archy-lnd.service",
        "echo '[Service]' >> archy-lnd.service",
        "rm archy-net-network.service",
        "rm -r user@*.service.d",
        "rm archy.target.wants/archy-electrumx.service",
        "ln -s ../archy-nobody.service archy.target.wants/archy-nobody.service",
        "rm -r archy*",
        "rm -r *",
    ],
)
def test_generated_units_are_there_again_after_a_pass(node: Node, harm: str) -> None:
    def content() -> str:
        return node.out(f"cd {GENERATED} && ls -lR --time-style=+ && cat $(find . -type f | sort)")

    before, right = node.pids(*APPS), content()
    with node.without_ticks():
        node.out(f"cd {GENERATED} && {harm}")
        assert content() != right
        node.tick()
        assert content() == right  # by the pass: the end of this block runs the generator
    assert restarted(node, before) == set()
    assert {node.show(f"archy-{app}", "LoadState") for app in APPS} == {"loaded"}
    assert "50-archy.conf" in node.show("user@$(id -u archipelago)", "DropInPaths")
    settle(node)


def test_a_corrupt_file_and_a_crash_at_once(node: Node) -> None:
    """What starts again gets the right file; nobody else notices."""
    before, right = node.pids(*APPS), look(node, CONF)
    node.bitcoin("gettxoutsetinfo")  # bitcoind keeps blocks in memory only for an hour; this call makes it write
    node.out(f"echo garbage=1 > {CONF}; kill -9 $(pgrep -x bitcoind)")
    node.wait("another bitcoind", lambda: node.pid("bitcoin-knots") not in (0, before["bitcoin-knots"]))
    node.wait_active("bitcoin-knots")
    assert look(node, CONF) == right
    all_see_a_new_block(node)
    assert restarted(node, before) == {"bitcoin-knots"}


def test_host_facts_reach_those_who_use_them(node: Node) -> None:
    """Another address and another name of the host; then both as they were."""
    route, name = node.out("ip route show default"), node.out("hostname")
    address = node.out("ip -4 -o addr show dev host0").split()[3].partition("/")[0]
    users = {"lnd", "lnd-ui", "electrs-ui"}  # lnd's certificate is for them, and pages tell wallets
    new = f"ip addr add 198.51.100.7/32 dev lo; ip route replace {route} src 198.51.100.7; hostname other.example"
    old = f"ip route replace {route}; ip addr del 198.51.100.7/32 dev lo; hostname {name}"
    for change, ip, mdns in ((new, "198.51.100.7", "other.local"), (old, address, f"{name}.local")):
        node.calm()
        before = node.pids(*APPS)
        node.out(change)
        settle(node)
        assert restarted(node, before) == users
        host = json.loads(node.out("cat /run/archy/facts.json"))["host"]
        assert (host["HOST_IP"], host["HOST_MDNS"]) == (ip, mdns)
        conf = node.out(f"cat {HOME}/lnd/lnd.conf").splitlines()
        assert {f"tlsextraip={ip}", f"tlsextradomain={mdns}"} <= set(conf)
        served = node.out(f"echo | openssl s_client -connect 127.0.0.1:8081 2>/dev/null | {SANS}")
        assert {f"DNS:{mdns}", f"IP Address:{ip}"} <= set(served.split(", "))


def test_a_cable_pulled_changes_nothing(node: Node) -> None:
    before, facts = node.pids(*APPS), look(node, "/run/archy/facts.json", *DERIVED)
    route = node.out("ip route show default")
    node.out("ip route del default")
    node.tick()
    node.out(f"ip route add {route}")
    node.tick()
    assert look(node, "/run/archy/facts.json", *DERIVED) == facts
    assert restarted(node, before) == set()


def test_the_node_can_be_reached_from_every_container(node: Node) -> None:
    """Services of the node, on all of its addresses and on one; what they have served proves it."""
    networks = {"on-shared": "archy-net", "on-own": "some-net", "on-pasta": "pasta"}
    for app, network in networks.items():
        node.drop(app, standin(app, container=[f"network: {network}"]))
    node.out("systemctl start " + " ".join(f"archy-{app}" for app in networks))
    address = node.out("ip -4 -o addr show dev host0").split()[3].partition("/")[0]
    for port, bind in {18098: "0.0.0.0", 18099: address}.items():
        node.write(f"/root/{port}/word", f"served on {port}\n")
        server = f"python3 -m http.server --bind {bind} --directory /root/{port} {port}"
        node.out(f"systemd-run --quiet --unit=serve-{port} --collect {server}")
        node.wait("the server", lambda url=f"http://{address}:{port}": node.run(f"curl -sf {url}").returncode == 0)  # type: ignore[misc]
    everywhere = "for host in host.containers.internal host.archipelago; do for port in 18098 18099; do {}; done; done"
    by_bash = "exec 3<>/dev/tcp/$host/$port; printf 'GET /word HTTP/1.0\\r\\n\\r\\n' >&3; grep served <&3"
    by_busybox = "wget -q -O - http://$host:$port/word"
    ways = dict.fromkeys(networks, ("sh", by_busybox))
    ways |= dict.fromkeys((*CORE, *(f"archy-{page}" for page in PAGES)), ("bash", by_bash))
    try:
        for container, (shell, way) in ways.items():
            script = everywhere.format(way)
            done = node.run(f'{AS_USER} podman exec {container} {shell} -c "$(cat)"', stdin=script)
            assert done.stdout.split("\n") == [*["served on 18098", "served on 18099"] * 2, ""], (container, done)
    finally:
        node.out("systemctl stop serve-18098 serve-18099 " + " ".join(f"archy-{app}" for app in networks))
        node.out(f"cd /etc/archy/apps && rm -r {' '.join(networks)} && systemctl daemon-reload")
