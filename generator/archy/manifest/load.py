# SPDX-License-Identifier: MIT
"""A manifest's bytes in; a typed app, or everything that is wrong with it, out.

jsonschema takes longer to import than forty manifests take to render, so it is imported only for a manifest that
was not checked before (`check`); a copy of an accepted one is only typed (`trusted`).
"""

from __future__ import annotations

from typing import Any

from archy.errors import Problem
from archy.manifest.document import Path, load, typed
from archy.manifest.model import App
from archy.manifest.parse import app_of
from archy.manifest.schema import document as schema_document
from archy.manifest.schema import schema


def trusted(content: bytes, file: str) -> App:
    """The app of a manifest that was checked and accepted before."""
    return app_of(typed(load(content, file).data, schema("manifest")))


def check(content: bytes, file: str, app_id: str, files: frozenset[str]) -> App:
    """The app of a manifest; raises `Refused` with every problem in it.

    `app_id` is the name of the folder, `files` the relative paths of the files in it.
    """
    from archy.manifest import rules, validation

    document = schema_document(content, file, "manifest")
    problems = validation.problems(document, schema("manifest"))
    refused = {path for path, _ in problems}
    sound = _without(document.data, refused)
    if isinstance(sound, dict) and isinstance(sound.get("app"), dict):
        found = rules.broken(sound["app"], app_id, files)
        # A value that the schema refuses is not reported as missing, too.
        problems += [(at, reason) for at, reason in found if not any(path[: len(at)] == at for path in refused)]
    validation.refuse(document, problems)
    return app_of(document.data)


def data(content: bytes, file: str) -> dict[str, Any]:
    """The data of a manifest that can be read: also what is for people only."""
    result: dict[str, Any] = typed(load(content, file).data, schema("manifest"))
    return result


def placed(content: bytes, file: str, found: list[tuple[Path, str]]) -> tuple[Problem, ...]:
    """Places in a manifest that can be read, and what is wrong there, as problems."""
    document = load(content, file)
    return tuple(document.problem(path, reason) for path, reason in found)


def _without(data: Any, refused: set[Path], path: Path = ()) -> Any:
    """A copy of `data` without what is refused; in lists, None takes its place."""
    if isinstance(data, dict):
        return {k: _without(v, refused, (*path, k)) for k, v in data.items() if (*path, k) not in refused}
    if isinstance(data, list):
        inner = [(*path, index) for index in range(len(data))]
        return [None if at in refused else _without(item, refused, at) for at, item in zip(inner, data, strict=True)]
    return data
