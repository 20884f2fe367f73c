# SPDX-License-Identifier: MIT
"""`archy app validate` and `archy app render`: what archy makes of a manifest, on any machine; nothing is changed."""

from __future__ import annotations

import os
import tempfile

from archy import errors, paths
from archy.apps import admission, catalogue, facts
from archy.apps.installed import Source
from archy.cli.apps import as_data
from archy.cli.output import print_json
from archy.errors import Problem, Refused
from archy.host.idmap import Owner, owner_of
from archy.manifest import settings
from archy.manifest.model import BITCOIN, App, GeneratedFile
from archy.operations import preflight
from archy.operations.progress import OK, REFUSED, USAGE, CannotDo
from archy.prepare import render as prepare_render
from archy.prepare.render import Inputs
from archy.units import build, quadlet

# For a machine that is no node.
_SAMPLE_IDS = (range(100_000, 165_536),)
_SAMPLE_OWNER = Owner(999, 999, _SAMPLE_IDS, _SAMPLE_IDS)


def validate(path: str, as_json: bool) -> int:
    """archy app validate."""
    source = _source_at("validate", path)
    problems, notes = _problems(source)
    if as_json:
        print_json({"path": path, "ok": not problems, "problems": list(map(as_data, problems)), "notes": notes})
    else:
        for line in (*problems, *(f"note: {note}" for note in notes)):
            print(line)
        if not problems:
            print(f"{path}: ok")
    return REFUSED if problems else OK


def _source_at(what: str, path: str) -> Source:
    """The app in any folder, or of any manifest."""
    folder = path
    if not os.path.isdir(folder):
        folder, name = os.path.split(folder)
        if name != paths.MANIFEST or not os.path.isfile(path):
            reason = f"is not a folder with a {paths.MANIFEST}"
            raise CannotDo(what, path, reason, "give the folder, or the manifest in it", USAGE)
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
    app, problems = admission.model("/", source)
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
            prepare_render.content(_sample(app, folder), file)
        except (errors.CannotDerive, UnicodeDecodeError) as error:
            where = os.path.join(folder, file.template or paths.MANIFEST)
            problems = (*problems, Problem(where, 0, 0, "", str(error)))
    try:
        prepare_render.environment(material := _sample(app, folder, ()))
        prepare_render.secret_environment(material)
    except errors.CannotDerive as error:
        problems = (*problems, Problem(source.path, 0, 0, "", str(error)))
    return list(problems), notes


def _sample(app: App, folder: str, files: tuple[GeneratedFile, ...] | None = None) -> Inputs:
    """Sample inputs of an app's templates, as on a node on which all its needs are installed."""
    templates = {}
    for name in {file.template for file in (app.files if files is None else files) if file.template}:
        with open(os.path.join(folder, name), encoding="utf-8") as template:
            templates[name] = template.read()
    values = dict.fromkeys(app.secret_names, "0" * 64)
    own = dict.fromkeys(prepare_render.own_names(app), "")
    host = {"HOST_IP": "192.0.2.1", "HOST_MDNS": "node.local", "DISK_GB": "1000"}
    other = facts.summary(app)
    other["provides"] = BITCOIN
    apps = {app.id: facts.summary(app), "": other}
    known = prepare_render.Context(_SAMPLE_OWNER, settings.parse(None), host, frozenset(), apps)
    return Inputs(app, templates, values, own, known)


def render(app_id: str, as_json: bool) -> int:
    """archy app render."""
    if "/" in app_id:
        source = _source_at("render", app_id)
    else:
        entry = preflight.find("render", app_id)
        source = catalogue.source_at(entry.folder, f"{paths.APPS}/{entry.id}")
    built = _built(source)
    if as_json:
        problems = list(map(as_data, built.problems))
        print_json({"app": source.id, "quadlet": built.quadlet, "units": built.units, "problems": problems})
        return REFUSED if problems else OK
    if built.app is None:
        raise Refused(built.problems)
    for kind, texts in (("Quadlet", built.quadlet), ("unit", built.units)):
        for name, text in texts.items():
            print(f"### {kind} {name}\n{text}")
    return OK
