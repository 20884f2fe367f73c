# SPDX-License-Identifier: MIT
"""A manifest's bytes in; a typed app, or everything that is wrong with it, out.

jsonschema takes longer to import than forty manifests take to render, so it is imported only for a manifest that
nobody has checked before (`check`); a copy of one that was accepted is only typed (`trusted`).
"""

from __future__ import annotations

import functools
import json
import os
from dataclasses import replace
from typing import Any

from archy.document import Document, Path, load, typed
from archy.model import App
from archy.parse import app_of
from archy.problem import Refused

_SCHEMA = os.path.join(os.path.dirname(__file__), "manifest.schema.json")


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
    from archy import rules, validation

    document = _document(content, file)
    problems = validation.problems(document, schema())
    refused = {path for path, _ in problems}
    sound = _without(document.data, refused)
    if isinstance(sound, dict) and isinstance(sound.get("app"), dict):
        found = rules.broken(sound["app"], app_id, beside)
        # What is refused already is not missing, too.
        problems += [(at, why) for at, why in found if not any(path[: len(at)] == at for path in refused)]
    if problems or document.problems:
        raise Refused({*document.problems, *(document.problem(path, reason) for path, reason in problems)})
    return app_of(document.data)


def notes(content: bytes, file: str) -> list[str]:
    """What a valid manifest asks for that has no effect yet, a line each."""
    from archy import validation

    document = _document(content, file)
    return [str(document.problem(path, reason)) for path, reason in validation.notes(document, schema())]


def _document(content: bytes, file: str) -> Document:
    raw = load(content, file, untrusted=True)
    return replace(raw, data=typed(raw.data, schema()))


def _without(data: Any, refused: set[Path], path: Path = ()) -> Any:
    """A copy of `data` without what is refused; in lists, None takes its place."""
    if isinstance(data, dict):
        return {k: _without(v, refused, (*path, k)) for k, v in data.items() if (*path, k) not in refused}
    if isinstance(data, list):
        inner = [(*path, index) for index in range(len(data))]
        return [None if at in refused else _without(item, refused, at) for at, item in zip(inner, data, strict=True)]
    return data
