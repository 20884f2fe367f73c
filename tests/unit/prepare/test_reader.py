# SPDX-License-Identifier: MIT
"""What a pass reads is noted, with its fingerprint from before it was read; what it writes, as it was written."""

from __future__ import annotations

import os

import pytest
from support import Node, app_text

from archy.host.steps import File, Ownership, Remove, Step, apply
from archy.prepare import files, prepare, stamps
from archy.prepare.reader import Reader

pytestmark = [
    pytest.mark.programs,
    pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files to the service user"),
]

D = "/var/lib/archipelago"


def test_a_fingerprint_is_from_before_the_first_reading(node: Node) -> None:
    file = node.write("/etc/f", "old")
    reader = Reader(node.name)
    assert reader.content(str(file)) == b"old"
    before = stamps.fingerprint(str(file))
    file.write_text("new")
    assert reader.content(str(file)) == b"new"
    assert reader.seen == {str(file): before}


def test_of_a_folder_each_directory_is_noted(node: Node) -> None:
    node.write("/etc/d/sub/deep/f", "x")
    (node.path("/etc/d") / "empty").mkdir()
    reader = Reader(node.name)
    assert reader.tree(str(node.path("/etc/d"))) == ["sub/deep/f"]
    noted = {str(node.path(f"/etc/d{name}")) for name in ("", "/sub", "/sub/deep", "/sub/deep/f", "/empty")}
    assert reader.seen.keys() == noted


def test_steps_say_what_is_there_then(node: Node) -> None:
    node.write("/etc/owned", "x")
    node.write("/etc/gone", "x")
    node.path("/etc/directory").mkdir()
    reader = Reader(node.name)
    reader.files(["/etc/owned", "/etc/gone", "/etc/new", "/etc/directory"])
    steps: list[Step] = [
        File("/etc/new", b"new", 990, 989, 0o640, "missing"),
        Ownership("/etc/owned", 990, 989, 0o600),
        Ownership("/etc/directory", 0, 0, 0o700),
        Remove("/etc/gone", "x"),
    ]
    apply(node.name, steps)
    reader.written(steps)
    assert reader.seen == {path: stamps.fingerprint(path) for path in reader.seen}
    assert len(reader.seen) == 4


@pytest.mark.parametrize("name", ["conf", "own"])
def test_a_file_that_changes_during_the_pass_makes_the_stamp_stale(
    node: Node, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    text = f"generated_files: [{{path: {D}/web/conf, overwrite: true, content: x}}, {{path: {D}/web/own, content: x}}]"
    node.app("web", app_text("web", text))
    node.prepare()
    node.app("web", app_text("web", text) + "\n")
    real = files.drift

    def meanwhile(*arguments: object) -> object:
        result = real(*arguments)  # type: ignore[arg-type]
        node.path(f"{D}/web/{name}").write_text("edited")
        return result

    with monkeypatch.context() as patch:
        patch.setattr(files, "drift", meanwhile)
        patch.setattr(prepare, "_ROUNDS", 1)
        assert node.prepare() == 0
    assert not node.is_fresh("web")


def test_a_new_file_deep_in_the_folder_of_an_app_is_seen(node: Node) -> None:
    node.app("web", **{"sub/a": "x"})
    node.prepare()
    assert node.is_fresh("web")
    node.write("/etc/archy/apps/web/sub/b", "y")
    assert not node.is_fresh("web")
