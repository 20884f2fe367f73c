# SPDX-License-Identifier: MIT
# ruff: noqa: E501 - a case is a line
"""What an app may do only if the node's operator says so: what it asks for, what is granted, and what is said."""

from __future__ import annotations

import json
import re

import pytest
from support import REPO, Node, app_of, app_text

from archy import paths
from archy.apps import admission, installed
from archy.errors import Refused
from archy.manifest import grants, load
from archy.manifest.grants import missing, parse, required
from archy.manifest.ownership import is_own

HOME = "/var/lib/archipelago"
FILE = "/etc/archy/apps/web/manifest.yml"
TO_ALLOW = "to allow that, write into /etc/archy/grants.yml: web: "
NOT_OWN = "data that is not the app's own"
DEVICE = "devices: [/dev/ttyUSB0]"
HINT = f"needs a grant of the node's operator (/dev/ttyUSB0: the device); {TO_ALLOW}{{devices: [/dev/ttyUSB0]}}"


def bind(source: str, options: str = "[rw]") -> str:
    return f"volumes: [{{type: bind, source: {source}, target: /t, options: {options}}}]"


@pytest.mark.parametrize(
    ("content", "wanted"),
    [
        (None, {}),
        (b"", {}),
        (b"\n# nothing is granted\n", {}),
        (b"{}", {}),
        (b"web: {}", {"web": {}}),
        (b"web: {privileged: true}", {"web": {"privileged": True}}),
        (b"web: {privileged: false, network: host}", {"web": {"privileged": False, "network": "host"}}),
        (b"a: {devices: [/dev/x], paths: [/srv/a b, /mnt]}\nb: {}", {"a": {"devices": ["/dev/x"], "paths": ["/srv/a b", "/mnt"]}, "b": {}}),
    ],
)  # fmt: skip
def test_grants(content: bytes | None, wanted: object) -> None:
    assert parse(content) == wanted


@pytest.mark.parametrize(
    ("content", "messages"),
    [
        (b"web", ['1:1: must be a mapping, is "web"']),
        (b"- web", ["1:1: must be a mapping, is a list"]),
        (b"web:", ["1:1: web: must be a mapping, is empty"]),
        (b"web: [privileged]", ["1:1: web: must be a mapping, is a list"]),
        (b"web: {privileged: yes, network: pasta}", ['1:7: web.privileged: must be true or false, is "yes"', '1:24: web.network: must be one of host; is "pasta"']),
        (b"web: {device: /dev/a}", ["1:7: web.device: is not a known key; did you mean devices?"]),
        (b"web: {devices: /dev/a, paths: /a}", ['1:7: web.devices: must be a list, is "/dev/a"', '1:24: web.paths: must be a list, is "/a"']),
        (b"web: {devices: [a, /dev/a:rw, /dev/]}", [f'1:{at}: web.devices[{n}]: must be a path below /dev; is "{is_}"' for at, n, is_ in ((17, 0, "a"), (20, 1, "/dev/a:rw"), (31, 2, "/dev/"))]),
        (b"web: {paths: [srv, /, '/a:/b']}", [f'1:{at}: web.paths[{n}]: must be an absolute path; is "{is_}"' for at, n, is_ in ((15, 0, "srv"), (20, 1, "/"), (23, 2, "/a:/b"))]),
        (b"web: {paths: [/a, /a]}", ["1:7: web.paths: holds the same value twice"]),
        (b"web: {}\nweb: {}", ["2:1: web: is given twice, first in line 1"]),
        (b"web: [", ["2:1: is not valid YAML: while parsing a flow node did not find expected node content"]),
        (b"\0", ["1:1: is not valid YAML: control characters are not allowed"]),
    ],
)  # fmt: skip
def test_refused(content: bytes, messages: list[str]) -> None:
    with pytest.raises(Refused) as refused:
        parse(content)
    assert [str(problem) for problem in refused.value.problems] == [f"/etc/archy/grants.yml:{one}" for one in messages]


def test_every_reason_of_the_schema_has_a_case() -> None:
    said = "\n".join(one for case in test_refused.pytestmark[0].args[1] for one in case[1])  # type: ignore[attr-defined]
    reasons = re.findall(r'"reason": "([^"]+)"', (REPO / "generator/archy/manifest/grants.schema.json").read_text())
    assert reasons
    assert [reason for reason in reasons if reason not in said] == []


@pytest.mark.parametrize(
    ("container", "app", "wanted"),
    [
        ("", "", []),
        ("network: pasta", "security: {privileged: false}", []),
        ("", bind(f"{HOME}/web"), []),
        ("", "volumes: [{type: volume, source: anything, target: /t}]", []),
        ("", "security: {privileged: true}", [("app.security.privileged", "privileged: true", "{privileged: true}", "all that the service user may do")]),
        ("network: host", "", [("app.container.network", "network: host", "{network: host}", "all services of the node, also those that only it should reach")]),
        ("devices: [/dev/a, '/dev/b:/dev/c:rw']", "", [("app.container.devices.0", "devices: /dev/a", "{devices: [/dev/a]}", "the device"), ("app.container.devices.1", "devices: /dev/b", "{devices: [/dev/b]}", "the device")]),
        ("security_opt: ['seccomp:unconfined', no-new-privileges]", "", [("app.container.security_opt", "security_opt: seccomp=unconfined", '{security_opt: ["seccomp=unconfined"]}', "more of the kernel than a container has")]),
        ("", bind("/srv/media"), [("app.volumes.0.source", "paths: /srv/media", "{paths: [/srv/media]}", NOT_OWN)]),
        ("", bind("/run/user/990/podman/podman.sock"), [("app.volumes.0.source", "paths: /run/user/990/podman/podman.sock", "{paths: [/run/user/990/podman/podman.sock]}", "all containers of the node, by the socket")]),
        ("", bind("/var/run/docker.sock"), [("app.volumes.0.source", "paths: /var/run/docker.sock", "{paths: [/var/run/docker.sock]}", "all containers of the node, by the socket")]),
        ("", bind(f"{HOME}/other"), [("app.volumes.0.source", f"paths: {HOME}/other", f"{{paths: [{HOME}/other]}}", NOT_OWN)]),
        ("", bind(f"{HOME}2/web"), [("app.volumes.0.source", f"paths: {HOME}2/web", f"{{paths: [{HOME}2/web]}}", NOT_OWN)]),
        # The data of what it needs may be read, and not written.
        ("", f"dependencies: [{{app_id: other}}]\n{bind(f'{HOME}/other', '[ro]')}", []),
        ("", f"dependencies: [{{app_id: other}}]\n{bind(f'{HOME}/other')}", [("app.volumes.0.source", f"paths: {HOME}/other", f"{{paths: [{HOME}/other]}}", NOT_OWN)]),
        ("", f"dependencies: [{{bitcoin: any}}]\n{bind(f'{HOME}/bitcoin/blocks', '[ro]')}", []),
        ("", f"provides: db\n{bind(f'{HOME}/db')}", []),
        ("", f"part_of: whole\n{bind(f'{HOME}/whole-data')}", []),
        ("", f"companion_of: whole\n{bind(f'{HOME}/whole')}", []),
    ],
)  # fmt: skip
def test_what_an_app_asks_for(container: str, app: str, wanted: list[tuple[str, str, str, str]]) -> None:
    found = required(app_of(container, app))
    assert [(".".join(map(str, wish.at)), str(wish), wish.grant, wish.risk) for wish in found] == wanted


@pytest.mark.parametrize(
    ("own", "name", "is_its"),
    [
        ({"web"}, "web", True),
        ({"web"}, "web/deep/er", True),
        ({"web"}, "web-data", True),
        ({"web-data"}, "web", True),
        ({"web"}, "web2", False),
        ({"web"}, "we", False),
        ({"web"}, "x-web", False),
        ({"web", "other"}, "other", True),
        ({"web", ""}, "-x", False),
        ({""}, "", False),
        ({"web"}, ".web", False),
        ({"web"}, "other/web", False),
    ],
)
def test_what_is_an_app_s_own(own: set[str], name: str, is_its: bool) -> None:
    assert is_own(own, f"{HOME}/{name}") is is_its


@pytest.mark.parametrize("path", [HOME, "/web", "/var/lib/archipelago2/web", "web", f"{HOME}/../web"])
def test_what_is_no_app_s_own(path: str) -> None:
    assert not is_own({"web"}, path)


@pytest.mark.parametrize(
    ("container", "app", "given", "granted"),
    [
        (DEVICE, "", {}, False),
        (DEVICE, "", {"other": {"devices": ["/dev/ttyUSB0"]}}, False),
        (DEVICE, "", {"web": {"devices": ["/dev/ttyUSB0"]}}, True),
        (DEVICE, "", {"web": {"devices": ["/dev/ttyUSB1", "/dev/ttyUSB0"]}}, True),
        (DEVICE, "", {"web": {"devices": ["/dev/ttyUSB"]}}, False),
        (DEVICE, "", {"web": {"paths": ["/dev/ttyUSB0"]}}, False),
        (DEVICE, "", {"web": {"privileged": True}}, False),
        ("devices: [/dev/bus/usb/001]", "", {"web": {"devices": ["/dev/bus/usb"]}}, True),
        ("devices: [/dev/bus/usb/001]", "", {"web": {"devices": ["/dev/bus/"]}}, True),
        ("devices: ['/dev/a:/dev/ttyUSB0']", "", {"web": {"devices": ["/dev/ttyUSB0"]}}, False),
        ("network: host", "", {"web": {"network": "host"}}, True),
        ("network: host", "", {"web": {"privileged": True}}, False),
        ("", "security: {privileged: true}", {"web": {"privileged": True}}, True),
        ("", "security: {privileged: true}", {"web": {"privileged": False}}, False),
        ("", bind("/srv/media/films"), {"web": {"paths": ["/srv/media"]}}, True),
        ("", bind("/srv/media2"), {"web": {"paths": ["/srv/media"]}}, False),
        ("", bind("/srv"), {"web": {"paths": ["/srv/media"]}}, False),
    ],
)
def test_whether_it_is_granted(container: str, app: str, given: grants.Grants, granted: bool) -> None:
    assert (missing(app_of(container, app), given) == []) is granted


def test_what_is_lacking_is_told_one_by_one() -> None:
    app = app_of("devices: [/dev/a, /dev/b]\nnetwork: host", "security: {privileged: true}")
    assert missing(app, {"web": {"devices": ["/dev/a"], "privileged": True}}) == [
        (
            ("app", "container", "network"),
            "needs a grant of the node's operator (host: all services of the node, also those that only it should reach); "
            f"{TO_ALLOW}{{network: host}}",
        ),
        (("app", "container", "devices", 1), f"needs a grant of the node's operator (/dev/b: the device); {TO_ALLOW}{{devices: [/dev/b]}}"),
    ]  # fmt: skip


def test_what_is_told_to_be_written_is_what_grants_it() -> None:
    """The hint can be copied as it is."""
    app = app_of(
        "network: host\ndevices: ['/dev/a+b-c_1.2:/dev/x:rw']",
        f"security: {{privileged: true}}\n{bind('/srv/ä;$%#=@')}",
    )
    asked = required(app)
    assert len(asked) == 4
    for wish in asked:
        granted = parse(f"web: {wish.grant}".encode())
        assert wish.at not in {at for at, _ in missing(app, granted)}, wish.grant


# On a node.


def model(node: Node) -> list[str]:
    app, problems = admission.model(node.name, installed.source(node.name, "web"))
    assert (app is None) == bool(problems)
    return [str(problem) for problem in problems]


def test_the_line_that_asks_is_named(node: Node) -> None:
    node.app("web", app_text("web", f"user: 5:5\n{DEVICE}"))
    assert model(node) == [f"{FILE}:8:15: app.container.devices[0]: {HINT}"]
    node.write(paths.GRANTS, "web: {devices: [/dev/ttyUSB0]}")
    assert model(node) == []


@pytest.mark.programs
def test_a_last_good_version_that_has_lost_its_grant_is_not_used(node: Node) -> None:
    node.app("web", app_text("web", DEVICE))
    node.app("good", app_text("good"))
    node.write(paths.GRANTS, "web: {devices: [/dev/ttyUSB0]}")
    node.write("/etc/archy/accepted/web/manifest.yml", app_text("web", DEVICE))
    before, warnings = node.generate()
    assert (warnings, "--device /dev/ttyUSB0 " in before["archy-web.service"]) == ([], True)
    node.path(paths.GRANTS).unlink()
    after, warnings = node.generate()
    assert warnings == [f"{FILE}:7:15: app.container.devices[0]: {HINT}"]
    assert "exit 78" in after["archy-web.service"]
    assert "podman run" not in after["archy-web.service"]
    assert after["archy-good.service"] == before["archy-good.service"]


@pytest.mark.programs
def test_one_that_needs_no_grant_stays_in_force(node: Node) -> None:
    """Who asks for more and does not get it goes on with what it had."""
    node.app("web", app_text("web", DEVICE))
    node.write("/etc/archy/accepted/web/manifest.yml", app_text())
    found, warnings = node.generate()
    assert warnings == [f"{FILE}:7:15: app.container.devices[0]: {HINT}"]
    assert "podman run" in found["archy-web.service"]
    assert "/dev/ttyUSB0 " not in found["archy-web.service"].partition("ExecStart=")[2]


@pytest.mark.parametrize("bad", ["web: [", "web: {device: [/dev/ttyUSB0]}", "web: {devices: /dev/ttyUSB0}", "\0"])
def test_a_bad_file_leaves_the_last_good_grants_in_force(node: Node, bad: str) -> None:
    node.app("web", app_text("web", DEVICE))
    node.write(paths.GRANTS, bad)
    assert admission.granted(node.name) == {}
    assert model(node) == [f"{FILE}:7:15: app.container.devices[0]: {HINT}"]
    node.write(paths.ACCEPTED_GRANTS, "web: {devices: [/dev/ttyUSB0]}")
    assert admission.granted(node.name) == {"web": {"devices": ["/dev/ttyUSB0"]}}
    assert model(node) == []


@pytest.mark.parametrize("kept", [None, "web: ["])
def test_a_good_file_counts_alone(node: Node, kept: str | None) -> None:
    """And one that is gone grants nothing: that is how all is withdrawn."""
    node.write(paths.ACCEPTED_GRANTS, kept or "web: {privileged: true}")
    assert admission.granted(node.name) == {}
    node.write(paths.GRANTS, "web: {network: host}")
    assert admission.granted(node.name) == {"web": {"network": "host"}}


def test_grants_that_are_no_file_grant_nothing(node: Node) -> None:
    node.path(paths.GRANTS).mkdir()
    node.write(paths.ACCEPTED_GRANTS, "web: {privileged: true}")
    assert admission.granted(node.name) == {"web": {"privileged": True}}


def test_what_no_grant_gives() -> None:
    """Paths of archy's own, of the kernel's, and of other apps' secrets are refused whatever is granted."""
    for path in (
        "/etc/archy",
        "/etc",
        "/proc/1",
        "/sys/fs",
        "/dev/sda",
        "/run/archy/facts.json",
        "/run",
        HOME,
        f"{HOME}/secrets/x",
    ):
        with pytest.raises(Refused, match="must be below"):
            load.check(app_text(app=bind(path)).encode(), "f", "web", frozenset())


def test_the_schema_is_one() -> None:
    from jsonschema import Draft202012Validator

    Draft202012Validator.check_schema(json.loads((REPO / "generator/archy/manifest/grants.schema.json").read_text()))
