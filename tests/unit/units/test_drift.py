# SPDX-License-Identifier: MIT
# ruff: noqa: E501 - a case is a line
"""Whether PID 1 has the units that it should have: what is missing, changed or needless is found, and told by name."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable

import pytest
from support import Node, app_text

from archy import paths
from archy.units import drift, generator

pytestmark = pytest.mark.programs

OUT = "/run/systemd/generator"


def reload(node: Node) -> None:
    """What PID 1 does."""
    shutil.rmtree(node.path(OUT), ignore_errors=True)
    node.path(OUT).mkdir(parents=True)
    generator.generate(node.name, str(node.path(OUT)))


@pytest.fixture
def loaded(node: Node, monkeypatch: pytest.MonkeyPatch) -> Node:
    """A node whose units are right, and known to be."""
    monkeypatch.setattr(drift, "_SETTLED", 0.0)
    node.path("/run/archy").mkdir()
    for app_id in ("a", "web"):
        node.app(app_id, app_text(app_id))
    reload(node)
    assert drift.drift(node.name) == ""
    return node


def unlink(name: str) -> Callable[[Node], object]:
    return lambda node: node.path(f"{OUT}/{name}").unlink()


def put(name: str, text: str = "") -> Callable[[Node], object]:
    return lambda node: node.write(f"{OUT}/{name}", text)


def stop(node: Node) -> None:
    node.write(f"{paths.STOPPED}/web", "")


def remove(node: Node) -> None:
    shutil.rmtree(node.path("/etc/archy/apps/a"))


def relink(node: Node) -> None:
    link = node.path(f"{OUT}/archy.target.wants/archy-web.service")
    link.unlink()
    link.symlink_to("/dev/null")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        pytest.param(unlink("archy-web.service"), "archy-web.service: missing", id="unit"),
        pytest.param(unlink("archy-net-network.service"), "archy-net-network.service: missing", id="network"),
        pytest.param(unlink("archy.target.wants/archy-web.service"), "archy.target.wants/archy-web.service: missing", id="wants-link"),
        pytest.param(unlink("archy-image@.service.d/50-archy.conf"), "archy-image@.service.d/50-archy.conf: missing", id="image-unit"),
        pytest.param(unlink("user@990.service.d/50-archy.conf"), "user@990.service.d/50-archy.conf: missing", id="user-manager"),
        pytest.param(lambda node: shutil.rmtree(node.path(OUT)), "archy-a.service and 8 more: missing", id="all"),
        pytest.param(put("archy-web.service", "[Service]\n"), "archy-web.service: not as it must be", id="text"),
        pytest.param(relink, "archy.target.wants/archy-web.service: not as it must be", id="link-elsewhere"),
        pytest.param(put("archy-old.service"), "archy-old.service: not needed any more", id="needless"),
        pytest.param(put("archy.target.wants/archy-old.service"), "archy.target.wants/archy-old.service: not needed any more", id="needless-link"),
        pytest.param(lambda node: node.app("new", app_text("new")), "archy-all.service.wants/archy-new.service and 2 more: missing", id="installed"),
        pytest.param(lambda node: node.app("web", app_text("web").replace("1.26", "1.27")), "archy-web.service: not as it must be", id="manifest"),
        pytest.param(lambda node: node.app("web", "app: 1"), "archy-web.service: not as it must be", id="refused"),
        pytest.param(lambda node: node.write("/etc/passwd", "archipelago:x:7:7::/:/\n"), "user@7.service.d/50-archy.conf: missing", id="user"),
        pytest.param(remove, "archy-a.service and 2 more: not needed any more", id="removed"),
        pytest.param(stop, "archy-all.service.wants/archy-web.service and 1 more: not needed any more", id="stopped-by-the-user"),
        pytest.param(put("podman.service"), "", id="of-podman"),
        pytest.param(put("local-fs.target.wants/x.service"), "", id="of-others"),
        pytest.param(put("archyve.service"), "", id="of-others-again"),
        pytest.param(lambda node: node.write("/etc/systemd/system/archy-web.service", "x"), "", id="native"),
        pytest.param(lambda node: node.app("web", app_text("web", app="description: y")), "", id="no-difference"),
    ],
)  # fmt: skip
def test_drift(loaded: Node, change: Callable[[Node], object], said: str) -> None:
    change(loaded)
    assert drift.drift(loaded.name) == said
    if said:
        assert drift.drift(loaded.name) == said  # as long as nobody does anything about it
    reload(loaded)
    assert drift.drift(loaded.name) == ""


def test_an_operator_s_unit_that_ranks_below_ours(loaded: Node) -> None:
    """Ours is not written any more."""
    loaded.write("/usr/local/lib/systemd/system/archy-web.service", "x")
    assert drift.drift(loaded.name) == "archy-web.service: not needed any more"


@pytest.mark.parametrize("populated", [0, 1])
def test_the_unit_of_one_that_is_gone_but_runs(loaded: Node, populated: int) -> None:
    loaded.runs("gone", populated)
    assert drift.drift(loaded.name) == ("archy-gone.service: missing" if populated else "")
    reload(loaded)
    assert drift.drift(loaded.name) == ""
    loaded.runs("gone", 0)
    assert drift.drift(loaded.name) == ("archy-gone.service: not needed any more" if populated else "")


def test_what_was_found_right_is_not_computed_again(loaded: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    real = generator.write_units

    def counting(root: str, units: generator.UnitDir) -> list[str]:
        calls.append(root)
        return real(root, units)

    monkeypatch.setattr(generator, "write_units", counting)
    assert [drift.drift(loaded.name) for _ in range(3)] == [""] * 3
    assert calls == []
    os.utime(loaded.path(f"{OUT}/archy-web.service"), (1, 1))  # somebody was at it
    assert [drift.drift(loaded.name) for _ in range(3)] == [""] * 3
    assert calls == [loaded.name]
    loaded.path(f"{OUT}/archy-web.service").write_text("x")
    assert [drift.drift(loaded.name) for _ in range(2)] == ["archy-web.service: not as it must be"] * 2
    assert len(calls) == 3


@pytest.mark.parametrize("content", ["", "x"])
def test_a_damaged_memory_is_none(loaded: Node, content: str) -> None:
    loaded.write("/run/archy/units-verified", content)
    assert drift.drift(loaded.name) == ""
    unlink("archy-web.service")(loaded)
    loaded.write("/run/archy/units-verified", content)
    assert drift.drift(loaded.name) == "archy-web.service: missing"


def test_the_stopped_have_units_and_no_links(node: Node) -> None:
    node.app("web")
    node.app("b", app_text("b"))
    node.write(f"{paths.STOPPED}/web", "")
    node.write(f"{paths.STOPPED}/not-installed", "")
    found, warnings = node.generate()
    assert warnings == []
    assert "archy-web.service" in found
    assert [name for name in found if ".wants/" in name] == [
        "archy-all.service.wants/archy-b.service",
        "archy.target.wants/archy-b.service",
    ]


def test_all_are_stopped(node: Node) -> None:
    node.app("web")
    node.write(f"{paths.STOPPED}/web", "")
    assert [name for name in node.generate()[0] if "wants" in name] == []
