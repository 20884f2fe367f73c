# SPDX-License-Identifier: MIT
"""The texts that are made for an app: its generated files, and values of its environment. Pure.

Templates may come from anybody and are rendered by root, so: in Jinja's sandbox, in a confined process.
"""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from archy import paths
from archy.bitcoin import logins
from archy.errors import CannotDerive
from archy.host import secrets as host_secrets
from archy.host.idmap import Owner
from archy.manifest import placeholders
from archy.manifest.model import BITCOIN, RPC_SECRET, SUBNETS, App, GeneratedFile
from archy.prepare import sandbox

TYPE_CHECKING = False
if TYPE_CHECKING:
    from archy.apps.facts import Summary


@dataclass(frozen=True)
class Context:
    """What templates may know besides secrets: the node's settings, its host's facts, and the installed apps."""

    owner: Owner
    settings: Mapping[str, Any]
    host: Mapping[str, str]
    installed: frozenset[str]
    apps: Mapping[str, Summary]


@dataclass(frozen=True)
class Inputs:
    """What the texts of one app are made of.

    `templates` holds the text of each template, `values` that of each secret by its name, `own` that of each file made
    once, as it is now, by its base name.
    """

    app: App
    templates: Mapping[str, str]
    values: Mapping[str, str]
    own: Mapping[str, str]
    facts: Context


def content(material: Inputs, file: GeneratedFile) -> str:
    """The text of one generated file; raises CannotDerive."""
    if file.content is not None:
        return substitute(material, file.path, file.content)
    text = material.templates[file.template or ""]
    if not (file.template or "").endswith(".j2"):
        return text
    return render(material, file.template or "", text)


def substitute(material: Inputs, where: str, text: str) -> str:
    """`text` with its placeholders replaced; raises CannotDerive, in which `where` names the text."""

    def value(name: str) -> str:
        if name == placeholders.GATEWAY and material.app.network in SUBNETS:
            return network(material.app.network)["gateway"]
        if name.startswith(placeholders.SECRET) and (key := name.removeprefix(placeholders.SECRET)) in material.values:
            return material.values[key]
        if name == "BITCOIN_HOST":
            return bitcoin_host(where, material.facts)
        if name in material.facts.host:
            return material.facts.host[name]
        raise CannotDerive(f"{where}: unknown placeholder {{{{{name}}}}}")

    return placeholders.substitute(text, value)


def bitcoin_host(where: str, facts: Context) -> str:
    """The container in which Bitcoin runs, whichever implementation is installed; raises CannotDerive."""
    for summary in facts.apps.values():
        if summary["provides"] == BITCOIN:
            return summary["container"]
    raise CannotDerive(f"{where}: BITCOIN_HOST: no app that provides {BITCOIN} is installed")


def network(name: str) -> dict[str, str]:
    """The facts of a network that templates see: its subnet, and its gateway, which also answers DNS."""
    if name not in SUBNETS:
        return {}
    return {"subnet": SUBNETS[name], "gateway": str(ipaddress.ip_network(SUBNETS[name])[1])}


def login(material: Inputs) -> dict[str, str]:
    """The app's own user and password for bitcoind's RPC; empty if it makes no calls."""
    if material.app.rpcwhitelist is None:
        return {}
    return {"user": material.app.id, "password": logins.password(material.values[RPC_SECRET], material.app.id)}


def _logins(material: Inputs) -> list[logins.Login]:
    """The users that bitcoind must know."""
    values = (material.values.get(RPC_SECRET), material.values.get(RPC_SECRET + paths.PREVIOUS))
    calls = {name: app["rpcwhitelist"] for name, app in material.facts.apps.items()}
    return logins.logins(
        [v for v in values if v], {name: listed for name, listed in calls.items() if listed is not None}
    )


def render(material: Inputs, name: str, text: str) -> str:
    """A template's text; raises CannotDerive, in which `name` names the template."""
    from jinja2 import StrictUndefined, TemplateError
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    app, facts = material.app, material.facts
    declared = {name for secret_ in app.secrets for name in secret_.names}

    def value(wanted: str) -> str:
        if wanted not in declared:
            raise CannotDerive(f"{name}: secret {wanted} is not declared in the app's generated_secrets")
        return material.values[wanted]

    def own(wanted: str) -> str:
        if wanted not in material.own:
            raise CannotDerive(f"{name}: {wanted} is not one of the app's generated_files without overwrite")
        return material.own[wanted]

    def rpc_logins() -> list[logins.Login]:
        value(RPC_SECRET)
        return _logins(material)

    environment = ImmutableSandboxedEnvironment(
        undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True, autoescape=False
    )
    gateway = network(app.network)
    hosts = dict(facts.host)
    if any(summary["provides"] == BITCOIN for summary in facts.apps.values()):
        hosts["BITCOIN_HOST"] = bitcoin_host(name, facts)
    environment.globals = {
        "secret": value,
        "own": own,
        "rpcauth": lambda user, wanted: logins.rpcauth(user, value(wanted)),
        "rpc_logins": rpc_logins,
        "basic_auth": lambda user, wanted: host_secrets.basic_auth(user, value(wanted)),
        "node": facts.settings,
        "installed": facts.installed,
        "bitcoin_needs": {level for summary in facts.apps.values() for level in summary["bitcoin"]},
        "network": gateway,
        "app": {"id": app.id, "name": app.name, "version": app.version},
        **({"rpc": login(material)} if app.rpcwhitelist is not None else {}),
        **({placeholders.GATEWAY: gateway["gateway"]} if gateway else {}),
        **hosts,
    }

    def rendered() -> str:
        try:
            text_: str = environment.from_string(text).render()
        except TemplateError as error:
            line = getattr(error, "lineno", None)
            raise CannotDerive(f"{name}{f':{line}' if line else ''}: {error.message}") from None
        except CannotDerive:
            raise
        except Exception as error:  # a template can raise whatever Python can
            raise CannotDerive(f"{name}: {type(error).__name__}: {error}") from None
        return text_

    return _confined(name, rendered)


def _confined(name: str, rendered: Callable[[], str]) -> str:
    try:
        return sandbox.run(rendered).decode()
    except sandbox.Failed as error:
        text = str(error)
        raise CannotDerive(text if text.startswith(name) else f"{name}: {text}") from None


def environment(material: Inputs) -> dict[str, str]:
    """The app's `derived_env`, by name; raises CannotDerive."""
    return {key: _line(key, substitute(material, key, text)) for key, text in material.app.derived_env}


def secret_environment(material: Inputs) -> dict[str, str]:
    """The app's `secret_env`, by name; raises CannotDerive."""
    result = {}
    for entry in material.app.secret_env:
        if entry.template:
            text = render(material, f"secret_env {entry.key}", entry.template)
        elif entry.secret in material.values:
            text = material.values[entry.secret]
        else:
            raise CannotDerive(f"secret_env {entry.key}: {paths.SECRETS}/{entry.secret} is not there")
        result[entry.key] = _line(entry.key, text)
    return result


def _line(key: str, text: str) -> str:
    if not text.isprintable():
        raise CannotDerive(f"{key}: the value is not one line of text")
    return text


def own_paths(app: App) -> set[str]:
    """The files of the app that are made once and then its operator's."""
    return {file.path for file in app.files if not file.overwrite}


def own_names(app: App) -> dict[str, str]:
    """The same, as templates name them: path by base name."""
    return {os.path.basename(path): path for path in sorted(own_paths(app))}
