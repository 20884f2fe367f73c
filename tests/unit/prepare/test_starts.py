# SPDX-License-Identifier: MIT
"""What an app was started with: recorded at its start, compared with what it would be started with now."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable

import pytest
from support import Node, app_text

from archy.health import current
from archy.health.current import AppState
from archy.host import systemd
from archy.prepare import prepare, starts
from archy.units import generator

pytestmark = [
    pytest.mark.programs,
    pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files to the service user"),
]

D = "/var/lib/archipelago"
RECORD = "/run/archy/started/web.json"
UNIT = "/run/systemd/generator/archy-web.service"
FILES = f"""\
generated_secrets: [{{name: p, kind: hex32}}]
secret_env: [{{key: KEY, secret_file: p}}]
derived_env: [{{key: IP, template: x}}]
generated_files:
- {{path: {D}/web/conf, template: t.j2, overwrite: true}}
- {{path: {D}/web/own, content: first}}"""
CONF, OWN, KEY = f"{D}/web/conf", f"{D}/web/own", "/run/archipelago/secret-env/web/KEY"


@pytest.fixture
def web(node: Node, monkeypatch: pytest.MonkeyPatch) -> Node:
    """A node on which an app has started."""
    node.app("web", app_text("web", FILES), **{"t.j2": "{{ secret('p') }}"})
    node.prepare()
    node.path(UNIT).parent.mkdir(parents=True)
    generator.generate(node.name, str(node.path(UNIT).parent))
    starts.record(node.name, "web", "i1")
    now = systemd.Unit("archy-web.service", True, active="active", sub="running", invocation="i1")
    monkeypatch.setattr(systemd, "units", lambda names: {"archy-web.service": now} if names else {})
    return node


def seen(node: Node) -> AppState:
    """The app as a pass sees it."""
    node.prepare()
    (app,) = current.observe(node.name, {}).apps
    return app


def test_it_runs_on_what_it_should(web: Node) -> None:
    app = seen(web)
    assert (app.comparable, app.stale, app.stale_own, app.unit_changed) == (True, (), (), False)
    status = web.path(RECORD).stat()
    assert (status.st_uid, status.st_mode & 0o777, web.path(RECORD).parent.stat().st_mode & 0o777) == (0, 0o600, 0o700)
    text = web.path(RECORD).read_text()
    assert web.path(f"{D}/secrets/p").read_text().strip() not in text


def manifest(change: str, to: str) -> Callable[[Node], object]:
    return lambda node: node.app("web", app_text("web", FILES.replace(change, to)))


@pytest.mark.parametrize(
    ("change", "changed", "own"),
    [
        pytest.param(lambda node: node.write("/etc/archy/apps/web/t.j2", "other"), [CONF], [], id="template"),
        pytest.param(lambda node: node.path(f"{D}/secrets/p").write_text("new\n"), [KEY, CONF], [], id="secret"),
        pytest.param(lambda node: node.path(CONF).write_text("tampered"), [], [], id="tampered-on-the-disk"),
        pytest.param(lambda node: node.path(CONF).unlink(), [], [], id="lost-on-the-disk"),
        pytest.param(lambda node: node.path(CONF).chmod(0o666), [], [], id="mode"),
        pytest.param(lambda node: node.path(OWN).write_text("edited"), [], [OWN], id="operator-s-own"),
        pytest.param(manifest("template: x", "template: y"), ["/run/archipelago/env/web.env"], [], id="environment"),
        pytest.param(manifest("content: first", "content: second"), [], [], id="made-once"),
        pytest.param(manifest(f"{D}/web/conf, ", f"{D}/web/conf2, "), [CONF, f"{CONF}2"], [], id="another-file"),
        pytest.param(manifest(f"- {{path: {D}/web/own, content: first}}", ""), [], [OWN], id="own-file-gone"),
    ],
)  # fmt: skip
def test_what_has_changed(web: Node, change: Callable[[Node], object], changed: list[str], own: list[str]) -> None:
    change(web)
    app = seen(web)
    assert (app.comparable, list(app.stale), list(app.stale_own), app.unit_changed) == (True, changed, own, False)


def test_what_is_as_it_was_again_has_not_changed(web: Node) -> None:
    web.write("/etc/archy/apps/web/t.j2", "other")
    assert seen(web).stale == (CONF,)
    web.write("/etc/archy/apps/web/t.j2", "{{ secret('p') }}")
    assert seen(web).stale == ()


def test_its_unit_has_changed(web: Node) -> None:
    web.app("web", app_text("web", FILES, "stop_grace_secs: 5"))
    assert not seen(web).unit_changed  # not yet: PID 1 has not seen it
    generator.generate(web.name, str(web.path(UNIT).parent))
    assert seen(web).unit_changed
    starts.record(web.name, "web", "i1")
    assert not seen(web).unit_changed


def test_an_operator_s_unit_in_the_place_of_ours(web: Node) -> None:
    web.path(UNIT).unlink()
    assert starts.unit_digest(web.name, "web") == ""
    starts.record(web.name, "web", "i1")
    assert not seen(web).unit_changed


@pytest.mark.parametrize("invocation", ["", "i2"])
def test_a_start_that_nobody_recorded_is_unknown(web: Node, invocation: str) -> None:
    starts.record(web.name, "web", invocation)
    web.write("/etc/archy/apps/web/t.j2", "other")
    app = seen(web)
    assert (app.comparable, app.stale) == (False, ())


@pytest.mark.parametrize("content", [None, "", "{", "[]", "{}", '{"files": 1, "own": {}}', '{"files": {}, "own": []}'])
def test_a_damaged_record_is_none(web: Node, content: str | None) -> None:
    if content is None:
        web.path(RECORD).unlink()
    else:
        web.path(RECORD).write_text(content)
    assert starts.load(web.name, "web") is None
    assert not seen(web).comparable


def test_what_changes_while_it_starts_is_a_change_since_its_start(web: Node) -> None:
    before = json.loads(web.path(RECORD).read_text())
    web.path(f"{D}/secrets/p").write_text("new\n")
    starts.record(web.name, "web", "i2")
    assert json.loads(web.path(RECORD).read_text()) == {**before, "invocation": "i2"}


def test_a_record_that_cannot_be_written_keeps_nobody_from_starting(
    web: Node, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.rmtree(web.path(RECORD).parent)
    web.path(RECORD).parent.write_text("in the way")
    capsys.readouterr()
    starts.record(web.name, "web", "i2")
    assert capsys.readouterr().out.startswith("web: what it is started with is not kept: ")


@pytest.mark.parametrize(
    ("before", "now", "changed"),
    [
        ({}, {}, []),
        ({"a": "1"}, {"a": "1"}, []),
        ({"b": "1", "a": "1", "c": "1"}, {"a": "2", "b": "2", "c": "1"}, ["a", "b"]),
        ({"a": "1"}, {}, ["a"]),
        ({}, {"a": "1"}, ["a"]),
    ],
)
def test_changed(before: dict[str, str], now: dict[str, str], changed: list[str]) -> None:
    assert starts.changed(before, now) == changed


@pytest.mark.parametrize("starting", [True, False])
@pytest.mark.parametrize("failing", [True, False])
def test_main(web: Node, monkeypatch: pytest.MonkeyPatch, starting: bool, failing: bool) -> None:
    """The unit's ExecStartPre= records, tries again what failed before, and nobody else does either."""
    recorded: list[tuple[str, str, str]] = []
    asked: list[tuple[list[str], bool]] = []

    def pretend(_: str, names: list[str], retry_failed: bool = False) -> dict[str, str]:
        asked.append((names, retry_failed))
        return {"@node": "odd"} | ({"web": "bad"} if failing else {})

    monkeypatch.setattr("archy.apps.installed.ids", lambda _: (["other", "web"], []))
    monkeypatch.setattr(prepare, "prepare", pretend)
    monkeypatch.setattr(starts, "record", lambda *arguments: recorded.append(arguments))
    monkeypatch.setenv("INVOCATION_ID", "i7")
    code = prepare.main(["archy-prepare", *(["--starting"] if starting else []), "web"])
    assert code == (1 if failing else 0)
    assert asked == [(["web"], starting)]
    assert recorded == ([("/", "web", "i7")] if starting and not failing else [])


@pytest.mark.parametrize(
    "argv", [["--starting"], ["--starting", "a", "b"], ["--starting", "-x"], ["web", "--starting"]]
)
def test_usage(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], argv: list[str]) -> None:
    monkeypatch.setattr(prepare, "prepare", lambda *_: pytest.fail("something was prepared"))
    assert prepare.main(["archy-prepare", *argv]) == prepare.EX_USAGE
    assert capsys.readouterr().err.startswith("usage: archy-prepare ")
