# SPDX-License-Identifier: MIT
"""Who would wait for whom, and whose fault a circle is."""

from __future__ import annotations

import shutil
from dataclasses import replace
from itertools import pairwise

import pytest
from support import Node, app_of, app_text

from archy.apps import admission, facts

CASES = {
    "alone": ({"a": ""}, {}),
    "a-chain": ({"a": "needs: b", "b": "needs: c", "c": ""}, {}),
    "a-lasso": ({"a": "needs: b", "b": "needs: c", "c": "needs: b"}, {"b": "b c b", "c": "c b c"}),
    "itself": ({"a": "needs: a"}, {"a": "a a"}),
    "two": ({"a": "needs: b", "b": "needs: a"}, {"a": "a b a", "b": "b a b"}),
    "without-need": ({"a": "wants: b", "b": "needs: a"}, {"a": "a b a", "b": "b a b"}),
    "by-what-it-provides": ({"a": "needs: x", "b": "needs: a; provides: x"}, {"a": "a b a", "b": "b a b"}),
    "of-each-other": ({"a": "part_of: b", "b": "part_of: a"}, {"a": "a b a", "b": "b a b"}),
    "a-stack": ({"a": "needs: p", "p": "part_of: a", "q": "part_of: a; needs: p"}, {}),
    "a-part-after-its-whole": ({"a": "", "p": "part_of: a; needs: a"}, {}),
    "who-did-nothing": (
        {"whole": "", "part": "part_of: whole; needs: other", "other": "needs: whole"},
        {"part": "part other whole part", "other": "other whole part other"},
    ),
    "a-longer-one-is-its-fault": (
        {"a": "", "b": "part_of: a; needs: c", "c": "needs: a", "d": "needs: a; part_of: c"},
        {"b": "b c a b", "c": "c a b c", "d": "d a b c d"},
    ),
}


def summary(text: str) -> facts.Summary:
    said = dict(word.split(": ") for word in text.split("; ") if word)
    keys = [f"{key}: {said[key]}" for key in ("part_of", "provides") if key in said]
    needs = [f"{{app_id: {said['needs']}}}"] if "needs" in said else []
    needs += [f"{{app_id: {said['wants']}, required: false}}"] if "wants" in said else []
    keys += [f"dependencies: [{', '.join(needs)}]"] if needs else []
    return facts.summary(replace(app_of(app="\n".join(keys)), id="any"))


@pytest.mark.parametrize(("apps", "wanted"), CASES.values(), ids=CASES)
def test_circles(apps: dict[str, str], wanted: dict[str, str]) -> None:
    known = {app_id: summary(text) for app_id, text in apps.items()}
    found = admission.closed(known, apps)
    assert {app_id: said for app_id, (_, said) in found.items()} == {
        app_id: "closes a circle: " + ", ".join(f"{one} waits for {other}" for one, other in pairwise(way.split()))
        for app_id, way in wanted.items()
    }
    for app_id, (path, _) in found.items():
        assert path == ("app", "dependencies" if "needs" in apps[app_id] or "wants" in apps[app_id] else "part_of")


def test_one_that_others_have_closed_it_for_is_refused_as_they_run() -> None:
    known = {"part": "part_of: whole; needs: other", "other": "needs: whole", "whole": ""}
    found = admission.closed({app_id: summary(text) for app_id, text in known.items()}, ["whole"])
    said = "closes a circle: whole waits for part, part waits for other, other waits for whole"
    assert found == {"whole": (("app", "id"), said)}


def test_of_those_that_were_accepted_none_is_blamed() -> None:
    apps = {app_id: summary(text) for app_id, text in {"a": "needs: b", "b": "needs: a"}.items()}
    assert admission.closed(apps, ["b"]).keys() == {"b"}


@pytest.mark.programs
def test_only_the_one_that_closes_it_is_refused(node: Node) -> None:
    node.app("one", app_text("one", app="dependencies: [{app_id: two}]"))
    node.app("two")
    assert node.failures("one", "two") == {}
    good = node.generate()[0]
    node.app("two", app_text("two", app="dependencies: [{app_id: one}]"))
    said = "app.dependencies: closes a circle: two waits for one, one waits for two"
    found, warnings = node.generate()
    assert warnings == [f"/etc/archy/apps/two/manifest.yml:7:3: {said}"]
    assert found["archy-one.service"] == good["archy-one.service"]
    assert "After=archy-one.service" not in found["archy-two.service"]
    assert node.failures("one", "two") == {}
    assert node.generate()[0] == found  # as it was kept


@pytest.mark.programs
def test_two_that_came_at_once_are_both_refused_and_good_alone(node: Node) -> None:
    for one, other in (("one", "two"), ("two", "one")):
        node.app(one, app_text(one, app=f"dependencies: [{{app_id: {other}}}]"))
    assert node.failures().keys() == {"one", "two"}
    for app_id in ("one", "two"):
        assert node.failures(app_id, retry_failed=True).keys() == {app_id}
    shutil.rmtree(node.path("/etc/archy/apps/one"))
    assert node.failures("two", retry_failed=True) == {}
    assert node.generate()[1] == []
