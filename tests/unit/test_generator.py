# SPDX-License-Identifier: MIT
"""The generator as systemd runs it: exactly these files, cold or warm, whatever lies around, and nothing imported for it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from support import REPO, Node, app_text, setting, tree

from archy import cache, generator, installed

pytestmark = pytest.mark.programs

WANTS = ("archy-all.service.wants", "archy.target.wants")


def expected(*app_ids: str, shared: tuple[str, ...] = ("archy-net-network.service", "user@990.service.d/50-archy.conf")) -> list[str]:
    """The names of all files for these apps."""
    units = [f"archy-{app_id}.service" for app_id in app_ids]
    return sorted([*units, *shared, *(f"{wants}/{unit}" for wants in WANTS for unit in units)])


def test_exactly_these_files(node: Node) -> None:
    node.install("bitcoin-knots", "bitcoin-ui")
    node.app("web")
    before = tree(node.root)
    found, warnings = node.generate()
    assert warnings == []
    assert list(found) == expected("bitcoin-knots", "bitcoin-ui", "web")
    assert {name: text for name, text in tree(node.root).items() if not name.startswith("out/")} == before
    assert {found[name] for name in found if ".wants/" in name} == {f"-> ../archy-{app}.service" for app in ("bitcoin-knots", "bitcoin-ui", "web")}
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
    assert warnings == [f"/etc/archy/apps/{name}/manifest.yml: cannot be read, or is not there" for name in ("file", "gone", "loop")]


@pytest.mark.parametrize("target", ["/usr/share/archy/apps/bitcoin-knots", "../../../usr/share/archy/apps/bitcoin-knots"])
def test_links_are_followed_within_the_root(node: Node, target: str) -> None:
    node.path("/etc/archy/apps/bitcoin-knots").symlink_to(target)
    found, warnings = node.generate()
    assert (list(found), warnings) == (expected("bitcoin-knots"), [])


def test_cold_and_warm_are_the_same_bytes(node: Node) -> None:
    node.install("bitcoin-knots", "bitcoin-ui")
    node.app("web", app_text("web", "network: x", "volumes: [{type: volume, source: v, target: /v}]"))
    node.app("bad", "app: 1")
    cold = node.generate()
    assert node.prepare() == 1
    warm, warnings = node.generate()
    assert warm == cold[0]
    assert warnings == []


def test_warm_runs_no_program(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    node.install("bitcoin-knots", "bitcoin-ui")
    node.prepare()
    monkeypatch.setattr(subprocess.Popen, "__init__", lambda *_args, **_options: pytest.fail("a program was started"))
    assert list(node.generate()[0]) == expected("bitcoin-knots", "bitcoin-ui")
    with pytest.raises(pytest.fail.Exception):
        node.app("web")
        node.generate()


def entry(node: Node, app_id: str = "web") -> Path:
    return Path(cache.path(node.name, app_id))


@pytest.mark.parametrize(
    "content",
    ["", "{", "[]", "null", "1", '"x"', "{}", '{"key": "x"}', '{"key": null, "units": {}, "refused": false}', "\xff\xfe"],
    ids=range(10),
)
def test_broken_entries_are_ignored(node: Node, content: str) -> None:
    node.app("web")
    cold = node.generate()
    node.write("/run/archy/units/web.json", content.encode("latin-1"))
    assert node.generate() == cold


def test_the_entry_of_another_app_is_ignored(node: Node) -> None:
    node.app("web")
    node.app("other", app_text("other"))
    cold = node.generate()
    node.prepare()
    entry(node).write_bytes(entry(node, "other").read_bytes())
    assert node.generate() == cold


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda node: node.app("web", app_text().replace("1.26", "1.27")), id="manifest"),
        pytest.param(lambda node: node.write("/etc/archy/apps/web/new", ""), id="file-beside"),
        pytest.param(lambda node: node.write("/etc/archy/accepted/web/manifest.yml", "x"), id="accepted"),
        pytest.param(lambda node: node.write("/etc/passwd", "archipelago:x:777:777::/:/\n"), id="user"),
        pytest.param(lambda node: node.fake_quadlet('exec /usr/libexec/podman/quadlet "$@"'), id="quadlet"),
    ],
)
def test_stale_entries_are_ignored(node: Node, change: object) -> None:
    node.app("web")
    node.prepare()
    marked = entry(node).read_text().replace("Description=Web", "Description=Stale")
    entry(node).write_text(marked)
    assert "Description=Stale" in node.generate()[0]["archy-web.service"]
    assert callable(change)
    change(node)
    assert "Description=Web\n" in node.generate()[0]["archy-web.service"]


def imported(node: Node) -> set[str]:
    """The modules that a run of the generator in a fresh interpreter has imported."""
    out = node.root / "out"
    out.mkdir(exist_ok=True)
    program = "import json, sys; from archy import generator; said = generator.generate(*sys.argv[1:]); print(json.dumps([said, sorted(sys.modules)]))"
    command = [sys.executable, "-ISc", f"import sys; sys.path += {[str(REPO / 'generator'), '/usr/lib/python3/dist-packages']}; {program}"]
    done = subprocess.run([*command, node.name, str(out)], capture_output=True, text=True, check=True)
    warnings, modules = json.loads(done.stdout)
    assert warnings == []
    return set(modules)


def test_what_is_imported(node: Node) -> None:
    node.install("bitcoin-knots", "bitcoin-ui")
    assert {"yaml", "jinja2", "jsonschema"} <= imported(node)
    node.prepare()
    heavy = {"yaml", "jinja2", "jsonschema", "dataclasses", "subprocess", "tempfile", "inspect", "typing", "archy.build"}
    assert imported(node) & heavy == set()
    # After a change of archy itself: what was accepted is not checked again.
    for path in node.path("/run/archy/units").iterdir():
        path.unlink()
    again = imported(node)
    assert "yaml" in again
    assert "jsonschema" not in again


def test_under_a_read_only_root(node: Node) -> None:
    """As systemd runs it: nothing can be written but the output directory."""
    node.install("bitcoin-knots", "bitcoin-ui")
    node.app("bad", "app: 1")
    there, _ = node.generate("there")
    out = node.path("/out")
    out.mkdir()
    program = f"import sys; sys.path.append({str(REPO / 'generator')!r}); from archy import generator; generator.generate(*sys.argv[1:])"
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


def test_an_app_that_runs_without_a_manifest_can_be_stopped(node: Node) -> None:
    node.runs("gone")
    node.runs("quiet", populated=0)
    found, _ = node.generate()
    assert list(found) == ["archy-gone.service", "user@990.service.d/50-archy.conf"]
    unit = found["archy-gone.service"]
    assert setting(unit, "Description") == ["gone (still running, its manifest is gone)"]
    assert setting(unit, "RefuseManualStart") == ["yes"]
    assert "podman rm" in setting(unit, "ExecStop")[0]
    assert setting(unit, "SourcePath") == []


def test_an_app_that_runs_and_is_refused_can_be_stopped(node: Node) -> None:
    node.app("web", "app: 1")
    refused, _ = node.generate()
    assert "exit 78" in refused["archy-web.service"]
    node.prepare()
    node.runs("web")
    unit = node.generate()[0]["archy-web.service"]
    assert "podman rm" in setting(unit, "ExecStop")[0]
    assert setting(unit, "SourcePath") == ["/etc/archy/apps/web/manifest.yml"]
    assert setting(unit, "Description") == ['web (still running, /etc/archy/apps/web/manifest.yml:1:1: app: must be a mapping, is "1")']


@pytest.mark.parametrize("base", ["/etc/systemd/system", "/run/systemd/system"])
def test_a_native_unit_of_the_operator_is_left_alone(node: Node, base: str) -> None:
    node.runs("own")
    node.write(f"{base}/archy-own.service", "[Service]\nExecStart=/bin/true\n")
    assert node.generate() == ({}, [])


def test_a_unit_that_runs_as_its_manifest_says_is_no_leftover(node: Node) -> None:
    node.app("web")
    before = node.generate()
    node.runs("web")
    assert node.generate() == before


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
    assert generator.main(["g", str(tmp_path / "missing")]) == 1
    assert said[-1].startswith("cannot write units: [Errno 2]")


def test_the_same_twice_into_the_same_directory(node: Node) -> None:
    node.install("bitcoin-knots")
    first, _ = node.generate()
    generator.generate(node.name, str(node.path("/out")))
    assert tree(node.path("/out")) == first


def test_a_name_that_is_a_label() -> None:
    good = ["a", "0", "a-b", "w" * 63, "xn--a"]
    assert [name for name in [*good, "", "A", "-a", "a-", "w" * 64, "a.b", "ä", "a/b", "a\n", ".", ".."] if installed.is_label(name)] == good
