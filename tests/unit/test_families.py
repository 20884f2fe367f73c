# SPDX-License-Identifier: MIT
"""Which apps of the catalogue share a test node, and what comes with each."""

from __future__ import annotations

import pytest
from nodes import catalogue, families


def test_groups_have_every_main_app_once_and_after_what_it_needs() -> None:
    found = families.groups()
    assert sorted(app for apps in found.values() for app in apps) == sorted(families.mains())
    assert families.sample() in found
    for apps in found.values():
        assert families.in_order(apps)[-len(apps) :] == apps
        assert set(families.in_order(apps)) == set(apps) or len(apps) == 1
    every = [name for app in families.mains() for name in families.family(app)]
    assert set(every) == set(catalogue.apps())


def test_alternatives(monkeypatch: pytest.MonkeyPatch) -> None:
    apps = {
        "coin-a": {"provides": "coin"},
        "coin-b": {"provides": "coin"},
        "coin-ui": {"companion_of": "coin"},
        "shop": {"dependencies": [{"app_id": "coin"}]},
        "shop-db": {"part_of": "shop"},
    }
    monkeypatch.setattr(families, "apps", lambda: apps)
    assert families.groups() == {"coin-b": ["coin-b", "shop"], "coin-a": ["coin-a"]}
    assert families.family("coin-a") == ["coin-a", "coin-ui"]
    assert families.family("shop") == ["shop", "shop-db"]
    assert [families.container(name) for name in ("coin-ui", "shop-db")] == ["archy-coin-ui", "shop-db"]
