# SPDX-License-Identifier: MIT
"""`archy image`: what apps want and what is there; and archives, good and bad. A script plays Podman."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from support import Node, app_of

from archy import paths
from archy.apps import facts
from archy.cli import main
from archy.host import steps, systemd
from archy.host.systemd import Unit
from archy.operations import jobs

pytestmark = [
    pytest.mark.programs,
    pytest.mark.skipif(os.geteuid() != 0, reason="only root may do this"),
]

NGINX, DB = "docker.io/library/nginx:1.26", "docker.io/library/postgres:17"
LISTED = [
    {"Id": "1", "Names": [NGINX], "RepoDigests": ["docker.io/library/nginx@sha256:ab"], "Size": 42_000_000},
    {"Id": "2", "Size": 1, "Names": None, "RepoDigests": None},
]


class Said:
    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err


class World:
    """Three apps, two with one image that is there; a Podman, and a systemd that notes what it is asked."""

    def __init__(self, node: Node, directory: Path) -> None:
        self.directory = directory
        self.units: dict[str, Unit] = {}
        self.restarted: list[str] = []
        self.podman(json.dumps(LISTED))
        apps = {name: {**facts.summary(app_of()), "image": NGINX} for name in ("web", "ui")}
        apps["db"] = {**facts.summary(app_of()), "image": DB}
        node.write(paths.FACTS, facts.pack({**facts.load(node.name), "apps": apps}))  # type: ignore[typeddict-item]

    def podman(self, out: str, errors: str = "", code: int = 0) -> None:
        here = self.directory
        (here / "out").write_text(out)
        (here / "errors").write_text(errors)
        script = f'#!/bin/sh\necho "$@" >{here}/asked\n[ $1 != load ] || cat >{here}/given\n'
        (here / "podman").write_text(f"{script}cat {here}/out\ncat {here}/errors >&2\nexit {code}\n")
        (here / "podman").chmod(0o755)

    def waits(self, app_id: str, sub: str, says: str = "") -> None:
        name = f"archy-image@{app_id}.service"
        self.units[name] = Unit(name, active="activating", sub=sub, status_text=says)

    def ctl(self, *words: str) -> None:
        assert words[:3] == ("restart", "--no-block", "--")
        self.restarted += words[3:]


@pytest.fixture
def world(node: Node, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    under = paths.under
    monkeypatch.setattr(paths, "under", lambda root, path: under(node.name if root == "/" else root, path))
    monkeypatch.setattr(systemd, "booted", lambda: True)
    (tmp_path / "bin").mkdir()
    result = World(node, tmp_path / "bin")
    path = {"PATH": f"{tmp_path}/bin:/usr/bin:/bin"}
    # As ourselves: the service user could not reach the script.
    monkeypatch.setattr(
        steps, "as_user", lambda root: {"env": path, "capture_output": True, "text": True, "errors": "replace"}
    )
    monkeypatch.setenv("PATH", path["PATH"])
    monkeypatch.setattr(systemd, "units", lambda names: {n: result.units[n] for n in names if n in result.units})
    monkeypatch.setattr(systemd, "systemctl", result.ctl)
    return result


@pytest.fixture
def archy(world: World, capsys: pytest.CaptureFixture[str]) -> Any:
    def run(*arguments: str) -> Said:
        code = main.main(list(arguments))
        said = capsys.readouterr()
        return Said(code, said.out, said.err)

    return run


def test_list(archy: Any, world: World) -> None:
    world.waits("db", "start", "fetching it: 3 MB so far")
    said = archy("image", "list")
    assert (said.code, said.err) == (0, "")
    assert [line.split(maxsplit=2) for line in said.out.splitlines()[1:]] == [
        [NGINX, "42", "MB    ui, web"],
        [DB, "missing", "db       fetching it: 3 MB so far"],
    ]
    assert json.loads(archy("image", "list", "--json").out) == {
        "images": [
            {"image": NGINX, "apps": ["ui", "web"], "there": True, "size": 42_000_000, "says": ""},
            {"image": DB, "apps": ["db"], "there": False, "size": 0, "says": "fetching it: 3 MB so far"},
        ]
    }


def test_what_was_said_long_ago_is_not_repeated(archy: Any, world: World) -> None:
    world.waits("db", "start", "fetching it")
    name = "archy-image@db.service"
    world.units[name] = Unit(name, active="inactive", status_text="fetching it")
    assert json.loads(archy("image", "list", "--json").out)["images"][1]["says"] == ""


def test_a_podman_that_fails(archy: Any, world: World) -> None:
    world.podman("", "Error: file is not a database\n", 125)
    said = archy("image", "list")
    assert (said.code, said.out) == (1, "")
    assert said.err == "archy: image list: podman: file is not a database\nhint: archy status\n"


def test_load(archy: Any, world: World, tmp_path: Path) -> None:
    (tmp_path / "a.tar").write_text("archive")
    world.podman(f"Loaded image: {DB}\nLoaded image: localhost/x:1\n", "Getting image source signatures\n")
    world.waits("db", "start")
    world.waits("ui", "auto-restart")
    world.waits("web", "start")
    said = archy("image", "load", str(tmp_path / "a.tar"))
    assert said.code == 0
    assert said.out == f"{DB}: loaded, for db\nlocalhost/x:1: loaded, which no installed app uses\n"
    assert (world.directory / "given").read_text() == "archive"
    # One that is being fetched is not disturbed; the others look again.
    assert sorted(world.restarted) == ["archy-image@db.service", "archy-image@ui.service"]


def test_load_when_nobody_waits(archy: Any, world: World, tmp_path: Path) -> None:
    (tmp_path / "a.tar").write_text("archive")
    world.podman(f"Loaded image: {NGINX}\n")
    said = archy("image", "load", str(tmp_path / "a.tar"))
    assert (said.code, said.out, said.err) == (0, f"{NGINX}: loaded, for ui, web\n", "")
    assert world.restarted == []


HINT = "hint: it must be an archive as podman save or docker save make it\n"


@pytest.mark.parametrize(
    ("errors", "code", "why"),
    [
        ("Error: payload does not match any of the formats:\n * oci: x\n", 125, "payload does not match"),
        ("", 0, "holds no image"),
        ("", 1, "holds no image"),
    ],
)
def test_a_bad_archive(archy: Any, world: World, tmp_path: Path, errors: str, code: int, why: str) -> None:
    (tmp_path / "a.tar").write_text("x")
    world.podman("", errors, code)
    said = archy("image", "load", str(tmp_path / "a.tar"))
    assert (said.code, said.out) == (1, "")
    assert said.err.startswith(f"archy: image load: {tmp_path}/a.tar: cannot be loaded: {why}")
    assert said.err.endswith(HINT)
    assert len(said.err.splitlines()) == 2


@pytest.mark.parametrize(("name", "why"), [("none", "No such file or directory"), (".", "Is a directory")])
def test_no_file(archy: Any, tmp_path: Path, name: str, why: str) -> None:
    said = archy("image", "load", str(tmp_path / name))
    assert (said.code, said.err) == (1, f"archy: image load: {tmp_path / name}: {why}\n")


def test_only_root_may(archy: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 990)
    for words in (("list",), ("load", "x")):
        assert archy("image", *words).code == 5


@pytest.mark.parametrize(
    ("active", "says", "shown"),
    [
        ("activating", "fetching m:5000/x: 3 MB so far", ("waiting for its image: fetching m:5000/x", "3 MB so far")),
        ("activating", "cannot be had: a: b; attempt 2", ("waiting for its image: cannot be had: a: b; attempt 2", "")),
        ("activating", "", ("", "")),
        ("inactive", "fetching x", ("", "")),
    ],
)
def test_what_an_installation_shows(world: World, active: str, says: str, shown: tuple[str, str]) -> None:
    name = "archy-image@web.service"
    world.units[name] = Unit(name, active=active, status_text=says)
    assert jobs._waits_for("web") == shown
    assert jobs._waits_for("other") == ("", "")
    held = "archy-wait@other.service"
    world.units[held] = Unit(held, active="activating", status_text="Bitcoin is syncing: 12.3%")
    assert jobs._waits_for("other") == ("Bitcoin is syncing: 12.3%", "")
