# SPDX-License-Identifier: MIT
# ruff: noqa: E501 - a case is a line
"""The model as Quadlet text, and the service user."""

from __future__ import annotations

import dataclasses
import re

import pytest
from support import OWNER, Node, app_of, app_text

from archy import parse, quadlet
from archy.owner import Owner, owner_of

# Added to the container, added to the app, lines that must be in the Quadlet text, keys that must not be there.
CASES = [
    pytest.param("", "", ["ContainerName=web", "Network=archy-net", "Pull=missing", "ReadOnly=true"], "User Group Notify", id="defaults"),
    pytest.param("", "", ["NoNewPrivileges=true", "DropCapability=all"], "AddCapability Exec Entrypoint", id="nothing-is-granted"),
    pytest.param("", "", ["StopTimeout=30", "TimeoutStopSec=45", "TimeoutStartSec=infinity"], "Memory", id="times"),
    pytest.param("", "stop_grace_secs: 600\nstart_timeout_secs: 7", ["StopTimeout=600", "TimeoutStopSec=615", "TimeoutStartSec=7"], "", id="own-times"),
    pytest.param("", "companion_of: db", ["ContainerName=archy-web"], "", id="companion"),
    pytest.param("pull_policy: if-not-present", "", ["Pull=missing"], "", id="pull-if-not-present"),
    pytest.param("pull_policy: newer", "", ["Pull=newer"], "", id="pull-newer"),
    pytest.param("network: pasta", "", ["Network=pasta"], "NetworkAlias", id="pasta"),
    pytest.param("network: x\nnetwork_aliases: [a, b]", "", ["Network=x", "NetworkAlias=a", "NetworkAlias=b"], "", id="aliases"),
    pytest.param("network: x", "", ["Wants=archy-x-network.service", "After=archy-x-network.service"], "", id="network-unit"),
    pytest.param("user: 5", "", ["User=5"], "Group", id="user"),
    pytest.param("user: 5:6", "", ["User=5", "Group=6"], "", id="user-and-group"),
    pytest.param("entrypoint: [a, 'b c']\ncustom_args: [-d, 'e f', $x, '%y']", "", ['Entrypoint=["a", "b c"]', 'Exec="-d" "e f" "$$x" "%%y"'], "", id="words"),
    pytest.param("", "environment: [A=1, 'B=c d']", ['Environment="A=1"', 'Environment="B=c d"'], "", id="environment"),
    pytest.param("", "security: {capabilities: [CAP_CHOWN, KILL]}", ["AddCapability=CHOWN", "AddCapability=KILL", "DropCapability=all"], "", id="capabilities"),
    pytest.param("", "security: {readonly_root: false, no_new_privileges: false}", ["ReadOnly=false", "NoNewPrivileges=false"], "", id="granted"),
    pytest.param("", "resources: {memory_limit: 1Gi, cpu_limit: 0.25}", ["MemoryMax=1073741824", "CPUQuota=25%"], "Memory", id="limits"),
    pytest.param("", "resources: {cpu_limit: 0.0001}", ["CPUQuota=1%"], "", id="least-cpu"),
    pytest.param("", "ports: [{host: 8080, container: 80}]", ["PublishPort=0.0.0.0:8080:80/tcp"], "", id="port"),
    pytest.param("", "ports: [{host: 8080, container: 80, protocol: udp, bind: '::'}]", ["PublishPort=[::]:8080:80/udp"], "", id="port-v6"),
    pytest.param("", "ports: [{host: 8080, container: 80, auth: local}]", ["PublishPort=127.0.0.1:8080:80/tcp"], "", id="local-port"),
    pytest.param("", "ports: [{host: 8080, container: 80, auth: local, bind: '::1'}]", ["PublishPort=[::1]:8080:80/tcp"], "", id="local-port-v6"),
    pytest.param("", "volumes: [{type: volume, source: d, target: /d}]", ["Volume=d:/d", "Wants=archy-d-volume.service"], "", id="volume"),
    pytest.param("", "volumes: [{type: bind, source: /var/lib/archipelago/w, target: /d, options: [ro, nodev]}]", ["Volume=/var/lib/archipelago/w:/d:ro,nodev"], "", id="bind"),
    pytest.param("", "dependencies: [{app_id: db}, {storage: 1Gi}]", ["After=archy-db.service"], "", id="order-only"),
    pytest.param("", "health_check: {type: exec, command: [a, 'b c']}", ["Notify=healthy", 'HealthCmd=["a", "b c"]', 'HealthStartupCmd=["a", "b c"]', "HealthInterval=1h"], "", id="exec"),
    pytest.param("", "health_check: {type: tcp, endpoint: 'localhost:81', timeout: 100ms}", ['HealthCmd=["/.archy/busybox", "nc", "-w", "1", "127.0.0.1", "81", "-e", "/.archy/busybox", "true"]', "HealthTimeout=100ms"], "", id="tcp"),
    pytest.param("", "health_check: {type: http, endpoint: 'localhost:81/x', timeout: 1m, retries: 9}", ["Volume=/usr/bin/busybox:/.archy/busybox:ro", "HealthRetries=9", "HealthStartupTimeout=60000ms"], "", id="http"),
]  # fmt: skip


@pytest.mark.parametrize(("container", "app", "wanted", "unwanted"), CASES)
def test_lines(node: Node, container: str, app: str, wanted: list[str], unwanted: str) -> None:
    text = quadlet.files(app_of(container, app), "/m.yml", OWNER, node.name)["archy-web.container"]
    lines = text.split("\n")
    assert [line for line in wanted if line not in lines] == []
    container_lines = lines[lines.index("[Container]") : lines.index("[Service]")]
    assert [line for line in container_lines if line.partition("=")[0] in unwanted.split()] == []


def test_what_every_app_has(node: Node) -> None:
    lines = quadlet.files(app_of(), "/m.yml", OWNER, node.name)["archy-web.container"].split("\n")
    for line in (
        "SourcePath=/m.yml",
        "CgroupsMode=disabled",
        "LogDriver=journald",
        "Restart=always",
        "StartLimitIntervalSec=0",
        "PartOf=user@990.service",
        "Slice=archipelago-apps.slice",
        "ExecStartPre=+/usr/libexec/archy/archy-prepare --starting web",
        "Environment=XDG_RUNTIME_DIR=/run/user/990 DBUS_SESSION_BUS_ADDRESS=unix:path=/run/user/990/bus",
    ):
        assert line in lines
    # Quadlet must not see it (`User=` of [Container] is another), and nothing may be made a requirement.
    assert lines.index("User=archipelago") > lines.index("[Service]")
    assert not [line for line in lines if re.match(r"(Requires|BindsTo|Requisite|AutoUpdate)=", line)]


@pytest.mark.parametrize(
    ("container", "names"),
    [
        ("", ["archy-net.network", "archy-web.container"]),
        ("network: pasta", ["archy-web.container"]),
        ("network: archy-net", ["archy-net.network", "archy-web.container"]),
        ("network: x", ["archy-net.network", "archy-web.container", "archy-x.network"]),
    ],
)
def test_files(node: Node, container: str, names: list[str]) -> None:
    files = quadlet.files(app_of(container), "/m.yml", OWNER, node.name)
    assert list(files) == names
    if "network: x" in container:
        assert "Subnet=" not in files["archy-x.network"]
        assert "After=archy-net-network.service" in files["archy-x.network"]
    if "archy-net.network" in files:
        assert "Subnet=10.89.0.0/24" in files["archy-net.network"]


def test_shared_files_are_the_same_for_all(node: Node) -> None:
    volumes = "volumes: [{type: volume, source: d, target: /d}]"
    one = quadlet.files(app_of("network: x", volumes), "/one.yml", OWNER, node.name)
    other = quadlet.files(
        dataclasses.replace(app_of("network: x", volumes), id="other"), "/other.yml", OWNER, node.name
    )
    assert {name: one[name] for name in one.keys() & other.keys()} == {
        name: other[name] for name in one.keys() & other.keys()
    }
    assert len(one.keys() & other.keys()) == 3


@pytest.mark.parametrize(
    ("passwd", "subuid", "subgid", "owner"),
    [
        (
            "archipelago:x:990:989::/:/",
            "archipelago:1000:9",
            "archipelago:2000:9",
            Owner(990, 989, (range(1000, 1009),), (range(2000, 2009),)),
        ),
        (
            "archipelago:x:990:989::/:/",
            "990:1000:9",
            "990:2000:9",
            Owner(990, 989, (range(1000, 1009),), (range(2000, 2009),)),
        ),
        (
            "archipelago:x:990:989::/:/",
            "a:1:2\narchipelago:7:9\narchipelago:8:9",
            "",
            Owner(990, 989, (range(7, 16), range(8, 17)), ()),
        ),
        ("archipelago:x:990:989::/:/", "archipelago:x:9\narchipelago:5\n", "", Owner(990, 989, (), ())),
        ("archipelago2:x:1:1::/:/\narchipelago:x:2:3::/:/", "", "", Owner(2, 3, (), ())),
        ("\xff:x:1:1::/:/\narchipelago:x:2:3::/:/", "", "", Owner(2, 3, (), ())),
    ],
)
def test_owner(node: Node, passwd: str, subuid: str, subgid: str, owner: Owner) -> None:
    for name, text in (("passwd", passwd), ("subuid", subuid), ("subgid", subgid)):
        node.write(f"/etc/{name}", text.encode("latin-1"))
    assert owner_of(node.name) == owner


@pytest.mark.parametrize("passwd", ["", "root:x:0:0::/:/", "archipelago", "#archipelago:x:1:1::/:/"])
def test_no_owner(node: Node, passwd: str) -> None:
    node.write("/etc/passwd", passwd)
    with pytest.raises(LookupError, match="/etc/passwd has no user archipelago"):
        owner_of(node.name)


@pytest.mark.parametrize(
    ("text", "size"),
    [("1", 1), ("1024", 1024), ("1K", 1024), ("1Ki", 1024), ("2KB", 2048), ("256Mi", 2**28), ("1G", 2**30), ("1GiB", 2**30), ("3T", 3 * 2**40), ("7B", 7)],
)  # fmt: skip
def test_sizes(text: str, size: int) -> None:
    assert parse.size(text) == size
    assert app_of(app=f"resources: {{memory_limit: {text}}}").memory == size


@pytest.mark.parametrize(("text", "seconds"), [("500ms", 0.5), ("1s", 1), ("90s", 90), ("5m", 300), ("2h", 7200)])
def test_durations(text: str, seconds: float) -> None:
    assert parse.seconds(text) == seconds


@pytest.mark.parametrize(
    ("endpoint", "port", "path"),
    [("localhost:80", 80, "/"), ("http://localhost:8080", 8080, "/"), ("tcp://127.0.0.1:1", 1, "/"), ("8080", 8080, "/"), ("http://0.0.0.0:65535/a?b=c", 65535, "/a?b=c")],
)  # fmt: skip
def test_endpoints(endpoint: str, port: int, path: str) -> None:
    check = parse.health_check({"type": "http", "endpoint": endpoint})
    assert (check.port, check.path) == (port, path)
    assert parse.health_check({"type": "http", "endpoint": endpoint, "path": "/own"}).path == "/own"


@pytest.mark.parametrize("endpoint", [":8080", "http://:8080/x"])
def test_a_port_with_a_colon_is_an_endpoint(endpoint: str) -> None:
    assert parse.health_check({"type": "http", "endpoint": endpoint}).port == 8080


def test_a_long_timeout_is_a_number(node: Node) -> None:
    app = app_of(app="health_check: {type: tcp, endpoint: 'localhost:1', timeout: 2000000s}")
    assert "HealthTimeout=2000000000ms" in quadlet.files(app, "/m.yml", OWNER, node.name)["archy-web.container"]


@pytest.mark.programs
def test_the_folder_decides_the_unit(node: Node) -> None:
    """Whatever ID an old version of archy accepted."""
    node.app("web", "bad")
    node.write("/etc/archy/accepted/web/manifest.yml", app_text("other"))
    found, _ = node.generate()
    assert "podman run --name web " in found["archy-web.service"]
    assert "archy-other.service" not in found
