# SPDX-License-Identifier: MIT
# ruff: noqa: E501 - a case is a line
"""`archy app show`: what an app is and may do, for people and for programs, whether it is installed or not."""

from __future__ import annotations

import json
import os
from typing import Any

import pytest
from support import SHIPPED, Node, app_text

from archy import paths
from archy.cli import main

APP = """\
description: |
  Does this,
  and that.
category: test
upstream: {kind: github, repo: owner/name}
provides: db
dependencies: [{storage: 20Gi}, {storage: 10Gi}, {app_id: other}, {app_id: maybe, required: false}, {bitcoin: archival}]
bitcoin_rpc: {rpcwhitelist: [getblock, uptime]}
stop_grace_secs: 600
resources: {memory_limit: 1Gi}
security: {capabilities: [CAP_CHOWN, KILL], readonly_root: false, no_new_privileges: false}
ports: [{host: 8080, container: 80}, {host: 6000-6010, container: 7000-7010, protocol: udp, auth: local}]
volumes:
- {type: bind, source: /var/lib/archipelago/web, target: /data, options: [ro]}
- {type: bind, source: /srv/media, target: /media}
hooks:
  pre_start: [{exec: [init, --now]}, {copy_from_host: {src: /usr/share/archy/files/ca, dest: /ca}}]
  post_install: [{exec: [ready]}]
interfaces: {main: {port: 8080, protocol: https, path: /ui}}
metadata: {website: https://example.com, license: MIT}
"""
CONTAINER = """\
networks: [{name: stack-net}]
user: 5:6
generated_secrets: [{name: web-password, kind: bcrypt}]
devices: [/dev/ttyUSB0]"""
GRANTS = "web: {devices: [/dev/ttyUSB0]}"
DEVICE = {
    "grant": "devices: /dev/ttyUSB0",
    "risk": "the device",
    "granted": True,
    "write": "web: {devices: [/dev/ttyUSB0]}",
}
MEDIA = {
    "grant": "paths: /srv/media",
    "risk": "data that is not the app's own",
    "granted": False,
    "write": "web: {paths: [/srv/media]}",
}


@pytest.fixture
def here(node: Node, monkeypatch: pytest.MonkeyPatch) -> Node:
    """`/` is the node's directory, on which nothing is installed but what a test does."""
    under = paths.under
    monkeypatch.setattr(paths, "under", lambda root, path: under(node.name if root == "/" else root, path))
    monkeypatch.setattr(os, "uname", lambda: os.uname_result(("Linux", "box.example.org", "", "", "")))
    node.shelve()
    return node


@pytest.fixture
def web(here: Node) -> Node:
    here.app("web", app_text("web", CONTAINER, APP))
    here.app("part", app_text("part", app="part_of: web"))
    here.write("/usr/share/archy/apps/ui/manifest.yml", app_text("ui", app="companion_of: web"))
    here.write(paths.GRANTS, GRANTS)
    return here


def show(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = main.main(["app", "show", *arguments])
    said = capsys.readouterr()
    return code, said.out, said.err


def data(capsys: pytest.CaptureFixture[str], app_id: str = "web") -> dict[str, Any]:
    found: dict[str, Any] = json.loads(show(capsys, app_id, "--json")[1])
    return found


def test_for_programs(web: Node, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = show(capsys, "web", "--json")
    assert (code, err) == (0, "")
    assert json.loads(out) == {
        "id": "web",
        "name": "Web",
        "version": "1.0.0",
        "description": "Does this, and that.",
        "category": "test",
        "installed": True,
        "origin": "own",
        "upstream": "owner/name",
        "website": "https://example.com",
        "license": "MIT",
        "interface": "https://HOST:8080/ui",
        "image": "docker.io/library/nginx:1.26",
        "built": False,
        "provides": "db",
        "companion_of": "",
        "part_of": "",
        "needs": ["other", "bitcoin", "bitcoin: archival"],
        "storage": 20 * 1024**3,
        "network": ["archy-net", "stack-net"],
        "network_aliases": ["db"],
        "ports": ["0.0.0.0:8080/tcp", "127.0.0.1:6000-6010/udp"],
        "volumes": ["/var/lib/archipelago/web on /data (read only)", "/srv/media on /media (read and write)"],
        "user": "5:6",
        "capabilities": ["CHOWN", "KILL"],
        "readonly_root": False,
        "no_new_privileges": False,
        "memory_limit": 1024**3,
        "stop_grace_secs": 600,
        "one_shot": False,
        "secrets": ["web-password", "web-password.pw", "bitcoin-rpc-password"],
        "rpcwhitelist": ["getblock", "uptime"],
        "hooks": [
            "copy /usr/share/archy/files/ca to /ca",
            "before each start: init --now",
            "after each start: ready",
        ],
        "grants": [DEVICE, MEDIA],
        "belonging": ["part", "ui"],
        "problems": [],
    }


def test_for_people(web: Node, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = show(capsys, "web")
    assert (code, err) == (0, "")  # what it lacks is said with how to grant it
    assert (
        out
        == """\
Web 1.0.0 (web, installed)
Does this, and that.

interface     https://box.local:8080/ui
image         docker.io/library/nginx:1.26
provides      db
brings        part, ui
needs         other, bitcoin, bitcoin: archival
disk          20 GiB
networks      archy-net
              stack-net
known as      db
ports         0.0.0.0:8080/tcp
              127.0.0.1:6000-6010/udp
volumes       /var/lib/archipelago/web on /data (read only)
              /srv/media on /media (read and write)
user          5:6
capabilities  CHOWN, KILL
root          can be written
privileges    can gain some (set-user-ID programs)
secrets       web-password, web-password.pw, bitcoin-rpc-password
RPC calls     getblock, uptime
hooks         copy /usr/share/archy/files/ca to /ca
              before each start: init --now
              after each start: ready
stop          within 600 s
grant         devices: /dev/ttyUSB0 (the device): granted
grant         paths: /srv/media (data that is not the app's own): NOT granted; to allow it, write into \
/etc/archy/grants.yml: web: {paths: [/srv/media]}
"""
    )


def test_with_all_that_it_asks_for(web: Node, capsys: pytest.CaptureFixture[str]) -> None:
    web.write(paths.GRANTS, "web: {devices: [/dev/ttyUSB0], paths: [/srv]}")
    code, out, err = show(capsys, "web")
    assert (code, err, "NOT granted" in out) == (0, "", False)
    assert [one["granted"] for one in data(capsys)["grants"]] == [True, True]
    assert data(capsys)["problems"] == []


def test_the_least(here: Node, capsys: pytest.CaptureFixture[str]) -> None:
    """What is not said of an app is left out; what it may not do is said."""
    here.write("/usr/share/archy/apps/web/manifest.yml", app_text())
    assert show(capsys, "web") == (
        0,
        """\
Web 1.0.0 (web, not installed)

image         docker.io/library/nginx:1.26
networks      archy-net
capabilities  none
root          read only
privileges    no new ones
stop          within 30 s
""",
        "",
    )
    found = data(capsys)
    assert (found["installed"], found["origin"], found["interface"], found["storage"]) == (False, "catalogue", "", None)
    assert [name for name, value in found.items() if value in ("", [])] == [
        *("description", "category", "upstream", "website", "license", "interface", "provides", "companion_of", "part_of"),
        *("needs", "network_aliases", "ports", "volumes", "user", "capabilities", "secrets", "rpcwhitelist", "hooks", "grants", "belonging"),
        "problems",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("app", "line"),
    [
        ("part_of: whole", "belongs to    whole"),
        ("companion_of: whole", "belongs to    whole"),
        ("interfaces: {main: {port: 81}}", "interface     http://box.local:81/"),
        ("interfaces: {main: {name: x}}", "image         docker.io/library/nginx:1.26"),
    ],
)
def test_lines(here: Node, capsys: pytest.CaptureFixture[str], app: str, line: str) -> None:
    here.app("web", app_text("web", app=app))
    assert line in show(capsys, "web")[1].splitlines()


def test_an_image_that_is_made_here(here: Node, capsys: pytest.CaptureFixture[str]) -> None:
    here.app("web", app_text().replace("image: docker.io/library/nginx:1.26", "build: {}"))
    assert "image         localhost/archy-web:built (built here)" in show(capsys, "web")[1].splitlines()
    assert data(capsys)["built"] is True


def test_no_such_app(here: Node, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = show(capsys, "nobody")
    assert (code, out) == (4, "")
    assert err == (
        "archy: show nobody: /etc/archy/apps, /usr/share/archy/apps: there is no app nobody\n"
        "hint: archy app list shows all\n"
    )


REFUSED = """\
archy: show: /etc/archy/apps/web/manifest.yml: is refused, see above
hint: archy-manifest(5) has every key
"""


def test_a_manifest_that_is_refused(here: Node, capsys: pytest.CaptureFixture[str]) -> None:
    here.app("web", "app: 1")
    code, out, err = show(capsys, "web")
    assert (code, out) == (3, "")
    assert err == f'/etc/archy/apps/web/manifest.yml:1:1: app: must be a mapping, is "1"\n{REFUSED}'


def test_what_is_wrong_besides(here: Node, capsys: pytest.CaptureFixture[str]) -> None:
    here.app("web", app_text("web", "data_version: 18"))
    here.write("/etc/archy/accepted/web/manifest.yml", app_text("web", "data_version: 17"))
    code, out, err = show(capsys, "web")
    assert (code, out.splitlines()[0]) == (0, "Web 1.0.0 (web, installed)")
    assert err.startswith("/etc/archy/apps/web/manifest.yml:7:5: app.container.data_version: must stay 17, of which ")
    assert data(capsys)["problems"] == [err.strip()]


def test_one_that_is_gone(here: Node, capsys: pytest.CaptureFixture[str]) -> None:
    here.path("/etc/archy/apps/web").mkdir()
    code, out, err = show(capsys, "web")
    assert (code, out) == (3, "")
    assert err == f"/etc/archy/apps/web/manifest.yml: cannot be read, or does not exist\n{REFUSED}"


@pytest.mark.parametrize("app", SHIPPED)
def test_every_app_of_the_catalogue(node: Node, monkeypatch: pytest.MonkeyPatch, app: str) -> None:
    """What it needs no grant for is all that it asks for."""
    under = paths.under
    monkeypatch.setattr(paths, "under", lambda root, path: under(node.name if root == "/" else root, path))
    assert main.main(["app", "show", app]) == 0
