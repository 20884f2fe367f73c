# SPDX-License-Identifier: MIT
"""What must be on the disk before an app starts. Pure: the app, its secrets and the node's facts in, a plan out."""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from archy import confined, paths, secret
from archy.model import App, GeneratedFile
from archy.owner import Owner
from archy.quadlet import SUBNETS
from archy.steps import Directory, File, Ownership, Step

_PLACEHOLDER = re.compile(r"\{\{\s*([^{}]*?)\s*\}\}")
# Existing manifests give the owner of an app's data as an ID on a node whose subordinate IDs start here.
_CLASSIC_SUBUID = 100_000


@dataclass(frozen=True)
class Found:
    """A file as it is now. `content` is None for what is there but is not a regular file."""

    content: bytes | None
    uid: int
    gid: int
    mode: int


@dataclass(frozen=True)
class Facts:
    """What templates may know besides secrets: the node's settings, and which apps are installed."""

    owner: Owner
    settings: Mapping[str, Any]
    installed: frozenset[str]


class CannotDerive(Exception):
    """An app's files cannot be made; the text says which and why."""


def secret_path(name: str) -> str:
    """Where the canonical secret `name` is kept."""
    return f"{paths.SECRETS}/{name}"


def secrets(app: App, found: Mapping[str, Found], entropy: secret.Entropy) -> tuple[list[Step], dict[str, str]]:
    """Steps that make the app's missing secrets and put modes right, and the value of each.

    An existing value is never changed: what is there but unusable is an error for a person to look at.
    """
    steps: list[Step] = []
    values: dict[str, str] = {}
    for declared in app.secrets:
        if not any(secret_path(name) in found for name in declared.names):
            for name, content in secret.generate(declared.name, declared.kind, entropy).items():
                steps.append(File(secret_path(name), content, 0, 0, 0o600, "missing"))
                values[name] = secret.value(content)
            continue
        for name in declared.names:
            path = secret_path(name)
            now = found.get(path)
            if now is None or now.content is None:
                raise CannotDerive(f"{path}: is not a file; the secret cannot be read")
            try:
                values[name] = secret.value(now.content)
            except ValueError as error:
                raise CannotDerive(f"{path}: {error}; restore it, or remove it to have a new one made") from None
            if (now.uid, now.gid, now.mode) != (0, 0, 0o600):
                steps.append(Ownership(path, 0, 0, 0o600))
    return steps, values


def directories(app: App, owner: Owner) -> list[Directory]:
    """The sources of the app's bind mounts; Podman does not create them. What exists is left as it is."""
    made = {file.path for file in app.files}
    uid, gid = data_owner(app, owner)
    sources = {volume.source for volume in app.volumes if volume.kind == "bind"} - made
    above = {os.path.dirname(path) for path in made}
    return [Directory(path, uid, gid, 0o750) for path in sorted(sources | above)]


def data_owner(app: App, owner: Owner) -> tuple[int, int]:
    """The IDs on the node that own an app's data: by `data_uid`, else the user its container runs as."""
    if app.data_uid is not None and app.data_uid >= _CLASSIC_SUBUID:
        inside = app.data_uid - _CLASSIC_SUBUID + 1
        return owner.host_uid(inside), owner.host_gid(inside)
    if app.data_uid is not None:
        return app.data_uid, app.data_uid
    user, _, group = (app.user or "0").partition(":")
    return owner.host_uid(int(user)), owner.host_gid(int(group or user))


def files(app: App, beside: Mapping[str, str], values: Mapping[str, str], facts: Facts) -> list[File]:
    """The app's generated files as they must be. `beside` holds the text of each template, `values` each secret."""
    return [
        File(
            file.path,
            _encoded(file, content(app, file, beside, values, facts)),
            facts.owner.host_uid(file.owner),
            facts.owner.host_gid(file.group),
            file.mode,
            "wanted",
        )
        for file in app.files
    ]


def drift(app: App, wanted: list[File], found: Mapping[str, Found]) -> list[Step]:
    """The steps from what is there to what is wanted; none when nothing differs."""
    once = {file.path for file in app.files if not file.overwrite}
    steps: list[Step] = []
    for file in wanted:
        now = found.get(file.path)
        if now is None:
            steps.append(File(file.path, file.content, file.uid, file.gid, file.mode, "missing"))
        elif file.path in once:
            continue
        elif now.content != file.content:
            steps.append(File(file.path, file.content, file.uid, file.gid, file.mode, "content differs"))
        elif (now.uid, now.gid, now.mode) != (file.uid, file.gid, file.mode):
            steps.append(Ownership(file.path, file.uid, file.gid, file.mode))
    return steps


def _encoded(file: GeneratedFile, text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise CannotDerive(f"{file.template or file.path}: {error}") from None


def network(subnet: str) -> dict[str, str]:
    """The facts of a network that templates see: its subnet, and its gateway, which also answers DNS."""
    return {"subnet": subnet, "gateway": str(ipaddress.ip_network(subnet)[1])}


def content(app: App, file: GeneratedFile, beside: Mapping[str, str], values: Mapping[str, str], facts: Facts) -> str:
    """The text of one generated file; raises CannotDerive."""
    if file.content is not None:
        return _substitute(file.path, file.content, app, values)
    text = beside[file.template or ""]
    if not (file.template or "").endswith(".j2"):
        return text
    return _render(file, text, app, values, facts)


def _substitute(path: str, text: str, app: App, values: Mapping[str, str]) -> str:
    def replacement(match: re.Match[str]) -> str:
        name = match[1]
        if name == "NETWORK_GATEWAY" and app.network in SUBNETS:
            return network(SUBNETS[app.network])["gateway"]
        if name.startswith("secret:") and name[7:] in values:
            return values[name[7:]]
        raise CannotDerive(f"{path}: unknown placeholder {match[0]}")

    return _PLACEHOLDER.sub(replacement, text)


def _render(file: GeneratedFile, text: str, app: App, values: Mapping[str, str], facts: Facts) -> str:
    """Render a template of the app. It may come from anybody and is rendered by root, so: in Jinja's sandbox."""
    from jinja2 import StrictUndefined, TemplateError
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    def value(name: str) -> str:
        if name not in values:
            raise CannotDerive(f"{file.template}: secret {name} is not declared in the app's generated_secrets")
        return values[name]

    environment = ImmutableSandboxedEnvironment(
        undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True, autoescape=False
    )
    environment.globals = {
        "secret": value,
        "rpcauth": lambda user, name: secret.rpcauth(user, value(name)),
        "basic_auth": lambda user, name: secret.basic_auth(user, value(name)),
        "node": facts.settings,
        "installed": facts.installed,
        "network": network(SUBNETS[app.network]) if app.network in SUBNETS else {},
        "app": {"id": app.id, "name": app.name, "version": app.version},
    }

    def rendered() -> str:
        try:
            text_: str = environment.from_string(text).render()
        except TemplateError as error:
            line = getattr(error, "lineno", None)
            raise CannotDerive(f"{file.template}{f':{line}' if line else ''}: {error.message}") from None
        except CannotDerive:
            raise
        except Exception as error:  # whatever else somebody's template can come to
            raise CannotDerive(f"{file.template}: {type(error).__name__}: {error}") from None
        return text_

    try:
        return confined.run(rendered).decode()
    except confined.Failed as error:
        said = str(error)
        raise CannotDerive(said if said.startswith(str(file.template)) else f"{file.template}: {said}") from None
