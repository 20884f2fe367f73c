# SPDX-License-Identifier: MIT
"""The documentation says what the code does: keys, defaults, examples, exit codes, commands."""

import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from archy.cli import main
from archy.host.read import tree
from archy.manifest import load, settings
from archy.manifest import schema as manifest_schema
from archy.operations import progress

REPO = Path(__file__).parents[2]
PAGES = {name: (REPO / "docs" / name).read_text() for name in ("archy.8", "archy-generator.8", "archy-manifest.5")}
README, HACKING = ((REPO / name).read_text() for name in ("README.md", "HACKING.md"))


def section(page: str, name: str) -> str:
    return PAGES[page].partition(f"\n.Sh {name}\n")[2].partition("\n.Sh ")[0] + "\n"


def literals(page: str) -> list[str]:
    """The literal texts among a page's examples, without roff's escapes."""
    displays = re.findall(r"^(?:\.Bd -literal.*?\n(.*?)^\.Ed|\.Dl (.*))", section(page, "EXAMPLES"), re.M | re.S)
    return [(text or line).replace("\\e", "\\").replace("\\(dq", '"') for text, line in displays]


def fences(text: str, kind: str) -> list[str]:
    return re.findall(rf"^```{kind}\n(.*?)^```", text, re.M | re.S)


def keys(schema: dict[str, Any], root: dict[str, Any], path: str = "") -> Iterator[tuple[str, dict[str, Any], bool]]:
    """Every key of a schema: its path, what the schema says of it, and whether it is required."""
    schema = root["$defs"][schema["$ref"].rpartition("/")[2]] if "$ref" in schema else schema
    for name, inner in schema.get("properties", {}).items():
        yield f"{path}{name}", inner, name in schema.get("required", ())
        yield from keys(inner, root, f"{path}{name}.")
    if "items" in schema:
        yield from keys(schema["items"], root, f"{path.removesuffix('.')}[].")


MANIFEST = manifest_schema.schema("manifest")
SCHEMA = {path: (inner, required) for path, inner, required in keys(MANIFEST, MANIFEST)}
# Of each documented key: the rest of its line, and its text.
ENTRIES = re.findall(r"^\.It Cm (\S+)(.*)\n((?:(?!\.It |\.El).*\n)*)", section("archy-manifest.5", "KEYS"), re.M)
DOCUMENTED = {key: (line, text) for key, line, text in ENTRIES}
EXAMPLES = [*fences(README, "yaml"), *(text for text in literals("archy-manifest.5") if text.startswith("app:"))]
COMMANDS = re.findall(
    r"^(?:sudo |tests/nodectl exec \w+ )?(archy .*?)(?: +#.*| \|.*)?$",
    "\n".join([*fences(README, "sh"), *literals("archy.8")]),
    re.M,
)


def test_every_key_of_the_manifest_is_documented_and_no_other() -> None:
    assert sorted(key for key, _, _ in ENTRIES) == sorted(SCHEMA)


@pytest.mark.parametrize("key", sorted(SCHEMA))
def test_a_key_is_documented_as_it_is(key: str) -> None:
    schema, required = SCHEMA[key]
    line, text = DOCUMENTED[key]
    assert line.endswith(", required") == required
    assert all(f".Ql {value}" in text for value in schema.get("enum", ()))


def test_defaults_are_documented() -> None:
    text = b"""app: {id: a, name: A, version: 1, ports: [{host: 2000, container: 80}], dependencies: [{app_id: b}],
      health_check: {type: tcp, endpoint: ":80"},
      container: {image: i, generated_files: [{path: /var/lib/archipelago/a/b, content: c}]}}"""
    app = load.check(text, "a", "a", frozenset())
    built = load.check(b"app: {id: a, name: A, version: 1, container: {build: {}}}", "a", "a", frozenset())
    assert app.health
    assert built.build
    found = {key: re.search(r"default is\n\.Ql (\S+)", text) for key, (_, text) in DOCUMENTED.items()}
    assert {key: match[1] for key, match in found.items() if match} == {
        "app.dependencies[].required": str(app.needs[0].required).lower(),
        "app.container.build.dockerfile": built.build.dockerfile,
        "app.container.pull_policy": app.pull,
        "app.container.network": app.network,
        "app.container.generated_files[].mode": f"{app.files[0].mode:04o}",
        "app.container.generated_files[].overwrite": str(app.files[0].overwrite).lower(),
        "app.stop_grace_secs": str(app.stop_grace),
        "app.security.readonly_root": str(app.read_only).lower(),
        "app.security.no_new_privileges": str(app.no_new_privileges).lower(),
        "app.ports[].protocol": app.ports[0].protocol,
        "app.ports[].bind": app.ports[0].bind,
        "app.health_check.timeout": f"{app.health.timeout}s",
        "app.health_check.retries": str(app.health.retries),
    }


def test_every_setting_of_the_node_is_documented() -> None:
    schema = manifest_schema.schema("node")
    leaves = {path: inner for path, inner, _ in keys(schema, schema) if "properties" not in inner}
    text = section("archy.8", "SETTINGS")
    assert sorted(re.findall(r"^\.It Va (\S+)", text, re.M)) == sorted(leaves)
    for inner in leaves.values():
        assert all(f".Ql {value}" in text for value in inner.get("enum", ()))
        assert f"default is\n.Ql {inner['default']}" in text


@pytest.mark.parametrize("text", EXAMPLES)
def test_examples_are_good(text: str, tmp_path: Path) -> None:
    assert len(EXAMPLES) == 3
    if not text.startswith("app:"):
        assert settings.parse(text.encode())
        return
    app_id = re.findall(r"^  id: (\S+)", text, re.M)[0]
    file = tmp_path / app_id / "manifest.yml"
    file.parent.mkdir()
    file.write_text(text)
    for name in re.findall(r"template: (\S+)", text):
        assert f".Pa {name} :" in PAGES["archy-manifest.5"]
        (file.parent / name).touch()
    assert load.check(file.read_bytes(), str(file), app_id, frozenset(tree(str(file.parent)))).id == app_id


def test_exit_codes_are_documented() -> None:
    documented = dict(re.findall(r"^\.It (\d+)\n(.*)", section("archy.8", "EXIT STATUS"), re.M))
    names = ("ok", "failed", "usage", "refused", "no such app", "not permitted")
    codes = {name: getattr(progress, name.upper().replace(" ", "_")) for name in names}
    assert sorted(map(int, documented)) == sorted([*codes.values(), 130])
    assert all(name in documented[str(code)].lower() for name, code in codes.items())


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_exist(command: str) -> None:
    assert main._parser().parse_args(shlex.split(command)[1:]).verb


def test_make_targets_exist() -> None:
    makefile = (REPO / "Makefile").read_text()
    named = re.findall(r"^(?:sudo )?make ([a-z-]+)", "\n".join(fences(README + HACKING, "sh")), re.M)
    assert {"demo", "test", "bench"} <= set(named) <= set(re.findall(r"^([a-z-]+):", makefile, re.M))


PACKAGE = REPO / "generator/archy"


@pytest.mark.parametrize("wing", sorted(path.parent.name for path in PACKAGE.glob("*/__init__.py")))
def test_every_module_is_in_the_text_of_its_wing(wing: str) -> None:
    text = (PACKAGE / wing / "README.md").read_text()
    rows = [name for line in text.splitlines() if line.startswith("| `") for name in re.findall(r"`(\w+\.py)`", line)]
    assert sorted(rows) == sorted({path.name for path in (PACKAGE / wing).glob("*.py")} - {"__init__.py"})
    assert re.search(rf"(?m)^ .*\b{wing}/", HACKING)


def test_what_hacking_names_is_there() -> None:
    """A path in backquotes is that of a file, of the repository or of the package."""
    texts = {REPO: HACKING} | {path.parent: path.read_text() for path in PACKAGE.glob("*/README.md")}
    for here, text in texts.items():
        for name in re.findall(r"`((?:[\w.-]+/)*\w+\.(?:py|j2))`", text):
            assert any((above / name).is_file() for above in (here, PACKAGE, REPO)), name


@pytest.mark.programs
@pytest.mark.skipif(not shutil.which("man"), reason="man is not installed")
@pytest.mark.parametrize("page", PAGES)
def test_pages_have_no_warnings(page: str) -> None:
    command = ["man", "--warnings", "-E", "UTF-8", "-l", "-Tutf8", "-Z", str(REPO / "docs" / page)]
    env = {**os.environ, "LC_ALL": "C.UTF-8", "MANROFFSEQ": "", "MANWIDTH": "80"}
    done = subprocess.run(command, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
