# SPDX-License-Identifier: MIT
# ruff: noqa: E501 - a case is a line
"""What a pass puts right on the node itself: Podman's configuration, the modes of all secrets, facts, settings."""

from __future__ import annotations

import json
import os
import tomllib
from collections.abc import Callable

import pytest
from support import OWNER, REPO, Node, app_text

from archy.apps import facts
from archy.errors import Refused
from archy.host.steps import File, Step
from archy.images import references
from archy.manifest import settings as manifest_settings
from archy.prepare import node as prepare_node
from archy.prepare import stamps
from archy.prepare.reader import Reader

pytestmark = [
    pytest.mark.programs,
    pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files to the service user"),
]

D = "/var/lib/archipelago"
DIRECTORY = f"{D}/.config/containers/containers.conf.d"
CONF, SECRETS = f"{DIRECTORY}/50-archy.conf", f"{D}/secrets"
HOST = "/etc/archy/accepted/host.json"


@pytest.fixture
def well(node: Node) -> Node:
    """A node on which nothing is to be done: one pass was made, and there are secrets of no installed app."""
    node.app("web", app_text("web", f"generated_files: [{{path: {D}/web/f, content: x}}]"))
    node.path(SECRETS).mkdir(mode=0o700)
    for name in ("a", "b.previous"):
        node.write(f"{SECRETS}/{name}", f"{name}\n").chmod(0o600)
    assert node.failures() == {}
    assert plan(node) == []
    return node


def plan(of: Node) -> list[Step]:
    content = of.path("/etc/archy/node.yml").read_bytes() if of.path("/etc/archy/node.yml").exists() else None
    return prepare_node.plan(Reader(of.name), OWNER, manifest_settings.parse(content))


def put(path: str, text: str) -> Callable[[Node], object]:
    return lambda node: node.path(path).write_text(text)


def mode(path: str, mode: int) -> Callable[[Node], object]:
    return lambda node: node.path(path).chmod(mode)


def owner(path: str, uid: int, gid: int) -> Callable[[Node], object]:
    return lambda node: os.chown(node.path(path), uid, gid)


def replaced(path: str, target: str) -> Callable[[Node], object]:
    def link(node: Node) -> None:
        node.path(path).unlink()
        node.path(path).symlink_to(target)

    return link


@pytest.mark.parametrize(
    ("change", "steps"),
    [
        pytest.param(put(CONF, "[engine]\n"), [f"write {CONF} (content differs)"], id="conf-tampered"),
        pytest.param(lambda node: node.path(CONF).unlink(), [f"write {CONF} (missing)"], id="conf-missing"),
        pytest.param(replaced(CONF, "/etc/shadow"), [f"write {CONF} (content differs)"], id="conf-is-a-link"),
        pytest.param(mode(CONF, 0o666), [f"set owner and mode of {CONF} to 0:0 0644"], id="conf-mode"),
        pytest.param(owner(CONF, 990, 989), [f"set owner and mode of {CONF} to 0:0 0644"], id="conf-owner"),
        pytest.param(mode(f"{SECRETS}/a", 0o644), [f"set owner and mode of {SECRETS}/a to 0:0 0600"], id="secret-mode"),
        pytest.param(mode(f"{SECRETS}/b.previous", 0), [f"set owner and mode of {SECRETS}/b.previous to 0:0 0600"], id="secret-before"),
        pytest.param(owner(f"{SECRETS}/a", 990, 0), [f"set owner and mode of {SECRETS}/a to 0:0 0600"], id="secret-owner"),
        pytest.param(owner(f"{SECRETS}/a", 0, 989), [f"set owner and mode of {SECRETS}/a to 0:0 0600"], id="secret-group"),
        pytest.param(mode(SECRETS, 0o755), [f"set owner and mode of {SECRETS} to 0:0 0700"], id="secrets-directory"),
        pytest.param(put(HOST, "{}"), [f"write {HOST} (the host has changed)"], id="host"),
        pytest.param(lambda node: node.write(f"{DIRECTORY}/60-mine.conf", "x"), [], id="operator-s-own-conf"),
        pytest.param(put(f"{SECRETS}/a", "other\n"), [], id="secret-changed"),
        pytest.param(lambda node: node.path(f"{SECRETS}/link").symlink_to("/etc/passwd"), [], id="link-among-secrets"),
        pytest.param(lambda node: node.path(f"{SECRETS}/directory").mkdir(), [], id="directory-among-secrets"),
    ],
)  # fmt: skip
def test_what_differs_is_put_right_and_nothing_else(
    well: Node, capsys: pytest.CaptureFixture[str], change: Callable[[Node], object], steps: list[str]
) -> None:
    before = {path: (path.read_bytes(), path.stat().st_mode) for path in well.path("/etc").rglob("*") if path.is_file()}
    secret = well.path(f"{SECRETS}/a")
    change(well)
    text = secret.read_text()
    assert [str(step) for step in plan(well) if not str(step).startswith("make directory ")] == steps
    capsys.readouterr()
    assert well.failures() == {}
    said = capsys.readouterr().err.splitlines()
    assert [line for line in said if not line.startswith("node: make directory ")] == [
        f"node: {step}" for step in steps
    ]
    assert plan(well) == []
    assert well.is_fresh("@node")
    assert (secret.read_text(), secret.stat().st_mode & 0o777) == (text, 0o600)
    assert well.path(CONF).read_text() == (REPO / "templates/containers.conf.j2").read_text()
    after = {path: (path.read_bytes(), path.stat().st_mode) for path in well.path("/etc").rglob("*") if path.is_file()}
    assert after == before


REGISTRIES = "/etc/containers/registries.conf.d/50-archy.conf"


def test_mirrors_are_what_the_settings_say(well: Node, capsys: pytest.CaptureFixture[str]) -> None:
    text = "images: {mirrors: {docker.io: ['m:5000/hub', n.lan]}, insecure: ['m:5000', o.lan/a]}"
    well.write("/etc/archy/node.yml", text)
    assert well.failures() == {}
    assert f"node: write {REGISTRIES} (missing)" in capsys.readouterr().err
    assert (well.path(REGISTRIES).stat().st_mode & 0o777, plan(well), well.is_fresh("@node")) == (0o644, [], True)
    found = tomllib.loads(well.path(REGISTRIES).read_text())
    mirrors = [{"location": "m:5000/hub", "insecure": True}, {"location": "n.lan", "insecure": False}]
    assert found == {
        "registry": [
            {"prefix": "docker.io", "location": "docker.io", "insecure": False, "mirror": mirrors},
            {"prefix": "m:5000", "location": "m:5000", "insecure": True},
            {"prefix": "o.lan/a", "location": "o.lan/a", "insecure": True},
        ]
    }
    well.path(REGISTRIES).write_text("")
    assert well.failures() == {}
    assert f"node: write {REGISTRIES} (content differs)" in capsys.readouterr().err
    well.path("/etc/archy/node.yml").unlink()
    assert well.failures() == {}
    assert f"node: remove {REGISTRIES} (no registry is set)" in capsys.readouterr().err
    assert (well.path(REGISTRIES).exists(), plan(well), well.is_fresh("@node")) == (False, [], True)


def test_the_allow_list_is_for_locations_and_what_is_in_them() -> None:
    settings = {"mirrors": {"a.b": ["m:5000/x", "m:50001", "mm:5000"]}, "insecure": ["m:5000"]}
    first, second = references.registries(settings)
    assert [insecure for _, insecure in first.mirrors] == [True, False, False]
    assert (first.insecure, second) == (False, references.Registry("m:5000", True, ()))


@pytest.mark.parametrize(
    ("reference", "full"),
    [
        ("docker.io/library/nginx", "docker.io/library/nginx:latest"),
        ("docker.io/library/nginx:1", "docker.io/library/nginx:1"),
        ("m:5000/nginx", "m:5000/nginx:latest"),
        ("docker.io/library/nginx@sha256:ab", "docker.io/library/nginx@sha256:ab"),
        ("m:5000/nginx:1@sha256:ab", "m:5000/nginx@sha256:ab"),
        ("nginx", "nginx:latest"),
    ],
)
def test_a_reference_as_podman_lists_it(reference: str, full: str) -> None:
    assert references.full(reference) == full


def test_directories_of_the_service_user_are_its_own(well: Node) -> None:
    made = [D + path for path in ("/.config", "/.config/containers", "/.config/containers/containers.conf.d")]
    found = [well.path(path).stat() for path in made]
    assert [(one.st_uid, one.st_gid, one.st_mode & 0o777) for one in found] == [(990, 989, 0o755)] * 3


def test_nothing_changed_is_nothing_done(well: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("archy.prepare.apply.Preparation", lambda *_: pytest.fail("a pass was made"))
    assert well.failures() == {}


def test_a_change_during_the_pass_makes_the_stamp_stale(well: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    """What changes after it was looked at is looked at again, in the same call."""
    conf, real = well.path(CONF), prepare_node.plan
    calls: list[list[Step]] = []

    def and_then(*arguments: object) -> list[Step]:
        steps = real(*arguments)  # type: ignore[arg-type]
        if not calls:
            conf.write_text("tampered")
        calls.append(steps)
        return steps

    monkeypatch.setattr(prepare_node, "plan", and_then)
    well.path(f"{SECRETS}/a").chmod(0o644)
    assert well.failures() == {}
    assert len(calls) == 2
    assert conf.read_text() != "tampered"


@pytest.mark.parametrize("place", [DIRECTORY, f"{D}/.config"])
def test_links_planted_by_the_service_user(node: Node, capsys: pytest.CaptureFixture[str], place: str) -> None:
    node.app("web")
    (victim := node.path("/etc/victim")).mkdir()
    node.path(place).parent.mkdir(parents=True, exist_ok=True)
    node.path(place).symlink_to("/etc/victim")
    os.lchown(node.path(place), 990, 989)
    failures = node.failures()
    assert list(failures) == ["@node"]
    assert D in failures["@node"]
    assert list(victim.iterdir()) == []
    assert capsys.readouterr().err.count("node: not prepared: ") == 1
    assert node.is_fresh("web")


def test_a_directory_of_secrets_that_is_another_s(node: Node) -> None:
    node.app("web")
    node.path(SECRETS).mkdir()
    os.chown(node.path(SECRETS), 990, 989)
    said = node.failures()["@secrets"]
    assert said.startswith(f"{SECRETS}: is not a directory of root's; look at what is in it")
    assert node.path(SECRETS).stat().st_uid == 990


def test_host_facts_that_cannot_be_found_out_are_kept(
    well: Node, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A cable is pulled: the address stays, in the templates and on the disk, and no pass is made for it."""
    well.app("web", app_text("web", "derived_env: [{key: IP, template: '{{HOST_IP}}'}]"))
    host = facts.host(well.name)
    monkeypatch.setattr(facts, "host", lambda _: {**host, "HOST_IP": "192.168.1.7"})
    well.prepare()
    assert json.loads(well.path(HOST).read_text()) == {**host, "HOST_IP": "192.168.1.7"}
    assert well.path("/run/archipelago/env/web.env").read_text() == "IP=192.168.1.7\n"
    monkeypatch.setattr(facts, "host", lambda _: host)
    capsys.readouterr()
    well.prepare()
    assert capsys.readouterr().err == ""
    well.path(CONF).unlink()  # a pass over the node, for another reason
    well.prepare()
    assert json.loads(well.path(HOST).read_text())["HOST_IP"] == "192.168.1.7"
    monkeypatch.setattr(facts, "host", lambda _: {**host, "HOST_IP": "192.168.1.8"})
    well.prepare()
    assert well.path("/run/archipelago/env/web.env").read_text() == "IP=192.168.1.8\n"


GOOD, BAD = "bitcoin: {prune: 1000}", "bitcoin: {prune: -5}"


@pytest.mark.parametrize(
    ("now", "before", "prune", "kept", "said"),
    [
        (None, None, 0, None, 0),
        (GOOD, None, 1000, GOOD, 0),
        (GOOD, GOOD, 1000, None, 0),
        (None, GOOD, 0, "", 0),
        ("", GOOD, 0, "", 0),
        (BAD, GOOD, 1000, None, 2),
    ],
)
def test_the_settings(node: Node, now: str | None, before: str | None, prune: int, kept: str | None, said: int) -> None:
    for path, text in (("/etc/archy/node.yml", now), ("/etc/archy/accepted/node.yml", before)):
        if text is not None:
            node.write(path, text)
    found = settings_of(node)
    assert found.values["bitcoin"]["prune"] == prune
    assert [step.content.decode() for step in found.steps if isinstance(step, File)] == [kept] * (kept is not None)
    assert len(found.warnings) == said


def settings_of(of: Node) -> prepare_node.Settings:
    return prepare_node.settings_of(Reader(of.name))


def test_settings_that_were_never_good(node: Node) -> None:
    node.write("/etc/archy/node.yml", BAD)
    with pytest.raises(Refused, match="prune: must be at least 0"):
        settings_of(node)


def test_what_is_wrong_with_the_settings_is_known_to_later_passes(node: Node) -> None:
    node.write("/etc/archy/node.yml", GOOD)
    node.failures()
    node.write("/etc/archy/node.yml", BAD)
    node.failures()
    kept = stamps.fresh(node.name, "@node")
    assert kept is not None
    assert [line.partition(":")[0] for line in kept["said"]] == ["node settings refused", "node settings"]
