# SPDX-License-Identifier: MIT
"""Installed apps to finished units: model, Quadlet text, Quadlet, rewrite. For the generator, the cache and `render`.

One bad app never harms another: it gets its last good version, or a unit that fails and says why.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass, replace

from archy import paths
from archy.apps import admission, installed
from archy.apps.installed import Source
from archy.errors import Problem
from archy.host import read, write
from archy.host.idmap import Owner, owner_of
from archy.manifest.model import App
from archy.units import cache
from archy.units import quadlet as units_quadlet
from archy.units.convert import Texts, convert, one_line
from archy.units.quoting import Form, prose, quote
from archy.units.templates import render

_MAX_SAID = 10  # problems that a unit repeats; `archy app validate` shows all


@dataclass(frozen=True)
class Built:
    """The outcome for one app: units by file name, what is wrong with its manifest, and the app that is in force.

    With problems, the units are those of the last good version, or (`app` is None) only state the refusal.
    """

    units: Texts
    problems: tuple[Problem, ...]
    app: App | None
    quadlet: Texts


def build(root: str, sources: Iterable[Source], work: str, owner: Owner | None = None) -> dict[str, Built]:
    """The units of all `sources`, by app, for the node's service user or for `owner`.

    `work` is a directory that temporary files may be written to.
    """
    todo = {source.id: source for source in sources}
    try:
        owner = owner or owner_of(root)
    except LookupError as error:
        return {s.id: _refused(root, s, (Problem(s.path, 0, 0, "", str(error)),)) for s in todo.values()}
    models = {app_id: admission.model(root, source) for app_id, source in todo.items()}
    good = {app_id: app for app_id, (app, _) in models.items() if app is not None}
    problems = {app_id: said for app_id, (_, said) in models.items() if said} | admission._circles(root, todo, good)
    good = {app_id: app for app_id, app in good.items() if app_id not in problems}
    result = _convert(root, todo, good, problems, owner, work)
    if problems:
        fallback = {app_id: app for app_id in problems if (app := admission.last_good(root, todo[app_id])) is not None}
        result |= _convert(root, todo, fallback, problems, owner, work)
    return {
        app_id: result[app_id] if app_id in result else _refused(root, source, problems[app_id])
        for app_id, source in todo.items()
    }


def _convert(
    root: str,
    sources: dict[str, Source],
    apps: dict[str, App],
    problems: dict[str, tuple[Problem, ...]],
    owner: Owner,
    work: str,
) -> dict[str, Built]:
    """Convert `apps`. One that this node's Podman does not take is left out and added to `problems`."""
    texts: dict[str, Texts] = {}
    reasons: dict[str, str] = {}
    for app_id, app in apps.items():
        said = problems.get(app_id, ())
        note = one_line(f"(last good version: {said[0]})") if said else ""
        # The folder's name decides what the unit is called, whatever an old version of archy accepted.
        try:
            texts[app_id] = units_quadlet.files(replace(app, id=app_id), sources[app_id].path, owner, root, note)
        except Exception as error:  # a fault of ours must not take other apps down with it
            reasons[app_id] = f"cannot be written as Quadlet text: {error}"
    units, complaints = convert(root, texts, work)
    reasons |= {app_id: f"this node's Podman does not take it: {said}" for app_id, said in complaints.items()}
    result = {
        app_id: Built(found, problems.get(app_id, ()), apps[app_id], texts[app_id]) for app_id, found in units.items()
    }
    for app_id, reason in reasons.items():
        refusal = Problem(sources[app_id].path, 0, 0, "", reason)
        problems.setdefault(app_id, (refusal,))
    return result


def _refused(root: str, source: Source, problems: tuple[Problem, ...]) -> Built:
    said = [one_line(str(problem)) for problem in problems[:_MAX_SAID]]
    if len(problems) > _MAX_SAID:
        said.append(f"and {len(problems) - _MAX_SAID} more: archy app validate {source.path}")
    text = render(
        root,
        "refused.service.j2",
        source=source.path,
        description=prose(f"{source.id}: manifest refused: {said[0]}"),
        reasons=" ".join(quote(line, Form.WORD) for line in said),
    )
    return Built({paths.unit(source.id): text}, problems, None, {})


def leftover(root: str, app_id: str, problems: tuple[Problem, ...]) -> str:
    """The unit of an app that still runs though its manifest is gone, or refused without a good version before."""
    why = one_line(str(problems[0])) if problems else "its manifest is gone"
    return render(
        root,
        "leftover.service.j2",
        description=prose(f"{app_id} (still running, {why})"),
        why=prose(why),
        source=f"{paths.APPS}/{app_id}/{paths.MANIFEST}" if problems else "",
        uid=owner_of(root).uid,
    )


def keep(root: str, source: Source, built: Built) -> None:
    """Keep the units for the generator, under the key that it will look for.

    A refusal is not kept: the generator then says again, at every reload, what is wrong.
    """
    now = installed.source(root, source.id)
    if now.content != source.content or now.files != source.files or built.app is None:
        return
    path, content = paths.units_path(source.id), cache.pack(cache.units_key(cache.toolchain(root), now), built.units)
    if read.content(root, path) != content:
        write.replace_file(root, path, content, os.geteuid(), os.getegid(), 0o644)
