# SPDX-License-Identifier: MIT
"""YAML to plain data that remembers where each value stands.

Scalars are not guessed: what stands in the file unquoted is text until the schema asks for a number or a boolean
(`typed`). That ends the traps of YAML 1.1, where `10025:25` is a number, `yes` a boolean and `1.10` equals `1.1`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import yaml

from archy.errors import Problem, Refused

MAX_BYTES = 256 * 1024
MAX_NODES = 20_000  # after aliases are followed: what a "YAML bomb" multiplies
MAX_DEPTH = 24

Path = tuple[str | int, ...]

# The C parser is ten times as fast; both behave alike.
_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

_INTEGER = re.compile(r"[-+]?(0|[1-9][0-9]{0,17})")
_NUMBER = re.compile(r"[-+]?(0|[1-9][0-9]{0,17})(\.[0-9]+)?")
_PLAIN_TAGS = {f"tag:yaml.org,2002:{name}" for name in ("str", "int", "float", "bool", "null", "timestamp", "value")}

_PLAIN_TAGS |= {"tag:yaml.org,2002:map", "tag:yaml.org,2002:seq", "tag:yaml.org,2002:merge"}


class Plain(str):
    """A scalar that stands unquoted in the file: text, unless the schema wants a number or a boolean there."""

    __slots__ = ()


@dataclass(frozen=True)
class Document:
    """The data of one file and the place (line, column) of every key and value in it.

    `problems` are those that leave the rest of the file readable: a key given twice.
    """

    file: str
    data: Any
    marks: dict[Path, tuple[int, int]] = field(repr=False)
    problems: tuple[Problem, ...] = ()

    def problem(self, path: Path, reason: str) -> Problem:
        """A problem at `path`, or at the nearest place above it that the file has."""
        at = path
        while at not in self.marks and at:
            at = at[:-1]
        line, column = self.marks.get(at, (1, 1))
        return Problem(self.file, line, column, key_name(path), reason)


def key_name(path: Path) -> str:
    """A path as a person writes it: `app.ports[0].host`."""
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path)
    return text.removeprefix(".")


def load(content: bytes, file: str, untrusted: bool = False, may_be_empty: bool = False) -> Document:
    """Parse one YAML document; raises `Refused` with all that is wrong with it as YAML.

    `untrusted`: it was not checked before, so it may be nested deep enough to crash the parser.
    """
    if len(content) > MAX_BYTES:
        raise Refused([Problem(file, 1, 1, "", f"is larger than {MAX_BYTES // 1024} KiB")])
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        column = error.start - (content.rfind(b"\n", 0, error.start) + 1) + 1
        raise Refused([Problem(file, line, column, "", "is not UTF-8 text")]) from None
    try:
        if untrusted:
            _check_depth(text, file)
        loader = _Loader(text)
        try:
            root = loader.get_single_node()
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
        reason = " ".join(part for part in (error.context, error.problem) if part)
        raise Refused([Problem(file, line, column, "", f"is not valid YAML: {reason}")]) from None
    except yaml.YAMLError as error:
        line, column = _place_of(text, getattr(error, "position", None))
        reason = str(getattr(error, "reason", error)).splitlines()[0]
        raise Refused([Problem(file, line, column, "", f"is not valid YAML: {reason}")]) from None
    except RecursionError:  # only yaml's own parser, where libyaml is not there
        raise Refused([Problem(file, 1, 1, "", f"is nested more than {MAX_DEPTH} levels deep")]) from None
    if root is None and may_be_empty:
        return Document(file, {}, {})
    if root is None:
        raise Refused([Problem(file, 1, 1, "", "is empty")])
    builder = _Builder(file)
    data = builder.build(root, ())
    if builder.fatal:
        raise Refused(builder.problems)
    return Document(file, data, builder.marks, tuple(builder.problems))


def _check_depth(text: str, file: str) -> None:
    """Refuse what is nested too deep. libyaml's composer recurses in C, and would end the process; events do not."""
    depth = 0
    for event in yaml.parse(text, Loader=_Loader):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        if depth > MAX_DEPTH:
            mark: Any = event.start_mark
            reason = f"is nested more than {MAX_DEPTH} levels deep"
            raise Refused([Problem(file, mark.line + 1, mark.column + 1, "", reason)])


def _place_of(text: str, position: object) -> tuple[int, int]:
    if not isinstance(position, int):
        return (1, 1)
    return (text.count("\n", 0, position) + 1, position - text.rfind("\n", 0, position))


class _Builder:
    def __init__(self, file: str) -> None:
        self.file = file
        self.marks: dict[Path, tuple[int, int]] = {}
        self.problems: list[Problem] = []
        self.fatal = False
        self.nodes = 0
        self.deep = False

    def say(self, node: Any, path: Path, reason: str, fatal: bool = True) -> None:
        self.fatal |= fatal
        mark = node.start_mark
        self.problems.append(Problem(self.file, mark.line + 1, mark.column + 1, key_name(path), reason))

    def build(self, node: Any, path: Path) -> Any:
        self.nodes += 1
        if self.nodes > MAX_NODES:
            if self.nodes == MAX_NODES + 1:
                self.say(node, path, f"expands to more than {MAX_NODES} values")
            return None
        if len(path) > MAX_DEPTH:  # by aliases, which may also lead back to themselves
            if not self.deep:  # once: circles have many such places
                self.say(node, path[:4], f"is nested more than {MAX_DEPTH} levels deep")
            self.deep = True
            return None
        self.marks.setdefault(path, (node.start_mark.line + 1, node.start_mark.column + 1))
        if node.tag not in _PLAIN_TAGS:
            self.say(node, path, f"the tag {node.tag} is not allowed here")
            return None
        if isinstance(node, yaml.MappingNode):
            return self.mapping(node, path)
        if isinstance(node, yaml.SequenceNode):
            return [self.build(item, (*path, index)) for index, item in enumerate(node.value)]
        if not node.style and node.value in ("", "~", "null", "Null", "NULL"):
            return None
        return node.value if node.style else Plain(node.value)

    def mapping(self, node: Any, path: Path) -> dict[str, Any]:
        result: dict[str, Any] = {}
        for key_node, value_node in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                self.say(key_node, path, "a key must be text")
                continue
            key = key_node.value
            inner = (*path, key)
            if key in result:
                self.say(key_node, inner, f"is given twice, first in line {self.marks[inner][0]}", fatal=False)
                continue
            self.marks[inner] = (key_node.start_mark.line + 1, key_node.start_mark.column + 1)
            result[key] = self.build(value_node, inner)
        return result


def typed(data: Any, schema: dict[str, Any], root: dict[str, Any] | None = None) -> Any:
    """`data` with unquoted text turned into the number or boolean that `schema` (a JSON Schema) asks for.

    Text of another form stays text, for the validation to refuse.
    """
    root = schema if root is None else root
    options = list(_options(schema, root))
    if isinstance(data, Plain):
        return _scalar(data, {kind for option in options for kind in _kinds(option)})
    if isinstance(data, list):
        inner: dict[str, Any] = next((option["items"] for option in options if "items" in option), {})
        return [typed(item, inner, root) for item in data]
    if isinstance(data, dict):
        known: dict[str, Any] = {}
        rest: dict[str, Any] = {}
        for option in options:
            known.update(option.get("properties", {}))
            rest = option.get("additionalProperties") or rest
        rest = rest if isinstance(rest, dict) else {}
        return {key: typed(value, known.get(key, rest), root) for key, value in data.items()}
    return data


def _options(schema: dict[str, Any], root: dict[str, Any]) -> Iterator[dict[str, Any]]:
    if "$ref" in schema:
        yield from _options(root["$defs"][schema["$ref"].rpartition("/")[2]], root)
        return
    yield schema
    for keyword in ("oneOf", "anyOf"):
        for option in schema.get(keyword, ()):
            yield from _options(option, root)


def _kinds(schema: dict[str, Any]) -> list[str]:
    kinds = schema.get("type", [])
    return [kinds] if isinstance(kinds, str) else kinds


def _scalar(text: Plain, kinds: set[str]) -> Any:
    if "integer" in kinds and _INTEGER.fullmatch(text):
        return int(text)
    if "number" in kinds and _NUMBER.fullmatch(text):
        return float(text)
    if "boolean" in kinds and text in ("true", "True", "TRUE", "false", "False", "FALSE"):
        return text.lower() == "true"
    return str(text)
