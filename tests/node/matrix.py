# SPDX-License-Identifier: MIT
"""The beta matrix: what must be so of an app after each event of its life. No app is known by name here."""

from __future__ import annotations

import json
import shlex
import subprocess
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any

import pytest
from conftest import CommandFailed, Node, fresh_node
from nodes.catalogue import apps, check_command, items, numbers, part
from nodes.common import REPO
from nodes.families import container, family, in_order, label, networks, volumes

EVENTS = ("install", "healthy", "ports", "stop", "start", "restart", "reboot", "remove", "reinstall")
LIMIT = 240  # seconds, after which an app will never be ready
HOME = "/var/lib/archipelago"
MARK = "archy-matrix-mark"
KILLED = "137"
RESULTS = REPO / "build/matrix"


def on_regtest(name: str, stack: ExitStack) -> Node:
    """A fresh node whose Bitcoin is a chain of its own."""
    node = stack.enter_context(fresh_node(name))
    node.write("/etc/archy/node.yml", "bitcoin:\n  network: regtest\n")
    return node


def command(node: Node, line: str) -> str:
    """Run a command of archy that waits for apps; if it waits for ever, say for what."""
    try:
        return node.out(line, timeout=LIMIT)
    except subprocess.TimeoutExpired:
        log = node.run("archy status; journalctl --no-pager -n 40 -u 'archy-*'").stdout
        raise CommandFailed(f"{line}\nnot within {LIMIT} s\n{log}") from None


def is_installed(node: Node, app: str) -> bool:
    """Whether an app is installed, well or not."""
    return node.run(f"test -e /etc/archy/apps/{app}").returncode == 0


def install(node: Node, app: str) -> None:
    """Install an app, and what it needs first. Those that wait for the chain see a new block."""
    for name in in_order([app]):
        if name == app or not is_installed(node, name):
            command(node, f"archy app install {name}")
            client = check_command(apps()[name])[:-1]
            if label(name) == "bitcoin" or client[:1] == ["bitcoin-cli"]:
                node.podman(f"exec {container(name)} {shlex.join(client)} generatetodescriptor 1 'raw(51)'")


def healthy(node: Node, main: str) -> None:
    """All of it is active, well for Podman, and well for archy."""
    names = family(main)
    node.wait_active(*names, seconds=LIMIT)
    checked = [name for name in names if "health_check" in apps()[name]]
    states = {
        name: node.podman(f"inspect --format '{{{{.State.Health.Status}}}}' {container(name)}") for name in checked
    }
    assert states == dict.fromkeys(checked, "healthy")

    def well() -> bool:
        node.tick()
        return all(node.status()[1]["apps"][name]["level"] == "ok" for name in names)

    node.wait(f"archy finds {', '.join(names)} well", well)


@dataclass(frozen=True)
class Port:
    """A port that an app or one of its parts publishes."""

    app: str
    protocol: str
    bind: str
    host: int
    container: int


def published(main: str) -> list[Port]:
    """All that an app and its parts publish on the node."""
    result = []
    for name in family(main):
        for told in items(apps()[name], "ports"):
            bind = told.get("bind") or ("127.0.0.1" if told.get("auth") in ("local", "gated") else "0.0.0.0")
            pairs = zip(numbers(told["host"]), numbers(told["container"]), strict=True)
            result += [Port(name, told.get("protocol", "tcp"), bind, host, inside) for host, inside in pairs]
    return result


def ports(node: Node, main: str) -> None:
    """The app serves each port that the manifest publishes, and it can be reached where that says, and nowhere else."""
    address = node.out("ip -4 -o address show host0 | awk '{print $4}' | cut -d/ -f1")
    for port in published(main):
        if port.protocol == "udp":
            assert node.out(f"ss -Hlun 'sport = :{port.host}'") != "", port
            continue
        node.wait(f"{port} is served", partial(serves, node, port))
        everywhere = port.bind in ("0.0.0.0", "::")
        assert reached(node, "127.0.0.1" if everywhere else port.bind, port.host), port
        assert reached(node, address, port.host) == (everywhere or port.bind == address), port


def serves(node: Node, port: Port) -> bool:
    """Whether somebody listens in the container. On the node, Podman accepts connections even if nobody does."""
    pid = node.podman(f"inspect --format '{{{{.State.Pid}}}}' {container(port.app)}")
    return node.out(f"nsenter --target {pid} --net ss -Hltn 'sport = :{port.container}'") != ""


def reached(node: Node, address: str, port: int) -> bool:
    """Whether a connection is accepted."""
    return node.run(f"timeout 5 bash -c ': </dev/tcp/{address}/{port}'").returncode == 0


def released(node: Node, main: str) -> None:
    """Nobody listens on its ports."""
    taken = {line.split()[4].rpartition(":")[2] for line in node.out("ss -Hltun").splitlines()}
    assert taken & {str(port.host) for port in published(main)} == set()


def stop(node: Node, main: str) -> None:
    """All of it ends by itself within its grace, and leaves neither processes nor ports."""
    command(node, f"archy app stop {main}")
    for name in family(main):
        assert (node.active(name), node.show(f"archy-{name}", "Result")) == ("inactive", "success")
        assert node.show(f"archy-{name}", "ExecMainStatus") != KILLED, f"{name} was killed after its grace"
        assert node.processes(name) == []
    released(node, main)


def restart(node: Node, main: str) -> None:
    """It is another process afterwards."""
    before = node.pid(main)
    command(node, f"systemctl restart archy-{main}")
    assert node.pid(main) not in (0, before)


def mark(node: Node, main: str) -> dict[str, str]:
    """Leave a mark wherever the app keeps data; where, and what is there now, the app's own lines included."""
    places = [source for kind, source in volumes(main) if kind == "bind" and source.startswith(f"{HOME}/")]
    named = [source for kind, source in volumes(main) if kind == "volume"]
    places += [node.podman(f"volume inspect --format '{{{{.Mountpoint}}}}' {source}") for source in named]
    found: dict[str, str] = {}
    for place in places:
        if node.run(f"test -d {place}").returncode == 0:
            node.out(f"cat /proc/sys/kernel/random/uuid > {place}/{MARK}")
            found |= {f"{place}/{name}": _beginning(node, f"{place}/{name}") for name in (MARK, "standin.log")}
    assert found or not places, f"{main}: none of {places} is there"
    return found


def kept(node: Node, marks: dict[str, str]) -> None:
    """All marks are as they were."""
    assert {path: _beginning(node, path) for path in marks if marks[path]} == {p: m for p, m in marks.items() if m}


def _beginning(node: Node, path: str) -> str:
    return node.run(f"head -n 1 {path}").stdout


def remove(node: Node, main: str) -> None:
    """Nothing of it is left but its data, its secrets and its named volumes."""
    data = [source for kind, source in volumes(main) if kind == "volume"]
    before = set(node.podman("volume ls --quiet").split())
    command(node, f"archy app remove {main}")
    assert orphans(node, main) == []
    assert before & set(data) <= set(node.podman("volume ls --quiet").split())
    released(node, main)


def orphans(node: Node, main: str) -> list[str]:
    """What is left of an app that should not be."""
    names = family(main)
    others = [name for name in node.out("ls /etc/archy/apps").split() if name in apps() and name not in names]
    used = {source for name in others for kind, source in volumes(name) if kind == "volume"}
    own = [source for kind, source in volumes(main) if kind == "volume" and source not in used]
    theirs = {network for name in others for network in networks(name)}
    secrets = {
        f"archy-{name}-{part(entry, 'key')}"
        for name in names
        for entry in items(apps()[name], "container", "secret_env")
    }
    units = [f"archy-{name}.service" for name in names] + [f"archy-{source}-volume.service" for source in own]
    units += [f"archy-{network}-network.service" for network in networks(main) - theirs]
    found = {
        "container": set(node.podman("ps --all --format '{{.Names}}'").split()) & {container(name) for name in names},
        "network": set(node.podman("network ls --quiet").split()) & (networks(main) - theirs),
        "secret": set(node.podman("secret ls --format '{{.Name}}'").split()) & secrets,
        "unit": {unit for unit in units if node.show(unit, "LoadState") != "not-found"},
        "file": {name for name in _files(node) if name.partition(".")[0] in names},
    }
    return [f"{kind} {name}" for kind, those in found.items() for name in sorted(those)]


def _files(node: Node) -> set[str]:
    """The last part of each path where archy or Podman keeps something of an app as long as it is installed."""
    where = "/run/archy /run/archipelago /etc/archy/apps /etc/archy/accepted"
    return {name.removeprefix("archy-") for name in node.out(f"find {where} -mindepth 1 -printf '%f\\n'").splitlines()}


class World:
    """One node at a time, for the apps of one group; each event can be tried alone, too."""

    def __init__(self, stack: ExitStack) -> None:
        """Begin without a node."""
        self.stack, self.group = stack, ""
        self.node: Node | None = None

    def get(self, group: str) -> Node:
        """The node of a group."""
        if self.node is None or group != self.group:
            self.stack.close()
            self.marks: dict[str, dict[str, str]] = {}
            self.hopeless: set[str] = set()
            self.rebooted = False
            self.node, self.group = on_regtest(f"mx-{group}"[:24], self.stack), group
        return self.node

    def ready(self, node: Node, app: str, by_itself: bool) -> None:
        """Have an app installed and started, with marks in its data; after a boot it starts `by_itself`."""
        if not is_installed(node, app):
            self.hopeless.add(app)
            install(node, app)
            self.hopeless.remove(app)
        if app not in self.marks:
            self.marks[app] = mark(node, app)
        elif not by_itself and node.active(app) != "active":
            command(node, f"archy app start {app}")

    def happen(self, group: str, event: str, app: str) -> None:
        """Let an event happen to an app, and see that all is as it should be."""
        node = self.get(group)
        if app in self.hopeless:
            pytest.skip(f"{app} could not be installed")
        if event == "reinstall" and (app not in self.marks or is_installed(node, app)):
            self.happen(group, "remove", app)
        self.ready(node, app, event == "reboot" and self.rebooted)  # which is all of install, start and reinstall
        match event:
            case "healthy":
                healthy(node, app)
            case "ports":
                ports(node, app)
            case "stop":
                stop(node, app)
            case "restart":
                restart(node, app)
            case "reboot" if not self.rebooted:  # of all apps of the group at once
                node.ctl("reboot")
                self.rebooted = True
            case "remove":
                remove(node, app)
        if event in ("start", "restart", "reboot", "reinstall"):
            healthy(node, app)
            ports(node, app)
        kept(node, self.marks[app])


def table(rows: list[dict[str, Any]]) -> list[str]:
    """App by event: the seconds that it took, or that it failed."""
    seen = {row["event"] for row in rows}
    events = [event for event in EVENTS if event in seen]
    lines = [f"{'app':24}" + "".join(f"{event:>11}" for event in events)]
    cells = {(row["app"], row["event"]): f"{row['seconds']:.1f}s" if row["ok"] else "FAILED" for row in rows}
    for app in dict.fromkeys(row["app"] for row in rows):
        lines.append(f"{app:24}" + "".join(f"{cells.get((app, event), '-'):>11}" for event in events))
    notes = [f"{row['app']}: {row['note']}" for row in rows if row.get("note")]
    return [*lines, *notes]


def write(rows: list[dict[str, Any]]) -> None:
    """Leave the table in build/matrix, and beside it the same for programs, a line for each cell."""
    RESULTS.mkdir(parents=True, exist_ok=True)
    (RESULTS / "table.txt").write_text("\n".join(table(rows)) + "\n")
    (RESULTS / "results.jsonl").write_text("".join(json.dumps(row, sort_keys=True) + "\n" for row in rows))
