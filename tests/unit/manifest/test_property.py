# SPDX-License-Identifier: MIT
# ruff: noqa: E501 - a case is a line
"""Whatever a good manifest holds arrives: through Quadlet, our rewriting and systemd, byte for byte."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import manifests
import pytest
from hypothesis import HealthCheck, assume, given, settings
from support import OWNER, Node, setting, systemd_words, verify

from archy.apps.installed import Source
from archy.manifest import grants, load
from archy.manifest import schema as manifest_schema
from archy.manifest.model import App
from archy.units import build

pytestmark = pytest.mark.programs

_SHELL = """/bin/sh -c '"$$@" && exec systemd-notify --ready' sh """
_BARE = {"--replace", "--rm", "-d", "--read-only", "--init", "--tty", "-i", "--privileged"}
Options = Counter[tuple[str, str]]


def parsed(words: list[str]) -> tuple[Options, str, list[str]]:
    """A `podman run` or `podman build`, as Podman reads it: options with their values, the image or folder, the rest."""
    found: Options = Counter()
    at = 0
    while words[at].startswith("-"):
        name, mark, value = words[at].partition("=")
        at += 1
        if not mark and name not in _BARE:
            value = words[at]
            at += 1
        found[name, value] += 1
    return found, words[at], words[at + 1 :]


def command(line: str, *begin: str) -> list[str]:
    """The words of a command line after those that it begins with, somewhere."""
    words = systemd_words(line.removeprefix(_SHELL).replace("/run/archipelago/%N.cid", "CIDFILE"))
    starts = [at for at in range(len(words)) if words[at : at + len(begin)] == list(begin)]
    return words[starts[0] + len(begin) :]


def pairs(given: Any) -> list[str]:
    return [f"{name}={value}" for name, value in given.items()] if isinstance(given, dict) else list(given)


def health(check: dict[str, Any]) -> list[str] | None:
    """The command of a check that is one."""
    if "command" in check:
        return list(check["command"])
    test = check.get("test")
    words = ["CMD-SHELL", test] if isinstance(test, str) else test
    return None if words is None else words[1:] if words[0] == "CMD" else ["/bin/sh", "-c", words[1]]


def wanted(app: dict[str, Any]) -> Options:
    """What Podman must be told of an app, told by its manifest alone."""
    container = app["container"]
    found: Options = Counter()

    def put(name: str, *values: str) -> None:
        found.update((name, value) for value in values)

    put("--env", *pairs(app.get("environment", ())))
    put("--label", *pairs(container.get("labels", {})))
    put("--sysctl", *pairs(container.get("sysctls", {})))
    for name, limit in container.get("ulimits", {}).items():
        put("--ulimit", f"{name}={limit['soft']}:{limit['hard']}" if isinstance(limit, dict) else f"{name}={limit}")
    for key, option in (("extra_hosts", "--add-host"), ("dns", "--dns"), ("group_add", "--group-add")):
        put(option, *container.get(key, ()))
    put("--device", *container.get("devices", ()))
    put("--tmpfs", *container.get("tmpfs", ()))
    for key, option in (("hostname", "--hostname"), ("working_dir", "--workdir"), ("stop_signal", "--stop-signal")):
        put(option, *([container[key]] if container.get(key) else []))
    for key, option in (("init", "--init"), ("tty", "--tty"), ("stdin_open", "-i")):
        put(option, *([""] if container.get(key) else []))
    named = container.get("network", "archy-net") not in ("pasta", "host")
    aliases = [*container.get("network_aliases", ()), *([app["provides"]] if "provides" in app and named else [])]
    first = [f"alias={alias}" for alias in dict.fromkeys(aliases)]
    first += [f"ip={container['ipv4_address']}"] if "ipv4_address" in container else []
    put("--network", ":".join([container.get("network", "archy-net"), *filter(None, [",".join(first)])]))
    for entry in container.get("networks", ()):
        put(
            "--network",
            ":".join(
                [entry["name"], *filter(None, [",".join(f"alias={alias}" for alias in entry.get("aliases", ()))])]
            ),
        )
    put("--user", *([container["user"]] if "user" in container else []))
    if "entrypoint" in container:
        put("--entrypoint", json.dumps(container["entrypoint"]))
    check = health(app.get("health_check", {}))
    if check is not None:
        put("--health-cmd", json.dumps(check))
        put("--health-startup-cmd", json.dumps(check))
    return found


def kept(found: Options, wanted: Options) -> Options:
    """The options found of the kinds that a manifest has in its hands."""
    names = {name for name, _ in wanted} | {
        "--env",
        "--label",
        "--sysctl",
        "--ulimit",
        "--dns",
        "--group-add",
        "--device",
    }
    ours = {("--add-host", "host.archipelago:host-gateway")}
    return Counter({pair: many for pair, many in found.items() if pair[0] in names and pair not in ours})


def check_app(app: dict[str, Any], model: App, units: dict[str, str]) -> None:
    """Every value arrives in the app's unit, and in those of its hooks and its image."""
    unit = units["archy-web.service"]
    found, image, arguments = parsed(command(setting(unit, "ExecStart")[0], "/usr/bin/podman", "run"))
    must = wanted(app)
    if model.health and model.health.kind != "exec":
        must += Counter(
            {pair: many for pair, many in found.items() if pair[0] in ("--health-cmd", "--health-startup-cmd")}
        )
    assert kept(found, must) == must
    assert image == model.image
    assert arguments == app["container"].get("custom_args", [])
    volumes = [
        ":".join([volume["source"], volume["target"], *filter(None, [",".join(volume.get("options", ()))])])
        for volume in app.get("volumes", ())
    ]
    steps = [step for kind in ("pre_start", "post_install") for step in app.get("hooks", {}).get(kind, ())]
    copies = [step["copy_from_host"]["dest"] for step in steps if "copy_from_host" in step]
    volumes += [f"/run/archipelago/files/web/{number}:{dest}:ro" for number, dest in enumerate(copies)]
    busybox = "/usr/bin/busybox:/.archy/busybox:ro"
    assert [value for name, value in found.elements() if name == "-v" and value != busybox] == volumes
    check_hooks(app, found, image, unit)
    check_build(app, units)


def check_hooks(app: dict[str, Any], found: Options, image: str, unit: str) -> None:
    hooks = {
        kind: [step["exec"] for step in app.get("hooks", {}).get(kind, ()) if "exec" in step]
        for kind in ("pre_start", "post_install")
    }
    before = [command(line, "/usr/bin/podman", "run") for line in setting(unit, "ExecStartPre") if "podman run" in line]
    own = (
        "--name",
        "--replace",
        "-d",
        "--tty",
        "-i",
        "--publish",
        "--log-driver",
        "--sdnotify",
        "--cidfile",
        "--entrypoint",
    )
    shared = {pair: many for pair, many in found.items() if pair[0] not in own and not pair[0].startswith("--health")}
    for words, entrypoint in zip(before, hooks["pre_start"], strict=True):
        options, of, rest = parsed(words)
        assert (of, rest) == (image, [])
        apart = Counter(
            {("--entrypoint", json.dumps(entrypoint)): 1, ("--log-driver", "none"): 1, ("--sdnotify", "ignore"): 1}
        )
        assert options == Counter(shared) + apart
    after = [
        command(line, "/usr/bin/podman", "exec") for line in setting(unit, "ExecStartPost") if "podman exec" in line
    ]
    name = f"archy-{app['id']}" if "companion_of" in app else app["id"]
    assert after == [[name, *words] for words in hooks["post_install"]]


def check_build(app: dict[str, Any], units: dict[str, str]) -> None:
    assert ("archy-web-build.service" in units) == ("build" in app["container"])
    if "build" in app["container"]:
        entry = app["container"]["build"]
        line = setting(units["archy-web-build.service"], "ExecStart")[0]
        options, folder, rest = parsed(command(line, "/usr/bin/podman", "build"))
        place = Path("/etc/archy/apps/web", entry.get("context", "."))
        assert (folder, rest) == (str(place), [])
        assert options == Counter(
            {
                ("--tag", entry.get("tag", "localhost/archy-web:built")): 1,
                ("--file", f"{place}/{entry.get('dockerfile', 'Containerfile')}"): 1,
                **({("--target", entry["target"]): 1} if "target" in entry else {}),
                **{("--build-arg", f"{name}={value}"): 1 for name, value in entry.get("args", {}).items()},
            }
        )


def granting(app: App) -> str:
    """Grants for all that an app asks for."""
    found: dict[str, Any] = {}
    for wish in grants.required(app):
        if wish.key in grants._LISTS:
            found.setdefault(wish.key, []).append(wish.value)
        else:
            found[wish.key] = wish.value == "true" or wish.value
    return manifests.text({"web": {key: sorted(set(v)) if isinstance(v, list) else v for key, v in found.items()}})


def test_whatever_the_schema_allows_arrives(node: Node) -> None:
    out, used = node.path("/out"), Counter[str]()
    out.mkdir()

    @settings(max_examples=100, suppress_health_check=list(HealthCheck))
    @given(data=manifests.manifests())
    def one(data: dict[str, Any]) -> None:
        content = manifests.text(data).encode()
        model = load.check(content, "f", "web", manifests.BESIDE)
        node.write("/etc/archy/grants.yml", granting(model))
        source = Source("web", "/etc/archy/apps/web/manifest.yml", content, manifests.BESIDE, None)
        built = build.build(node.name, [source], str(node.path("/run")), OWNER)["web"]
        # Told as a problem of the app, and none of the unit's: a blank or a backslash at the end of a line.
        assume(not any("cannot be written as one line of a unit file" in problem.reason for problem in built.problems))
        assert built.problems == ()
        units = {name: text for name, text in built.units.items() if not text.startswith("-> ")}
        assert [line for text in units.values() for line in text.split("\n") if line.endswith("\\")] == []
        check_app(data["app"], model, units)
        used.update([*data["app"], *(f"container.{key}" for key in data["app"]["container"])])
        number = used["examples"]
        used["examples"] += 1
        for name, text in units.items():
            path = out / re.sub(r"^archy-web", f"archy-web{number}", name)
            path.parent.mkdir(exist_ok=True)
            path.write_text(text)

    one()
    assert used["examples"] > 80
    schema = manifest_schema.schema("manifest")
    keys = [*schema["properties"]["app"]["properties"]]
    keys += [f"container.{key}" for key in schema["$defs"]["container"]["properties"]]
    assert [key for key in keys if not used[key]] == []
    assert verify(node, sorted(path.name for path in out.iterdir() if path.is_file())) == []
