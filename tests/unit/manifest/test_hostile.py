# SPDX-License-Identifier: MIT
"""A hostile manifest gets no line of its own into a unit, and takes no other app with it."""

from __future__ import annotations

import pytest
from support import Node, app_text, setting, systemd_words

from archy.manifest import rules

pytestmark = pytest.mark.programs

EVIL = "ExecStartPre=+evil"  # as root, found in $PATH
D = "/var/lib/archipelago/evil"


def named(name: str) -> str:
    return app_text("evil").replace("name: Web", f'name: "{name}"')


def at(place: str, text: str) -> str:
    return app_text("evil", **{place: text})


def in_volume(source: str, target: str = "/x", options: str = "") -> str:
    return at("app", f'volumes:\n- {{type: bind, source: "{source}", target: "{target}"{options}}}')


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(named(f"x\\n{EVIL}"), id="name-newline"),
        pytest.param(named(f"x\\u2028[Service]\\u2028{EVIL}"), id="name-u2028"),
        pytest.param(named(f"x\\N[Service]\\N{EVIL}"), id="name-u0085"),
        pytest.param(named(f"x\\P[Service]\\P{EVIL}"), id="name-u2029"),
        pytest.param(at("app", f'environment: ["A=x\\L[Service]\\L{EVIL}"]'), id="environment-u2028"),
        pytest.param(at("container", f'custom_args: ["x\\L[Service]\\L{EVIL}"]'), id="arguments-u2028"),
        pytest.param(in_volume(f"{D}\\L[Service]\\L{EVIL}"), id="volume-u2028"),
        pytest.param(
            at("app", f'ports:\n- {{host: 8080, container: 80, bind: "fe80::1%x\\n[Service]\\n{EVIL}"}}'),
            id="bind-scope",
        ),
        pytest.param(named("x\\\\"), id="name-ends-in-backslash"),
        pytest.param(named(" "), id="name-blank"),
        pytest.param(in_volume(f"{D}/a\\tb"), id="volume-tab"),
        pytest.param(in_volume(D, "/data "), id="target-ends-in-space"),
        pytest.param(in_volume(D, "/data\\\\"), id="target-ends-in-backslash"),
        pytest.param(in_volume(D, "/data\\n", ", options: [rw]"), id="target-newline"),
        pytest.param(at("container", 'network: "x\\n"'), id="network-newline"),
        pytest.param(at("container", 'network_aliases: ["x\\n"]'), id="alias-newline"),
        pytest.param(
            app_text("evil").replace("nginx:1.26", "n\\n").replace("image: ", 'image: "').replace("\\n", '\\n"'),
            id="image-newline",
        ),
        pytest.param(at("container", 'user: "0\\n"'), id="user-newline"),
        pytest.param(at("app", 'security: {capabilities: ["NET_ADMIN\\n"]}'), id="capability-newline"),
        pytest.param(
            at("app", 'health_check: {type: tcp, endpoint: "localhost:80", timeout: "5s\\n"}'), id="duration-newline"
        ),
        pytest.param(at("app", 'resources: {memory_limit: "1Gi\\n"}'), id="size-newline"),
        pytest.param(at("app", f"ports:\n- {{host: {'9' * 5000}, container: 80}}"), id="endless-number"),
        pytest.param(at("container", "network: x.network"), id="network-of-quadlet"),
        pytest.param(at("app", "volumes:\n- {type: volume, source: x.volume, target: /x}"), id="volume-of-quadlet"),
        pytest.param(app_text("evil").replace("nginx:1.26", "x.image"), id="image-of-quadlet"),
        pytest.param("\u2028".join(["app:", "  id: evil"]), id="yaml-lines"),
        pytest.param("\0" * 1000, id="NULs"),
        pytest.param("", id="empty"),
    ],
)
def test_no_line_of_its_own_and_no_harm_to_others(node: Node, text: str) -> None:
    node.app("web")
    alone, _ = node.generate("alone")
    node.app("evil", text)
    units, _ = node.generate()
    assert units["archy-web.service"] == alone["archy-web.service"]
    evil = units["archy-evil.service"]
    assert [line for unit in units.values() for line in unit.split("\n") if line.strip() == EVIL] == []
    assert setting(evil, "ExecStartPre") in ([], ["+/usr/libexec/archy/archy-prepare --starting evil"])
    as_whom = ([], ["yes"]) if "exit 78" in evil else (["archipelago"], [])
    assert (setting(evil, "User"), setting(evil, "DynamicUser")) == as_whom


def refused(text: str, node: Node) -> str:
    node.app("evil", text)
    units, warnings = node.generate()
    (warning,) = warnings
    assert "exit 78" in units["archy-evil.service"]
    return warning


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (at("container", "network: x.network"), "requested Quadlet unit x.network was not found"),
        (at("app", "volumes:\n- {type: volume, source: x.volume, target: /x}"), "x.volume was not found"),
        (
            app_text("evil").replace("docker.io/library/nginx:1.26", "x.image"),
            "requested Quadlet image x.image was not found",
        ),
    ],
    ids=["network", "volume", "image"],
)
def test_what_quadlet_refuses_is_said_in_its_words(
    node: Node, monkeypatch: pytest.MonkeyPatch, text: str, reason: str
) -> None:
    """As if we had not known better."""
    monkeypatch.setattr(rules, "_UNITS", (" ",))
    warning = refused(text, node)
    assert warning.startswith("/etc/archy/apps/evil/manifest.yml: this node's Podman does not take it: ")
    assert reason in warning
    assert "/in/" not in warning


@pytest.mark.parametrize(
    ("one", "other", "kind"),
    [
        ({"container": "network: stack"}, {"container": "network: archy-stack"}, "network"),
        (
            {"app": "volumes:\n- {type: volume, source: d, target: /d}"},
            {"app": "volumes:\n- {type: volume, source: archy-d, target: /d}"},
            "volume",
        ),
    ],
)
def test_two_names_are_two_units(node: Node, one: dict[str, str], other: dict[str, str], kind: str) -> None:
    node.app("a", app_text("a", **one))
    node.app("b", app_text("b", **other))
    units, _ = node.generate()
    shared = [name for name in units if name.endswith(f"-{kind}.service") and name != "archy-net-network.service"]
    assert len(shared) == 2


@pytest.mark.parametrize("runs", [False, True], ids=["stopped", "running"])
@pytest.mark.parametrize(
    "text",
    [
        pytest.param(app_text("evil").replace("id: evil", "id: 'x\\'"), id="id"),
        pytest.param(at("container", "pull_policy: 'x\\'"), id="enum"),
        pytest.param(at("container", "user: 'x\\'"), id="user"),
        pytest.param(at("container", "network: 'x\\'"), id="network"),
        pytest.param(at("container", "nope\\: 1"), id="unknown-key"),
        pytest.param(at("container", f"generated_files: [{{path: {D}/f, template: 'nope\\'}}]"), id="template"),
        pytest.param(at("container", f"generated_files: [{{path: '{D}/f\\', content: x}}]"), id="path"),
        pytest.param(
            at("container", f"generated_files: [{{path: {D}/f, content: '{{{{secret:x\\}}}}'}}]"), id="secret"
        ),
        pytest.param(at("app", "ports: [{host: 8080, container: 80, bind: 'x\\'}]"), id="bind"),
        pytest.param(at("app", "ports: 'x\\'"), id="type"),
        pytest.param(at("app", f"volumes: [{{type: bind, source: '{D}\\', target: /x}}]"), id="source"),
        pytest.param(at("app", f"volumes: [{{type: bind, source: {D}, target: '/x\\'}}]"), id="target"),
        pytest.param(at("app", "security: {capabilities: ['x\\']}"), id="capability"),
        pytest.param(at("app", "environment: ['x\\']"), id="environment"),
        pytest.param(at("app", "health_check: {type: tcp, endpoint: 'x\\'}"), id="endpoint"),
        pytest.param(at("app", "health_check: {type: tcp, endpoint: ':80', timeout: 'x\\'}"), id="timeout"),
        pytest.param(at("app", "resources: {memory_limit: 'x\\'}"), id="size"),
        pytest.param("app: 'x\\'", id="app"),
        pytest.param("x\\: [", id="syntax"),
    ],
)
def test_a_message_that_ends_in_a_backslash(node: Node, text: str, runs: bool) -> None:
    """It would join the next line of the unit to its own, or be refused by what quotes."""
    node.app("web")
    alone, _ = node.generate("alone")
    node.app("evil", text)
    if runs:
        node.runs("evil")
    units, warnings = node.generate()
    assert units["archy-web.service"] == alone["archy-web.service"]
    assert warnings
    assert all(warning.startswith("/etc/archy/apps/evil/manifest.yml:") for warning in warnings)
    evil = units["archy-evil.service"]
    assert [line for line in evil.split("\n") if line.endswith("\\")] == []
    if runs:
        said = setting(evil, "Description")[0].replace("%%", "%")
        assert said.startswith("evil (still running, /etc/archy/apps/evil/manifest.yml:")
    else:
        (command,) = setting(evil, "ExecStart")
        words = systemd_words(command)
        assert words[:2] + words[3:4] == ["/bin/sh", "-c", "sh"]
        assert sorted(words[4:]) == sorted(" ".join(warning.split()) for warning in warnings)


@pytest.mark.parametrize("runs", [False, True], ids=["stopped", "running"])
def test_even_a_message_that_quotes_nothing_harms_nobody(
    node: Node, monkeypatch: pytest.MonkeyPatch, runs: bool
) -> None:
    """What a message holds is not what keeps a unit whole."""
    node.app("web")
    alone, _ = node.generate("alone")
    monkeypatch.setattr(rules, "quoted", str)
    node.app("evil", at("app", "ports: [{host: 8080, container: 80, bind: 'x\\'}]"))
    if runs:
        node.runs("evil")
    units, (warning,) = node.generate()
    assert warning.endswith("app.ports[0].bind: must be an IP address, is x\\")
    assert units["archy-web.service"] == alone["archy-web.service"]
    evil = units["archy-evil.service"]
    assert "must be an IP address, is x" in setting(evil, "Description")[0]
    assert [line for line in evil.split("\n") if line.endswith("\\")] == []
    assert runs or systemd_words(setting(evil, "ExecStart")[0])[4:] == [warning]
