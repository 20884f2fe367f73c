# SPDX-License-Identifier: MIT
"""The linters are tests, and so are the rules of the house that no linter knows."""

from __future__ import annotations

import ast
import graphlib
import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest
from support import REPO

pytestmark = pytest.mark.programs


def listed() -> list[Path]:
    """All files of the repository, tracked or new, without what is ignored."""
    command = ["git", "-c", "safe.directory=*", "ls-files", "-coz", "--exclude-standard"]
    done = subprocess.run(command, cwd=REPO, capture_output=True, text=True, check=True)
    return [
        path
        for name in sorted(set(done.stdout.split("\0")))
        if name and (path := REPO / name).is_file() and not path.is_symlink()
    ]


FILES = listed()


def first_line(path: Path) -> str:
    with path.open("rb") as file:
        return file.readline(200).decode("utf-8", "replace").strip()


def scripts(*interpreters: str) -> list[Path]:
    """Files whose first line names one of these interpreters."""
    pattern = re.compile(r"#!\s*\S*?(?:env\s+(?:-S\s+)?)?(?:/|\b)(?:" + "|".join(interpreters) + r")(?:\s|$)")
    return [path for path in FILES if pattern.match(first_line(path))]


PYTHON = sorted({*(path for path in FILES if path.suffix == ".py"), *scripts("python3")})
SHELL = scripts("sh", "bash", "dash")
UNITS = [
    path
    for path in FILES
    if path.parent == REPO / "units" and path.suffix in (".service", ".target", ".slice", ".path", ".timer", ".socket")
]
GENERATOR = [path for path in PYTHON if REPO / "generator" in path.parents]
NODES = [path for path in PYTHON if REPO / "tests/nodes" in path.parents]


def lint(*command: str | Path, env: dict[str, str] | None = None) -> None:
    done = subprocess.run(
        command, cwd=REPO, env={**os.environ, **(env or {})}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{' '.join(map(str, command))}\n{done.stdout}{done.stderr}"


def test_there_is_something_to_lint() -> None:
    assert REPO / "generator/bin/archy" in PYTHON
    assert {REPO / "tests/nodectl", REPO / "tests/nodes/common.py"} <= set(PYTHON)
    assert {REPO / ".ci/run", REPO / "debian/archy.postinst"} <= set(SHELL)
    assert len(UNITS) >= 5


@pytest.mark.skipif(not shutil.which("ruff"), reason="ruff is not installed")
@pytest.mark.parametrize("command", [("check",), ("format", "--check")], ids=" ".join)
def test_ruff(command: tuple[str, ...]) -> None:
    lint("ruff", *command, "--no-cache", "--quiet", *PYTHON)


@pytest.mark.skipif(not shutil.which("mypy"), reason="mypy is not installed")
def test_mypy(tmp_path: Path) -> None:
    """The package as a whole; then folder by folder, for the modules of two may have the same name, and each script."""
    outside = [path for path in PYTHON if REPO / "generator/archy" not in path.parents]
    runs: list[tuple[str, Sequence[str | Path]]] = [("", ["--package=archy"])]
    for folder in sorted({path.parent for path in outside}):
        here = [path for path in outside if path.parent == folder]
        modules, programs = [p for p in here if p.suffix == ".py"], [p for p in here if p.suffix != ".py"]
        runs += [(f":{folder}", files) for files in ([*modules], *([program] for program in programs)) if files]
    for beside, files in runs:
        env = {"MYPYPATH": f"generator:tests:tests/unit{beside}"}
        lint("mypy", "--strict", f"--cache-dir={tmp_path}", *files, env=env)


@pytest.mark.skipif(not shutil.which("shellcheck"), reason="shellcheck is not installed")
def test_shellcheck() -> None:
    # SC2016: what stands in single quotes is for a shell elsewhere.
    lint("shellcheck", "--exclude=SC2016", *SHELL)
    lint("shellcheck", "--exclude=SC2016", "--shell=bash", REPO / "docs/archy.bash-completion")


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="systemd-analyze is not installed")
def test_units() -> None:
    command = ["systemd-analyze", "verify", "--man=no", *map(str, UNITS)]
    env = {**os.environ, "SYSTEMD_UNIT_PATH": f"{REPO / 'units'}:"}
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    absent = re.compile(r"\S+: Command /usr/libexec/archy/\S+ is not executable: No such file or directory")
    assert [line for line in done.stderr.splitlines() if not absent.fullmatch(line)] == []


@pytest.mark.parametrize("unit", UNITS, ids=lambda path: path.name)
def test_units_are_documented(unit: Path) -> None:
    lines = unit.read_text().splitlines()
    assert [line for line in lines if line.startswith("Documentation=")]
    assert [line for line in lines if line.startswith("Description=")]


def test_no_app_s_name_in_the_code() -> None:
    """Apps are data: what one of them needs is said in its folder."""
    names = "|".join(sorted(path.name for path in (REPO / "apps").iterdir() if path.is_dir()))
    assert names
    found = [
        f"{path}:{n}"
        for path in GENERATOR
        for n, line in enumerate(path.read_text().splitlines(), 1)
        if re.search(rf"\b({names})\b", line)
    ]
    assert found == []


def test_files_are_short() -> None:
    counted = {str(path): len(path.read_text().splitlines()) for path in GENERATOR + NODES}
    assert {path: lines for path, lines in counted.items() if lines > 300} == {}


def test_licences_are_named() -> None:
    lacking = [
        path
        for path in PYTHON
        if "SPDX-License-Identifier: MIT" not in "".join(path.read_text().splitlines(keepends=True)[:2])
    ]
    assert lacking == []


@pytest.mark.parametrize("path", [p for p in GENERATOR if p.suffix == ".py"], ids=lambda path: path.name)
def test_public_names_are_documented(path: Path) -> None:
    """Every module, and every public function and class but plain data."""
    module = ast.parse(path.read_text())
    assert ast.get_docstring(module)
    public = [
        node
        for node in module.body
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_")
    ]
    plain = {node.name for node in public if isinstance(node, ast.ClassDef) and node.decorator_list}
    assert [node.name for node in public if not ast.get_docstring(node) and node.name not in plain] == []


def test_imports_point_one_way() -> None:
    """No module imports, at once or late, what imports it."""
    package = REPO / "generator/archy"
    paths = {path for path in GENERATOR if path.suffix == ".py" and path.name != "__init__.py"}
    names = {".".join(path.relative_to(package).with_suffix("").parts) for path in paths}
    uses: dict[str, set[str]] = {}
    for name in names:
        module = ast.parse((package / f"{name.replace('.', '/')}.py").read_text())
        froms = [node for node in ast.walk(module) if isinstance(node, ast.ImportFrom)]
        ours = [(f"{node.module}."[6:], node.names) for node in froms if f"{node.module}.".startswith("archy.")]
        uses[name] = {
            there for above, found in ours for there in (above[:-1], *(above + a.name for a in found))
        } & names
    assert any(uses.values())
    assert len(list(graphlib.TopologicalSorter(uses).static_order())) == len(names)
