# SPDX-License-Identifier: MIT
"""Apps that run though their manifest is gone or bad can be stopped; native units are the operator's."""

from __future__ import annotations

import pytest
from support import Node, setting

from archy.units import build

pytestmark = pytest.mark.programs

STOP = "-/usr/libexec/archy/archy-stop 3600 /run/archipelago/%N.cid"


def test_an_app_that_runs_without_a_manifest_can_be_stopped(node: Node) -> None:
    node.runs("gone")
    node.runs("quiet", populated=0)
    found, _ = node.generate()
    assert list(found) == [
        "archy-gone.service",
        "archy-image@.service.d/50-archy.conf",
        "user@990.service.d/50-archy.conf",
    ]
    unit = found["archy-gone.service"]
    assert setting(unit, "Description") == ["gone (still running, its manifest is gone)"]
    assert setting(unit, "RefuseManualStart") == ["yes"]
    assert setting(unit, "ExecStop") == [STOP]
    assert setting(unit, "SourcePath") == []


def test_an_app_that_runs_and_is_refused_can_be_stopped(node: Node) -> None:
    node.app("web", "app: 1")
    refused, _ = node.generate()
    assert "exit 78" in refused["archy-web.service"]
    node.prepare()
    node.runs("web")
    unit = node.generate()[0]["archy-web.service"]
    assert setting(unit, "ExecStop") == [STOP]
    assert setting(unit, "SourcePath") == ["/etc/archy/apps/web/manifest.yml"]
    assert setting(unit, "Description") == [
        'web (still running, /etc/archy/apps/web/manifest.yml:1:1: app: must be a mapping, is "1")'
    ]


@pytest.mark.parametrize("base", ["/etc/systemd/system", "/run/systemd/system"])
def test_a_native_unit_of_the_operator_is_left_alone(node: Node, base: str) -> None:
    node.runs("own")
    node.write(f"{base}/archy-own.service", "[Service]\nExecStart=/bin/true\n")
    assert node.generate() == ({}, [])


def test_a_unit_that_runs_as_its_manifest_says_is_no_leftover(node: Node) -> None:
    node.app("web")
    before = node.generate()
    node.runs("web")
    assert node.generate() == before


def test_a_fault_with_one_that_is_gone_harms_no_other(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    node.app("web")
    alone, _ = node.generate("alone")
    node.runs("gone")

    def failing(*_: object) -> None:
        raise RuntimeError("odd")

    monkeypatch.setattr(build, "leftover", failing)
    assert node.generate()[0]["archy-web.service"] == alone["archy-web.service"]
