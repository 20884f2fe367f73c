# SPDX-License-Identifier: MIT
# ruff: noqa: E501 - a case is a line
"""Manifests made from their JSON Schema, with nasty text wherever it allows some (test_property.py)."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

from hypothesis import strategies as st

from archy.manifest import rules, validation
from archy.manifest import schema as manifest_schema

BESIDE = frozenset({"manifest.yml", "web.conf.j2", "sub/x.j2", "image/Containerfile"})
D = "/var/lib/archipelago/web"
NASTY = [
    *("%", "%%", "%n", "100%", "$", "$$", "$HOME", "${X}", "$(id)", "`id`", '"', "'", '"a b"', "\\", "\\\\", "\\n", "\\x41"),
    *(" ", "  ", "\t", "\n", "\u2028", "\x85", "\u00a0", ";", "|", "||", "&", "&&", ">", "<", "#", "=", ",", ":", "@", "!"),
    *("a", "Z9", "é", "₿", "🟠", "a\u0301", "[Service]", "-x", "--privileged", "{", "}", "{{", "*", "?", "~", "/", "."),
    *("\x07", "\x7f", "ExecStartPre=+evil", "app-1.b_c"),
]  # fmt: skip
_TEXT = st.lists(st.sampled_from(NASTY), max_size=6).map("".join)
_LINE = _TEXT.filter(lambda text: not re.search(r"[\x00-\x1f\x7f]", text))
# What a pattern may want before anything nasty can follow.
_BEGINNINGS = (
    "",
    "/",
    "a",
    "A",
    "A=",
    "a=",
    "a/",
    "1",
    "/dev/a",
    "localhost/a:1",
    "web:1.2.3.4",
    "30s",
    "256Mi",
    "44",
    "0640",
)
Strategy = st.SearchStrategy[Any]


def _matching(pattern: str) -> Strategy:
    """Text that a pattern takes: nasty, as far as that goes, and whatever else it takes."""
    whole = re.compile(re.sub(r"\$$", r"\\Z", pattern))
    begun = [text for text in _BEGINNINGS if whole.search(text)]
    plain = [text for text in (*NASTY, *(a + b for a in _BEGINNINGS for b in NASTY)) if whole.search(text)]
    if not plain:
        return st.from_regex(whole, fullmatch=True)
    longer = st.tuples(st.sampled_from(begun or plain), st.lists(st.sampled_from(NASTY), max_size=5).map("".join)).map(
        "".join
    )
    return st.one_of(
        st.sampled_from(plain), longer.filter(whole.search) if len(plain) > 150 else st.sampled_from(plain)
    )


def _below(*bases: str) -> Strategy:
    """Paths below these, of which some are none that archy takes."""
    return st.tuples(
        st.sampled_from(bases), st.sampled_from(["", "/a", "/é", "/100%", "/a$b", "/#a", "/[x]", "/a b", "/.."])
    ).map("".join)


_WORDS = st.lists(_TEXT.filter(bool), min_size=1, max_size=4)
_CHECKS: Strategy = st.one_of(
    st.fixed_dictionaries({"type": st.just("exec"), "command": _WORDS}),
    st.fixed_dictionaries({"test": st.one_of(_TEXT, _WORDS.map(lambda words: ["CMD", *words]))}),
    st.fixed_dictionaries({"test": _TEXT.map(lambda text: ["CMD-SHELL", text]), "retries": st.integers(1, 9)}),
    st.fixed_dictionaries({"type": st.just("tcp"), "endpoint": st.just("localhost:81"), "timeout": st.just("7s")}),
    st.fixed_dictionaries(
        {
            "type": st.just("http"),
            "endpoint": st.just("http://localhost:80"),
            "path": st.sampled_from(["/", "/a?b=$c&d=%e;'f\"g\\"]),
        }
    ),
)
# What a rule wants beyond the schema, by its path: random text would hardly ever be right.
_RIGHT: dict[str, Strategy] = {
    "app.id": st.just("web"),
    "app.name": _LINE.map(lambda text: f"W{text}"),
    "app.version": _LINE.map(lambda text: f"1{text}"),
    "app.metadata": st.just({}),
    "app.provides": st.sampled_from(["other", "bitcoin"]),
    "app.companion_of": st.sampled_from(["whole", "db"]),
    "app.part_of": st.sampled_from(["whole", "db"]),
    "app.dependencies[]": st.sampled_from(
        [{"storage": "1Gi"}, {"app_id": "db"}, {"app_id": "b", "required": False}, {"bitcoin": "synced"}, {"bitcoin": "any"}]
    ),
    "app.health_check": _CHECKS,
    "app.ports[]": st.builds(
        lambda host, span, protocol, bind: {
            "host": f"{host}-{host + span}" if span else host, "container": f"1-{1 + span}" if span else 1, "protocol": protocol, "bind": bind
        },
        st.integers(1024, 9000), st.integers(0, 5), st.sampled_from(["tcp", "udp"]), st.sampled_from(["0.0.0.0", "::1", "::", "127.0.0.1"]),
    ),
    "app.volumes[].source": _below(D, f"{D}-more", "/srv", "/run/user/990/podman/podman.sock", "named"),
    "app.hooks.pre_start[].copy_from_host.src": st.sampled_from(["web.conf.j2", "sub", "/usr/share/archy/files/ca"]),
    "app.hooks.post_install[].copy_from_host.src": st.sampled_from(["web.conf.j2", "sub"]),
    "app.container.network": st.sampled_from(["archy-net", "pasta", "host", "stack-net", "a.b_c-d"]),
    "app.container.networks[].name": st.sampled_from(["archy-net", "x", "y_z", "a.b"]),
    "app.container.ipv4_address": st.just("10.89.0.7"),
    "app.container.dns[]": st.sampled_from(["9.9.9.9", "2620:fe::fe"]),
    "app.container.extra_hosts[]": st.sampled_from(["a:1.2.3.4", "B.c:fd00::1", "h:host-gateway"]),
    "app.container.build.context": st.sampled_from([".", "image"]),
    "app.container.env_file[]": _below(D),
    "app.container.generated_files[].path": _below(D),
    "app.container.generated_files[].template": st.just("web.conf.j2"),
    "app.container.generated_certs[].crt": _below(f"{D}/crt"),
    "app.container.generated_certs[].key": _below(f"{D}/key"),
}  # fmt: skip
_NAMES: dict[str, Strategy] = {
    "app.environment": st.sampled_from(["A", "b_1", "_", "LONG.NAME-x"]),
    "app.container.ulimits": st.sampled_from(["nofile", "nproc"]),
}


def _walk(schema: dict[str, Any], path: str = "app") -> Strategy:
    if path in _RIGHT:
        return _RIGHT[path]
    if "$ref" in schema:
        return _walk(manifest_schema.schema("manifest")["$defs"][schema["$ref"].rpartition("/")[2]], path)
    if "enum" in schema:
        return st.sampled_from(schema["enum"])
    kinds = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
    return st.one_of([_KINDS[kind](schema, path) for kind in kinds])


def _object(schema: dict[str, Any], path: str) -> Strategy:
    known = {name: _walk(inner, f"{path}.{name}") for name, inner in schema.get("properties", {}).items()}
    if known:
        needed = {name: known.pop(name) for name in schema.get("required", ())}
        return st.fixed_dictionaries(needed, optional=known)
    names = _NAMES.get(path, st.sampled_from(["a", "B_c", "d.e-f/g"]))
    return st.dictionaries(names, _walk(schema["additionalProperties"], f"{path}.*"), max_size=3)


_KINDS: dict[str, Callable[[dict[str, Any], str], Strategy]] = {
    "boolean": lambda _schema, _path: st.booleans(),
    "integer": lambda schema, _path: st.integers(schema.get("minimum", 0), schema.get("maximum", 9_999)),
    "number": lambda _schema, _path: st.sampled_from([0.25, 1, 2.5]),
    "string": lambda schema, _path: _matching(schema["pattern"]) if "pattern" in schema else _TEXT,
    "array": lambda schema, path: st.lists(_walk(schema["items"], f"{path}[]"), min_size=schema.get("minItems", 0), max_size=3),
    "object": _object,
}  # fmt: skip


def text(data: Any) -> str:
    """Data as YAML: all text in double quotes, and escaped."""
    if isinstance(data, dict):
        return "{" + ", ".join(f"{text(name)}: {text(value)}" for name, value in data.items()) + "}"
    if isinstance(data, list):
        return "[" + ", ".join(map(text, data)) + "]"
    if isinstance(data, str):
        return (
            '"' + "".join(char if char.isalnum() and char.isascii() else f"\\U{ord(char):08x}" for char in data) + '"'
        )
    return json.dumps(data)


def _without(data: Any, path: tuple[str | int, ...]) -> None:
    """Take out what is at `path`; where nothing is, what ought to hold it."""
    above: list[tuple[Any, Any]] = []
    for number, part in enumerate(path):
        if data is not None and (part in data if isinstance(data, dict) else int(part) < len(data)):
            above.append((data, part))
            data = data[part]
        elif number < len(path) - 1:
            return  # gone already, with what held it
    holder, last = above[-1]
    if isinstance(holder, list):
        holder[last] = None
    else:
        del holder[last]


def _compact(data: Any) -> Any:
    if isinstance(data, dict):
        return {name: _compact(value) for name, value in data.items()}
    return [_compact(item) for item in data if item is not None] if isinstance(data, list) else data


def _mended(app: dict[str, Any]) -> dict[str, Any]:
    """A manifest without what is refused in it."""
    data = {"app": app}
    for _ in range(9):
        container = data["app"].setdefault("container", {})
        if len({"image", "build"} & container.keys()) != 1:
            container.pop("build", None)
            container["image"] = "docker.io/library/nginx:1.26"
        document = manifest_schema.document(text(data).encode(), "f", "manifest")
        refused = {path for path, _ in validation.problems(document, manifest_schema.schema("manifest"))}
        if not refused:
            refused = {path for path, _ in rules.broken(document.data["app"], "web", BESIDE)}
        if not refused:
            break
        for path in refused:
            _without(data, path)
        data = _compact(data)
    return data


@st.composite
def manifests(draw: st.DrawFn) -> dict[str, Any]:
    """A good manifest of `web`."""
    return _mended(draw(_WHOLE))


_WHOLE = st.deferred(lambda: _walk(manifest_schema.schema("manifest")["properties"]["app"]))
