# SPDX-License-Identifier: MIT
# ruff: noqa: E501 - a case is a line
"""The model as Quadlet text, and the service user."""

from __future__ import annotations

import dataclasses
import re

import pytest
from support import OWNER, Node, app_of, app_text

from archy.host.idmap import Owner, owner_of
from archy.manifest import load, parse
from archy.units import quadlet

# Added to the container, added to the app, lines that must be in the Quadlet text, keys that must not be there.
CASES = [
    pytest.param("", "", ["ContainerName=web", "Network=archy-net", "Pull=never", "ReadOnly=true"], "User Group Notify", id="defaults"),
    pytest.param("", "", ["NoNewPrivileges=true", "DropCapability=all"], "AddCapability Exec Entrypoint", id="nothing-is-granted"),
    pytest.param("", "", ["StopTimeout=30", "TimeoutStopSec=45", "TimeoutStartSec=infinity"], "Memory", id="times"),
    pytest.param("", "stop_grace_secs: 600\nstart_timeout_secs: 7", ["StopTimeout=600", "TimeoutStopSec=615", "TimeoutStartSec=7"], "", id="own-times"),
    pytest.param("", "companion_of: db", ["ContainerName=archy-web"], "", id="companion"),
    pytest.param("", "", ["Wants=archy-image@web.service", "After=archy-image@web.service", "X-ArchyImage=docker.io/library/nginx:1.26"], "", id="image-unit"),
    pytest.param("pull_policy: if-not-present", "", ["Pull=never", "X-ArchyPull=missing"], "", id="pull-if-not-present"),
    pytest.param("pull_policy: newer", "", ["Pull=never", "X-ArchyPull=newer"], "", id="pull-newer"),
    pytest.param("network: pasta", "", ["Network=pasta"], "NetworkAlias", id="pasta"),
    pytest.param("network: x\nnetwork_aliases: [a, b]", "", ["Network=x:alias=a,alias=b"], "NetworkAlias", id="aliases"),
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


# The same for what else Podman is told, for networks, and for other units.
MORE = [
    pytest.param("", "", ["Restart=always"], "HostName WorkingDir StopSignal ShmSize RunInit AddHost2 DNS GroupAdd Tmpfs Ulimit AddDevice Sysctl Label", id="nothing-more"),
    pytest.param("hostname: a.b", "", ["HostName=a.b"], "", id="hostname"),
    pytest.param("extra_hosts: ['a:1.2.3.4', 'b:host-gateway']", "", ["AddHost=a:1.2.3.4", "AddHost=b:host-gateway", "AddHost=host.archipelago:host-gateway"], "", id="extra-hosts"),
    pytest.param("ipv4_address: 10.89.0.7", "", ["Network=archy-net:ip=10.89.0.7"], "", id="address"),
    pytest.param("ipv4_address: 10.89.0.7\nnetwork_aliases: [a, b]", "", ["Network=archy-net:alias=a,alias=b,ip=10.89.0.7"], "", id="address-and-aliases"),
    pytest.param("network: x\nnetworks: [{name: archy-net, aliases: [c]}, {name: y}]", "", ["Network=x", "Network=archy-net:alias=c", "Network=y", "Wants=archy-net-network.service", "After=archy-y-network.service"], "", id="networks"),
    pytest.param("network: host", "", ["Network=host"], "PublishPort", id="host"),
    pytest.param("dns: [9.9.9.9, '2620:fe::fe']", "", ["DNS=9.9.9.9", "DNS=2620:fe::fe"], "", id="dns"),
    pytest.param("group_add: ['44', video]", "", ["GroupAdd=44", "GroupAdd=video"], "", id="groups"),
    pytest.param("working_dir: /a $b 100%", "", ["WorkingDir=/a $$b 100%%"], "", id="working-dir"),
    pytest.param("init: true", "", ["RunInit=true"], "", id="init"),
    pytest.param("init: false\ntty: false\nstdin_open: false", "", ["PodmanArgs=--cidfile=/run/archipelago/%N.cid"], "RunInit", id="none-of-these"),
    pytest.param("tty: true", "", ["PodmanArgs=--tty"], "", id="tty"),
    pytest.param("stdin_open: true", "", ["PodmanArgs=-i"], "", id="stdin"),
    pytest.param("tty: true\nstdin_open: true", "", ["PodmanArgs=--tty -i"], "", id="both"),
    pytest.param("stop_signal: SIGINT", "", ["StopSignal=SIGINT"], "", id="stop-signal"),
    pytest.param("tmpfs: [/a, '/b:size=64m,mode=1777']", "", ["Tmpfs=/a", "Tmpfs=/b:size=64m,mode=1777"], "", id="tmpfs"),
    pytest.param("shm_size: 64Mi", "", ["ShmSize=67108864"], "", id="shm-size"),
    pytest.param("sysctls: {net.core.somaxconn: '1024', a.b: 'x $y 1%'}", "", ['Sysctl="net.core.somaxconn=1024"', 'Sysctl="a.b=x $$y 1%%"'], "", id="sysctls"),
    pytest.param("sysctls: [net.core.somaxconn=1024]", "", ['Sysctl="net.core.somaxconn=1024"'], "", id="sysctls-as-list"),
    pytest.param("security_opt: ['no-new-privileges:true', 'seccomp:unconfined', label=disable]", "", ["PodmanArgs=--security-opt seccomp=unconfined", "PodmanArgs=--security-opt label=disable"], "", id="security_opt"),
    pytest.param("security_opt: ['no-new-privileges=false']", "", ["NoNewPrivileges=false"], "", id="security_opt-privileges"),
    pytest.param("logging: {driver: none}", "", ["LogDriver=none"], "", id="logging-none"),
    pytest.param("logging: {driver: json-file, options: {max-size: 10m}}", "", ["LogDriver=journald"], "", id="logging"),
    pytest.param("ulimits: {nofile: 65536, nproc: {soft: 1, hard: -1}}", "", ["Ulimit=nofile=65536", "Ulimit=nproc=1:-1"], "", id="ulimits"),
    pytest.param("pids_limit: 300", "", ["TasksMax=300"], "PidsLimit", id="pids-limit"),
    pytest.param("devices: ['/dev/a:/dev/b:rw', /dev/c]", "", ["AddDevice=/dev/a:/dev/b:rw", "AddDevice=/dev/c"], "", id="devices"),
    pytest.param("labels: {a: 'b \"c\" $d 1%', e: ''}", "", ['Label="a=b \\"c\\" $$d 1%%"', 'Label="e="'], "", id="labels"),
    pytest.param("", "security: {privileged: true, capabilities: [CHOWN]}", ["PodmanArgs=--privileged", "AddCapability=CHOWN"], "DropCapability NoNewPrivileges", id="privileged"),
    pytest.param("", "ports: [{host: 6000-6010, container: 7000-7010, auth: open}]", ["PublishPort=0.0.0.0:6000-6010:7000-7010/tcp"], "", id="port-range"),
    pytest.param("", "ports: [{host: 6000-6000, container: 7000}]", ["PublishPort=0.0.0.0:6000:7000/tcp"], "", id="port-range-of-one"),
    pytest.param("", "ports: [{host: 8080, container: 80, auth: gated}]", ["PublishPort=127.0.0.1:8080:80/tcp"], "", id="gated-port"),
    pytest.param("", "ports: [{host: 8080, container: 80, auth: gated, bind: 0.0.0.0}]", ["PublishPort=0.0.0.0:8080:80/tcp"], "", id="gated-port-elsewhere"),
    pytest.param("", "ports: [{host: 8080, container: 80, auth: session}]", ["PublishPort=0.0.0.0:8080:80/tcp"], "", id="session-port"),
    pytest.param("", "environment: {A: 'b c', D: '', E: '$f 1%'}", ['Environment="A=b c"', 'Environment="D="', 'Environment="E=$$f 1%%"'], "", id="environment-as-mapping"),
    pytest.param("", "health_check: {test: [CMD, a, 'b c']}", ['HealthCmd=["a", "b c"]', 'HealthStartupCmd=["a", "b c"]'], "Volume", id="test-cmd"),
    pytest.param("", "health_check: {test: [CMD-SHELL, 'a || b']}", ['HealthCmd=["/bin/sh", "-c", "a || b"]'], "", id="test-shell"),
    pytest.param("", "health_check: {test: 'a | b > $c', start_period: 5m, retries: 9}", ['HealthCmd=["/bin/sh", "-c", "a | b > $$c"]', "HealthRetries=9", "HealthInterval=1h"], "HealthStartPeriod", id="test-text"),
    pytest.param("", "provides: db", ["Network=archy-net:alias=db", "ContainerName=web"], "", id="provides"),
    pytest.param("network_aliases: [db, other]", "provides: db", ["Network=archy-net:alias=db,alias=other"], "", id="provides-an-alias"),
    pytest.param("network: pasta", "provides: db", ["Network=pasta"], "", id="provides-without-names"),
    pytest.param("network: host", "provides: db", ["Network=host"], "", id="provides-in-the-host-s-network"),
    pytest.param("", "part_of: whole", ["ContainerName=web", "PartOf=archy-whole.service", "Before=archy-whole.service"], "", id="part"),
    pytest.param("", "dependencies: [{bitcoin: any}]", ["After=archy-bitcoin.service"], "", id="bitcoin"),
    pytest.param("", "dependencies: [{bitcoin: synced}]", ["After=archy-bitcoin.service", "Wants=archy-wait@web.service", "After=archy-wait@web.service"], "", id="bitcoin-synced"),
    pytest.param("", "dependencies: [{app_id: db, required: false}]", ["After=archy-db.service"], "", id="not-required"),
]  # fmt: skip


@pytest.mark.parametrize(("container", "app", "wanted", "unwanted"), [*CASES, *MORE])
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


def test_a_part_that_needs_its_app_starts_after_it(node: Node) -> None:
    app = app_of(app="part_of: whole\ndependencies: [{app_id: whole}]")
    lines = quadlet.files(app, "/m.yml", OWNER, node.name)["archy-web.container"].split("\n")
    assert "PartOf=archy-whole.service" in lines
    assert "After=archy-whole.service" in lines
    assert "Before=archy-whole.service" not in lines


def test_the_container_id_file_comes_last(node: Node) -> None:
    """Just before the image: that is how the command of a hook is cut out of it."""
    app = app_of("tty: true\nstdin_open: true", "security: {privileged: true}")
    lines = quadlet.files(app, "/m.yml", OWNER, node.name)["archy-web.container"].split("\n")
    arguments = [line for line in lines if line.startswith("PodmanArgs=")]
    assert arguments == [
        "PodmanArgs=--privileged",
        "PodmanArgs=--tty -i",
        "PodmanArgs=--cidfile=/run/archipelago/%N.cid",
    ]


def built(entry: str) -> str:
    return app_text().replace("image: docker.io/library/nginx:1.26", f"build: {entry}")


@pytest.mark.parametrize(
    ("entry", "wanted"),
    [
        ("{}", ["ImageTag=localhost/archy-web:built", "SetWorkingDirectory=/apps/web", "File=/apps/web/Containerfile"]),
        ("{context: image/}", ["SetWorkingDirectory=/apps/web/image", "File=/apps/web/image/Containerfile"]),
        ("{dockerfile: sub/D}", ["SetWorkingDirectory=/apps/web", "File=/apps/web/sub/D"]),
        ("{target: last, tag: 'localhost/a:1'}", ["ImageTag=localhost/a:1", "Target=last"]),
        ("{args: {B: 'a $b 1%', A: ''}}", ['PodmanArgs=--build-arg "A="', 'PodmanArgs=--build-arg "B=a $$b 1%%"']),
    ],
)
def test_an_image_that_is_made_here(node: Node, entry: str, wanted: list[str]) -> None:
    app = load.check(built(entry).encode(), "f", "web", frozenset())
    files = quadlet.files(app, "/apps/web/manifest.yml", OWNER, node.name)
    lines = files["archy-web.build"].split("\n")
    assert [line for line in wanted if line not in lines] == []
    assert ("ExecCondition=" in files["archy-web.build"]) is False
    unit = files["archy-web.container"].split("\n")
    assert {f"Image={app.image}", "Wants=archy-web-build.service", "After=archy-web-build.service"} <= set(unit)


def test_an_image_of_the_operator_s_own_is_left_alone(node: Node) -> None:
    app = load.check(built("{tag: 'localhost/a:local'}").encode(), "f", "web", frozenset())
    lines = quadlet.files(app, "/m.yml", OWNER, node.name)["archy-web.build"].split("\n")
    condition = """ExecCondition=/bin/sh -c '! /usr/bin/podman image exists "$$1"' sh localhost/a:local"""
    assert condition in lines


@pytest.mark.parametrize(
    ("app", "links"),
    [
        ("", {}),
        ("provides: db", {"archy-db.service": "-> archy-web.service\n"}),
        ("part_of: whole", {"archy-whole.service.wants/archy-web.service": "-> ../archy-web.service\n"}),
        ("companion_of: whole", {}),
    ],
)
def test_links(node: Node, app: str, links: dict[str, str]) -> None:
    files = quadlet.files(app_of(app=app), "/m.yml", OWNER, node.name)
    assert {name: text for name, text in files.items() if text.startswith("-> ")} == links


@pytest.mark.parametrize(
    ("hooks", "before", "after"),
    [
        ("{}", [], []),
        ("{pre_start: [{exec: [a, 'b \"c\" $d 1%']}]}", [r'''ExecStartPre=@pre_start@ "[\"a\", \"b \\\"c\\\" $$d 1%%\"]"'''], []),
        ("{post_install: [{exec: [a, 'b \"c\" $d 1%']}, {exec: [e]}]}", [], [r'''"a" "b \"c\" $$d 1%%"''', '"e"']),
    ],
)  # fmt: skip
def test_hooks(node: Node, hooks: str, before: list[str], after: list[str]) -> None:
    lines = quadlet.files(app_of(app=f"hooks: {hooks}"), "/m.yml", OWNER, node.name)["archy-web.container"].split("\n")
    assert [line for line in lines if line.startswith("ExecStartPre=@")] == before
    found = [line.partition(' exec "web" ')[2] for line in lines if line.startswith("ExecStartPost=")]
    assert found == after


def test_what_hooks_copy_is_mounted(node: Node) -> None:
    steps = "[{copy_from_host: {src: a, dest: /x}}, {copy_from_host: {src: /usr/share/archy/files/b, dest: /y}}]"
    app = app_of(app=f"hooks: {{post_install: {steps}}}", beside=frozenset({"a"}))
    lines = quadlet.files(app, "/m.yml", OWNER, node.name)["archy-web.container"].split("\n")
    assert [line for line in lines if line.startswith("Volume=")] == [
        "Volume=/run/archipelago/files/web/0:/x:ro",
        "Volume=/run/archipelago/files/web/1:/y:ro",
    ]


@pytest.mark.parametrize(
    ("container", "words"),
    [
        ("", " archy-net,10.89.0.0/24"),
        ("network: pasta", ""),
        ("network: host", ""),
        ("network: x\nnetworks: [{name: archy-net}, {name: y}]", " x archy-net,10.89.0.0/24 y"),
    ],
)
def test_networks_that_a_stop_makes_again(node: Node, container: str, words: str) -> None:
    text = quadlet.files(app_of(container), "/m.yml", OWNER, node.name)["archy-web.container"]
    assert f"ExecStopPost=-/usr/libexec/archy/archy-stop --after /run/archipelago/%N.cid{words}\n" in text


@pytest.mark.parametrize(
    ("container", "names"),
    [
        ("", ["archy-net.network", "archy-web.container"]),
        ("network: pasta", ["archy-web.container"]),
        ("network: archy-net", ["archy-net.network", "archy-web.container"]),
        ("network: x", ["archy-net.network", "archy-web.container", "archy-x.network"]),
        ("network: host", ["archy-web.container"]),
        ("networks: [{name: y}]", ["archy-net.network", "archy-web.container", "archy-y.network"]),
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
    app = app_of(app="health_check: {type: tcp, endpoint: 'localhost:1', timeout: 999999s}")
    assert "HealthTimeout=999999000ms" in quadlet.files(app, "/m.yml", OWNER, node.name)["archy-web.container"]


@pytest.mark.programs
def test_the_folder_decides_the_unit(node: Node) -> None:
    """Whatever ID an old version of archy accepted."""
    node.app("web", "bad")
    node.write("/etc/archy/accepted/web/manifest.yml", app_text("other"))
    found, _ = node.generate()
    assert "podman run --name web " in found["archy-web.service"]
    assert "archy-other.service" not in found
