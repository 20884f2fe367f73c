# SPDX-License-Identifier: MIT
"""Rules for what archy provides an app with: secrets, environment, files, certificates. See `rules`."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from typing import Any

from archy import paths
from archy.errors import quoted
from archy.manifest import ownership, placeholders
from archy.manifest.document import Path
from archy.manifest.model import Secret

Found = Iterator[tuple[Path, str]]

VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*")
CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")

# These would give an app the node itself, its other apps, or its secrets.
_NEVER = ("/proc", "/sys", "/dev", "/etc/archy", "/run/archy", "/run/systemd", paths.SECRETS)

_CONTAINER: Path = ("app", "container")


def broken(app: dict[str, Any], files: frozenset[str]) -> Found:
    """Every place that breaks a rule, and why. `files` are the files beside the manifest."""
    named = list(items(container_of(app), "generated_secrets", ("name",)))
    for index, entry in named:
        if entry["name"].endswith((paths.PREVIOUS, ".pw")):
            yield (*_CONTAINER, "generated_secrets", index, "name"), f"must not end in {paths.PREVIOUS} or .pw"
    secrets = {name for _, entry in named for name in Secret(entry["name"], entry.get("kind", "")).names}
    own = {app.get(key) or "" for key in ("id", "provides", "companion_of", "part_of")}
    yield from _variables(app, own)
    yield from _certificates(app, own)
    yield from _files(app, own, files, secrets)
    yield from _hooks(app, files)
    for index, entry in items(app, "credentials", ("secret_file",)):
        if entry["secret_file"] not in secrets:
            said = f"names a secret that generated_secrets does not declare: {quoted(entry['secret_file'])}"
            yield ("app", "credentials", index, "secret_file"), said


def items(holder: dict[str, Any], key: str, needed: tuple[str, ...] = ()) -> Iterator[tuple[int, Any]]:
    """The entries of a list with their index; of mappings, those that have the needed keys."""
    for index, entry in enumerate(holder.get(key) or ()):
        if entry is not None and all(isinstance(entry, dict) and name in entry for name in needed):
            yield index, entry


def container_of(app: dict[str, Any]) -> dict[str, Any]:
    """The mapping `container`; empty when it is not there, or was refused."""
    container: dict[str, Any] = app.get("container") or {}
    return container


def _variables(app: dict[str, Any], own: set[str]) -> Found:
    container = container_of(app)
    given = app.get("environment") or ()
    taken = {
        name: f"environment.{name}" if isinstance(given, dict) else f"environment[{index}]"
        for index, name in enumerate((entry or "").partition("=")[0] for entry in given)
    }
    for key in ("derived_env", "secret_env"):
        for index, entry in items(container, key, ("key",)):
            at: Path = (*_CONTAINER, key, index)
            if entry["key"] in taken:
                yield (*at, "key"), f"is the same as {taken[entry['key']]}"
            taken.setdefault(entry["key"], f"{key}[{index}]")
            if key == "derived_env" and "template" in entry:
                yield from _placeholders((*at, "template"), entry["template"], placeholders.FACTS)
    for index, path in items(container, "env_file"):
        if reason := data_path_problem(path, own):
            yield (*_CONTAINER, "env_file", index), reason


def _certificates(app: dict[str, Any], own: set[str]) -> Found:
    files = items(container_of(app), "generated_files", ("path",))
    taken = {entry["path"]: f"generated_files[{index}]" for index, entry in files}
    for index, entry in items(container_of(app), "generated_certs"):
        at: Path = (*_CONTAINER, "generated_certs", index)
        for key in ("crt", "key"):
            if key not in entry:
                continue
            if reason := data_path_problem(entry[key], own):
                yield (*at, key), reason
            if entry[key] in taken:
                yield (*at, key), f"is the same as {taken[entry[key]]}"
            taken.setdefault(entry[key], f"generated_certs[{index}].{key}")
        names = [((*at, "sans", number), name) for number, name in items(entry, "sans")]
        for place, name in [((*at, "common_name"), entry.get("common_name") or ""), *names]:
            yield from _placeholders(place, name, placeholders.FACTS)


def _files(app: dict[str, Any], own: set[str], files: frozenset[str], secrets: set[str]) -> Found:
    at: Path = (*_CONTAINER, "generated_files")
    for index, entry in items(container_of(app), "generated_files", ("path",)):
        if reason := data_path_problem(entry["path"], own):
            yield (*at, index, "path"), reason
        if entry.get("template") and entry["template"] not in files:
            yield (*at, index, "template"), f"is not a file beside the manifest: {quoted(entry['template'])}"
        known = {*placeholders.FACTS, placeholders.GATEWAY, *(placeholders.SECRET + name for name in secrets)}
        yield from _placeholders((*at, index, "content"), entry.get("content") or "", known, in_file=True)


def _hooks(app: dict[str, Any], files: frozenset[str]) -> Found:
    taken = {volume["target"]: f"volumes[{index}]" for index, volume in items(app, "volumes", ("target",))}
    for kind, steps in (app.get("hooks") or {}).items():
        for index, step in items({"steps": steps}, "steps"):
            at: Path = ("app", "hooks", kind, index)
            for number, word in items(step, "exec"):
                if CONTROL.search(word):
                    yield (*at, "exec", number), "must not hold control characters"
            copy = step.get("copy_from_host")
            if not copy:
                continue
            dest, src = copy.get("dest", ""), copy.get("src", "")
            if dest and not is_normal(dest):
                yield (
                    (*at, "copy_from_host", "dest"),
                    "must be a plain absolute path, without . or .. or a / at its end",
                )
            elif dest in taken:
                yield (*at, "copy_from_host", "dest"), f"is the same as {taken[dest]}"
            taken.setdefault(dest, f"hooks.{kind}[{index}]")
            if src and (reason := _source_problem(src, files)):
                yield (*at, "copy_from_host", "src"), reason


def _source_problem(src: str, files: frozenset[str]) -> str:
    """Why something cannot be copied from there, or nothing."""
    if os.path.isabs(src):
        return "" if is_normal(src) and src.startswith(paths.FILES + "/") else f"must be below {paths.FILES}"
    if os.path.normpath(src) != src or src.split("/")[0] == "..":
        return "must be a plain path below the folder of the manifest, without . or .."
    # Links are not among them, so nothing leads out of the folder.
    there = any(name == src or name.startswith(src + "/") for name in files)
    return "" if there else f"is not a file or folder beside the manifest: {quoted(src)}"


def _placeholders(at: Path, text: str, known: tuple[str, ...] | set[str], in_file: bool = False) -> Found:
    try:
        names = placeholders.names(text, nested=in_file)
    except ValueError as error:
        yield at, str(error)
        return
    for name in names:
        if in_file and name.startswith(placeholders.SECRET) and name not in known:
            name = name.removeprefix(placeholders.SECRET)
            yield at, f"names a secret that generated_secrets does not declare: {quoted(name)}"
        elif name not in known:
            yield at, f"holds an unknown placeholder: {quoted(name)}; known here: {', '.join(sorted(known))}"


def is_normal(path: str) -> bool:
    """Whether a path is absolute and plain, and not the root."""
    return path.startswith("/") and path != "/" and os.path.normpath(path) == path and not path.startswith("//")


def data_path_problem(path: str, own: set[str]) -> str:
    """Why archy may not put files of an app there, or nothing: only /var/lib/archipelago/<name>/ and below is its own.

    `own` are the names of the app, of what it provides, and of the app that it belongs to.
    """
    if reason := path_problem(path):
        return reason
    return "" if ownership.is_own(own, path) else f"must be below {paths.HOME}/<app>, which is the app's own data"


def path_problem(path: str) -> str:
    """Why `path` can be no source of a mount, or nothing. Outside the app's own data it needs a grant, too."""
    # Quadlet writes it into RequiresMountsFor= as it is, where a space or a quote would make systemd ignore the line.
    if not is_normal(path) or CONTROL.search(path) or set(path) & set(":,\"'\\") or len(path.split()) != 1:
        return "must be a plain absolute path, without . or .., spaces, quotes, colons, commas or control characters"
    first = path.removeprefix(paths.HOME + "/").split("/")[0]
    if path.startswith(paths.HOME + "/") and (first.startswith(".") or first == os.path.basename(paths.SECRETS)):
        return f"must be below {paths.HOME}/<app>; what is there is archy's own"
    if any(path == one or path.startswith(one + "/") or one.startswith(path + "/") for one in _NEVER):
        return f"must be below {paths.HOME}/<app>; no app is given this, whatever is granted"
    return ""
