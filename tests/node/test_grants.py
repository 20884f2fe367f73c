# SPDX-License-Identifier: MIT
"""What an app could leave its container with is refused until the operator grants it; and what any app is kept from."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from conftest import AS_USER, Node, fresh_node, standin

SHELF, GRANTS, HOME = "/usr/share/archy/apps", "/etc/archy/grants.yml", "/var/lib/archipelago"
SOCKET = "/run/user/{uid}/podman/podman.sock"


@dataclass(frozen=True)
class Wish:
    """What an app asks for: lines of its manifest, and the grant; how it shows in the container that it has it."""

    key: str
    value: str
    script: str
    container: tuple[str, ...] = ()
    extra: tuple[str, ...] = ()
    health: str = "{type: http, endpoint: 'localhost:8080', path: /health, interval: 1s}"
    port: str = "8080"

    @property
    def grant(self) -> str:
        """The grant as it is written for the app."""
        return f"{{{self.key}: {f'[{self.value}]' if self.key in ('devices', 'paths') else self.value}}}"


def bind(source: str) -> tuple[str, ...]:
    """A bind mount."""
    return (f"volumes: [{{type: bind, source: {source}, target: /m}}]",)


WISHES = {
    "privileged": Wish(
        "privileged", "true", 'grep -q "Seccomp:.0" /proc/1/status', extra=("security: {privileged: true}",)
    ),
    "network": Wish(
        "network",
        "host",
        "test -e /proc/sys/net/ipv4/conf/host0",
        container=("network: host",),
        health="{type: http, endpoint: 'localhost:18099', path: /health, interval: 1s}",
        port="18099",
    ),
    "device": Wish("devices", "/dev/null", "echo x > /dev/hole", container=("devices: ['/dev/null:/dev/hole']",)),
    "foreign": Wish("paths", "/srv/media", "grep -q film /m/film", extra=bind("/srv/media")),
    "socket": Wish("paths", SOCKET, "test -S /m", extra=bind(SOCKET)),
    "neighbour": Wish("paths", f"{HOME}/plain", "grep -q own /m/own", extra=bind(f"{HOME}/plain")),
}


def manifest(app: str, wish: Wish, uid: str) -> str:
    """The manifest of a stand-in with a wish."""
    text = standin(app, container=wish.container, extra=wish.extra, health=wish.health, env={"PORT": wish.port})
    return text.replace("{uid}", uid)


@pytest.fixture(scope="module")
def node() -> Iterator[Node]:
    """A node with a plain app, and one for each wish in the catalogue."""
    with fresh_node("grants") as fresh:
        uid = fresh.out("id -u archipelago")
        fresh.out("mkdir -p /srv/media && echo film > /srv/media/film")
        extra = [f"volumes: [{{type: bind, source: {HOME}/plain, target: /data}}]"]
        fresh.write(f"{SHELF}/plain/manifest.yml", standin("plain", port=18001, extra=extra))
        for app, wish in WISHES.items():
            fresh.write(f"{SHELF}/{app}/manifest.yml", manifest(app, wish, uid))
        fresh.out("archy app install plain")
        fresh.podman("exec plain sh -c 'echo own > /data/own'")
        yield fresh


def grant(node: Node, *lines: str) -> None:
    """Write the operator's grants, and have them count."""
    node.write(GRANTS, "\n".join(lines) + "\n")
    node.out("systemctl daemon-reload")
    node.tick()


def shown(node: Node, app: str) -> dict[str, object]:
    """The one grant that `archy app show` says an app asks for."""
    found: list[dict[str, object]] = json.loads(node.out(f"archy app show --json {app}"))["grants"]
    assert len(found) == 1
    return found[0]


@pytest.mark.parametrize("app", WISHES)
def test_refused_until_granted(node: Node, app: str) -> None:
    wish, uid = WISHES[app], node.out("id -u archipelago")
    value, written = wish.value.replace("{uid}", uid), wish.grant.replace("{uid}", uid)
    node.out(f"rm -f {GRANTS}; systemctl daemon-reload")
    assert shown(node, app)["granted"] is False
    assert f"NOT granted; to allow it, write into {GRANTS}: {app}: {written}" in node.out(f"archy app show {app}")
    done = node.run(f"archy app install {app}")
    assert done.returncode == 3
    assert f"needs a grant of the node's operator ({value}: " in done.stderr, done.stderr
    assert f"to allow that, write into {GRANTS}: {app}: {written}" in done.stderr
    assert f"{SHELF}/{app}/manifest.yml:" in done.stderr
    assert node.show(f"archy-{app}", "LoadState") == "not-found"
    # By hand it is no other.
    node.out(f"ln -s {SHELF}/{app} /etc/archy/apps/{app}; systemctl daemon-reload")
    assert node.run(f"systemctl start archy-{app}").returncode != 0
    assert "needs a grant" in node.run(f"systemctl status archy-{app} --no-pager").stdout
    assert node.processes(app) == []
    grant(node, f"{app}: {written}")
    assert shown(node, app)["granted"] is True
    if app == "socket":
        node.out(f"systemctl --user -M archipelago@ start podman.socket && test -S {value}")
    node.out(f"archy app install {app}")
    node.podman(f"exec {app} sh -c '{wish.script}'")


def test_another_grant_is_none(node: Node) -> None:
    """Neither one for another app, nor one for something else."""
    node.out("archy app remove foreign")
    for line in (
        "network: {paths: [/srv]}",
        "foreign: {paths: [/srv/med]}",
        "foreign: {paths: [/srv/media/film]}",
        "foreign: {devices: [/dev/null], network: host, privileged: true}",
    ):
        grant(node, line)
        assert node.run("archy app install foreign").returncode == 3, line
    grant(node, "foreign: {paths: [/srv]}")
    node.out("archy app install foreign")


def test_withdrawn_it_stays_and_does_not_start_again(node: Node) -> None:
    before = node.pids("foreign", "plain")
    grant(node, "foreign: {}")
    assert node.pids("foreign", "plain") == before
    assert "needs a grant" in node.out("systemctl status archy-foreign --no-pager")
    code, found = node.status()
    assert code == 1
    assert "needs a grant" in " ".join(found["apps"]["foreign"]["problems"])
    assert node.run("systemctl restart archy-foreign").returncode != 0
    assert node.pid("foreign") == before["foreign"]
    node.out("systemctl stop archy-foreign")
    for reload in ("true", "systemctl daemon-reload"):
        assert node.run(f"{reload}; systemctl start archy-foreign").returncode != 0
        assert "needs a grant" in node.run("systemctl status archy-foreign --no-pager --lines 20").stdout
        assert node.processes("foreign") == []
    assert node.pid("plain") == before["plain"]
    grant(node, "foreign: {paths: [/srv/media]}")
    node.out("systemctl start archy-foreign")
    assert node.podman("exec foreign cat /m/film") == "film"


def test_bad_grants_are_said_and_the_last_good_ones_count(node: Node) -> None:
    before = node.pids("foreign", "plain")
    for bad in ("foreign: {paths: [", "foreign: {paths: /srv}", "foreign: {path: [/srv]}", "- foreign", "a\0b"):
        node.write(GRANTS, bad)
        node.out("systemctl daemon-reload")
        node.tick()
        assert node.pids("foreign", "plain") == before
        done = node.run("archy status")
        assert done.returncode == 1
        assert f"grants refused: {GRANTS}:" in done.stdout, done.stdout
        assert "the last good version stays in force" in done.stdout
        node.out("systemctl restart archy-foreign")
        assert node.podman("exec foreign cat /m/film") == "film"
        before = node.pids("foreign", "plain")
    node.ctl("reboot")
    node.wait_active("foreign", "plain")
    grant(node, "foreign: {paths: [/srv/media]}")
    node.wait("nothing is wrong with the grants", lambda: "grants refused" not in node.run("archy status").stdout)


@pytest.mark.parametrize("path", ["/proc", "/sys/fs", "/dev", "/etc", "/etc/archy", f"{HOME}/secrets", HOME, "/var"])
def test_nothing_grants_the_node_itself(node: Node, path: str) -> None:
    node.write(f"{SHELF}/never/manifest.yml", standin("never", extra=bind(path)))
    grant(node, f"never: {{paths: [{path}, /var, /etc, /]}}")
    done = node.run("archy app install never")
    assert done.returncode == 3
    assert "app.volumes[0].source: must be below" in done.stderr, done.stderr


def test_what_a_plain_app_is_kept_from(node: Node) -> None:
    lines = node.podman("exec plain cat /proc/1/status").splitlines()
    found = dict(line.split(":", 1) for line in lines)
    for sets in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
        assert int(found[sets], 16) == 0, sets
    assert (found["NoNewPrivs"].strip(), found["Seccomp"].strip()) == ("1", "2")
    for path in ("/x", "/etc/x", "/www/x", "/.archy/x"):
        done = node.run(f"{AS_USER} podman exec plain sh -c 'echo x > {path}'")
        assert "Read-only file system" in done.stderr, path
    assert node.podman("exec plain sh -c 'echo x > /tmp/x && echo x > /data/x && cat /tmp/x'") == "x"
    mounts = node.podman("exec plain cat /proc/1/mountinfo")
    for place in ("/etc/archy", f"{HOME}/secrets", "podman.sock"):
        assert place not in mounts
    assert node.podman("exec plain ls /dev").split() == node.podman("exec foreign ls /dev").split()
    user = node.out(f"ps -o uid= -p {node.pid('plain')}").strip()
    assert user == node.out("id -u archipelago")


def test_published_where_the_manifest_says_and_nowhere_else(node: Node) -> None:
    assert node.out("ss -Hltn 'sport = :18001' | awk '{print $4}'").split() == ["127.0.0.1:18001"]
    listening = node.out("ss -Hltun | awk '{print $5}'").split()
    assert [place for place in listening if place.endswith(":8080")] == []
    assert node.out("curl -sf http://127.0.0.1:18001/health") == "ok"
    address = node.out("hostname -I | cut -d' ' -f1")
    assert node.run(f"curl -sf --max-time 3 http://{address}:18001/health").returncode != 0
