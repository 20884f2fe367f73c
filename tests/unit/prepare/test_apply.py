# SPDX-License-Identifier: MIT
"""What archy-prepare does when something is wrong: that app must not start, the others are prepared."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
from support import PASSWD, QUADLET, SUBGID, SUBUID, Node, app_text, tree

from archy.apps import accepted as apps_accepted
from archy.prepare import files, prepare, sandbox, secrets, stamps
from archy.prepare.prepare import EX_NOT_INSTALLED, EX_USAGE
from archy.units import build

pytestmark = [
    pytest.mark.programs,
    pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files to the service user"),
]

D = "/var/lib/archipelago"
USAGE = "usage: archy-prepare [APP...], or archy-prepare --starting APP from its unit\n"
SECRET = "generated_secrets: [{name: p, kind: hex16}]"


def filed(content: str) -> str:
    return f"generated_files: [{{path: {D}/web/f, overwrite: true, {content}}}]"


@pytest.fixture
def neighbour(node: Node) -> Node:
    """A node with a good app, sorted behind the one that fails."""
    node.app("zz", app_text("zz", f"generated_files: [{{path: {D}/zz/f, content: x}}]"))
    return node


def said(capsys: pytest.CaptureFixture[str]) -> list[str]:
    return [line for line in capsys.readouterr().err.splitlines() if line.startswith("web: ")]


@pytest.mark.parametrize(
    ("container", "beside", "messages"),
    [
        (filed("template: t.j2"), {"t.j2": "{{ no }}"}, ["t.j2: 'no' is undefined"]),
        (filed("template: t.j2"), {"t.j2": "\n{% if"}, ["t.j2:2: unexpected 'end of template'"]),
        (
            f"{SECRET}\n{filed('template: t.j2')}",
            {"t.j2": "{{ secret('q') }}"},
            ["t.j2: secret q is not declared in the app's generated_secrets"],
        ),
    ],
)
def test_an_app_that_cannot_be_prepared(
    neighbour: Node, capsys: pytest.CaptureFixture[str], container: str, beside: dict[str, str], messages: list[str]
) -> None:
    neighbour.app("web", app_text("web", container), **beside)
    assert neighbour.prepare() == 1
    assert said(capsys) == [f"web: not prepared: {message}" for message in messages]
    assert not neighbour.path("/etc/archy/accepted/web").exists()
    assert neighbour.path(f"{D}/zz/f").exists()
    assert not neighbour.path(f"{D}/web/f").exists()
    kept = stamps.fresh(neighbour.name, "web")
    assert kept is not None
    assert (kept["failure"], "started" in kept) == (messages[0], False)
    assert neighbour.prepare("zz") == 0


def test_a_refused_app(neighbour: Node, capsys: pytest.CaptureFixture[str]) -> None:
    neighbour.app("web", "a: 1\nb: 2")
    assert neighbour.prepare() == 1
    file = "/etc/archy/apps/web/manifest.yml"
    keys = [
        "1:1: a: is not a known key; known here: app",
        "1:1: app: is missing",
        "2:1: b: is not a known key; known here: app",
    ]
    assert said(capsys) == [f"web: not prepared: {file}:{key}" for key in keys]
    assert neighbour.path(f"{D}/zz/f").exists()
    assert not neighbour.path("/etc/archy/accepted/web").exists()


def test_the_last_good_version_stays_in_force(node: Node, capsys: pytest.CaptureFixture[str]) -> None:
    node.app("web", app_text("web", filed("template: t.j2")), **{"t.j2": "old"})
    assert node.prepare() == 0
    before = node.generate()[0]
    node.app("web", "app: 1", **{"t.j2": "new"})
    node.path(f"{D}/web/f").unlink()
    capsys.readouterr()
    assert node.prepare() == 0
    assert said(capsys) == [
        'web: /etc/archy/apps/web/manifest.yml:1:1: app: must be a mapping, is "1"',
        "web: the last good version stays in force",
        f"web: write {D}/web/f (missing)",
    ]
    assert node.path(f"{D}/web/f").read_text() == "old"
    after = node.generate()[0]["archy-web.service"]
    assert [line for line in after.splitlines() if line not in before["archy-web.service"].splitlines()] == [
        'Description=Web (last good version: /etc/archy/apps/web/manifest.yml:1:1: app: must be a mapping, is "1")'
    ]


def test_a_template_that_turned_bad_leaves_the_last_good_version_in_force(node: Node) -> None:
    node.app("web", app_text("web", filed("template: t.j2")), **{"t.j2": "old"})
    assert node.prepare() == 0
    node.app("web", app_text("web", filed("template: t.j2")), **{"t.j2": "{{ bad"})
    node.prepare()
    assert node.path("/etc/archy/accepted/web/t.j2").read_text() == "old"


@pytest.mark.parametrize("content", ["", "a\nb\n", "\0"])
def test_an_unusable_secret_stops_its_apps_only(
    neighbour: Node, capsys: pytest.CaptureFixture[str], content: str
) -> None:
    neighbour.app("web", app_text("web", SECRET))
    secret = neighbour.write(f"{D}/secrets/p", content)
    secret.parent.chmod(0o700)
    assert neighbour.prepare() == 1
    assert said(capsys)[-1].startswith(
        f"web: not prepared: {D}/secrets/p: is empty, or is not one line of text; restore it"
    )
    assert secret.read_text() == content
    assert neighbour.path(f"{D}/zz/f").exists()


@pytest.mark.parametrize(
    "key",
    [f"generated_files: [{{path: {D}/web/f, content: x}}]", f"env_file: [{D}/web/f]"],
    ids=["made-once", "env-file"],
)
def test_a_file_of_the_app_that_has_become_a_link_stops_it(
    neighbour: Node, capsys: pytest.CaptureFixture[str], key: str
) -> None:
    """It is a source of mounts, or of variables: the app could lead Podman to another one's data."""
    neighbour.app("web", app_text("web", key))
    assert neighbour.prepare() == 0
    own = neighbour.path(f"{D}/web/f")
    own.parent.mkdir(exist_ok=True)
    own.unlink(missing_ok=True)
    own.symlink_to("../zz")
    capsys.readouterr()
    assert neighbour.prepare() == 1
    assert said(capsys)[-1].startswith(f"web: not prepared: {D}/web/f: is not a file; remove it")
    own.unlink()
    assert neighbour.prepare() == 0


def test_a_derived_one_that_has_become_a_link_is_made_again(neighbour: Node) -> None:
    """Also where it is an env_file."""
    neighbour.app("web", app_text("web", f"{filed('content: x')}\nenv_file: [{D}/web/f]"))
    assert neighbour.prepare() == 0
    own = neighbour.path(f"{D}/web/f")
    own.unlink()
    own.symlink_to("../zz")
    assert neighbour.prepare() == 0
    assert (own.is_symlink(), own.read_text()) == (False, "x")


@pytest.mark.parametrize("place", ["secrets", "web"])
def test_links_planted_by_the_service_user(neighbour: Node, capsys: pytest.CaptureFixture[str], place: str) -> None:
    """Its home is its own: what it puts there must not lead root astray."""
    neighbour.app("web", app_text("web", f"{SECRET}\n{filed('content: x')}"))
    (victim := neighbour.path("/etc/victim")).mkdir()
    neighbour.path(f"{D}/{place}").symlink_to("/etc/victim")
    os.lchown(neighbour.path(f"{D}/{place}"), 990, 989)
    assert neighbour.prepare() == 1
    assert list(victim.iterdir()) == []
    assert f"{D}/{place}" in said(capsys)[-1]
    assert neighbour.path(f"{D}/zz/f").exists() == (place == "web")


def test_a_folder_that_is_too_large(
    node: Node, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(apps_accepted, "MAX_BYTES", 1024**2)
    node.app("web", blob="x" * 1024**2)
    assert node.prepare() == 1
    assert said(capsys) == [f"web: not prepared: {node.path('/etc/archy/apps/web')}: holds more than 1 MiB"]
    assert not node.path("/etc/archy/accepted/web").exists()


def test_settings_that_turned_bad(node: Node, capsys: pytest.CaptureFixture[str]) -> None:
    node.app("web", app_text("web", filed("template: t.j2")), **{"t.j2": "{{ node.bitcoin.network }}"})
    node.write("/etc/archy/node.yml", "bitcoin: {network: regtest}")
    assert node.prepare() == 0
    node.write("/etc/archy/node.yml", "bitcoin: {network: moon}")
    capsys.readouterr()
    assert node.prepare() == 0
    assert capsys.readouterr().err.splitlines() == [
        "node settings refused: /etc/archy/node.yml:1:11: bitcoin.network: "
        'must be one of main, test, testnet4, signet, regtest; is "moon"',
        "node settings: the last good version stays in force",
    ]
    assert node.path(f"{D}/web/f").read_text() == "regtest"
    node.path("/etc/archy/node.yml").unlink()
    assert node.prepare() == 0
    assert node.path(f"{D}/web/f").read_text() == "main"


def test_settings_that_were_never_good(node: Node, capsys: pytest.CaptureFixture[str]) -> None:
    node.app("web", app_text("web", filed("content: x")))
    node.app("plain", app_text("plain"))
    node.write("/etc/archy/node.yml", "bitcoin: 1")
    assert node.prepare() == 1
    assert node.is_fresh("plain")
    assert said(capsys)[-1] == 'web: not prepared: /etc/archy/node.yml:1:1: bitcoin: must be a mapping, is "1"'


def test_without_the_service_user(node: Node, capsys: pytest.CaptureFixture[str]) -> None:
    node.write("/etc/passwd", "")
    node.app("web")
    assert node.prepare() == 1
    assert "/etc/passwd has no user archipelago" in said(capsys)[-1]


def test_a_template_without_end_stops_its_app_only(neighbour: Node) -> None:
    neighbour.app(
        "web", app_text("web", filed("template: t.j2")), **{"t.j2": "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}"}
    )
    assert neighbour.prepare() == 1
    assert neighbour.path(f"{D}/zz/f").exists()


@pytest.mark.parametrize(
    ("argv", "code", "message"),
    [
        (["-x"], EX_USAGE, USAGE),
        (["--help"], EX_USAGE, USAGE),
        (["nothing"], EX_NOT_INSTALLED, "nothing: /etc/archy/apps/nothing: is not installed\n"),
        (["../x"], EX_NOT_INSTALLED, "../x: /etc/archy/apps/../x: is not installed\n"),
        (["web", "nothing"], EX_NOT_INSTALLED, "nothing: /etc/archy/apps/nothing: is not installed\n"),
    ],
)
def test_usage(
    node: Node,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    argv: list[str],
    code: int,
    message: str,
) -> None:
    monkeypatch.setattr("archy.apps.installed.ids", lambda _root: (["web"], []))
    monkeypatch.setattr("archy.prepare.prepare.prepare", lambda *_: pytest.fail("something was prepared"))
    assert prepare.main(["archy-prepare", *argv]) == code
    assert capsys.readouterr().err == message


def test_only_one_pass_at_a_time(node: Node) -> None:
    node.app("web")
    with (
        prepare.locked(node.name),
        Path(node.path("/run/archy/lock")).open("w") as other,
        pytest.raises(BlockingIOError),
    ):
        fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)


@pytest.mark.parametrize("file", ["subuid", "subgid"])
@pytest.mark.parametrize(
    "container", ["user: 5", "data_uid: 100004", f"generated_files: [{{path: {D}/web/d/f, content: x, owner: 5}}]"]
)
def test_without_subordinate_ids_nothing_is_given_to_users_of_the_node(
    neighbour: Node, capsys: pytest.CaptureFixture[str], file: str, container: str
) -> None:
    neighbour.write(f"/etc/{file}", "somebody:100000:65536\n")
    volume = f"volumes: [{{type: bind, source: {D}/web, target: /data}}]"
    neighbour.app("web", app_text("web", container, volume))
    assert neighbour.prepare() == 1
    assert said(capsys) == [
        f"web: not prepared: /etc/{file}: archipelago has no subordinate ID for 5 in a container; "
        "run `python3 -m archy.host.subid /` as root"
    ]
    assert not neighbour.path(f"{D}/web").exists()
    assert not neighbour.path("/etc/archy/accepted/web").exists()
    assert neighbour.path(f"{D}/zz/f").lstat().st_uid == 990
    neighbour.write("/etc/subuid", SUBUID)
    neighbour.write("/etc/subgid", SUBGID)
    assert neighbour.prepare() == 0


def test_a_template_that_computes_for_ever_harms_nobody(
    neighbour: Node, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """No signal handler runs while C code computes, and the power of two numbers is one step of it."""
    monkeypatch.setattr(sandbox, "_SECONDS", 2)
    neighbour.app("web", app_text("web", filed("template: t.j2")), **{"t.j2": "{{ 9**(9**10) % 7 }}"})
    assert neighbour.prepare() == 1
    (message,) = said(capsys)
    assert message == "web: not prepared: t.j2: takes longer than 2 s, or too much memory (ended by SIGXCPU)"
    assert neighbour.path(f"{D}/zz/f").exists()
    assert not neighbour.path("/etc/archy/accepted/web").exists()
    assert neighbour.prepare("zz") == 0


def during(monkeypatch: pytest.MonkeyPatch, module: object, name: str, act: Callable[[], object]) -> None:
    """Do something once, right after a call of this function."""
    real = getattr(module, name)

    def and_then(*args: object, **options: object) -> object:
        monkeypatch.setattr(module, name, real)
        result = real(*args, **options)
        act()
        return result

    monkeypatch.setattr(module, name, and_then)


@pytest.mark.parametrize(
    "mode",
    [
        pytest.param(0o600, id="right"),
        pytest.param(0o644, id="mode-is-put-right"),
    ],
)
@pytest.mark.parametrize(
    ("module", "name"), [(secrets, "secrets"), (files, "files"), (files, "drift")], ids=["secrets", "files", "drift"]
)
def test_a_secret_that_changes_during_the_pass_makes_the_stamp_stale(
    node: Node, monkeypatch: pytest.MonkeyPatch, module: ModuleType, name: str, mode: int
) -> None:
    node.app("web", app_text("web", f"{SECRET}\n{filed("content: '{{secret:p}}'")}"))
    secret = node.write(f"{D}/secrets/p", "old\n")
    secret.parent.chmod(0o700)
    secret.chmod(mode)
    during(monkeypatch, module, name, lambda: secret.write_text("new\n"))
    monkeypatch.setattr(prepare, "_ROUNDS", 1)
    assert node.prepare() == 0
    assert node.path(f"{D}/web/f").read_text() == "old"
    assert not node.is_fresh("web")
    assert node.prepare() == 0
    assert node.path(f"{D}/web/f").read_text() == "new"
    assert node.is_fresh("web")


@pytest.mark.parametrize("what", ["manifest.yml", "t.j2", "new"])
def test_a_folder_that_changes_after_its_check_is_not_accepted(
    node: Node, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    node.app("web", app_text("web", filed("template: t.j2")), **{"t.j2": "old"})
    assert node.prepare() == 0
    node.app("web", app_text("web", filed("template: t.j2")) + "\n")
    capsys.readouterr()
    monkeypatch.setattr(prepare, "_ROUNDS", 1)
    during(monkeypatch, build, "build", lambda: node.write(f"/etc/archy/apps/web/{what}", "app: 1"))
    assert node.prepare() == 0
    message = said(capsys)[1]
    assert message.endswith("apps/web: has changed while it was read; it is read again at the next start")
    accepted = node.path("/etc/archy/accepted")
    assert (accepted / "web/manifest.yml").read_text() == app_text("web", filed("template: t.j2"))
    assert (accepted / "web/t.j2").read_text() == "old"
    assert sorted(os.listdir(accepted)) == sorted([os.readlink(accepted / "web"), "host.json", "web", "web.units"])
    assert not node.is_fresh("web")


def test_apps_that_are_gone_are_forgotten(node: Node) -> None:
    for app_id in ("web", "web-ui", "runs"):
        node.app(app_id, app_text(app_id))
    assert node.prepare() == 0
    shutil.rmtree(node.path("/etc/archy/apps/web"))
    shutil.rmtree(node.path("/etc/archy/apps/runs"))
    node.runs("runs")
    prepare.forget_gone(node.name, ["web-ui"])
    accepted = node.path("/etc/archy/accepted")
    runs, other = ([os.readlink(accepted / name), name, f"{name}.units"] for name in ("runs", "web-ui"))
    assert sorted(os.listdir(accepted)) == sorted([*runs, *other, "host.json"])
    node.runs("runs", populated=0)
    prepare.forget_gone(node.name, ["web-ui"])
    assert sorted(os.listdir(accepted)) == sorted([*other, "host.json"])


def test_the_service_user_s_things_stay_when_an_app_is_forgotten(node: Node) -> None:
    node.app("web", app_text("web", f"{SECRET}\n{filed('content: x')}"))
    assert node.prepare() == 0
    before = tree(node.path(D))
    conf = ".config/containers/containers.conf.d/50-archy.conf"
    assert sorted(before) == [conf, ".made-secrets/p", "secrets/p", "web/f"]
    prepare.forget_gone(node.name, [])
    assert tree(node.path(D)) == before


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda node: node.fake_quadlet(f'exec {QUADLET} "$@"'), id="quadlet"),
        pytest.param(lambda node: os.utime(node.path("/usr/share/archy/templates"), (1, 1)), id="templates"),
        pytest.param(lambda node: node.write("/etc/passwd", PASSWD.replace("989", "988")), id="user"),
    ],
)
def test_another_toolchain_makes_the_stamp_stale(node: Node, change: Callable[[Node], object]) -> None:
    node.app("web")
    assert node.prepare() == 0
    assert node.is_fresh("web")
    change(node)
    assert not node.is_fresh("web")
    assert node.prepare() == 0
    assert node.is_fresh("web")
