# SPDX-License-Identifier: MIT
"""Installed apps to finished units: model, Quadlet text, Quadlet, rewrite. For the generator, the cache and `render`.

One bad app never harms another: it gets its last good version, or a unit that fails and says why.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from archy import circles, claims, facts, grants, installed, look, manifest, paths, quadlet
from archy.convert import Texts, convert, one_line
from archy.document import Path
from archy.installed import Source
from archy.model import App
from archy.owner import Owner, owner_of
from archy.problem import Problem, Refused
from archy.quoting import Form, prose, quote
from archy.templates import render

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


def model(root: str, source: Source) -> tuple[App | None, tuple[Problem, ...]]:
    """The app as its manifest has it now, or what is wrong with that. What was accepted before is not checked again."""
    if source.content is None:
        return None, (Problem(source.path, 0, 0, "", "cannot be read, or is not there"),)
    if paths.MANIFEST not in source.beside:  # it could not be kept as the last good version
        return None, (Problem(source.path, 0, 0, "", "must be a file, not a link"),)
    try:
        if installed.is_accepted(root, source):
            app, found = manifest.trusted(source.content, source.path), []
        else:
            app = manifest.check(source.content, source.path, source.id, source.beside)
            found = _other_data(source, app)
        found = [*_lacking(root, app), *found]
        return (None, manifest.placed(source.content, source.path, found)) if found else (app, ())
    except Refused as refused:
        return None, refused.problems
    except Exception as error:  # a fault of ours must not take other apps down with it
        return None, (Problem(source.path, 0, 0, "", f"cannot be understood: {type(error).__name__}: {error}"),)


def _lacking(root: str, app: App) -> list[tuple[Path, str]]:
    known = named(root, app)
    return grants.lacking(app, granted(root), known) if grants.wishes(app, known) else []


def named(root: str, app: App) -> frozenset[str]:
    """The apps that the node knows whose things, by their names, the app uses."""
    parts = {part for claim in claims.claims(app) for part in claims.parts(claim)}
    return frozenset(part for part in parts if installed.is_known(root, part))


def granted(root: str) -> grants.Grants:
    """The grants that are in force: the last good ones, if the file has turned bad."""
    for path in (paths.GRANTS, paths.ACCEPTED_GRANTS):
        try:
            return grants.parse(look.content(root, path), path)
        except Refused:
            continue
    return {}


def _other_data(source: Source, app: App) -> list[tuple[Path, str]]:
    """Whether another version of the app's data is wanted than the one there is: nobody has converted it."""
    before = _accepted(source)
    if before is None or not before.data_version or before.data_version == app.data_version:
        return []
    why = f"must stay {before.data_version}, of which there is data; to go on with another, convert the data first"
    return [(("app", "container", "data_version"), f"{why}, then archy app remove {source.id} and install it again")]


def last_good(root: str, source: Source) -> App | None:
    """The app of the last accepted manifest, if this version of archy can use it, and it has the grants it needs."""
    app = _accepted(source)
    return app if app and not _lacking(root, app) else None


def _accepted(source: Source) -> App | None:
    if source.accepted is None:
        return None
    try:
        return manifest.trusted(source.accepted, source.path)
    except Exception:  # accepted by another version of archy: as good as none
        return None


def build(root: str, sources: Iterable[Source], work: str, owner: Owner | None = None) -> dict[str, Built]:
    """The units of all `sources`, by app, for the node's service user or for `owner`.

    `work` is a directory that temporary files may be written to.
    """
    todo = {source.id: source for source in sources}
    try:
        owner = owner or owner_of(root)
    except LookupError as error:
        return {s.id: _refused(root, s, (Problem(s.path, 0, 0, "", str(error)),)) for s in todo.values()}
    models = {app_id: model(root, source) for app_id, source in todo.items()}
    good = {app_id: app for app_id, (app, _) in models.items() if app is not None}
    problems = {app_id: said for app_id, (_, said) in models.items() if said} | _circles(root, todo, good)
    good = {app_id: app for app_id, app in good.items() if app_id not in problems}
    result = _convert(root, todo, good, problems, owner, work)
    if problems:
        fallback = {app_id: app for app_id in problems if (app := last_good(root, todo[app_id])) is not None}
        result |= _convert(root, todo, fallback, problems, owner, work)
    return {
        app_id: result[app_id] if app_id in result else _refused(root, source, problems[app_id])
        for app_id, source in todo.items()
    }


def _circles(root: str, sources: dict[str, Source], apps: dict[str, App]) -> dict[str, tuple[Problem, ...]]:
    """What is wrong with those of `apps` that would wait for themselves, among all that are installed."""
    new = [app_id for app_id in apps if not installed.is_accepted(root, sources[app_id])]
    if not new:
        return {}
    known = facts.load(root)["apps"]
    there = {}
    for app_id in installed.ids(root)[0]:
        # One that is refused for the circle counts as well, whichever of them is looked at alone.
        judged = app_id in known or app_id in sources
        app = apps.get(app_id) or (None if judged else model(root, installed.source(root, app_id))[0])
        if app or app_id in known:
            there[app_id] = facts.summary(app) if app else known[app_id]
    found = circles.closed(there, [app_id for app_id in new if app_id in there])
    return {
        app_id: manifest.placed(sources[app_id].content or b"", sources[app_id].path, [problem])
        for app_id, problem in found.items()
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
            texts[app_id] = quadlet.files(replace(app, id=app_id), sources[app_id].path, owner, root, note)
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
