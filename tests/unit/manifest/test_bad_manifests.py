# SPDX-License-Identifier: MIT
"""Bad manifests, each with the exact words for everything that is wrong with it. The cases are in bad/*.yml."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from support import GOOD, REPO, SHIPPED, app_text

from archy.errors import Problem, Refused
from archy.manifest import load, parse, placeholders, provisions, rules, validation

FILE = "/etc/archy/apps/web/manifest.yml"
BESIDE = frozenset({"manifest.yml", "web.conf.j2", "sub/x.j2"})


def cases() -> list[Any]:
    """All cases: what is added or replaced, and the messages without the file's name."""
    found = []
    for path in sorted((Path(__file__).parent / "bad").glob("*.yml")):
        for number, case in enumerate(yaml.safe_load(path.read_text()), 1):
            messages = case.pop("says").splitlines()
            found.append(pytest.param(case, messages, id=f"{path.stem}-{number}"))
    assert len(found) > 100
    return found


def changed(case: dict[str, str]) -> str:
    """The good manifest with one change."""
    if "replace" not in case:
        return app_text(**case)
    assert case["replace"] == "all" or GOOD.count(case["replace"]) == 1, case
    return case["by"] if case["replace"] == "all" else GOOD.replace(case["replace"], case["by"].rstrip("\n"))


def refusal(text: str, app_id: str = "web") -> tuple[Problem, ...]:
    with pytest.raises(Refused) as refused:
        load.check(text.encode(), FILE, app_id, BESIDE)
    return refused.value.problems


def test_the_manifest_that_is_changed_is_good() -> None:
    assert load.check(GOOD.encode(), FILE, "web", BESIDE).name == "Web"


@pytest.mark.parametrize(("case", "messages"), cases())
def test_messages(case: dict[str, str], messages: list[str]) -> None:
    problems = refusal(changed(case))
    assert [str(problem) for problem in problems] == [f"{FILE}:{message}" for message in messages]
    assert list(problems) == sorted(problems)


def test_every_way_to_be_wrong_has_a_case() -> None:
    """Each keyword of the schema, and each reason that the code can give, stands in the cases."""
    said = "\n".join(message for case in cases() for message in case.values[1])
    for part in (rules, provisions, parse, placeholders, parse, validation):
        source = (REPO / "generator/archy" / f"{part.__name__.partition('.')[2].replace('.', '/')}.py").read_text()
        reasons = re.findall(r'(?:yield .*, f?|return f?|else f?|said = f?|ValueError\(f?)"([^"{]{8,})', source)
        assert reasons
        for reason in reasons:
            assert reason in said, reason
    schema = (REPO / "generator/archy/manifest/manifest.schema.json").read_text()
    wanted = set(re.findall(r'"reason": "([^"]+)"', schema))
    assert {reason for reason in wanted if reason not in said} == set()


OURS = [
    "all",
    "hold",
    "image",
    "podman",
    "prepare",
    "probe",
    "rebuild",
    "reconcile",
    "recover",
    "wait",
    "archipelago",
    "bitcoin",
]


@pytest.mark.parametrize("app_id", [*OURS, "a-network", "b-volume", "c-build", "d-image", "e-pod", "archy-web"])
def test_reserved_ids(app_id: str) -> None:
    problems = refusal(app_text(app_id), app_id)
    assert [str(problem) for problem in problems] == [f"{FILE}:2:3: app.id: is reserved for units of archy's own"]


def test_all_is_told_at_once_in_the_order_of_the_file() -> None:
    text = app_text("web", "user: root\nnetwrk: a", "stop_grace_secs: 0\nports:\n- {host: x}\nhooks: 1").replace(
        "1.0.0", "[]"
    )
    assert [(p.line, p.column, p.key) for p in refusal(text)] == [
        (4, 3, "app.version"),
        (7, 5, "app.container.user"),
        (8, 5, "app.container.netwrk"),
        (9, 3, "app.stop_grace_secs"),
        (11, 5, "app.ports[0].container"),
        (11, 6, "app.ports[0].host"),
        (12, 3, "app.hooks"),
    ]


@pytest.mark.parametrize(
    ("text", "keys"),
    [
        pytest.param(
            app_text(app="nmae: x\nports:\n- {host: 80, container: 80}"), ["app.nmae", "app.ports[0].host"], id="rules"
        ),
        pytest.param(
            app_text(app="nmae: x\nname: y"),
            ["app.nmae", "app.name"],
            id="given-twice",
        ),
    ],
)
def test_all_kinds_are_told_at_once(text: str, keys: list[str]) -> None:
    assert [problem.key for problem in refusal(text)] == keys


@pytest.mark.parametrize("app", SHIPPED)
def test_the_shipped_manifests_are_good(app: str) -> None:
    folder = REPO / "apps" / app
    beside = frozenset(path.name for path in folder.iterdir())
    assert load.check((folder / "manifest.yml").read_bytes(), "f", app, beside).id == app
