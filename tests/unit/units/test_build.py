# SPDX-License-Identifier: MIT
"""Manifests to finished units, with the real Quadlet: golden trees compared whole, and what goes wrong."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from support import QUADLET, REPO, Node, app_text, setting, tree, verify

from archy.apps import installed
from archy.units import build

pytestmark = pytest.mark.programs

GOLDEN = sorted((REPO / "tests/golden").iterdir())
FILE = "/etc/archy/apps/web/manifest.yml"


def set_up(node: Node, case: Path) -> None:
    """Put a golden case's apps, and its last good versions, into a node."""
    for folder, target in (("apps", "/etc/archy/apps"), ("accepted", "/etc/archy/accepted")):
        if (case / folder).is_dir():
            shutil.copytree(case / folder, node.path(target), dirs_exist_ok=True)
    if (case / "grants.yml").exists():
        node.write("/etc/archy/grants.yml", (case / "grants.yml").read_bytes())
    if (case / "install").exists():
        node.install(*(case / "install").read_text().split())


@pytest.mark.parametrize("case", GOLDEN, ids=lambda case: case.name)
def test_golden(node: Node, case: Path, request: pytest.FixtureRequest) -> None:
    set_up(node, case)
    found, warnings = node.generate()
    if warnings:
        found["warnings"] = "".join(f"{warning}\n" for warning in warnings)
    if request.config.getoption("--update-golden"):
        shutil.rmtree(expected := case / "expected", ignore_errors=True)
        shutil.copytree(node.path("/out"), expected, symlinks=True)
        if warnings:
            (expected / "warnings").write_text(found["warnings"])
    assert found == tree(case / "expected")


@pytest.mark.parametrize("case", GOLDEN, ids=lambda case: case.name)
def test_systemd_takes_every_unit(node: Node, case: Path) -> None:
    set_up(node, case)
    found, _ = node.generate()
    assert verify(node, [name for name in found if "/" not in name]) == []


@pytest.mark.parametrize("name", ["100%", "a$b", "ä"])
def test_systemd_takes_odd_paths(node: Node, name: str) -> None:
    volume = f'{{type: bind, source: "/var/lib/archipelago/web/{name}", target: /t}}'
    node.app("web", app_text("web", app=f"volumes: [{volume}]"))
    assert node.generate()[1] == []
    assert verify(node, ["archy-web.service"]) == []


def test_the_same_bytes_every_time(node: Node) -> None:
    """Quadlet iterates over Go maps, in another order at every run."""
    for case in GOLDEN[:3]:
        set_up(node, case)
    results = [node.generate()[0] for _ in range(10)]
    assert [result == results[0] for result in results] == [True] * 10


def test_the_same_whatever_the_order_of_sets(node: Node) -> None:
    for name in "abcdef":
        node.app(f"bad-{name}", "app: 1")
    program = "import sys; from archy.units import generator; print(*generator.generate(*sys.argv[1:]), sep='\\n')"
    said = set()
    for seed in range(6):
        (out := node.path(f"/out{seed}")).mkdir()
        env = {"PYTHONHASHSEED": str(seed), "PYTHONPATH": str(REPO / "generator"), "PATH": os.defpath}
        command = [sys.executable, "-c", program, node.name, str(out)]
        said.add(subprocess.run(command, env=env, capture_output=True, text=True, check=True).stdout)
        assert tree(out) == tree(node.path("/out0"))
    assert len(said) == 1


def test_alone_and_together_are_the_same(node: Node) -> None:
    for case in GOLDEN[:4]:
        set_up(node, case)
    together, _ = node.generate()
    for app_id in installed.ids(node.name)[0]:
        result = build.build(node.name, [installed.source(node.name, app_id)], str(node.path("/run")))
        alone = {name: text.rstrip() if text.startswith("-> ") else text for name, text in result[app_id].units.items()}
        assert alone == {name: together[name] for name in alone}


def test_a_bad_app_harms_no_good_one(node: Node) -> None:
    for number in range(5):
        node.app(f"good{number}", app_text(f"good{number}"))
    alone, warnings = node.generate()
    assert warnings == []
    for number, text in enumerate([": [", "", "\0", "app: 1", app_text("other"), "x" * 300_000]):
        node.app(f"bad{number}", text)
    node.path("/etc/archy/apps/bad7").mkdir()
    node.path("/etc/archy/apps/bad8/manifest.yml").mkdir(parents=True)
    node.path("/etc/archy/apps/bad9").symlink_to("/nowhere")
    together, warnings = node.generate()
    assert {name: text for name, text in together.items() if "bad" not in name} == alone
    assert len({warning.split("/")[4] for warning in warnings}) == 9
    assert all("exit 78" in together[f"archy-bad{n}.service"] for n in (0, 1, 2, 3, 4, 5, 7, 8, 9))


def test_a_refused_unit_states_all_reasons(node: Node) -> None:
    node.app("web", app_text("web", "user: $x%n\"'\\", "a: 1\nb: 1"))
    found, warnings = node.generate()
    unit = found["archy-web.service"]
    assert len(warnings) == 3
    assert setting(unit, "Description") == [f"web: manifest refused: {warnings[0]}".replace("%", "%%")]
    assert setting(unit, "SourcePath") == [FILE]
    (command,) = setting(unit, "ExecStart")
    # Run it as systemd does, which turns %% and $$ into one.
    shell = command.replace("%%", "%").replace('\'printf "%s\\n" "$$@"', '\'printf "%s\\n" "$@"').replace("$$", "\\$")
    done = subprocess.run(shell, shell=True, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr.splitlines()) == (78, "", warnings)


def test_a_refused_unit_states_ten_reasons_at_most(node: Node) -> None:
    node.app("web", app_text("web", app="\n".join(f"unknown{n}: 1" for n in range(14))))
    found, warnings = node.generate()
    assert len(warnings) == 14
    text = found["archy-web.service"]
    assert text.count("is not a known key") == 11  # ten, and the first again in the description
    assert f'"and 4 more: archy app validate {FILE}"' in text


@pytest.mark.parametrize(
    ("turned", "message"),
    [
        (app_text(app="ports: 1"), f'{FILE}:7:3: app.ports: must be a list, is "1"'),
        ("", f"{FILE}:1:1: is empty"),
        (None, f"{FILE}: cannot be read, or does not exist"),
    ],
)
def test_the_last_good_version_stays_in_force(node: Node, turned: str | None, message: str) -> None:
    manifest = node.app("web", app_text().replace("nginx:1.26", "nginx:1.25"))
    node.write("/etc/archy/accepted/web/manifest.yml", manifest.read_bytes())
    before, _ = node.generate()
    manifest.write_text(turned) if turned is not None else manifest.unlink()
    after, warnings = node.generate()
    assert warnings == [message]
    said = f"Description=Web (last good version: {message})"
    assert after["archy-web.service"].replace(said, "Description=Web") == before["archy-web.service"]


@pytest.mark.parametrize("accepted", ["", "app: [", "app: {}", "\0", "app: {id: web, container: {image: 1}}", "[]"])
def test_a_last_good_version_that_is_none_does_no_harm(node: Node, accepted: str) -> None:
    node.app("web", "app: 1")
    node.write("/etc/archy/accepted/web/manifest.yml", accepted)
    found, warnings = node.generate()
    assert warnings == [f'{FILE}:1:1: app: must be a mapping, is "1"']
    assert "exit 78" in found["archy-web.service"]


FAILS = f"""
grep -q bad-image "$QUADLET_UNIT_DIRS/archy-web.container" && rm "$QUADLET_UNIT_DIRS/archy-web.container" &&
    echo 'quadlet-generator[1]: converting "archy-web.container": unsupported key "X" in '"$QUADLET_UNIT_DIRS/y" >&2
exec {QUADLET} "$@"
"""


def test_what_podman_does_not_take_is_refused_with_its_words(node: Node) -> None:
    node.fake_quadlet(FAILS)
    node.app("web", app_text().replace("nginx:1.26", "bad-image"))
    node.app("good", app_text("good"))
    said = f'{FILE}: this node\'s Podman does not take it: converting "archy-web.container": unsupported key "X" in y'
    found, warnings = node.generate()
    assert warnings == [said]
    assert "exit 78" in found["archy-web.service"]
    assert "podman run" in found["archy-good.service"]
    node.write("/etc/archy/accepted/web/manifest.yml", app_text())
    found, warnings = node.generate()
    assert warnings == [said]
    assert "nginx:1.26" in found["archy-web.service"]


@pytest.mark.parametrize(
    ("harm", "reason"),
    [
        (lambda node: node.path(QUADLET).unlink(), f"{QUADLET} cannot be run: [Errno 2] No such file or directory"),
        (lambda node: node.fake_quadlet("exit 0"), "no unit came out"),
        (lambda node: node.fake_quadlet("echo 'oh\033[31m no' >&2; exit 3"), "oh [31m no"),
        (lambda node: node.fake_quadlet("kill -9 $$"), "no unit came out"),
    ],
)
def test_without_a_working_quadlet(node: Node, harm: object, reason: str) -> None:
    node.app("web")
    assert callable(harm)
    harm(node)
    found, (warning,) = node.generate()
    assert warning.startswith(f"{FILE}: this node's Podman does not take it: {reason}")
    assert "exit 78" in found["archy-web.service"]
    assert "archy.target.wants/archy-web.service" in found


def test_without_the_service_user(node: Node) -> None:
    node.write("/etc/passwd", "root:x:0:0:root:/root:/bin/bash\n")
    node.app("web")
    found, warnings = node.generate()
    reason = "/etc/passwd has no user archipelago: install the package again, or run systemd-sysusers"
    assert warnings == [f"{FILE}: {reason}"]
    assert sorted(found) == [
        "archy-all.service.wants/archy-web.service",
        "archy-web.service",
        "archy.target.wants/archy-web.service",
    ]


def test_without_the_service_user_and_an_app_that_runs(node: Node) -> None:
    node.write("/etc/passwd", "root:x:0:0:root:/root:/bin/bash\n")
    node.app("web")
    node.runs("gone")
    found, _ = node.generate()
    assert "archy-web.service" in found


@pytest.mark.parametrize(
    "change",
    [
        "s/ --cgroups / --other /",
        "s/ --sdnotify=[a-z]*//",
        "s/ --cgroups disabled / --cgroups disabled stray /",
        "s/ --cgroups .*$//",
    ],
)
def test_what_another_quadlet_writes_is_refused(node: Node, change: str) -> None:
    """Text that is not understood is no unit of ours, and takes no other app with it."""
    node.app("good", app_text("good"))
    alone, _ = node.generate("alone")
    edit = f"sed -i '/^ExecStart=/{change}' \"$2/archy-web.service\""
    node.fake_quadlet(f'{QUADLET} "$@" || exit; test ! -e "$2/archy-web.service" || {edit}')
    node.app("web")
    found, (warning,) = node.generate()
    assert warning.startswith(f"{FILE}: this node's Podman does not take it: what Quadlet wrote is not understood: ")
    assert "exit 78" in found["archy-web.service"]
    assert found["archy-good.service"] == alone["archy-good.service"]
    node.write("/etc/archy/accepted/web/manifest.yml", app_text())
    assert "exit 78" in node.generate()[0]["archy-web.service"]


@pytest.mark.parametrize("target", ["real.yml", "/etc/archy/apps/real/manifest.yml"])
def test_a_manifest_that_is_a_link_is_refused(node: Node, target: str) -> None:
    """It could not be kept as the last good version."""
    node.app("web", **{"real.yml": app_text()})
    node.app("real", app_text("real"))
    path = node.path("/etc/archy/apps/web/manifest.yml")
    path.unlink()
    path.symlink_to(target if "/" not in target else node.path(target))
    found, warnings = node.generate()
    assert warnings == [f"{FILE}: must be a file, not a link"]
    assert "exit 78" in found["archy-web.service"]
    assert "podman run" in found["archy-real.service"]
