# SPDX-License-Identifier: MIT
"""Installed apps to finished units: model, Quadlet text, Quadlet, rewrite. For the generator, the cache and `render`.

One bad app never harms another: it gets its last good version, or a unit that fails and says why.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass, replace

from archy import disk, installed, manifest, paths, quadlet, rewrite
from archy.installed import Source
from archy.model import App
from archy.problem import Problem, Refused
from archy.quoting import Form, quote

_MAX_SAID = 10  # problems that a unit repeats; `archy app validate` shows all


@dataclass(frozen=True)
class Built:
    """The outcome for one app: units by file name, what is wrong with its manifest, and the app that is in force.

    With problems, the units are those of the last good version, or (`app` is None) only state the refusal.
    """

    units: dict[str, str]
    problems: tuple[Problem, ...]
    app: App | None
    quadlet: dict[str, str]


def model(root: str, source: Source) -> tuple[App | None, tuple[Problem, ...]]:
    """The app as its manifest has it now, or what is wrong with that. What was accepted before is not checked again."""
    if source.content is None:
        return None, (Problem(source.path, 0, 0, "", "cannot be read, or is not there"),)
    try:
        known = installed.tree(installed.accepted_folder(root, source.id)) if source.content == source.accepted else None
        if known is not None and source.beside.issuperset(known):
            return manifest.trusted(source.content, source.path), ()
        return manifest.check(source.content, source.path, source.id, source.beside), ()
    except Refused as refused:
        return None, refused.problems
    except Exception as error:  # a fault of ours must not take other apps down with it
        return None, (Problem(source.path, 0, 0, "", f"cannot be understood: {type(error).__name__}: {error}"),)


def last_good(source: Source) -> App | None:
    """The app of the last accepted manifest, if there is one that this version of archy can use."""
    if source.accepted is None:
        return None
    try:
        return manifest.trusted(source.accepted, source.path)
    except Exception:  # accepted by another version of archy: as good as none
        return None


def build(root: str, sources: Iterable[Source], work: str) -> dict[str, Built]:
    """The units of all `sources`, by app. `work` is a directory that temporary files may be written to."""
    todo = list(sources)
    result: dict[str, Built] = {}
    try:
        owner = quadlet.owner_of(root)
    except LookupError as error:
        return {s.id: _refused(root, s, (Problem(s.path, 0, 0, "", str(error)),)) for s in todo}
    models = {source.id: model(root, source) for source in todo}
    asked: dict[str, App] = {app_id: app for app_id, (app, _) in models.items() if app is not None}
    first = _convert(root, {s.id: _text(root, s, asked[s.id], owner, "") for s in todo if s.id in asked}, work)
    again: dict[str, dict[str, str]] = {}
    for source in todo:
        app, problems = models[source.id]
        units, text, reason = first.get(source.id, ({}, {}, ""))
        if app is not None and not reason:
            result[source.id] = Built(units, (), app, text)
            continue
        said = problems or (Problem(source.path, 0, 0, "", f"this node's Podman does not take it: {reason}"),)
        models[source.id] = (None, said)
        good = last_good(source)
        if good is not None:
            asked[source.id] = good
            again[source.id] = _text(root, source, good, owner, f"(last good version: {said[0]})")
        else:
            result[source.id] = _refused(root, source, said)
    for app_id, (units, text, reason) in _convert(root, again, work).items():
        source = next(s for s in todo if s.id == app_id)
        problems = models[app_id][1]
        result[app_id] = _refused(root, source, problems) if reason else Built(units, problems, asked[app_id], text)
    return result


def _text(root: str, source: Source, app: App, owner: quadlet.Owner, note: str) -> dict[str, str]:
    # The folder's name decides what the unit is called, whatever an old version of archy accepted.
    return quadlet.files(replace(app, id=source.id), source.path, owner, root, _one_line(note))


def _convert(root: str, texts: dict[str, dict[str, str]], work: str) -> dict[str, tuple[dict[str, str], dict[str, str], str]]:
    """Run Quadlet once over all texts: per app its units, its Quadlet text, and the reason why there are none."""
    if not texts:
        return {}
    with tempfile.TemporaryDirectory(prefix=".quadlet-", dir=work) as directory:
        source, target = os.path.join(directory, "in"), os.path.join(directory, "out")
        os.mkdir(source)
        os.mkdir(target)
        for name, text in {name: text for files in texts.values() for name, text in files.items()}.items():
            disk.write(os.path.join(source, name), text)
        complaints = _quadlet(root, source, target)
        result = {}
        for app_id, files in texts.items():
            units = {}
            for name in files:
                produced = os.path.join(target, _service_name(name))
                if os.path.exists(produced):
                    with open(produced, encoding="utf-8") as file:
                        units[_service_name(name)] = rewrite.service(file.read(), source)
            lacking = [name for name in files if _service_name(name) not in units]
            reason = "; ".join(line for name in lacking for line in complaints if f'"{name}"' in line)
            result[app_id] = (units, files, (reason or "; ".join(complaints) or "no unit came out") if lacking else "")
        return result


def _service_name(name: str) -> str:
    stem, _, kind = name.rpartition(".")
    return f"{stem}.service" if kind == "container" else f"{stem}-{kind}.service"


def _quadlet(root: str, source: str, target: str) -> list[str]:
    """Run Quadlet; what it complains of, without the prefixes. It goes on after a bad file and exits with 1."""
    program = paths.under(root, paths.QUADLET)
    try:
        done = subprocess.run(
            [program, target],
            env={"QUADLET_UNIT_DIRS": source, "PATH": os.defpath},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            timeout=60,  # systemd gives a generator 90 s
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return [f"{paths.QUADLET} cannot be run: {error}"]
    lines = done.stderr.decode(errors="replace").splitlines()
    return [_one_line(line.partition("]: ")[2] or line).replace(f"{source}/", "") for line in lines]


def _one_line(text: str) -> str:
    return " ".join("".join(char if char.isprintable() else " " for char in text).split())


def _refused(root: str, source: Source, problems: tuple[Problem, ...]) -> Built:
    said = [_one_line(str(problem)) for problem in problems[:_MAX_SAID]]
    if len(problems) > _MAX_SAID:
        said.append(f"and {len(problems) - _MAX_SAID} more: archy app validate {source.path}")
    text = quadlet.render(
        root,
        "refused.service.j2",
        source=source.path,
        description=quote(f"{source.id}: manifest refused: {said[0]}", Form.SETTING),
        reasons=" ".join(quote(line, Form.WORD) for line in said),
    )
    return Built({paths.unit(source.id): text}, problems, None, {})


def leftover(root: str, app_id: str, problems: tuple[Problem, ...]) -> str:
    """The unit of an app that still runs though its manifest is gone, or refused without a good version before."""
    why = _one_line(str(problems[0])) if problems else "its manifest is gone"
    return quadlet.render(
        root,
        "leftover.service.j2",
        description=quote(f"{app_id} (still running, {why})", Form.SETTING),
        why=quote(why, Form.SETTING),
        source=f"{paths.APPS}/{app_id}/{paths.MANIFEST}" if problems else "",
        uid=quadlet.owner_of(root).uid,
    )
