# SPDX-License-Identifier: MIT
"""YAML as it stands in the file: nothing guessed, every place remembered, everything hostile refused by name."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
import yaml
from support import REPO

from archy.errors import Problem, Refused
from archy.manifest import document as manifest_document
from archy.manifest.document import MAX_BYTES, load, typed

GENERATOR = str(REPO / "generator")
LOADERS = [pytest.param(yaml.CSafeLoader, id="C"), pytest.param(yaml.SafeLoader, id="Python")]


@pytest.fixture(params=LOADERS)
def loader(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> type:
    """Both parsers of PyYAML, in turn: which one a node has must make no difference."""
    monkeypatch.setattr(manifest_document, "_Loader", request.param)
    found: type = request.param
    return found


def refusal(content: str | bytes) -> list[str]:
    with pytest.raises(Refused) as refused:
        load(content.encode() if isinstance(content, str) else content, "f.yml", untrusted=True)
    return [str(problem) for problem in refused.value.problems]


BOMB = "a: &a [x,x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{chr(98 + n)}: &{chr(98 + n)} [{','.join([f'*{chr(97 + n)}'] * 10)}]\n" for n in range(8)
)


@pytest.mark.usefixtures("loader")
@pytest.mark.parametrize(
    ("content", "expected"),
    [
        pytest.param("", ["f.yml:1:1: is empty"], id="empty"),
        pytest.param("# only a comment\n", ["f.yml:1:1: is empty"], id="comment-only"),
        pytest.param(
            "a: !!python/object:os.system x\n",
            ["f.yml:1:4: a: the tag tag:yaml.org,2002:python/object:os.system is not allowed here"],
            id="python-object",
        ),
        pytest.param(
            "a: !!binary aGk=\nb: !own 1\nc: !!set {x}\n",
            [
                "f.yml:1:4: a: the tag tag:yaml.org,2002:binary is not allowed here",
                "f.yml:2:4: b: the tag !own is not allowed here",
                "f.yml:3:4: c: the tag tag:yaml.org,2002:set is not allowed here",
            ],
            id="tags",
        ),
        pytest.param("? [a, b]\n: 1\n", ["f.yml:1:3: a key must be text"], id="list-as-key"),
        pytest.param("a: \xff".encode("latin-1"), ["f.yml:1:4: is not UTF-8 text"], id="latin-1"),
        pytest.param(b"a: 1\nbc: x\xfe\n", ["f.yml:2:6: is not UTF-8 text"], id="bytes-in-line-2"),
        pytest.param("a: 1\n".encode("utf-16"), ["f.yml:1:1: is not UTF-8 text"], id="utf-16"),
        pytest.param(b"a: " + b"x" * MAX_BYTES, ["f.yml:1:1: is larger than 256 KiB"], id="just-too-large"),
        pytest.param(b"# x\n" * 2_500_000, ["f.yml:1:1: is larger than 256 KiB"], id="10-MB"),
        pytest.param(BOMB, ["f.yml:1:24: e[0][6][8][8][8]: expands to more than 20000 values"], id="bomb"),
        pytest.param("a: &x [*x]\n", ["f.yml:1:4: a[0][0][0]: is nested more than 24 levels deep"], id="endless-alias"),
        pytest.param("[" * 30 + "]" * 30, ["f.yml:1:25: is nested more than 24 levels deep"], id="deep"),
    ],
)
def test_refused(content: str | bytes, expected: list[str]) -> None:
    assert refusal(content) == expected


@pytest.mark.usefixtures("loader")
def test_keys_given_twice_leave_the_rest_readable() -> None:
    document = load(b"a: 1\nb:\n  c: 2\na: 3\n'a': 4\n", "f.yml")
    said = [f"f.yml:{line}:1: a: is given twice, first in line 1" for line in (4, 5)]
    assert [str(problem) for problem in document.problems] == said
    assert document.data == {"a": "1", "b": {"c": "2"}}


@pytest.mark.parametrize(
    ("content", "place", "reason"),
    [
        pytest.param("a: 1\n--- \nb: 2\n", "2:1", "but found another document", id="several-documents"),
        pytest.param("a:\n\tb: 1\n", "2:1", "cannot start any token", id="tab"),
        pytest.param("a: 'x\nb: 1\n", "3:1", "unexpected end of stream", id="unclosed-quote"),
        pytest.param("a: *nobody\n", "1:4", "undefined alias", id="undefined-alias"),
        pytest.param("a: [1, 2\nb: 1\n", "2:2", "expected ',' or ']'", id="unclosed-list"),
        pytest.param("a: b: c\n", "1:5", "mapping values are not allowed", id="two-colons"),
        pytest.param(" a: 1\nb: 2\n", "2:1", "", id="indentation"),
        pytest.param("a: {{X}}\n", "1:5", "a key must be text", id="unquoted-braces"),
        pytest.param("a: x\0y\n", "1:5", "", id="NUL"),
        pytest.param("a: 1\nb: \x1b[31m\n", "2:4", "", id="escape-sequence"),
        pytest.param("a: %x\n", "1:4", "cannot start any token", id="percent"),
        pytest.param('a: "\\q"\n', "1:", "unknown escape character", id="unknown-escape"),
    ],
)
def test_not_yaml(loader: type, content: str, place: str, reason: str) -> None:
    """The parsers word these differently, but name the same place."""
    (message,) = refusal(content)
    assert message.startswith(f"f.yml:{place}")
    assert "is not valid YAML: " in message or reason == "a key must be text"
    if loader is yaml.CSafeLoader or reason == "a key must be text":
        assert reason in message
    assert "\n" not in message


@pytest.mark.programs
@pytest.mark.parametrize("kind", ["CSafeLoader", "SafeLoader"])
@pytest.mark.parametrize("content", ["'[' * 100_000", "'{a: ' * 50_000", "'- ' * 100_000", "'? ' * 100_000"])
def test_nested_very_deep_is_refused_and_does_not_crash(content: str, kind: str) -> None:
    """In a process of its own: a parser that recurses in C may kill it, and with it all other apps' units."""
    program = f"""import yaml; from archy.manifest import document; document._Loader = yaml.{kind}
try:
    document.load(({content}).encode(), 'f.yml', untrusted=True)
except document.Refused as refused:
    print(refused)"""
    done = subprocess.run(
        [sys.executable, "-c", program], env={"PYTHONPATH": GENERATOR}, capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (0, "")
    place, _, reason = done.stdout.partition(": ")
    assert place.startswith("f.yml:1:")
    assert reason == "is nested more than 24 levels deep\n"


@pytest.mark.usefixtures("loader")
def test_yaml_1_1_does_not_corrupt_values() -> None:
    text = """
port: 10025:25
answer: yes
onoff: [on, off, No, y]
version: 1.10
mode: 0755
octal: 0o17
hex: 0x1F
under: 1_000
date: 2001-12-14
time: 12:30:45
stamp: 2001-12-14 21:59:43.10
exp: 1e3
inf: .inf
merge: <<
equals: =
text: "~"
none: [~, null, , '', ""]
"""
    data = load(text.replace("null, ,", "null,").encode(), "f").data
    assert data.pop("none") == [None, None, "", ""]
    assert data.pop("onoff") == ["on", "off", "No", "y"]
    assert data == {
        "port": "10025:25",
        "answer": "yes",
        "version": "1.10",
        "mode": "0755",
        "octal": "0o17",
        "hex": "0x1F",
        "under": "1_000",
        "date": "2001-12-14",
        "time": "12:30:45",
        "stamp": "2001-12-14 21:59:43.10",
        "exp": "1e3",
        "inf": ".inf",
        "merge": "<<",
        "equals": "=",
        "text": "~",
    }


SCHEMA = {
    "properties": {
        "n": {"type": "integer"},
        "f": {"type": "number"},
        "b": {"type": "boolean"},
        "s": {"type": "string"},
        "u": {"$ref": "#/$defs/either"},
        "l": {"items": {"type": "integer"}},
        "m": {"additionalProperties": {"type": "integer"}},
        "o": {"oneOf": [{"type": "string"}, {"properties": {"n": {"type": "integer"}}}]},
    },
    "$defs": {"either": {"type": ["integer", "string"]}},
}


@pytest.mark.usefixtures("loader")
@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("n: 10", 10),
        ("n: +3", 3),
        ("n: 0", 0),
        ("n: 0755", "0755"),
        ("n: 0x10", "0x10"),
        ("n: 1.0", "1.0"),
        ("n: ٣", "٣"),
        ("n: '10'", "10"),
        ("n: 10:25", "10:25"),
        ("n: yes", "yes"),
        ("n:", None),
        ("f: 0.5", 0.5),
        ("f: 2", 2.0),
        ("f: .5", ".5"),
        ("f: 1e3", "1e3"),
        ("b: true", True),
        ("b: FALSE", False),
        ("b: yes", "yes"),
        ("b: 'true'", "true"),
        ("b: 1", "1"),
        ("s: 10", "10"),
        ("s: 1.10", "1.10"),
        ("u: 8080", 8080),
        ("u: a", "a"),
        ("l: [1, x, '2']", [1, "x", "2"]),
        ("m: {a: 1, b: c}", {"a": 1, "b": "c"}),
        ("o: {n: 1}", {"n": 1}),
        ("x: 1", "1"),
    ],
)
def test_a_value_is_what_the_schema_asks_for(text: str, value: Any) -> None:
    (found,) = typed(load(text.encode(), "f").data, SCHEMA).values()
    assert (found, type(found)) == (value, type(value))


def test_both_loaders_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = [
        b"a: &x {b: [1, 'c', \"d\\n\"]}\ne: *x\n|\n"[:-2],
        "\ufeffk: ä\r\nl: |\r\n  x\r\n  y\r\n".encode(),
        b"[]",
        b"x",
    ]
    results = []
    for one in (yaml.CSafeLoader, yaml.SafeLoader):
        monkeypatch.setattr(manifest_document, "_Loader", one)
        loaded = [load(text, "f") for text in texts]
        results.append([(found.data, found.marks) for found in loaded])
    assert results[0] == results[1]
    assert results[0][0][0] == {"a": {"b": ["1", "c", "d\n"]}, "e": {"b": ["1", "c", "d\n"]}}


@pytest.mark.usefixtures("loader")
def test_places() -> None:
    found = load(b"app:\n  ports:\n    - host: 1\n      bind: x\n    -   host: 2\n", "f.yml")
    assert found.problem(("app", "ports", 1, "host"), "no") == Problem("f.yml", 5, 9, "app.ports[1].host", "no")
    assert found.problem(("app", "ports", 0, "auth"), "no") == Problem("f.yml", 3, 7, "app.ports[0].auth", "no")
    assert str(found.problem((), "no")) == "f.yml:1:1: no"
    assert str(Problem("f.yml", 0, 0, "", "no")) == "f.yml: no"
