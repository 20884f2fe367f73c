# SPDX-License-Identifier: MIT
"""The verbs of `archy app` that only look: list, validate, render, credentials."""

from __future__ import annotations

import argparse
import os
import tempfile
from dataclasses import asdict
from typing import Any

from archy import (
    build,
    catalogue,
    derive,
    facts,
    installed,
    paths,
    quadlet,
    rendering,
    rpc,
    secret,
    settings,
    systemd,
)
from archy.installed import Source
from archy.model import App, Credential, GeneratedFile
from archy.output import NO_SUCH_APP, OK, REFUSED, USAGE, CannotDo, emit, say, table
from archy.owner import Owner, owner_of
from archy.problem import Problem, Refused
from archy.rendering import Material

# For a look at an app on a machine that is no node.
_SAMPLE_IDS = (range(100_000, 165_536),)
_SAMPLE_OWNER = Owner(999, 999, _SAMPLE_IDS, _SAMPLE_IDS)


def list_(options: argparse.Namespace) -> int:
    """archy app list."""
    entries = catalogue.entries("/")
    units = systemd.units([paths.unit(entry.id) for entry in entries if entry.installed])
    rows: list[dict[str, Any]] = []
    for entry in entries:
        unit = units.get(paths.unit(entry.id))
        rows.append(
            {
                "id": entry.id,
                "name": entry.app.name if entry.app else "",
                "version": entry.app.version if entry.app else "",
                "origin": entry.origin,
                "installed": entry.installed,
                "state": unit.active if unit else ("unknown" if entry.installed else "not installed"),
                "restarts": unit.restarts if unit else 0,
                "companion_of": entry.companion_of,
                "part_of": entry.part_of,
                "provides": entry.provides,
                "problems": [_as_data(problem) for problem in entry.problems],
            }
        )
    if options.json:
        emit({"apps": rows})
        return OK
    colours = {"active": "green", "failed": "red", "activating": "yellow", "not installed": "dim"}
    shown = [[row["id"], row["state"], row["version"], row["name"] or row["problems"][0]["text"]] for row in rows]
    table(["APP", "STATE", "VERSION", "NAME"], shown, colours)
    return OK


def _as_data(problem: Problem) -> dict[str, Any]:
    return {**asdict(problem), "text": str(problem)}


def validate(options: argparse.Namespace) -> int:
    """archy app validate."""
    source = _source_at("validate", options.path)
    problems, notes = _problems(source)
    if options.json:
        found = [_as_data(problem) for problem in problems]
        emit({"path": options.path, "ok": not problems, "problems": found, "notes": notes})
    else:
        for line in (*problems, *(f"note: {note}" for note in notes)):
            print(line)
        if not problems:
            print(f"{options.path}: ok")
    return REFUSED if problems else OK


def _source_at(what: str, path: str) -> Source:
    """The app in a folder, or of a manifest, that lies anywhere."""
    folder = path
    if not os.path.isdir(folder):
        folder, name = os.path.split(folder)
        if name != paths.MANIFEST or not os.path.isfile(path):
            why = f"is not a folder with a {paths.MANIFEST}"
            raise CannotDo(what, path, why, "give the folder, or the manifest in it", USAGE)
    return catalogue.source_at(os.path.abspath(folder), folder or ".")


def _built(source: Source) -> build.Built:
    """The units of an app that need not be installed, on a machine that need not be a node."""
    try:
        owner = owner_of("/")
    except LookupError:
        owner = _SAMPLE_OWNER
    with tempfile.TemporaryDirectory(prefix="archy-") as work:
        return build.build("/", [source], work, owner)[source.id]


def _problems(source: Source) -> tuple[list[Problem], list[str]]:
    """Everything wrong with an app: its manifest, what this node's Podman says to it, its templates; and notes."""
    app, problems = build.model("/", source)
    if app is None or source.content is None:
        return list(problems), []
    notes: list[str] = []
    if quadlet.exists("/"):
        problems = _built(source).problems
    else:
        notes.append(f"{paths.QUADLET} is not here: not checked against Podman")
    folder = os.path.dirname(source.path)
    for file in app.files:
        try:
            rendering.content(_sample(app, folder), file)
        except (rendering.CannotDerive, UnicodeDecodeError) as error:
            where = os.path.join(folder, file.template or paths.MANIFEST)
            problems = (*problems, Problem(where, 0, 0, "", str(error)))
    try:
        rendering.environment(material := _sample(app, folder, ()))
        rendering.secret_environment(material)
    except rendering.CannotDerive as error:
        problems = (*problems, Problem(source.path, 0, 0, "", str(error)))
    return list(problems), notes


def _sample(app: App, folder: str, files: tuple[GeneratedFile, ...] | None = None) -> Material:
    """What an app's texts could be made of on some node: one on which what it needs is installed."""
    beside = {}
    for name in {file.template for file in (app.files if files is None else files) if file.template}:
        with open(os.path.join(folder, name), encoding="utf-8") as template:
            beside[name] = template.read()
    values = dict.fromkeys(app.secret_names, "0" * 64)
    own = dict.fromkeys(rendering.own_names(app), "")
    host = {"HOST_IP": "192.0.2.1", "HOST_MDNS": "node.local", "DISK_GB": "1000"}
    other = facts.summary(app)
    other["provides"] = rpc.HOST
    apps = {app.id: facts.summary(app), "": other}
    known = rendering.Facts(_SAMPLE_OWNER, settings.parse(None), host, frozenset(), apps)
    return Material(app, beside, values, own, known)


def credentials(options: argparse.Namespace) -> int:
    """archy app credentials."""
    entry = catalogue.entry("/", options.app)
    what = f"credentials {options.app}"
    if entry is None or not entry.installed or entry.app is None:
        where = paths.APPS
        raise CannotDo(what, where, f"no such app is installed: {options.app}", "archy app list", NO_SUCH_APP)
    found = []
    for login in _logins(entry.app):
        content = installed.read(derive.secret_path(login.secret))
        if content is None:
            why = "is not there yet; it is made before the app's first start"
            raise CannotDo(what, derive.secret_path(login.secret), why, f"systemctl start {paths.unit(entry.id)}")
        found.append({"name": login.name, "user": login.user, "password": secret.value(content)})
    if options.json:
        emit({"app": entry.id, "credentials": found})
    elif found:
        table(["FOR", "USER", "PASSWORD"], [[row["name"], row["user"] or "-", row["password"]] for row in found])
    else:
        say(f"{entry.id}: a person needs none")
    return OK


def _logins(app: App) -> tuple[Credential, ...]:
    """What the manifest says; where it says nothing, the plain text of what is stored as a hash."""
    plain = (Credential(one.name, "", f"{one.name}.pw") for one in app.secrets if one.kind == "bcrypt")
    return app.credentials or tuple(plain)


def render(options: argparse.Namespace) -> int:
    """archy app render."""
    if "/" in options.app:
        source = _source_at("render", options.app)
    else:
        entry = catalogue.entry("/", options.app)
        if entry is None:
            where = f"{paths.APPS}, {paths.CATALOGUE}"
            raise CannotDo("render", where, f"there is no app {options.app}", "archy app list shows all", NO_SUCH_APP)
        source = catalogue.source_at(entry.folder, f"{paths.APPS}/{entry.id}")
    built = _built(source)
    if options.json:
        found = [_as_data(problem) for problem in built.problems]
        emit({"app": source.id, "quadlet": built.quadlet, "units": built.units, "problems": found})
        return REFUSED if found else OK
    if built.app is None:
        raise Refused(built.problems)
    for kind, texts in (("Quadlet", built.quadlet), ("unit", built.units)):
        for name, text in texts.items():
            print(f"### {kind} {name}\n{text}")
    return OK
