# SPDX-License-Identifier: MIT
"""The output that is kept for boots and reloads: the same bytes, and only while no input has changed."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from support import REPO, Node, app_text, tree

from archy import paths
from archy.host import read
from archy.units import cache, drift, generator, snapshot

pytestmark = [
    pytest.mark.programs,
    pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files to the service user"),
]

GOLDEN = sorted((REPO / "tests/golden").iterdir())
NATIVE = "/usr/local/lib/systemd/system"
SNAPSHOT = "/etc/archy/accepted/.snapshot"
APPS = "/etc/archy/apps"
MANIFEST = f"{APPS}/web/manifest.yml"


def reload(node: Node) -> list[str]:
    """What PID 1 does, by the whole generator."""
    shutil.rmtree(node.path(paths.GENERATED), ignore_errors=True)
    node.path(paths.GENERATED).mkdir(parents=True)
    return generator.generate(node.name, str(node.path(paths.GENERATED)))


def keep(node: Node) -> None:
    """Reload, and make a pass that finds the units right."""
    node.path("/run/archy").mkdir(exist_ok=True)
    reload(node)
    assert drift.drift(node.name) == ""


def restore(node: Node) -> dict[str, str] | None:
    """What the entry of the generator writes from what was kept; None if it leaves that to the generator."""
    out = node.path("/restored")
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir()
    if snapshot.restore(node.name, str(out)):
        assert {path.stat().st_mode & 0o777 for path in out.rglob("*") if path.is_file()} <= {0o644}
        return tree(out)
    return None


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drift, "_SETTLED", 0.0)


@pytest.fixture
def kept(node: Node) -> Node:
    """A node with an app of the operator's own, two of the catalogue, and what the generator makes of them kept."""
    node.install("bitcoin-knots", "bitcoin-ui")
    node.app(
        "web", app_text("web", "network: x", "volumes: [{type: volume, source: v, target: /v}]"), **{"sub/file": ""}
    )
    node.path(f"{APPS}/linked").symlink_to("/srv/linked")
    node.write("/srv/linked/manifest.yml", app_text("linked"))
    node.write("/srv/other/manifest.yml", app_text("linked"))
    node.path(NATIVE).mkdir(parents=True)
    assert node.prepare() == 0
    keep(node)
    assert restore(node) == node.generate()[0]
    return node


def rewrite(path: str, old: str, new: str) -> Callable[[Node], object]:
    """Change a file in place: its size and its time of modification stay."""

    def change(node: Node) -> None:
        target = node.path(path)
        before, text = target.stat(), target.read_text()
        assert old in text
        assert len(old) == len(new)
        target.write_text(text.replace(old, new))
        os.utime(target, ns=(before.st_atime_ns, before.st_mtime_ns))
        after = target.stat()
        assert (after.st_ino, after.st_size, after.st_mtime_ns) == (before.st_ino, before.st_size, before.st_mtime_ns)

    return change


def replace(path: str, old: str = "", new: str = "") -> Callable[[Node], object]:
    """Put another file of the same size and time in its place."""

    def change(node: Node) -> None:
        target, other = node.path(path), node.path("/new")
        shutil.copy2(target, other)
        other.write_text(other.read_text().replace(old, new))
        shutil.copystat(target, other)
        other.rename(target)

    return change


def relink(node: Node) -> None:
    node.path(f"{APPS}/linked").unlink()
    node.path(f"{APPS}/linked").symlink_to("/srv/other")


def unlink(path: str) -> Callable[[Node], object]:
    return lambda node: node.path(path).unlink()


def put(path: str, text: str = "") -> Callable[[Node], object]:
    return lambda node: node.write(path, text)


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(rewrite(MANIFEST, "1.26", "1.27"), id="same-size-and-time"),
        pytest.param(replace(MANIFEST, "1.26", "1.27"), id="another-file"),
        pytest.param(rewrite("/srv/linked/manifest.yml", "1.26", "1.27"), id="behind-a-link"),
        pytest.param(rewrite("/usr/share/archy/apps/bitcoin-ui/manifest.yml", "e", "a"), id="in-the-catalogue"),
        pytest.param(lambda node: node.app("new", app_text("new")), id="new-app"),
        pytest.param(put(f"{APPS}/.hidden"), id="hidden"),
        pytest.param(lambda node: node.install("lnd"), id="new-link"),
        pytest.param(unlink(f"{APPS}/bitcoin-ui"), id="link-gone"),
        pytest.param(lambda node: shutil.rmtree(node.path(f"{APPS}/web")), id="app-gone"),
        pytest.param(unlink(MANIFEST), id="manifest-gone"),
        pytest.param(lambda node: shutil.rmtree(node.path("/srv/linked")), id="leads-nowhere"),
        pytest.param(relink, id="link-elsewhere"),
        pytest.param(put(f"{APPS}/web/beside"), id="file-beside"),
        pytest.param(put(f"{APPS}/web/sub/beside"), id="file-below"),
        pytest.param(unlink(f"{APPS}/web/sub/file"), id="file-below-gone"),
        pytest.param(replace("/etc/archy/accepted/web/manifest.yml"), id="accepted"),
        pytest.param(unlink("/etc/archy/accepted/web"), id="not-accepted"),
        pytest.param(put(paths.GRANTS, "grants: {}\n"), id="grants"),
        pytest.param(put(paths.ACCEPTED_GRANTS, "grants: {}\n"), id="accepted-grants"),
        pytest.param(put(f"{paths.STOPPED}/web"), id="stopped"),
        pytest.param(rewrite("/etc/passwd", "990", "991"), id="user"),
        pytest.param(rewrite("/etc/subuid", "231072", "231073"), id="subuid"),
        pytest.param(rewrite("/etc/subgid", "331072", "331073"), id="subgid"),
        pytest.param(put(f"{NATIVE}/archy-web.service", "x"), id="native-unit"),
        pytest.param(lambda node: node.path(NATIVE).rmdir(), id="no-native-units"),
        pytest.param(lambda node: node.fake_quadlet('exec /usr/libexec/podman/quadlet "$@"'), id="quadlet"),
        pytest.param(rewrite("/usr/share/archy/templates/app.container.j2", "[", "#"), id="template"),
        pytest.param(put("/usr/share/archy/templates/new"), id="templates"),
        pytest.param(lambda node: node.path("/usr/share/archy/apps/new").mkdir(), id="catalogue"),
        pytest.param(lambda node: node.runs("gone"), id="leftover"),
        pytest.param(lambda node: node.runs("b.c"), id="odd-leftover"),
    ],
)
def test_a_change_is_seen(kept: Node, change: Callable[[Node], object]) -> None:
    change(kept)
    assert restore(kept) is None


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda node: node.runs("gone", populated=0), id="ended"),
        pytest.param(lambda node: node.runs("web"), id="runs"),
        pytest.param(put("/etc/systemd/system/other.service"), id="other-unit"),
        pytest.param(lambda node: shutil.rmtree(node.path("/run")), id="boot"),
        pytest.param(put("/etc/archy/node.yml", "bitcoin: {network: regtest}\n"), id="node"),
    ],
)
def test_what_is_no_input_changes_nothing(kept: Node, change: Callable[[Node], object]) -> None:
    before = restore(kept)
    change(kept)
    assert restore(kept) == before == kept.generate()[0]


def test_a_stopped_app_and_one_started_again(kept: Node) -> None:
    kept.write(f"{paths.STOPPED}/web", "")
    keep(kept)
    found = restore(kept)
    assert found == kept.generate()[0]
    assert "archy.target.wants/archy-web.service" not in (found or {})
    kept.path(f"{paths.STOPPED}/web").unlink()
    assert restore(kept) is None


def test_a_native_unit_that_goes(kept: Node) -> None:
    kept.write(f"{NATIVE}/archy-web.service", "x")
    keep(kept)
    assert "archy-web.service" not in (restore(kept) or {"archy-web.service": ""})
    kept.path(f"{NATIVE}/archy-web.service").unlink()
    assert restore(kept) is None


@pytest.mark.parametrize("place", ["units", "manifest", "apps"])
def test_an_upgraded_package(kept: Node, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str) -> None:
    package = tmp_path / "archy"
    shutil.copytree(REPO / "generator/archy", package, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(cache, "__file__", str(package / "units/cache.py"))
    keep(kept)
    assert restore(kept) is not None
    new = package / place / "new"
    new.write_text("")
    new.rename(next((package / place).glob("[a-z]*.py")))
    assert restore(kept) is None


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(lambda _: b"", id="empty"),
        pytest.param(lambda content: content[:-1], id="cut-by-one"),
        pytest.param(lambda content: content[: len(content) // 2], id="cut-in-half"),
        pytest.param(lambda content: content[:20], id="cut-in-its-head"),
        pytest.param(lambda content: content + b"x", id="longer"),
        pytest.param(lambda content: content.replace(b"Restart=always", b"Restart=no    "), id="changed"),
        pytest.param(lambda content: content.replace(b"units 1", b"units 2"), id="another-format"),
        pytest.param(lambda _: b"\xff\xfe\0" * 99, id="garbage"),
        pytest.param(lambda _: snapshot.pack({b"": b""}, {})[:-2], id="of-nothing"),
    ],
)
def test_a_damaged_snapshot_is_none(kept: Node, damage: Callable[[bytes], bytes]) -> None:
    path = kept.path(SNAPSHOT)
    before = path.read_bytes()
    assert damage(before) != before
    path.write_bytes(damage(before))
    assert restore(kept) is None
    keep(kept)
    assert restore(kept) == kept.generate()[0]


def fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path, 0o644)


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda path: os.chown(path, 990, 989), id="another-s"),
        pytest.param(lambda path: path.chmod(0o666), id="writable-by-all"),
        pytest.param(lambda path: path.rename(path.with_name("x")) and path.symlink_to("x"), id="link"),
        pytest.param(fifo, id="fifo"),
        pytest.param(lambda path: (path.unlink(), path.mkdir()), id="directory"),
        pytest.param(lambda path: path.unlink(), id="gone"),
    ],
)
def test_the_snapshot_of_another_is_none(kept: Node, change: Callable[[Path], object]) -> None:
    change(kept.path(SNAPSHOT))
    assert restore(kept) is None


def test_into_a_directory_that_is_not_empty_or_not_there(kept: Node) -> None:
    out = kept.path("/restored")
    assert not snapshot.restore(kept.name, str(out))
    shutil.rmtree(out)
    assert not snapshot.restore(kept.name, str(out))


def test_nothing_installed(node: Node) -> None:
    keep(node)
    assert restore(node) == {}


@pytest.mark.parametrize("golden", GOLDEN, ids=lambda golden: golden.name)
def test_golden_trees(node: Node, golden: Path) -> None:
    """Byte for byte what the generator writes, though some are not to be kept: they warn, or depend on what runs."""
    for name in ("apps", "accepted"):
        if (golden / name).exists():
            shutil.copytree(golden / name, node.path(f"/etc/archy/{name}"), dirs_exist_ok=True)
    if (golden / "install").exists():
        node.install(*(golden / "install").read_text().split())
    keep(node)
    found, warnings = node.generate()
    assert not warnings or restore(node) is None
    assert drift._is_kept(node.name, drift.inputs(node.name), drift._tree(str(node.path("/out"))), lasting=True)
    assert restore(node) == found


def test_output_with_a_warning_is_not_kept(kept: Node) -> None:
    kept.app("bad", "app: 1")
    keep(kept)
    assert not kept.path(SNAPSHOT).exists()


def test_the_unit_of_a_leftover_is_not_kept(kept: Node) -> None:
    kept.runs("gone")
    keep(kept)
    assert not kept.path(SNAPSHOT).exists()


def test_a_link_that_depends_on_what_runs(node: Node) -> None:
    """It is kept for the time when none of them runs, as at a boot."""
    for app_id in ("one", "two"):
        node.app(app_id, app_text(app_id, app="provides: db"))
    keep(node)
    found = restore(node)
    assert found == node.generate()[0]
    assert (found or {}).get("archy-db.service") == "-> archy-one.service"
    node.runs("two")
    assert restore(node) is None
    node.path("/run/archy/units-verified").unlink()
    keep(node)
    assert not node.path(SNAPSHOT).exists()


def test_units_that_are_wrong_are_not_kept(kept: Node) -> None:
    """Else a reload would write the wrong ones again, for ever."""
    kept.path(f"{paths.GENERATED}/archy-web.service").unlink()
    assert drift.drift(kept.name) != ""
    assert not kept.path(SNAPSHOT).exists()


def test_what_has_just_changed_is_kept_later(kept: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drift, "_SETTLED", 2.0)
    kept.write(MANIFEST, app_text() + "# new\n")
    now = time.time()
    keep(kept)
    assert restore(kept) is None
    monkeypatch.setattr(time, "time", lambda: now + 3)
    assert drift.drift(kept.name) == ""
    assert restore(kept) == kept.generate()[0]


def test_a_pass_that_finds_all_kept_computes_nothing(kept: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    before = kept.path(SNAPSHOT).stat()
    with monkeypatch.context() as patch:
        patch.setattr(generator, "write_units", lambda *_: pytest.fail("made anew"))
        assert drift.drift(kept.name) == ""
    reload(kept)
    assert drift.drift(kept.name) == ""
    assert kept.path(SNAPSHOT).stat() == before  # the same is not written again
    kept.path(SNAPSHOT).unlink()
    assert drift.drift(kept.name) == ""
    assert restore(kept) is not None


def test_the_states_of_all_inputs_are_kept(kept: Node) -> None:
    states = drift.inputs(kept.name)
    content = read.read(str(kept.path(SNAPSHOT))) or b""
    assert all(b"%b\0%b\0" % pair in content for pair in states.items())
