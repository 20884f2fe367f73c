# SPDX-License-Identifier: MIT
# ruff: noqa: E501 - a case is a line
"""The command's manners: exit codes, messages, JSON, colour."""

from __future__ import annotations

import json
import os
import re
from typing import Any

import pytest
from support import REPO, SHIPPED, Node, app_text, tree

from archy import __version__, paths
from archy.apps import catalogue
from archy.cli import main
from archy.host import systemd
from archy.manifest import rules
from archy.operations.progress import CannotDo

pytestmark = pytest.mark.programs


@pytest.fixture(autouse=True)
def here(node: Node, monkeypatch: pytest.MonkeyPatch) -> Node:
    """`/` is the node's directory for everything that only reads."""
    under = paths.under
    monkeypatch.setattr(paths, "under", lambda root, path: under(node.name if root == "/" else root, path))
    monkeypatch.setattr(systemd, "booted", lambda: False)
    return node


class Said:
    """What a run of the command came to."""

    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err

    @property
    def json(self) -> Any:
        return json.loads(self.out)


@pytest.fixture
def archy(capsys: pytest.CaptureFixture[str]) -> Any:
    """Run the command with these arguments."""

    def run(*arguments: str) -> Said:
        try:
            code = main.main(list(arguments))
        except SystemExit as ended:  # argparse
            code = int(ended.code or 0)
        said = capsys.readouterr()
        return Said(code, said.out, said.err)

    return run


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        ([], 2, "usage: archy"),
        (["app"], 2, "usage: archy app"),
        (["nonsense"], 2, "invalid choice: 'nonsense'"),
        (["app", "nonsense"], 2, "invalid choice: 'nonsense'"),
        (["app", "install"], 2, "the following arguments are required: APP"),
        (["app", "list", "--nonsense"], 2, "unrecognized arguments: --nonsense"),
        (["app", "install", "x", "--json"], 2, "unrecognized arguments: --json"),
        (["app", "render", "nothing"], 4, "archy: render: /etc/archy/apps, /usr/share/archy/apps: there is no app nothing\nhint: archy app list shows all\n"),
        (["app", "render", "../../nowhere"], 2, "archy: render: ../../nowhere: is not a folder with a manifest.yml"),
        (["app", "render", ""], 4, "there is no app "),
        (["app", "validate", "/nowhere"], 2, "archy: validate: /nowhere: is not a folder with a manifest.yml\nhint: give the folder, or the manifest in it\n"),
        (["app", "validate", "/etc/passwd"], 2, "is not a folder with a manifest.yml"),
        (["app", "install", "bitcoin-knots"], 1, "archy: install bitcoin-knots: /run/systemd/system: systemd does not run this machine\n"),
        (["app", "remove", "bitcoin-knots"], 1, "archy: remove bitcoin-knots: /run/systemd/system: systemd does not run this machine\n"),
    ],
)  # fmt: skip
def test_exit_codes_and_words(archy: Any, arguments: list[str], code: int, words: str) -> None:
    said = archy(*arguments)
    assert (said.code, said.out) == (code, "")
    assert words in said.err
    assert "Traceback" not in said.err


AS_ROOT = [
    *(["app", verb, "bitcoin-knots"] for verb in ("install", "remove", "start", "stop", "credentials")),
    ["app", "switch", "bitcoin-knots", "bitcoin-core"],
    ["secret", "list"],
    ["secret", "rotate", "p"],
    ["reconcile"],
    ["reconcile", "--dry-run"],
]


@pytest.mark.parametrize("words", AS_ROOT, ids=" ".join)
def test_only_root_may(archy: Any, monkeypatch: pytest.MonkeyPatch, words: list[str]) -> None:
    what = " ".join(word for word in words if word not in ("app", "--dry-run", "bitcoin-core"))
    nowhere = archy(*words)
    assert (nowhere.code, nowhere.out) == (1, "")
    assert nowhere.err.startswith(f"archy: {what}: /run/systemd/system: systemd does not run this machine\n")
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    said = archy(*words)
    assert (said.code, said.err) == (5, f"archy: {what}: archy: only root may do this\nhint: use sudo\n")


def test_help_and_version(archy: Any) -> None:
    assert archy("--version").out == f"archy {__version__}\n"
    for arguments in (["--help"], ["app", "--help"], ["app", "install", "--help"]):
        said = archy(*arguments)
        assert said.code == 0
        assert "exit codes:" in said.out
        assert "5  not permitted" in said.out


def test_list(archy: Any, here: Node) -> None:
    here.shelve("bitcoin-knots", "bitcoin-ui")
    here.install("bitcoin-knots")
    here.app("bad", "app: 1")
    said = archy("app", "list")
    assert (said.code, said.err) == (0, "")
    assert [re.split(r"  +", line) for line in said.out.splitlines()] == [
        ["APP", "STATE", "VERSION", "NAME"],
        ["bad", "unknown", '/etc/archy/apps/bad/manifest.yml:1:1: app: must be a mapping, is "1"'],
        ["bitcoin-knots", "unknown", "29.3.knots20260508", "Bitcoin Knots"],
        ["bitcoin-ui", "not installed", "1.0.0", "Bitcoin status"],
    ]


def test_list_json(archy: Any, here: Node) -> None:
    here.shelve("bitcoin-knots", "bitcoin-ui")
    here.install("bitcoin-knots")
    here.app("bad", "app: 1")
    said = archy("app", "list", "--json")
    assert said.json["apps"][0] == {
        "id": "bad",
        "name": "",
        "version": "",
        "origin": "own",
        "installed": True,
        "state": "unknown",
        "restarts": 0,
        "companion_of": "",
        "part_of": "",
        "provides": "",
        "problems": [
            {
                "file": "/etc/archy/apps/bad/manifest.yml",
                "line": 1,
                "column": 1,
                "key": "app",
                "reason": 'must be a mapping, is "1"',
                "text": '/etc/archy/apps/bad/manifest.yml:1:1: app: must be a mapping, is "1"',
            }
        ],
    }
    keys = ("id", "origin", "installed", "state", "companion_of", "part_of", "provides")
    assert [[app[key] for key in keys] for app in said.json["apps"][1:]] == [
        ["bitcoin-knots", "catalogue", True, "unknown", "", "", "bitcoin"],
        ["bitcoin-ui", "catalogue", False, "not installed", "bitcoin", "", ""],
    ]


def test_an_operator_s_app_shadows_the_catalogue(archy: Any, here: Node) -> None:
    here.app("bitcoin-ui", app_text("bitcoin-ui"))
    (app,) = (app for app in archy("app", "list", "--json").json["apps"] if app["id"] == "bitcoin-ui")
    assert (app["name"], app["origin"], app["installed"]) == ("Web", "own", True)


@pytest.mark.parametrize("path", ["web", "web/", "web/manifest.yml", "./web"])
def test_validate(archy: Any, here: Node, monkeypatch: pytest.MonkeyPatch, path: str) -> None:
    monkeypatch.chdir(here.app("web").parents[1])
    said = archy("app", "validate", path)
    assert (said.code, said.out, said.err) == (0, f"{path}: ok\n", "")
    assert archy("app", "validate", path, "--json").json == {"path": path, "ok": True, "problems": [], "notes": []}


def test_validate_from_inside(archy: Any, here: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(here.app("web", "app: 1").parent)
    for path, name in (
        (".", "./manifest.yml"),
        ("manifest.yml", "./manifest.yml"),
        (os.getcwd(), f"{os.getcwd()}/manifest.yml"),
    ):
        said = archy("app", "validate", path)
        assert (said.code, said.out) == (3, f'{name}:1:1: app: must be a mapping, is "1"\n')


@pytest.mark.parametrize(
    ("container", "template", "message"),
    [
        ("nope: 1", "", "web/manifest.yml:7:5: app.container.nope: is not a known key; known here:"),
        ("network: x.network", "", "web/manifest.yml: this node's Podman does not take it: "),
        ("generated_files: [{path: /var/lib/archipelago/web/f, template: t.j2}]", "{{ no }}", "web/t.j2: t.j2: 'no' is undefined"),
        ("generated_files: [{path: /var/lib/archipelago/web/f, content: '{{NO}}'}]", "", "web/manifest.yml:7:58: app.container.generated_files[0].content: holds an unknown placeholder: \"NO\"; known here: "),
        ("generated_files: [{path: /var/lib/archipelago/web/f, template: t.j2}]", "\udcff", "web/t.j2: 'utf-8' codec can't decode"),
    ],
)  # fmt: skip
def test_validate_tells_what_is_wrong(
    archy: Any, here: Node, monkeypatch: pytest.MonkeyPatch, container: str, template: str, message: str
) -> None:
    folder = here.app("web", app_text("web", container)).parent
    (folder / "t.j2").write_bytes(template.encode("utf-8", "surrogateescape"))
    monkeypatch.chdir(folder.parent)
    monkeypatch.setattr(rules, "_UNITS", (" ",))  # so that something is left for Podman to refuse
    said = archy("app", "validate", "web")
    assert (said.code, said.err) == (3, "")
    assert said.out.startswith(message)
    assert archy("app", "validate", "--json", "web").json["ok"] is False


@pytest.mark.parametrize("app", SHIPPED)
def test_the_shipped_apps_are_valid(archy: Any, app: str) -> None:
    assert archy("app", "validate", str(REPO / "apps" / app)).code == 0


def test_render_shows_all_and_touches_nothing(archy: Any, here: Node) -> None:
    before = tree(here.root)
    said = archy("app", "render", "bitcoin-knots")
    assert (said.code, said.err) == (0, "")
    heads = [line for line in said.out.splitlines() if line.startswith("### ")]
    assert heads == [
        "### Quadlet archy-bitcoin-knots.container",
        "### Quadlet archy-net.network",
        "### Quadlet archy-bitcoin.service",
        "### unit archy-bitcoin-knots.service",
        "### unit archy-net-network.service",
        "### unit archy-bitcoin.service",
    ]
    data = archy("app", "render", "bitcoin-knots", "--json").json
    assert list(data) == ["app", "quadlet", "units", "problems"]
    assert tree(here.root) == before
    here.install("bitcoin-knots")
    link = {"archy-bitcoin.service": "-> archy-bitcoin-knots.service"}
    found = {name: text for name, text in here.generate()[0].items() if "/" not in name}
    assert found == data["units"] | link
    assert data["units"].items() >= {(name, f"{target}\n") for name, target in link.items()}
    assert archy("app", "render", "bitcoin-knots", "--json").json == data


def test_render_of_a_refused_app(archy: Any, here: Node) -> None:
    here.app("web", "a: 1\nb: 2")
    said = archy("app", "render", "web")
    assert (said.code, said.out) == (3, "")
    *problems, error, hint = said.err.splitlines()
    file = "/etc/archy/apps/web/manifest.yml"
    assert [line.partition(": ")[0] for line in problems] == [f"{file}:{at}" for at in ("1:1", "1:1", "2:1")]
    assert error == f"archy: render: {file}: is refused, see above"
    assert hint == "hint: archy-manifest(5) has every key"


def fail(error: BaseException) -> Any:
    def failing(*_: object) -> None:
        raise error

    return failing


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (OSError(28, "No space left on device", "/x"), 1, "archy: list: /x: No space left on device\nhint: run it again with --debug for the details\n"),
        (RuntimeError("odd"), 1, "archy: list: archy: odd\nhint: run it again with --debug for the details\n"),
        (RuntimeError(), 1, "archy: list: archy: RuntimeError\nhint: run it again with --debug for the details\n"),
        (CannotDo("do", "there", "so", "then", 4), 4, "archy: do: there: so\nhint: then\n"),
        (CannotDo("do", "there", "so"), 1, "archy: do: there: so\n"),
        (KeyboardInterrupt(), 130, "\ninterrupted; what has begun goes on, and the same command completes it\n"),
    ],
)  # fmt: skip
def test_errors(archy: Any, monkeypatch: pytest.MonkeyPatch, error: BaseException, code: int, message: str) -> None:
    monkeypatch.setattr(catalogue, "entries", fail(error))
    said = archy("app", "list")
    assert (said.code, said.out, said.err) == (code, "", message)


def test_debug_shows_the_traceback(archy: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalogue, "entries", fail(RuntimeError("odd")))
    with pytest.raises(RuntimeError, match="odd"):
        archy("app", "list", "--debug")
