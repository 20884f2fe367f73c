# SPDX-License-Identifier: MIT
"""The plan of the house: which wing may import which, what the fast path may load, how large each wing may grow."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest
from support import REPO

PACKAGE = REPO / "generator/archy"
MODULES = sorted(path for path in PACKAGE.rglob("*.py") if path.name != "__init__.py")

# Each wing imports only from lines below its own; wings on one line know nothing of each other.
LAYERS = """
cli
operations
reconcile
recover
health
prepare
units probe bitcoin
apps images
manifest host
errors paths
"""
FLOOR = {wing: -number for number, line in enumerate(LAYERS.split("\n")) for wing in line.split()}

# Lines of Python, blank ones and comments too. To raise a number is a decision: say why in the commit.
BUDGET = {
    "paths": 157,
    "errors": 51,
    "cli": 904,
    "operations": 715,
    "reconcile": 850,
    "recover": 490,
    "health": 600,
    "prepare": 1560,
    "units": 1230,
    "probe": 1080,
    "bitcoin": 172,
    "apps": 697,
    "images": 283,
    "manifest": 1631,
    "host": 1235,
}

# What runs at each boot, reload and start, and every 30 seconds: loaded without a heavy module of the library.
FAST = [
    "paths",
    "host/read",
    "host/user",
    "host/volatile",
    "host/write",
    "host/records",
    "host/locks",
    "apps/installed",
    "apps/facts",
    "apps/pending",
    "images/pull",
    "units/cache",
    "units/drift",
    "units/generator",
    "units/snapshot",
    "prepare/stamps",
    "prepare/starts",
    "prepare/prepare",
    "probe/probe",
    "probe/checks",
    "probe/dns",
    "probe/podman",
    "probe/containers",
    "reconcile/reconcile",
    "reconcile/unchanged",
    "reconcile/tick",
]
HEAVY = {"dataclasses", "typing", "inspect", "tempfile", "argparse", "yaml", "jinja2", "jsonschema", "systemd"}
# The generator delays every boot and every reload, so it does without these, too.
GENERATOR = [
    "paths",
    "host/read",
    "host/volatile",
    "apps/installed",
    "units/cache",
    "units/generator",
    "units/snapshot",
]
LIGHT = {"contextlib", "collections.abc", "json", "re", "subprocess", "__future__"}


def wing(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported(path: Path) -> set[str]:
    """The modules of archy that a file imports, as paths below the package, at once, late or for types only."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "archy":
            inside = (node.module or "").removeprefix("archy").removeprefix(".").replace(".", "/")
            found |= {inside or alias.name for alias in node.names} - {"__version__"}
    return found


def test_imports_point_down() -> None:
    wrong = [
        f"{path.relative_to(PACKAGE)} imports {name}"
        for path in MODULES
        for name in imported(path)
        if (above := name.split("/")[0]) != wing(path) and FLOOR[above] >= FLOOR[wing(path)]
    ]
    assert wrong == []


def test_a_wing_has_no_code_of_its_own() -> None:
    """An __init__.py holds a docstring, and that of the package the version."""
    for path in PACKAGE.rglob("__init__.py"):
        body = ast.parse(path.read_text()).body
        assert len(body) == (2 if path.parent == PACKAGE else 1), path
        assert isinstance(body[0], ast.Expr), path


def test_the_tests_stand_as_the_wings_do() -> None:
    folders = {path.parent.name for path in (REPO / "tests/unit").glob("*/test_*.py")}
    assert folders == FLOOR.keys() - {"errors", "paths"}


@pytest.mark.parametrize("name", sorted(FLOOR))
def test_no_wing_outgrows_its_budget(name: str) -> None:
    lines = sum(len(path.read_text().splitlines()) for path in PACKAGE.rglob("*.py") if wing(path) == name)
    assert 0.8 * BUDGET[name] < lines <= BUDGET[name]


def loaded(names: list[str]) -> set[str]:
    """The modules that are loaded once these of ours are, in an interpreter as the programs have it."""
    lines = [f"import archy.{name.replace('/', '.')}" for name in names]
    program = "\n".join(["import sys", f"sys.path.append({str(PACKAGE.parent)!r})", *lines, "print(*sys.modules)"])
    done = subprocess.run([sys.executable, "-IS", "-c", program], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


@pytest.mark.programs
def test_what_the_fast_path_loads() -> None:
    found = loaded(FAST)
    assert found & HEAVY == set()
    ours = {name[6:].replace(".", "/") for name in found if name.startswith("archy.")}
    assert {name for name in ours if (PACKAGE / f"{name}.py").exists()} == set(FAST)


@pytest.mark.programs
def test_what_the_generator_loads() -> None:
    found = loaded(["units/generator"])
    assert found & (HEAVY | LIGHT) == set()
    ours = {name[6:].replace(".", "/") for name in found if name.startswith("archy.")}
    assert {name for name in ours if (PACKAGE / f"{name}.py").exists()} == set(GENERATOR)


@pytest.mark.programs
def test_what_is_loaded_where_nothing_has_changed() -> None:
    """By the entry of the generator: not even `os`."""
    more = loaded(["units/snapshot"]) - loaded([]) - set(sys.builtin_module_names)
    assert more == {"archy", "archy.paths", "archy.units", "archy.units.snapshot"}
