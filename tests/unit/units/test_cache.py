# SPDX-License-Identifier: MIT
"""What the generator need not do again: the same bytes from the caches as without, and never a stale one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable

import pytest
from support import REPO, Node, app_text

pytestmark = [
    pytest.mark.programs,
    pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files to the service user"),
]

UNITS = "/etc/archy/accepted/web.units"
APP = app_text("web", "network: x", "volumes: [{type: volume, source: v, target: /v}]")


def forget_units(node: Node) -> None:
    for path in node.path("/etc/archy/accepted").glob("*.units"):
        path.unlink()


def test_cold_and_warm_are_the_same_bytes(node: Node) -> None:
    node.install("bitcoin-knots", "bitcoin-ui")
    node.app("web", APP)
    cold = node.generate()
    assert node.prepare() == 0
    assert node.generate() == cold
    forget_units(node)
    assert node.generate() == cold


def test_with_bad_apps_too(node: Node) -> None:
    node.app("older", app_text("older"))
    node.prepare()
    node.app("older", "app: 1")
    node.app("bad", "app: 1")
    cold, said = node.generate()
    assert len(said) == 2
    assert node.prepare() == 1
    assert node.generate()[0] == cold
    forget_units(node)
    assert node.generate() == (cold, said)


def test_warm_runs_no_program(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    node.install("bitcoin-knots", "bitcoin-ui")
    node.prepare()
    expected = node.generate()
    monkeypatch.setattr(subprocess.Popen, "__init__", lambda *_args, **_options: pytest.fail("a program was started"))
    assert node.generate() == expected
    node.app("web")
    with pytest.raises(pytest.fail.Exception, match="a program was started"):
        node.generate()


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(lambda _: b"", id="empty"),
        pytest.param(lambda content: content[:-1], id="cut-by-one"),
        pytest.param(lambda content: content[: len(content) // 2], id="cut-in-half"),
        pytest.param(lambda content: content + b"x", id="longer"),
        pytest.param(lambda content: content.replace(b"Restart=always", b"Restart=no    "), id="changed"),
        pytest.param(lambda content: content.replace(b"\0", b"\n"), id="marks"),
        pytest.param(lambda content: content.partition(b"\n")[2], id="no-head"),
        pytest.param(lambda _: b"\xff\xfe\0", id="garbage"),
    ],
)
def test_damaged_entries_are_ignored(node: Node, damage: Callable[[bytes], bytes]) -> None:
    node.app("web", APP)
    cold = node.generate()
    node.prepare()
    before = node.path(UNITS).read_bytes()
    assert damage(before) != before
    node.path(UNITS).write_bytes(damage(before))
    assert node.generate() == cold


def test_an_entry_that_cannot_be_read_is_ignored(node: Node) -> None:
    node.app("web", APP)
    cold = node.generate()
    node.prepare()
    forget_units(node)
    node.path(UNITS).unlink(missing_ok=True)
    node.path(UNITS).mkdir()
    assert node.generate() == cold


def test_the_entry_of_another_app_is_ignored(node: Node) -> None:
    node.app("web")
    node.app("other", app_text("other"))
    cold = node.generate()
    node.prepare()
    other = node.path(UNITS.replace("/web", "/other")).read_bytes()
    node.path(UNITS).write_bytes(other)
    assert node.generate() == cold


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda node: node.app("web", app_text().replace("1.26", "1.27")), id="manifest"),
        pytest.param(lambda node: node.app("web", app_text() + "\n"), id="manifest-by-a-byte"),
        pytest.param(lambda node: node.app("web", "app: 1"), id="manifest-bad"),
        pytest.param(lambda node: node.path("/etc/archy/apps/web/manifest.yml").unlink(), id="manifest-gone"),
        pytest.param(lambda node: node.write("/etc/archy/apps/web/new", ""), id="file-beside"),
        pytest.param(lambda node: node.path("/etc/archy/accepted/web").unlink(), id="accepted"),
        pytest.param(lambda node: node.write("/etc/passwd", "archipelago:x:777:777::/:/\n"), id="user"),
        pytest.param(lambda node: node.fake_quadlet('exec /usr/libexec/podman/quadlet "$@"'), id="quadlet"),
    ],
)
def test_what_changed_is_seen(node: Node, change: Callable[[Node], object]) -> None:
    """With the caches of before the change comes out what comes out without any."""
    node.app("web")
    node.prepare()
    change(node)
    found = node.generate()
    forget_units(node)
    assert node.generate() == found


def test_another_version_of_archy(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    node.app("web")
    node.prepare()
    monkeypatch.setattr("archy.units.cache.__version__", "0.0.0-other")
    monkeypatch.setattr("archy.units.quadlet.STOP_MARGIN", 99)
    assert "TimeoutStopSec=129" in node.generate()[0]["archy-web.service"]


def imported(node: Node) -> set[str]:
    """The modules that a run of the generator in a fresh interpreter has imported."""
    out = node.root / "out"
    out.mkdir(exist_ok=True)
    program = f"""
import sys
sys.path += {[str(REPO / "generator"), "/usr/lib/python3/dist-packages"]}
from archy.units import generator
said, modules = generator.generate(*sys.argv[1:]), sorted(sys.modules)
import json
print(json.dumps([said, modules]))"""
    command = [sys.executable, "-IS", "-c", program, node.name, str(out)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    warnings, modules = json.loads(done.stdout)
    assert warnings == []
    return set(modules)


HEAVY = {
    "yaml",
    "jinja2",
    "jsonschema",
    "dataclasses",
    "tempfile",
    "inspect",
    "typing",
    "argparse",
    "archy.units.build",
}


def test_what_is_imported(node: Node) -> None:
    node.install("bitcoin-knots", "bitcoin-ui")
    assert {"yaml", "jinja2", "jsonschema"} <= imported(node)
    node.prepare()
    assert imported(node) & (HEAVY | {"subprocess", "json", "re"}) == set()
    # After an upgrade of archy: what was accepted is not checked again.
    forget_units(node)
    upgraded = imported(node)
    assert {"yaml", "jinja2"} <= upgraded
    assert "jsonschema" not in upgraded
