# SPDX-License-Identifier: MIT
# ruff: noqa: E501 - a case is a line
"""Stacks and alternatives: links between units, who belongs to whom, who is meant by a name, who may take a place."""

from __future__ import annotations

import os

import pytest
from support import Node, app_text

from archy import paths
from archy.apps import catalogue, installed
from archy.operations import switch
from archy.operations.progress import NO_SUCH_APP, REFUSED, CannotDo
from archy.prepare import prepare
from archy.units import build

pytestmark = pytest.mark.programs
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files to the service user")

DATA = "volumes: [{type: bind, source: /var/lib/archipelago/db, target: /d}]"


def links(found: dict[str, str]) -> dict[str, str]:
    """The links that no app has by being installed."""
    wants = ("archy-all.service.wants/", "archy.target.wants/")
    return {name: text for name, text in found.items() if text.startswith("-> ") and not name.startswith(wants)}


STACK = {
    "shop": "",
    "shop-db": "part_of: shop",
    "shop-worker": "part_of: shop\ndependencies: [{app_id: shop}]",
    "till": "companion_of: shop",
    "one": f"provides: db\n{DATA}",
    "db-tool": "part_of: db",
}
STACK_LINKS = {
    "archy-db.service": "-> archy-one.service",
    "archy-db.service.wants/archy-db-tool.service": "-> ../archy-db-tool.service",
    "archy-shop.service.wants/archy-shop-db.service": "-> ../archy-shop-db.service",
    "archy-shop.service.wants/archy-shop-worker.service": "-> ../archy-shop-worker.service",
}


@pytest.fixture
def stack(node: Node) -> Node:
    node.shelve()
    for app_id, lines in STACK.items():
        node.app(app_id, app_text(app_id, app=lines))
    return node


def test_links_of_what_is_installed(stack: Node) -> None:
    found, warnings = stack.generate()
    assert (links(found), warnings) == (STACK_LINKS, [])


@needs_root
def test_the_same_links_from_what_was_kept(stack: Node) -> None:
    """From finished units."""
    cold = stack.generate()
    assert stack.prepare() == 0

    def refuse(*_: object) -> None:
        raise AssertionError("built anew")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(build, "build", refuse)
        assert stack.generate() == cold


def test_links_of_the_last_good_version(stack: Node) -> None:
    for app_id in ("one", "shop-db"):
        stack.write(f"/etc/archy/accepted/{app_id}/manifest.yml", app_text(app_id, app=STACK[app_id]))
        stack.app(app_id, "app: 1")
    found, warnings = stack.generate()
    assert (links(found), len(warnings)) == (STACK_LINKS, 2)


def test_two_alternatives_side_by_side(stack: Node) -> None:
    """By hand: both have their units, and the first one keeps the name."""
    stack.app("two", app_text("two", app=f"provides: db\n{DATA}"))
    found, warnings = stack.generate()
    assert (links(found), warnings) == (STACK_LINKS, [])
    assert "podman run --name two " in found["archy-two.service"]
    stack.path("/etc/archy/apps/one/manifest.yml").unlink()
    stack.path("/etc/archy/apps/one").rmdir()
    found, _ = stack.generate()
    assert links(found) == STACK_LINKS | {"archy-db.service": "-> archy-two.service"}


@needs_root
@pytest.mark.parametrize("cached", ["one", "two"])
def test_two_of_which_one_is_cached(stack: Node, cached: str) -> None:
    """Whichever is written first, there is one link, and no error."""
    stack.app("two", app_text("two", app=f"provides: db\n{DATA}"))
    stack.prepare()
    stack.path(f"/etc/archy/accepted/{'two' if cached == 'one' else 'one'}.units").unlink()
    found, warnings = stack.generate()
    assert (found["archy-db.service"] in ("-> archy-one.service", "-> archy-two.service"), warnings) == (True, [])
    assert {"archy-one.service", "archy-two.service"} <= found.keys()


def test_an_app_that_has_the_name_itself_keeps_its_unit(stack: Node) -> None:
    stack.app("db", app_text("db"))
    found, _ = stack.generate()
    assert "podman run --name db " in found["archy-db.service"]


def test_order_and_ties_of_parts(stack: Node) -> None:
    found, _ = stack.generate()

    def lines(app_id: str, *keys: str) -> list[str]:
        mine = [line for line in found[f"archy-{app_id}.service"].split("\n") if line.partition("=")[0] in keys]
        return [line for line in mine if "=archy-shop" in line]

    assert lines("shop-db", "PartOf", "Before", "After") == ["PartOf=archy-shop.service", "Before=archy-shop.service"]
    assert lines("shop-worker", "PartOf", "Before", "After") == [
        "PartOf=archy-shop.service",
        "After=archy-shop.service",
    ]
    assert lines("till", "PartOf", "Before", "After") == []


@pytest.mark.parametrize(
    ("app_id", "belong"),
    [
        ("shop", ["shop-db", "shop-worker", "till"]),
        ("one", ["db-tool"]),
        ("db", ["db-tool"]),
        ("shop-db", []),
        ("nobody", []),
    ],
)
def test_who_belongs_to_whom(stack: Node, app_id: str, belong: list[str]) -> None:
    assert catalogue.members(catalogue.entries(stack.name), app_id) == belong


def test_companions_stop_before_their_app_and_parts_after_it(stack: Node) -> None:
    every = catalogue.entries(stack.name)
    assert catalogue.stopped_in_order(every, "shop") == ["till", "shop", "shop-db", "shop-worker"]
    assert catalogue.stopped_in_order(every, "one") == ["one", "db-tool"]


@pytest.mark.parametrize(("name", "meant"), [("shop", ["shop"]), ("db", ["one", "two"]), ("one", ["one"]), ("x", [])])
def test_who_is_meant(stack: Node, name: str, meant: list[str]) -> None:
    stack.write("/usr/share/archy/apps/two/manifest.yml", app_text("two", app="provides: db"))
    assert [entry.id for entry in catalogue.providers(catalogue.entries(stack.name), name)] == meant


def test_entries_say_where_they_belong(stack: Node) -> None:
    found = {entry.id: (entry.companion_of, entry.part_of, entry.provides) for entry in catalogue.entries(stack.name)}
    assert found == {
        "db-tool": ("", "db", ""),
        "one": ("", "", "db"),
        "shop": ("", "", ""),
        "shop-db": ("", "shop", ""),
        "shop-worker": ("", "shop", ""),
        "till": ("shop", "", ""),
    }


@needs_root
def test_an_alternative_that_runs_keeps_the_other_down(stack: Node) -> None:
    stack.app("two", app_text("two", app=f"provides: db\n{DATA}"))
    assert stack.prepare() == 0
    assert prepare.running_alternative(stack.name, "two") == ""
    stack.runs("one")
    assert prepare.running_alternative(stack.name, "two") == "one"
    assert [prepare.running_alternative(stack.name, name) for name in ("one", "shop", "nobody")] == ["", "", ""]
    stack.runs("one", populated=0)
    assert prepare.running_alternative(stack.name, "two") == ""


# `archy app switch` refuses before it touches anything.

TAKES = "ports: [{host: 8080, container: 80}]"


@pytest.fixture
def here(stack: Node, monkeypatch: pytest.MonkeyPatch) -> Node:
    """`/` is the node's directory for everything that only reads."""
    under = paths.under
    monkeypatch.setattr(paths, "under", lambda root, path: under(stack.name if root == "/" else root, path))
    others = {
        "two": f"provides: db\n{DATA}",
        "elsewhere": "provides: db\nvolumes: [{type: bind, source: /var/lib/archipelago/elsewhere, target: /d}]",
        "reads": f"provides: db\n{DATA.replace('/d}', '/d, options: [ro]}')}",
        "taken": f"provides: db\n{DATA}\n{TAKES}",
        "broken": "provides: 1 2",
    }
    for app_id, lines in others.items():
        stack.write(f"/usr/share/archy/apps/{app_id}/manifest.yml", app_text(app_id, app=lines))
    stack.write("/usr/share/archy/apps/other-user/manifest.yml", app_text("other-user", "user: 5:5", others["two"]))
    stack.write("/usr/share/archy/apps/other-owner/manifest.yml", app_text("other-owner", "data_uid: 7", others["two"]))
    stack.app("web", app_text("web", app=TAKES))
    return stack


@pytest.mark.parametrize(
    ("old", "new", "where", "why", "hint", "code"),
    [
        ("nobody", "two", "/etc/archy/apps, /usr/share/archy/apps", "there is no app nobody", "archy app list shows all", NO_SUCH_APP),
        ("one", "nobody", "/etc/archy/apps, /usr/share/archy/apps", "there is no app nobody", "archy app list shows all", NO_SUCH_APP),
        ("two", "elsewhere", "two", "is not installed", "archy app install elsewhere", NO_SUCH_APP),
        *(
            (old, new, new, f"{old} and {new} are no alternatives: they do not provide the same", "archy app show tells what an app provides", REFUSED)
            for old, new in (("one", "shop"), ("shop", "one"), ("shop", "till"), ("one", "one"))
        ),
        *(
            ("one", new, f"DIR/usr/share/archy/apps/{new}", f"one and {new} do not keep their data in the same place, as the same user", "compare volumes and data_uid of their manifests", REFUSED)
            for new in ("elsewhere", "reads", "other-user", "other-owner")
        ),
        ("one", "taken", "taken", "needs port 8080/tcp, which web uses", "archy app remove web", 1),
        ("one", "broken", "DIR/usr/share/archy/apps/broken", "its manifest is refused, see above", "archy app validate DIR/usr/share/archy/apps/broken", REFUSED),
    ],
)  # fmt: skip
def test_switches_that_are_refused(here: Node, old: str, new: str, where: str, why: str, hint: str, code: int) -> None:
    before = sorted(os.listdir(here.path("/etc/archy/apps")))
    with pytest.raises(CannotDo) as refused:
        switch.switch(old, new)
    error = refused.value
    assert (error.where, error.reason) == (where.replace("DIR", here.name), why)
    assert (error.hint, error.code) == (hint.replace("DIR", here.name), code)
    assert sorted(os.listdir(here.path("/etc/archy/apps"))) == before
    assert installed.stopped(here.name) == set()


def test_of_alternatives_the_one_that_runs_has_the_name(node: Node) -> None:
    """systemd knows the running one by it, and would mix up the two if it moved."""
    node.shelve()
    for app_id in ("one", "two"):
        node.app(app_id, app_text(app_id, app="provides: db"))
    assert links(node.generate()[0])["archy-db.service"] == "-> archy-one.service"
    node.runs("two")
    assert links(node.generate()[0])["archy-db.service"] == "-> archy-two.service"
