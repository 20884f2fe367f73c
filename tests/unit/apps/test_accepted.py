# SPDX-License-Identifier: MIT
"""Last good versions, and the whole pass of archy-prepare over an app."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
from support import Node, app_text, tree

from archy import __version__
from archy.apps import accepted as apps_accepted
from archy.apps import installed
from archy.host import write

pytestmark = [
    pytest.mark.programs,
    pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files to the service user"),
]

D = "/var/lib/archipelago"
CONF = f"{D}/.config/containers/containers.conf.d"
FILES = f"""generated_secrets: [{{name: web-password, kind: hex32}}]
user: 5:6
generated_files:
- {{path: {D}/web/conf/derived, template: t.j2, mode: "0440", overwrite: true}}
- {{path: {D}/web/once, content: "first {{{{secret:web-password}}}}"}}"""
TEMPLATE = "{{ node.bitcoin.network }} {{ secret('web-password') }}\n"


@pytest.fixture
def web(node: Node) -> Node:
    """A node with an app that has a secret, a derived file and one that is made once."""
    node.write("/etc/archy/apps/web/t.j2", TEMPLATE)
    node.app("web", app_text("web", FILES, f"volumes: [{{type: bind, source: {D}/web, target: /data}}]"))
    return node


def accepted(node: Node) -> dict[str, str]:
    return tree(node.path("/etc/archy/accepted"))


def store(node: Node, app_id: str) -> bool:
    """Accept an app as it lies there; False if that is what is kept already."""
    version = apps_accepted.version(node.name, app_id)
    fresh = not apps_accepted.is_kept(node.name, app_id, version)
    apps_accepted.store(node.name, app_id, version)
    assert apps_accepted.is_kept(node.name, app_id, version)
    return fresh


def text(node: Node, path: str) -> str:
    return node.path(path).read_text()


def test_a_version_is_kept_whole(node: Node) -> None:
    node.write("/etc/archy/apps/web/sub/deep/x.j2", "x")
    node.app("web", "good 1")
    assert store(node, "web") is True
    assert store(node, "web") is False
    version = os.readlink(node.path("/etc/archy/accepted/web"))
    assert version == apps_accepted.version(node.name, "web")
    assert re.fullmatch(rf"\.web-{re.escape(__version__)}-[0-9a-f]{{20}}", version)
    assert accepted(node) == {
        f"{version}/manifest.yml": "good 1",
        f"{version}/sub/deep/x.j2": "x",
        "web": f"-> {version}",
    }
    assert tree(Path(installed.accepted_folder(node.name, "web"))) == {"manifest.yml": "good 1", "sub/deep/x.j2": "x"}


@pytest.mark.parametrize(
    "change",
    [
        lambda node: node.app("web", "good 2"),
        lambda node: node.write("/etc/archy/apps/web/new", ""),
        lambda node: node.path("/etc/archy/apps/web/t.j2").unlink(),
        lambda node: node.path("/etc/archy/apps/web/t.j2").rename(node.path("/etc/archy/apps/web/u.j2")),
        lambda node: node.path("/etc/archy/apps/web/t.j2").write_text("y"),
    ],
    ids=["manifest", "added", "removed", "renamed", "changed"],
)
def test_a_new_version_takes_the_place(node: Node, change: Callable[[Node], object]) -> None:
    node.app("web", "good 1", **{"t.j2": "x"})
    store(node, "web")
    before = os.readlink(node.path("/etc/archy/accepted/web"))
    change(node)
    assert store(node, "web") is True
    assert os.readlink(node.path("/etc/archy/accepted/web")) != before
    assert tree(Path(installed.accepted_folder(node.name, "web"))) == tree(node.path("/etc/archy/apps/web"))
    assert len(os.listdir(node.path("/etc/archy/accepted"))) == 2


def test_what_a_power_cut_left_is_mended_and_swept(node: Node) -> None:
    node.app("web", "good 1", **{"t.j2": "x"})
    node.app("web-ui", "good")
    for app_id in ("web", "web-ui"):
        store(node, app_id)
    whole = accepted(node)
    version = os.readlink(node.path("/etc/archy/accepted/web"))
    node.path(f"/etc/archy/accepted/{version}/t.j2").write_text("")
    node.write(f"/etc/archy/accepted/.web-{__version__}-{'0' * 20}/manifest.yml", "half")
    node.write(f"/etc/archy/accepted/.web-0.0.0~other+1-{'0' * 20}/manifest.yml", "of another archy")
    node.write("/etc/archy/accepted/other", "of somebody else")
    node.write("/etc/archy/accepted/.web-note/x", "of somebody else")
    assert store(node, "web") is True
    assert accepted(node) == whole | {"other": "of somebody else", ".web-note/x": "of somebody else"}


@pytest.mark.parametrize("call", ["replace_file", "replace_link", "make_directory"])
@pytest.mark.parametrize("number", range(3))
def test_cut_short_anywhere_the_old_version_is_in_force(
    node: Node, monkeypatch: pytest.MonkeyPatch, call: str, number: int
) -> None:
    node.app("web", "good 1", a="1", b="1")
    store(node, "web")
    old = tree(node.path("/etc/archy/apps/web"))
    node.app("web", "good 2", a="2", b="2")
    real = getattr(write, call)
    left = number

    def cut(*args: object) -> None:
        nonlocal left
        if left == 0:
            raise KeyboardInterrupt
        left -= 1
        real(*args)

    with monkeypatch.context() as patch:
        patch.setattr(write, call, cut)
        try:
            store(node, "web")
        except KeyboardInterrupt:
            assert tree(Path(installed.accepted_folder(node.name, "web"))) == old
        else:
            assert call == "replace_link"
            assert number > 0
    store(node, "web")
    assert tree(Path(installed.accepted_folder(node.name, "web"))) == tree(node.path("/etc/archy/apps/web"))
    assert len(os.listdir(node.path("/etc/archy/accepted"))) == 2


def test_forgotten(node: Node) -> None:
    for app_id in ("web", "web-ui"):
        node.app(app_id, "good")
        store(node, app_id)
    apps_accepted.forget(node.name, "web")
    left = os.listdir(node.path("/etc/archy/accepted"))
    assert sorted(left) == [apps_accepted.version(node.name, "web-ui"), "web-ui"]
    apps_accepted.forget(node.name, "web")
    apps_accepted.forget(node.name, "nothing")


def test_the_whole_pass(web: Node, capsys: pytest.CaptureFixture[str]) -> None:
    assert web.prepare() == 0
    secret = text(web, f"{D}/secrets/web-password")
    assert len(secret) == 65
    assert text(web, f"{D}/web/conf/derived") == f"main {secret}"
    assert text(web, f"{D}/web/once") == f"first {secret.strip()}"
    owners = {
        f"{D}/secrets": (0, 0, 0o700),
        f"{D}/secrets/web-password": (0, 0, 0o600),
        f"{D}/web": (231076, 331077, 0o750),
        f"{D}/web/conf": (231076, 331077, 0o750),
        f"{D}/web/conf/derived": (231076, 331077, 0o440),
        CONF: (990, 989, 0o755),
        f"{CONF}/50-archy.conf": (0, 0, 0o644),
        f"{D}/web/once": (231076, 331077, 0o640),
        "/run/archy/prepared": (0, 0, 0o700),
        "/run/archy/prepared/web.json": (0, 0, 0o600),
        "/etc/archy/accepted/web.units": (0, 0, 0o644),
    }
    found = {path: web.path(path).lstat() for path in owners}
    assert {path: (s.st_uid, s.st_gid, stat.S_IMODE(s.st_mode)) for path, s in found.items()} == owners
    out, said = capsys.readouterr()
    assert out == ""
    assert said.splitlines() == [
        "node: write /etc/archy/accepted/host.json (the host has changed)",
        f"node: make directory {CONF}",
        f"node: write {CONF}/50-archy.conf (missing)",
        "web: accept version 1.0.0",
        f"web: write {D}/secrets/web-password (missing)",
        f"web: make directory {D}/.made-secrets",
        f"web: write {D}/.made-secrets/web-password (missing)",
        f"web: make directory {D}/web",
        f"web: make directory {D}/web/conf",
        f"web: write {D}/web/conf/derived (missing)",
        f"web: write {D}/web/once (missing)",
    ]


def test_nothing_changed_is_nothing_done(web: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    web.prepare()
    before = {path: path.lstat().st_mtime_ns for path in web.root.rglob("*") if path.name != "lock"}
    monkeypatch.setattr("archy.prepare.apply.Preparation", lambda *_: pytest.fail("a pass was made"))
    assert web.prepare() == 0
    assert {path: path.lstat().st_mtime_ns for path in web.root.rglob("*") if path.name != "lock"} == before


def unlink(path: str) -> Callable[[Node], object]:
    return lambda node: node.path(path).unlink()


def put(path: str, content: str) -> Callable[[Node], object]:
    return lambda node: node.path(path).write_text(content)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (unlink(f"{D}/web/conf/derived"), f"write {D}/web/conf/derived (missing)"),
        (put(f"{D}/web/conf/derived", "edited"), f"write {D}/web/conf/derived (content differs)"),
        (
            lambda node: node.path(f"{D}/web/conf/derived").chmod(0o666),
            f"set owner and mode of {D}/web/conf/derived to 231076:331077 0440",
        ),
        (
            lambda node: os.chown(node.path(f"{D}/web/conf/derived"), 1, 1),
            f"set owner and mode of {D}/web/conf/derived to 231076:331077 0440",
        ),
        (
            lambda node: node.path(f"{D}/secrets/web-password").chmod(0o644),
            f"node: set owner and mode of {D}/secrets/web-password to 0:0 0600",
        ),
        (put(f"{D}/secrets/web-password", "rotated\n"), f"write {D}/web/conf/derived (content differs)"),
        (put("/etc/archy/apps/web/t.j2", "other"), f"write {D}/web/conf/derived (content differs)"),
        (
            lambda node: node.write("/etc/archy/node.yml", "bitcoin: {network: regtest}"),
            f"write {D}/web/conf/derived (content differs)",
        ),
        (unlink(f"{D}/web/once"), f"write {D}/web/once (missing)"),
        (put(f"{D}/web/once", "edited"), None),
        (unlink("/etc/archy/accepted/web.units"), None),
        (unlink("/etc/archy/accepted/web"), "accept version 1.0.0"),
        (lambda node: node.path(f"{D}/web").chmod(0o777), None),
    ],
)
def test_what_differs_is_put_right_and_nothing_else(
    web: Node, capsys: pytest.CaptureFixture[str], change: Callable[[Node], object], said: str | None
) -> None:
    web.prepare()
    capsys.readouterr()
    change(web)
    assert web.prepare() == 0
    lines = [line for line in capsys.readouterr().err.splitlines() if "accept version" not in line or said == line[5:]]
    lines = [line for line in lines if line != "node: write /etc/archy/accepted/node.yml (accepted)"]
    assert lines == ([said if said.startswith("node: ") else f"web: {said}"] if said else [])
    assert web.path("/etc/archy/accepted/web.units").exists()
    assert web.is_fresh("web")


@pytest.mark.parametrize("before", [False, True], ids=["first", "again"])
def test_what_changed_since_the_check_is_not_kept(node: Node, before: bool) -> None:
    node.app("web", "good 1", **{"t.j2": "x"})
    node.path("/etc/archy/accepted").mkdir()
    if before:
        store(node, "web")
    kept = accepted(node)
    node.app("web", "good 2")
    checked = apps_accepted.version(node.name, "web")
    node.write("/etc/archy/apps/web/t.j2", "not looked at")
    with pytest.raises(OSError, match="has changed while it was read"):
        apps_accepted.store(node.name, "web", checked)
    assert accepted(node) == kept


@pytest.mark.parametrize("name", [".web-0.0.0~other-{}", ".web-{}", ".web-ui-{}"])
def test_what_another_archy_accepted_is_checked_again(node: Node, name: str) -> None:
    node.app("web")
    store(node, "web")
    assert installed.is_accepted(node.name, installed.source(node.name, "web"))
    link = node.path("/etc/archy/accepted/web")
    version = os.readlink(link)
    other = name.format(version.rpartition("-")[2])
    (link.parent / version).rename(link.parent / other)
    link.unlink()
    link.symlink_to(other)
    assert not installed.is_accepted(node.name, installed.source(node.name, "web"))
