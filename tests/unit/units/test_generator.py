# SPDX-License-Identifier: MIT
"""The generator as systemd runs it: exactly these files, whatever lies around. What it remembers: test_cache.py."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from support import REPO, Node, app_text, setting, tree

from archy import paths
from archy.units import build, generator

pytestmark = pytest.mark.programs

WANTS = ("archy-all.service.wants", "archy.target.wants")
BITCOIN = "archy-bitcoin.service"  # the link to whichever app provides it


SHARED = (
    "archy-image@.service.d/50-archy.conf",
    "archy-net-network.service",
    "user@990.service.d/50-archy.conf",
)


def expected(*app_ids: str, links: tuple[str, ...] = (), shared: tuple[str, ...] = SHARED) -> list[str]:
    """The names of all files for these apps."""
    units = [f"archy-{app_id}.service" for app_id in app_ids]
    return sorted([*units, *links, *shared, *(f"{wants}/{unit}" for wants in WANTS for unit in units)])


def test_exactly_these_files(node: Node) -> None:
    node.install("bitcoin-knots", "bitcoin-ui")
    node.app("web")
    before = tree(node.root)
    found, warnings = node.generate()
    assert warnings == []
    assert list(found) == expected("bitcoin-knots", "bitcoin-ui", "web", links=(BITCOIN,))
    assert {name: text for name, text in tree(node.root).items() if not name.startswith("out/")} == before
    assert {found[name] for name in found if ".wants/" in name} == {
        f"-> ../archy-{app}.service" for app in ("bitcoin-knots", "bitcoin-ui", "web")
    }
    assert found[BITCOIN] == "-> archy-bitcoin-knots.service"
    assert {path.stat().st_mode & 0o777 for path in node.path("/out").rglob("*") if path.is_file()} == {0o644}


def test_nothing_installed_is_nothing(node: Node) -> None:
    assert node.generate() == ({}, [])
    node.path("/etc/archy/apps").rmdir()
    assert node.generate() == ({}, [])


def test_odd_names_are_told_and_left_alone(node: Node) -> None:
    node.app("web")
    for name in ("Web", "a b", "-x", "x-", "a.b", "a_b", "w" * 64, "ä", "x\n", "@x", "%n"):
        node.path(f"/etc/archy/apps/{name}").mkdir()
    node.path("/etc/archy/apps/.hidden").mkdir()
    found, warnings = node.generate()
    assert list(found) == expected("web")
    assert len(warnings) == 11
    assert "/etc/archy/apps/a b: is not the name of an app (lower-case letters, digits, hyphens)" in warnings


def test_links_that_lead_nowhere(node: Node) -> None:
    node.app("web")
    node.path("/etc/archy/apps/gone").symlink_to("/usr/share/archy/apps/gone")
    node.path("/etc/archy/apps/loop").symlink_to("loop")
    node.path("/etc/archy/apps/file").write_text("x")
    found, warnings = node.generate()
    assert list(found) == expected("file", "gone", "loop", "web")
    assert warnings == [
        f"/etc/archy/apps/{name}/manifest.yml: cannot be read, or does not exist" for name in ("file", "gone", "loop")
    ]


@pytest.mark.parametrize(
    "target", ["/usr/share/archy/apps/bitcoin-knots", "../../../usr/share/archy/apps/bitcoin-knots"]
)
def test_links_are_followed_within_the_root(node: Node, target: str) -> None:
    node.path("/etc/archy/apps/bitcoin-knots").symlink_to(target)
    found, warnings = node.generate()
    assert (list(found), warnings) == (expected("bitcoin-knots", links=(BITCOIN,)), [])


def test_under_a_read_only_root(node: Node) -> None:
    """As systemd runs it: nothing can be written but the output directory."""
    node.install("bitcoin-knots", "bitcoin-ui")
    node.app("bad", "app: 1")
    there, _ = node.generate("there")
    out = node.path("/out")
    out.mkdir()
    package = str(REPO / "generator")
    program = f"import sys; sys.path.append({package!r}); from archy.units import generator"
    program += "; generator.generate(*sys.argv[1:])"
    script = f"""
set -e
mount --make-rprivate /
for at in $(findmnt -rno TARGET | grep -v '^/$' | sort -r); do mount -o remount,bind,ro "$at" 2>/dev/null || :; done
mount --bind {out} {out}
mount -o remount,bind,ro /
mount -o remount,bind,ro /tmp
mount -o remount,bind,rw {out}
! touch {node.root}/probe 2>/dev/null
! touch /usr/probe 2>/dev/null
exec {sys.executable} -Ic "$1" {node.root} {out}
"""
    command = ["unshare", "--mount", "sh", "-c", script, "sh", program]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert tree(out) == there


@pytest.mark.parametrize("argv", [["g"], ["g", "a", "b", "c", "d"]])
def test_usage(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert generator.main(argv) == 2
    assert capsys.readouterr().err.startswith("archy-generator: wants the output directories")


def test_main(node: Node, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    node.app("web")
    node.app("bad", "app: 1")
    said: list[str] = []
    generate = generator.generate
    monkeypatch.setattr(generator, "generate", lambda _root, out: generate(node.name, out))
    monkeypatch.setattr(generator, "log", said.append)
    out = tmp_path / "normal"
    out.mkdir()
    assert generator.main(["g", str(out), "/nowhere/early", "/nowhere/late"]) == 0
    assert list(tree(out)) == expected("bad", "web")
    assert said == ['/etc/archy/apps/bad/manifest.yml:1:1: app: must be a mapping, is "1"']


@pytest.mark.parametrize("cached", [True, False])
def test_main_without_its_directory(node: Node, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, cached: bool) -> None:
    node.app("web")
    if cached:
        node.prepare()
    said: list[str] = []
    generate = generator.generate
    monkeypatch.setattr(generator, "generate", lambda _root, out: generate(node.name, out))
    monkeypatch.setattr(generator, "log", said.append)
    assert generator.main(["g", str(tmp_path / "missing")]) == 1
    assert said[-1].startswith("cannot write units: FileNotFoundError: [Errno 2]")


def test_the_same_twice_into_the_same_directory(node: Node) -> None:
    node.install("bitcoin-knots")
    first, _ = node.generate()
    generator.generate(node.name, str(node.path("/out")))
    assert tree(node.path("/out")) == first


def test_a_name_that_is_a_label() -> None:
    good = ["a", "0", "a-b", "w" * 63, "xn--a"]
    assert [
        name
        for name in [*good, "", "A", "-a", "a-", "w" * 64, "a.b", "ä", "a/b", "a\n", ".", ".."]
        if paths.is_label(name)
    ] == good


def test_whatever_goes_wrong_no_app_is_without_a_unit(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    node.app("web")
    node.prepare()
    before, _ = node.generate("before")
    node.app("new", app_text("new"))

    def failing(*_: object) -> None:
        raise RuntimeError("odd")

    monkeypatch.setattr(build, "build", failing)
    found, warnings = node.generate()
    assert list(found) == expected("new", "web")
    assert {name: text for name, text in found.items() if "new" not in name} == before
    assert warnings == ["new: cannot be made into a unit: RuntimeError: odd"]
    unit = found["archy-new.service"]
    assert setting(unit, "ExecStart") == ["/bin/false"]
    assert setting(unit, "Description") == ["An app that cannot be made into a unit (journalctl -k -g archy-generator)"]
