# SPDX-License-Identifier: MIT
"""Manifests that mean harm, or look like it, all at once beside good apps: each is refused by itself, with a reason."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator

import pytest
from conftest import Node, fresh_node, standin

HOME = "/var/lib/archipelago"
APPS = "/etc/archy/apps"
GOOD = {"good": 18001, "good-too": 18002}
NASTY = """%n %% %i ${HOME} $PATH $$ {x} \\n \\x41 'a' "b" # ; |& `id` $(id) é"""
QUOTED = NASTY.replace("'", "''")
BOMB = "a: &a [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{new}: &{new} [{', '.join(['*' + old] * 10)}]\n" for old, new in zip("abcdefg", "bcdefgh", strict=True)
)


def with_file(app: str, line: str) -> str:
    """A manifest with an entry of generated_files."""
    return standin(app, container=[f"generated_files: [{line}]"])


def with_volume(app: str, source: str) -> str:
    """A manifest with a bind mount."""
    return standin(app, extra=["volumes:", f"  - {{type: bind, source: '{source}', target: /data}}"])


def in_place(app: str, old: str, new: str) -> str:
    """The manifest of a stand-in with something else in it."""
    text = standin(app)
    assert old in text
    return text.replace(old, new)


# By app: the manifest, and what is said of it; with a place if the reason is in the file.
REFUSED: dict[str, tuple[str | bytes, str]] = {
    "dotdot": (with_volume("dotdot", f"{HOME}/dotdot/../secrets"), r"app\.volumes\[0\]\.source: must be a plain"),
    "secrets": (with_volume("secrets", f"{HOME}/secrets"), r"app\.volumes\[0\]\.source: must be below"),
    "above": (with_volume("above", HOME), r"app\.volumes\[0\]\.source: .*no app is given this"),
    "root": (with_volume("root", "/"), r"app\.volumes\[0\]\.source: must be a plain absolute path"),
    "socket": (with_volume("socket", "/run/podman/podman.sock"), r"app\.volumes\[0\]\.source: needs a grant"),
    "options": (with_volume("options", "/x:/y:rw,exec"), r"app\.volumes\[0\]\.source: must be a plain"),
    "newline": (
        in_place("newline", "- PORT=8080", '- PORT=8080\n    - "A=x\\nExecStartPre=+/bin/touch /pwned"'),
        r"app\.environment\[1\]: must not hold control characters",
    ),
    "newname": (
        in_place("newname", "name: Stand-in newname", 'name: "x\\n[Service]\\nUser=root"'),
        r"app\.name: must",
    ),
    "image-word": (
        in_place("image-word", "localhost/archy-standin:1", "'localhost/archy-standin:1 --privileged'"),
        r"app\.container\.image: must",
    ),
    "liar": (standin("good"), r"app\.id: must be the name of the folder, liar, is good"),
    "bomb": (BOMB + standin("bomb"), r"expands to more than 20000 values"),
    "circle": ("app: &a\n  id: circle\n  container: {image: x, labels: *a}\n  more: *a\n", r"nested more than 24"),
    "twice": (standin("twice") + "  version: '2'\n", r"app\.version: is given twice, first in line 4"),
    "latin": (standin("latin").encode() + b"  description: caf\xe9\n", r"is not UTF-8 text"),
    "nul": (standin("nul").encode() + b"  description: a\0b\n", r"is not valid YAML"),
    "deep": ("app: " + "[" * 5000 + "]" * 5000 + "\n", r"nested more than 24 levels"),
    "huge": (standin("huge") + "  metadata:\n    tags: [" + "x, " * 30000 + "x]\n", r"expands to more than 20000"),
    "empty": ("", r"is empty"),
    "tagged": (standin("tagged") + "  metadata: !!python/object/apply:os.system [id]\n", r"the tag .* is not allowed"),
    "merged": (standin("merged") + "  <<: {restart_when_changed: true}\n", r"app\.<<: is not a known key"),
    "unknown": (standin("unknown") + "  run_as_root: true\n", r"app\.run_as_root: is not a known key"),
    "types": (
        "app:\n  id: [types]\n  name: {a: b}\n  version: []\n  container: x\n  ports: 80\n  volumes: yes\n"
        "  environment: 7\n  hooks: [a]\n  health_check: 1\n  security: none\n  dependencies: {a: b}\n",
        r"app\.container: must be",
    ),
    "list": ("- app\n", r"must be"),
    "over": (
        with_file("over", f"{{path: {HOME}/good/name, content: harm, overwrite: true}}"),
        r"app\.container\.generated_files\[0\]\.path: must be below .*the app's own data",
    ),
    "over-secret": (
        with_file("over-secret", f"{{path: {HOME}/secrets/x, content: harm, overwrite: true}}"),
        r"app\.container\.generated_files\[0\]\.path: must be below",
    ),
    "steal": (
        with_file("steal", f"{{path: {HOME}/steal/x, content: 'a {{{{secret:good-password}}}}'}}"),
        r"app\.container\.generated_files\[0\]\.content: names a secret that generated_secrets does not declare",
    ),
    "climb": (
        standin("climb", container=["generated_secrets: [{name: ../../../etc/shadow, kind: hex32}]"]),
        r"app\.container\.generated_secrets\[0\]\.name: must",
    ),
    "alias": (
        standin("alias", container=["network_aliases: ['a,ip=10.89.0.9', 'UP', '-x', 'a b']"]),
        r"app\.container\.network_aliases\[0\]: must",
    ),
    "host-name": (
        standin("host-name", container=["hostname: 'a --privileged'"]),
        r"app\.container\.hostname: must",
    ),
    "neighbour": (standin("neighbour", container=["network: container:good"]), r"app\.container\.network: must"),
    "inside": (standin("inside", container=["network: good.container"]), r"app\.container\.network: must be the name"),
    "joins": (standin("joins", container=["network: good-net"]), r"app\.container\.network: needs a grant"),
    "poses": (standin("poses", container=["network_aliases: [good]"]), r"app\.container\.network: needs a grant"),
    "good-x": (
        standin("good-x", extra=["volumes:", f"- {{type: bind, source: {HOME}/good, target: /good}}"]),
        r"app\.volumes\[0\]\.source: needs a grant",
    ),
    "takes": (
        standin("takes", extra=["volumes:", "- {type: volume, source: good-data, target: /good}"]),
        r"app\.volumes\[0\]\.source: needs a grant",
    ),
    "clock": (standin("clock", extra=["part_of: reconcile"]), r"app\.part_of: is reserved"),
    "waits": (
        standin("waits", extra=["dependencies: [{app_id: reconcile, required: false}]"]),
        r"app\.dependencies\[0\]\.app_id: is reserved",
    ),
    "for-ever": (
        standin("for-ever", health="{type: tcp, endpoint: 'localhost:1', interval: " + "9" * 400 + "s}"),
        r"app\.health_check\.interval: must be a duration",
    ),
    "nul-check": (standin("nul-check", health='{test: "a\\0b"}'), r"app\.health_check\.test: must not hold a NUL"),
    "leader": (standin("leader", extra=["part_of: leader"]), r"app\.part_of: must be another app"),
    "self": (standin("self", extra=["provides: self"]), r"app\.provides: must be another name"),
    "needs-self": (
        standin("needs-self", extra=["dependencies: [{app_id: needs-self}]"]),
        r"app\.dependencies\[0\]\.app_id: must be another app",
    ),
    "hook-out": (
        standin("hook-out", extra=["hooks: {post_install: [{copy_from_host: {src: ../good/x, dest: /x}}]}"]),
        r"app\.hooks\.post_install\[0\]\.copy_from_host\.src: must be a plain path below",
    ),
    "hook-etc": (
        standin("hook-etc", extra=["hooks: {post_install: [{copy_from_host: {src: /etc/shadow, dest: /x}}]}"]),
        r"app\.hooks\.post_install\[0\]\.copy_from_host\.src: must be below /usr/share/archy/files",
    ),
    "build-out": (
        "app:\n  id: build-out\n  name: x\n  version: 1\n  container:\n    build: {context: ../good}\n",
        r"app\.container\.build\.context: must be a folder below",
    ),
}
# Names of units of archy's own, and of containers and networks of other apps: no unit of such a name is made.
RESERVED = ("archy-good-ui", "reconcile", "all", "prepare", "bitcoin", "good-network", "good-volume")
# Made in the node, without a place to name: the manifest itself is at fault.
ODD = {
    "large": ("head -c 10000000 /dev/zero | tr '\\0' '#' > manifest.yml", r"is larger than 256 KiB"),
    "linked": ("ln -s /etc/shadow manifest.yml", r"must be a file, not a link"),
    "linked-good": ("ln -s ../good/manifest.yml manifest.yml", r"must be a file, not a link"),
    "pipe": ("mkfifo manifest.yml", r"cannot be read, or does not exist"),
    "folder": ("mkdir manifest.yml", r"cannot be read, or does not exist"),
    "device": ("mknod manifest.yml c 1 5", r"cannot be read, or does not exist"),
    "nothing": ("true", r"cannot be read, or does not exist"),
}
# Good to read; what is wrong shows when they are to be used.
TEMPLATES = {
    "loop": (
        "{% for a in 'x' * 100000 %}{% for b in 'x' * 100000 %}{% for c in 'x' * 100000 %}{% endfor %}{% endfor %}"
        "{% endfor %}",
        r"t\.j2: .*takes longer than 2 s",
    ),
    "fat": ("{{ ('x' * 100000000) * 100000 }}", r"t\.j2: "),
    "thief": ("{{ secret('good-password') }}", r"t\.j2: .*good-password"),
    "climber": ("{{ own('../../secrets/good-password') }}", r"t\.j2: "),
    "python": ("{{ ''.__class__.__mro__[1].__subclasses__() }}", r"t\.j2: "),
    "include": ("{% include '/etc/shadow' %}", r"t\.j2: "),
}
# Each is good by itself, and they are not together.
TOGETHER = {
    "taken": standin("taken", port=GOOD["good"]),
    "usurper": standin("usurper", extra=["provides: good"]),
    "part-a": standin("part-a", extra=["part_of: part-b"]),
    "part-b": standin("part-b", extra=["part_of: part-a"]),
    "ring-a": standin("ring-a", extra=["dependencies: [{app_id: ring-b}]"]),
    "ring-b": standin("ring-b", extra=["dependencies: [{app_id: ring-a}]"]),
    "wedge": standin("wedge", extra=["part_of: good", "dependencies: [{app_id: wedge-too}]"]),
    "wedge-too": standin("wedge-too", extra=["dependencies: [{app_id: good}]"]),
}
CIRCLES = [("part-a", "part-b"), ("ring-a", "ring-b"), ("wedge", "wedge-too")]

UNPACK = """
import base64, json, os, subprocess, sys
for path, content in json.load(sys.stdin)["files"].items():
    os.makedirs(os.path.dirname(path), exist_ok=True)
    open(path, "wb").write(base64.b64decode(content))
"""


@pytest.fixture(scope="module")
def node() -> Iterator[Node]:
    """A node with two good apps, of which one has a secret."""
    with fresh_node("hostile") as fresh:
        secret = ["generated_secrets: [{name: good-password, kind: hex32}]"]
        for app, port in GOOD.items():
            keys = secret if app == "good" else []
            fresh.write(f"{APPS}/{app}/manifest.yml", standin(app, port=port, container=keys))
            fresh.out(f"archy app install {app}")
        yield fresh


@pytest.fixture(scope="module")
def good(node: Node) -> dict[str, int]:
    """All of them are dropped in at once; the PIDs of the good apps from before."""
    before = node.pids(*GOOD)
    files: dict[str, bytes] = {}
    for app, (text, _) in REFUSED.items():
        files[f"{APPS}/{app}/manifest.yml"] = text if isinstance(text, bytes) else text.encode()
    for app, (template, _) in TEMPLATES.items():
        files[f"{APPS}/{app}/manifest.yml"] = with_file(app, f"{{path: {HOME}/{app}/t, template: t.j2}}").encode()
        files[f"{APPS}/{app}/t.j2"] = template.encode()
    for app, text in {**TOGETHER, **{app: standin(app) for app in RESERVED}}.items():
        files[f"{APPS}/{app}/manifest.yml"] = text.encode()
    packed = json.dumps({"files": {path: base64.b64encode(content).decode() for path, content in files.items()}})
    node.out(f"cat > /root/unpack.py <<'END'\n{UNPACK}END\n")
    node.out("python3 /root/unpack.py", stdin=packed)
    for app, (script, _) in ODD.items():
        node.out(f"mkdir -p {APPS}/{app} && cd {APPS}/{app} && {script}")
    node.out("systemctl daemon-reload", timeout=300)
    return before


def well(node: Node, good: dict[str, int]) -> None:
    """The good apps run as they did, and answer."""
    assert node.pids(*good) == good
    for port in GOOD.values():
        assert node.out(f"curl -sf http://127.0.0.1:{port}/health") == "ok"


def test_the_good_ones_do_not_notice(node: Node, good: dict[str, int]) -> None:
    well(node, good)
    node.out("systemctl start archy-reconcile", timeout=600)
    well(node, good)
    assert node.active("good-too") == "active"


@pytest.mark.parametrize("app", [*REFUSED, *ODD])
def test_refused_with_a_place_and_a_reason(node: Node, good: dict[str, int], app: str) -> None:
    reason = REFUSED[app][1] if app in REFUSED else ODD[app][1]
    place = r":[1-9][0-9]*:[1-9][0-9]*" if app in REFUSED or app == "large" else ""
    pattern = re.compile(f"^{APPS}/{app}/manifest.yml{place}: .*{reason}", re.MULTILINE)
    said = node.run(f"archy app validate {APPS}/{app}")
    assert said.returncode == 3, said.stdout + said.stderr
    assert pattern.search(said.stdout + said.stderr), said.stdout + said.stderr
    assert "Traceback" not in said.stderr
    assert node.run(f"systemctl start archy-{app}").returncode != 0
    status = node.run(f"systemctl status archy-{app} --no-pager --lines 30").stdout
    assert re.search(reason, status), status
    well(node, good)


def test_names_of_other_units_are_nobodys(node: Node, good: dict[str, int]) -> None:
    for app in RESERVED:
        said = node.run(f"archy app validate {APPS}/{app}")
        assert said.returncode == 3
        assert re.search(rf"^{APPS}/{app}/manifest.yml:2:3: app\.id: is reserved", said.stdout + said.stderr)
    made = node.out("find /run/systemd/generator -name 'archy-*' -printf '%f\\n'").split()
    assert {f"archy-{app}.service" for app in RESERVED} & set(made) == set()
    for unit in ("archy-reconcile", "archy-all", "archy-prepare"):
        assert node.show(unit, "FragmentPath") == f"/usr/lib/systemd/system/{unit}.service"
    well(node, good)


@pytest.mark.parametrize("app", TEMPLATES)
def test_a_template_harms_only_its_own_app(node: Node, good: dict[str, int], app: str) -> None:
    node.out(f"systemctl start --no-block archy-{app}")

    def said() -> bool:
        return re.search(TEMPLATES[app][1], node.run(f"journalctl -u archy-{app} -o cat --no-pager").stdout) is not None

    node.wait(f"the reason why {app} does not start", said, 120)
    node.out(f"systemctl stop archy-{app}", timeout=120)
    assert node.run(f"test -s {HOME}/{app}/t").returncode != 0
    well(node, good)


def test_a_port_is_the_first_ones(node: Node, good: dict[str, int]) -> None:
    node.out("systemctl start --no-block archy-taken")
    node.wait("taken fails", lambda: int(node.show("archy-taken", "NRestarts")) > 0, 90)
    assert "18001" in node.out("journalctl -u archy-taken -o cat --no-pager")
    node.tick()
    well(node, good)
    done = node.run("archy app install taken")
    assert done.returncode != 0
    assert "needs port 18001/tcp, which good uses" in done.stderr
    node.out("systemctl stop archy-taken")


def test_a_name_is_the_first_ones(node: Node, good: dict[str, int]) -> None:
    """Who provides the name of an app gets neither its unit nor its address."""
    assert node.show("archy-good", "SourcePath") == f"{APPS}/good/manifest.yml"
    assert node.show("archy-good", "Names").split() == ["archy-good.service"]
    done = node.run("archy app install usurper")
    assert done.returncode == 3
    assert "provides good, which is the name of an app" in done.stderr
    node.out("systemctl stop archy-usurper")
    well(node, good)


@pytest.mark.parametrize("apps", CIRCLES)
def test_circles_are_said_and_hold_up_nobody(node: Node, good: dict[str, int], apps: tuple[str, ...]) -> None:
    for app in apps:
        assert node.run(f"systemctl start archy-{app}").returncode != 0
        status = node.run(f"systemctl status archy-{app} --no-pager --lines 30").stdout
        assert re.search(rf"{APPS}/{app}/manifest.yml:\d+:\d+: app\.\w+: closes a circle: {app} waits for", status), (
            status
        )
    well(node, good)
    # The one that is left closes none any more.
    node.out(f"rm -r {APPS}/{apps[0]}; systemctl daemon-reload; systemctl start archy-{apps[1]}")
    node.out(f"systemctl stop archy-{apps[1]}")
    well(node, good)


def test_odd_values_arrive_byte_for_byte(node: Node, good: dict[str, int]) -> None:
    text = in_place("odd", "name: Stand-in odd", f"name: '{QUOTED}'\n  description: '{QUOTED}'")
    text = text.replace("- PORT=8080", f"- PORT=8080\n    - 'ODD={QUOTED}'")
    lines = [
        f"    labels: {{odd: '{QUOTED}'}}",
        "    generated_files:",
        f"      - {{path: {HOME}/odd/odd.txt, content: '{QUOTED}', mode: '0444'}}",
    ]
    text = text.replace("    pull_policy: never", "\n".join(["    pull_policy: never", *lines]))
    volumes = f"  volumes: [{{type: bind, source: {HOME}/odd, target: /odd}}]\n"
    node.write(f"{APPS}/odd/manifest.yml", text + volumes)
    node.out("archy app install odd")
    assert node.podman("exec odd sh -c 'printf %s \"$ODD\"'") == NASTY
    assert node.podman("exec odd cat /odd/odd.txt") == NASTY
    assert node.podman("inspect odd --format '{{index .Config.Labels \"odd\"}}'") == NASTY
    assert json.loads(node.out("archy app show --json odd"))["name"] == NASTY
    node.out("archy app remove odd")
    well(node, good)


def test_the_status_names_each(node: Node, good: dict[str, int]) -> None:
    node.tick()
    code, found = node.status()
    assert code == 1
    assert {app for app in (*REFUSED, *ODD) if not found["apps"][app]["problems"]} == set()
    assert not any(found["apps"][app]["problems"] for app in GOOD)


def test_a_boot_comes_up(node: Node, good: dict[str, int]) -> None:
    node.ctl("reboot", "--no-wait")
    node.wait("multi-user.target", lambda: node.run("systemctl is-active multi-user.target").returncode == 0, 180)
    node.wait_active(*GOOD, seconds=180)
    for port in GOOD.values():
        assert node.out(f"curl -sf http://127.0.0.1:{port}/health") == "ok"
    assert node.out(f"ls {HOME}/secrets") == "good-password"
    assert node.run("test -e /pwned").returncode != 0
