# SPDX-License-Identifier: MIT
"""JSON Schema errors as problems with a place and words. Imports jsonschema, which is slow: import it late."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator
from typing import Any

from jsonschema import Draft202012Validator, ValidationError, validators

from archy.errors import Refused, quoted
from archy.manifest.document import Document, Path

Found = list[tuple[Path, str]]


def _pattern(_validator: Any, pattern: str, instance: Any, _schema: Any) -> Iterator[ValidationError]:
    # JSON Schema's $ is the end of the text; Python's also matches before a line end there.
    if isinstance(instance, str) and not re.search(re.sub(r"\$$", r"\\Z", pattern), instance):
        yield ValidationError("does not match")


def _unique(_validator: Any, key: str, entries: Any, _schema: Any) -> Iterator[ValidationError]:
    """No two entries of a list may have the same value under `key`."""
    seen: dict[str, int] = {}
    for index, entry in enumerate(entries if isinstance(entries, list) else ()):
        value = entry.get(key) if isinstance(entry, dict) else None
        if isinstance(value, str) and seen.setdefault(value, index) != index:
            yield ValidationError(str(seen[value]), path=(index, key))


_extend: Any = validators.extend  # not typed in its stubs

_Validator = _extend(Draft202012Validator, {"pattern": _pattern, "unique": _unique})


def problems(document: Document, schema: dict[str, Any]) -> Found:
    """Everything in `document` that `schema` does not allow: places and reasons."""
    found: set[tuple[Path, str]] = set()
    for error in _Validator(schema).iter_errors(document.data):
        path: Path = tuple(error.absolute_path)
        if error.validator == "additionalProperties":
            known = error.schema.get("properties", {})
            found.update(((*path, key), _unknown(key, known)) for key in set(error.instance) - set(known))
        elif error.validator == "required":
            reason = error.schema.get("reason", "is missing")
            found.update(((*path, key), reason) for key in error.validator_value if key not in error.instance)
        else:
            found.add((path, _reason(error)))
    return list(found)


def refuse(document: Document, found: Iterable[tuple[Path, str]]) -> None:
    """Raise `Refused` with these problems and those of the document itself, if there are any."""
    problems = {*document.problems, *(document.problem(path, reason) for path, reason in found)}
    if problems:
        raise Refused(problems)


def _unknown(key: str, known: dict[str, Any]) -> str:
    near = difflib.get_close_matches(key, known, n=1, cutoff=0.6)
    return "is not a known key" + (
        f"; did you mean {near[0]}?" if near else f"; known here: {', '.join(sorted(known))}"
    )


def _reason(error: Any) -> str:
    value, instance = error.validator_value, error.instance
    match error.validator:
        case "type":
            return f"must be {_names(value)}, is {quoted(instance)}"
        case "enum":
            return f"must be one of {', '.join(map(str, value))}; is {quoted(instance)}"
        case "pattern":
            return f"{error.schema.get('reason', f'must match {value}')}; is {quoted(instance)}"
        case "minimum":
            return f"must be at least {value}, is {instance}"
        case "maximum":
            return f"must be at most {value}, is {instance}"
        case "exclusiveMinimum":
            return f"must be more than {value}, is {instance}"
        case "minLength" | "minItems" | "minProperties":
            return "must not be empty"
        case "maxLength":
            return f"must not be longer than {value} characters"
        case "maxProperties":
            return f"must hold one of {', '.join(error.schema['properties'])}"
        case "uniqueItems":
            return "holds the same value twice"
        case "unique":
            return f"is the same as {error.absolute_path[-3]}[{error.message}]"
        case "not" | "oneOf":
            return str(error.schema["reason"])
    return str(error.message)


def _names(kinds: str | list[str]) -> str:
    names = {
        "object": "a mapping",
        "array": "a list",
        "string": "text",
        "integer": "a whole number",
        "number": "a number",
        "boolean": "true or false",
    }
    return " or ".join(names[kind] for kind in ([kinds] if isinstance(kinds, str) else kinds))
