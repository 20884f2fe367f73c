# SPDX-License-Identifier: MIT
"""A manifest's bytes in; a typed app, or everything that is wrong with it, out.

jsonschema takes longer to import than forty manifests take to render, so it is imported only for a manifest that
nobody has checked before (`check`); a copy of one that was accepted is only typed (`trusted`).
"""

from __future__ import annotations

import functools
import json
import os
import re
from collections.abc import Iterator
from typing import Any

from archy import paths
from archy.document import Document, Path, load, typed
from archy.model import App, app_of, health_check
from archy.problem import Refused

_SCHEMA = os.path.join(os.path.dirname(__file__), "manifest.schema.json")
# A network mode that is not a network of the app's own would share another namespace.
_REFUSED_NETWORKS = {"host", "none", "bridge", "private", "container", "ns", "slirp4netns", "default", "podman"}
# Unit names that are ours: archy-<id>.service must never be one of them, nor one of the units Quadlet makes.
_RESERVED_IDS = {"all", "prepare", "reconcile"}
_RESERVED_ENDINGS = ("-network", "-volume", "-build", "-image", "-pod")
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
_SECRET = re.compile(r"\{\{\s*secret:([^}]*)\}\}")


@functools.cache
def schema() -> dict[str, Any]:
    """The JSON Schema of a manifest."""
    with open(_SCHEMA, encoding="utf-8") as file:
        result: dict[str, Any] = json.load(file)
    return result


def trusted(content: bytes, file: str) -> App:
    """The app of a manifest that was checked and accepted before."""
    return app_of(typed(load(content, file).data, schema()))


def check(content: bytes, file: str, app_id: str, beside: frozenset[str]) -> App:
    """The app of a manifest; raises `Refused` with every problem in it.

    `app_id` is the name of the folder, `beside` the relative paths of the files in it.
    """
    raw = load(content, file)
    document = Document(file, typed(raw.data, schema()), raw.marks)
    from archy import validation

    problems = validation.problems(document, schema())
    if not problems:
        problems = [document.problem(path, reason) for path, reason in _beyond_schema(document.data, app_id, beside)]
    if problems:
        raise Refused(problems)
    return app_of(document.data)


def _beyond_schema(data: dict[str, Any], app_id: str, beside: frozenset[str]) -> Iterator[tuple[Path, str]]:
    """What a JSON Schema cannot say: values that must agree with each other, with the folder, or with our rules."""
    app = data["app"]
    container = app["container"]
    at: Path = ("app", "container")
    if app["id"] != app_id:
        yield ("app", "id"), f"must be the name of the folder, {app_id}, is {app['id']}"
    if app["id"] in _RESERVED_IDS or app["id"].endswith(_RESERVED_ENDINGS):
        yield ("app", "id"), "is reserved for units of archy's own"
    if app.get("companion_of") == app["id"]:
        yield ("app", "companion_of"), "must be another app"
    if "image" not in container:
        yield (*at, "image"), "is missing"
    if container.get("network") in _REFUSED_NETWORKS:
        yield (*at, "network"), "must be the name of a network, or pasta; an app does not share another's namespace"
    if container.get("network") == "pasta" and container.get("network_aliases"):
        yield (*at, "network_aliases"), "need a network, pasta has no names"
    for place in ("entrypoint", "custom_args"):
        for index, word in enumerate(container.get(place, ())):
            if _CONTROL.search(word):
                yield (*at, place, index), "must not hold control characters"
    for index, entry in enumerate(app.get("environment", ())):
        if _CONTROL.search(entry):
            yield ("app", "environment", index), "must not hold control characters"
    yield from _twice(("app", "environment"), [entry.partition("=")[0] for entry in app.get("environment", ())])
    yield from _ports(app.get("ports", []))
    yield from _volumes(app.get("volumes", []))
    if "health_check" in app:
        try:
            health_check(app["health_check"])
        except ValueError as error:
            key = "command" if app["health_check"]["type"] == "exec" or "command" in app["health_check"] else "endpoint"
            yield ("app", "health_check", key), str(error)
    yield from _files(container, beside)


def _twice(path: Path, values: list[Any], key: str = "") -> Iterator[tuple[Path, str]]:
    seen: dict[Any, int] = {}
    for index, value in enumerate(values):
        if value in seen:
            yield (*path, index, *([key] if key else [])), f"is the same as {path[-1]}[{seen[value]}]"
        seen.setdefault(value, index)


def _ports(ports: list[dict[str, Any]]) -> Iterator[tuple[Path, str]]:
    import ipaddress

    yield from _twice(
        ("app", "ports"),
        [(entry["host"], entry.get("protocol", "tcp"), entry.get("bind")) for entry in ports],
        "host",
    )
    for index, entry in enumerate(ports):
        if entry["host"] < 1024:
            yield ("app", "ports", index, "host"), f"must be 1024 or more for a rootless container, is {entry['host']}"
        try:
            address = ipaddress.ip_address(entry.get("bind", "0.0.0.0"))
        except ValueError:
            yield ("app", "ports", index, "bind"), f"must be an IP address, is {entry['bind']}"
            continue
        if entry.get("auth") == "local" and not address.is_loopback and "bind" in entry:
            yield ("app", "ports", index, "bind"), "must be a loopback address where auth is local"


def _volumes(volumes: list[dict[str, Any]]) -> Iterator[tuple[Path, str]]:
    yield from _twice(("app", "volumes"), [entry["target"].rstrip("/") for entry in volumes], "target")
    for index, entry in enumerate(volumes):
        at: Path = ("app", "volumes", index)
        if not _is_normal(entry["target"]):
            yield (*at, "target"), "must be a plain absolute path other than /, without . or .. or a / at its end"
        if entry["type"] == "bind":
            reason = data_path_problem(entry["source"])
            if reason:
                yield (*at, "source"), reason
        elif not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}", entry["source"]):
            yield (*at, "source"), "must be the plain name of a volume"
        if {"rw", "ro"} <= set(entry.get("options", ())):
            yield (*at, "options"), "cannot be both rw and ro"


def _files(container: dict[str, Any], beside: frozenset[str]) -> Iterator[tuple[Path, str]]:
    files = container.get("generated_files", [])
    secrets = {entry["name"] for entry in container.get("generated_secrets", ())}
    at: Path = ("app", "container", "generated_files")
    yield from _twice(
        (*at[:-1], "generated_secrets"), [s["name"] for s in container.get("generated_secrets", ())], "name"
    )
    yield from _twice(at, [entry["path"] for entry in files], "path")
    for index, entry in enumerate(files):
        reason = data_path_problem(entry["path"])
        if reason:
            yield (*at, index, "path"), reason
        if ("content" in entry) == ("template" in entry):
            yield (*at, index), "needs either content or template"
        if "template" in entry and entry["template"] not in beside:
            yield (*at, index, "template"), f"is not a file beside the manifest: {entry['template']}"
        for name in _SECRET.findall(entry.get("content", "")):
            if name not in secrets:
                yield (*at, index, "content"), f"names a secret that generated_secrets does not declare: {name}"


def _is_normal(path: str) -> bool:
    return path != "/" and os.path.normpath(path) == path and not path.startswith("//")


def data_path_problem(path: str) -> str:
    """Why `path` is no place for an app's data, or nothing: only /var/lib/archipelago/<name>/ and below is."""
    if not _is_normal(path) or _CONTROL.search(path) or set(path) & set(":,"):
        return "must be a plain absolute path, without . or .. and without colons, commas or control characters"
    first = path.removeprefix(paths.HOME + "/").split("/")[0]
    if not path.startswith(paths.HOME + "/") or first.startswith(".") or first == os.path.basename(paths.SECRETS):
        return f"must be below {paths.HOME}/<app>; a path outside the app's own data is not supported yet"
    return ""
