# SPDX-License-Identifier: MIT
"""What a pass knows of the one before: all that it left, or nothing."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
from probes import HEALTH, container, file, listed, no, probe
from support import Node, running, state

from archy import paths
from archy.health import current
from archy.health.current import PROBE_UNIT, RECOVER_UNIT
from archy.host import systemd
from archy.probe import report
from archy.reconcile import plan
from archy.reconcile import status as reconcile_status
from archy.recover.incidents import Incidents


def left() -> Any:
    """The status of a pass over a dead app."""
    entry = {"web": {"at": 1.0, "count": 2}}
    previous = {"history": entry, "faults": entry, "liveness": {}}
    found = probe(listed(), apps={"web": container(no())})
    node = state(running(health=HEALTH), monotonic=10.0, probe=found, previous=previous)
    return json.loads(reconcile_status.pack(reconcile_status.assess(plan.make(node, Incidents()))))


def read(node: Node, found: Any) -> dict[str, Any]:
    node.write(paths.STATUS, json.dumps(found))
    return reconcile_status.load(node.name)


def test_what_a_pass_has_left_is_read_as_it_was(node: Node) -> None:
    found = left()
    assert read(node, found) == found
    assert (found["history"]["web"]["count"], found["faults"]["web"]["count"]) == (2, 2)
    assert found["liveness"]["web"]["id"]


@pytest.mark.parametrize(
    "path",
    ["history", "faults", "liveness", "history.web", "faults.web", "liveness.web", "history.web.at", "faults.web.at",
     "faults.web.count", "liveness.web.failed", "liveness.web.failed_at", "liveness.web.cpu", "node", "node.podman",
     "apps", "apps.web", "version", "wall", "monotonic"],
)  # fmt: skip
@pytest.mark.parametrize("value", [None, "x", [1], {"x": "y"}], ids=repr)
def test_what_is_not_as_we_write_it_is_not_read(node: Node, path: str, value: Any) -> None:
    """Whoever has changed it: no pass may fail for that."""
    found = copy.deepcopy(left())
    *above, last = path.split(".")
    part = found
    for key in above:
        part = part[key]
    if path == "apps.web" and value == {"x": "y"}:
        pytest.skip("an app may say anything")
    part[last] = value
    assert read(node, found) == {}


@pytest.mark.parametrize("missing", ["history", "faults", "liveness", "node", "version"])
def test_what_an_older_archy_has_left_is_not_read(node: Node, missing: str) -> None:
    found = left()
    del found[missing]
    assert read(node, found) == {}


@pytest.mark.parametrize(
    ("active", "recovering"), [("activating", True), ("inactive", False), ("failed", False), ("deactivating", False)]
)
def test_whether_the_recovery_is_at_work(
    node: Node, monkeypatch: pytest.MonkeyPatch, active: str, recovering: bool
) -> None:
    """It is a oneshot: never active."""
    units = {
        RECOVER_UNIT: systemd.Unit(RECOVER_UNIT, active=active),
        PROBE_UNIT: systemd.Unit(PROBE_UNIT, began=0.0),
    }
    monkeypatch.setattr(systemd, "units", lambda names: {name: units[name] for name in names if name in units})
    assert current.observe(node.name, {}).recovering == recovering


def test_while_the_probe_is_at_work_what_it_said_before_counts(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file that it writes is empty then; what it keeps for itself is whole. Before the first there is nothing."""
    at_work = {PROBE_UNIT: systemd.Unit(PROBE_UNIT, active="activating", began=1.0)}
    monkeypatch.setattr(systemd, "units", lambda names: at_work)
    node.write(paths.PROBE, "")
    assert current.observe(node.name, {}).probe == report.Report()
    said = file(("web",))
    node.write(paths.PROBE_CACHE, json.dumps(said))
    assert current.observe(node.name, {}).probe.at == said["at"]


QUEUED = {"loaded": True, "has_job": True}


@pytest.mark.parametrize(
    ("unit", "image", "wanted"),
    [
        (QUEUED, {"active": "activating", "status_text": "fetching x"}, "fetching x"),
        (
            {**QUEUED, "active": "failed", "sub": "failed"},
            {"active": "activating", "status_text": "fetching x"},
            "fetching x",
        ),
        (
            {**QUEUED, "active": "activating", "sub": "auto-restart-queued"},
            {"active": "activating", "status_text": "x"},
            "x",
        ),
        (QUEUED, {"active": "activating"}, ""),
        (QUEUED, {"active": "inactive", "status_text": "fetching x"}, ""),
        (QUEUED, None, ""),
        ({"loaded": True}, {"active": "activating", "status_text": "fetching x"}, ""),
        ({**QUEUED, "active": "activating", "sub": "start"}, {"active": "activating", "status_text": "fetching x"}, ""),
        ({**QUEUED, "active": "active", "sub": "running"}, {"active": "activating", "status_text": "fetching x"}, ""),
    ],
)
def test_an_app_that_waits_for_its_image(
    node: Node, monkeypatch: pytest.MonkeyPatch, unit: dict[str, Any], image: dict[str, Any] | None, wanted: str
) -> None:
    node.app("web")
    units = {"archy-web.service": systemd.Unit("archy-web.service", **unit)}
    if image is not None:
        units["archy-image@web.service"] = systemd.Unit("archy-image@web.service", **image)
    monkeypatch.setattr(systemd, "units", lambda names: {name: units[name] for name in names if name in units})
    assert [app.image_status for app in current.observe(node.name, {}).apps] == [wanted]


def test_systemd_is_not_asked_of_images_while_no_app_waits(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    node.app("web")
    asked: list[str] = []

    def units(names: list[str]) -> dict[str, systemd.Unit]:
        asked.extend(names)
        return {}

    monkeypatch.setattr(systemd, "units", units)
    current.observe(node.name, {})
    assert "archy-web.service" in asked
    assert "archy-image@web.service" not in asked
