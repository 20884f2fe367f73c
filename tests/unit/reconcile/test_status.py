# SPDX-License-Identifier: MIT
# ruff: noqa: E501 - a case is a line
"""How a node and its apps are: every rule by which something is not well, and what is no reason to worry."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from probes import HEALTH, listed, probe
from support import NOW, UP, down, running, state

from archy.cli import status as cli_status
from archy.health.current import AppState
from archy.host import systemd
from archy.probe.report import Report
from archy.reconcile import plan
from archy.reconcile import status as reconcile_status
from archy.reconcile.status import BROKEN, DEGRADED, OK
from archy.recover.incidents import Incidents


def assess(*apps: AppState, **fields: Any) -> reconcile_status.Status:
    return reconcile_status.assess(plan.make(state(*apps, **fields), Incidents()))


OFF = systemd.Unit("off.unit", active="inactive")


def iso(wall: float) -> str:
    return datetime.fromtimestamp(wall, UTC).isoformat(timespec="seconds")


def test_all_is_well() -> None:
    found = assess(running(health=HEALTH), running("b", needs=["web"]))
    assert found["level"] == OK
    assert {part["level"] for part in found["node"].values()} == {OK}
    assert found["apps"]["web"] == {
        "level": OK,
        "desired": "running",
        "current": "running",
        "since": iso(NOW - 3600),
        "restarts": 0,
        "health": "healthy",
        "stale": [],
        "image": "",
        "held": "",
        "waits_for": [],
        "problems": [],
        "failure": "",
        "unit": "archy-web.service",
        "invocation": "1",
        "version": "1.0.0",
    }
    assert (found["time"], found["wall"], found["monotonic"], found["history"]) == (iso(NOW), NOW, UP, {})
    assert json.loads(reconcile_status.pack(found)) == found


def test_a_node_without_apps_is_well() -> None:
    assert assess(user_manager=OFF, timer=OFF)["level"] == OK


STARTING = {"active": "activating", "sub": "start"}


@pytest.mark.parametrize(
    ("app", "level", "current", "problems"),
    [
        pytest.param(running(active="reloading"), OK, "running", [], id="reloading"),
        pytest.param(running(restarts=2), OK, "running", [], id="restarted-twice"),
        pytest.param(running(restarts=3), DEGRADED, "running", ["was restarted 3 times"], id="restarted-often"),
        pytest.param(running(**STARTING, began=UP - 600), OK, "starting", [], id="starting"),
        pytest.param(running(**STARTING, began=UP - 601), DEGRADED, "starting", ["has been starting for 10 min"], id="too-long"),
        pytest.param(running(**STARTING, began=UP - 7200, start_timeout=7200), OK, "starting", [], id="starting-as-it-may"),
        pytest.param(running(**STARTING, began=UP - 31, start_timeout=30), DEGRADED, "starting", ["has been starting for 1 min"], id="longer-than-it-may"),
        pytest.param(running(**STARTING, began=0.0), OK, "starting", [], id="starting-since-nobody-knows-when"),
        pytest.param(running(**STARTING, restarts=2, began=UP - 5), OK, "starting", [], id="started-again"),
        pytest.param(running(**STARTING, restarts=3, began=UP - 5), DEGRADED, "restarting", ["was restarted 3 times"], id="starts-again-and-again"),
        pytest.param(running(active="activating", sub="auto-restart", restarts=1), OK, "restarting", [], id="crashed-once"),
        pytest.param(down(has_job=True, restarts=9), DEGRADED, "restarting", ["was restarted 9 times"], id="waits-for-its-image-between-crashes"),
        pytest.param(running(active="activating", sub="auto-restart", restarts=9), DEGRADED, "restarting", ["was restarted 9 times"], id="crashes"),
        pytest.param(running(active="deactivating", sub="stop-sigterm"), OK, "stopping", [], id="stopping"),
        pytest.param(running(active="failed", sub="failed", result="timeout"), DEGRADED, "failed", ["has failed (timeout)"], id="failed"),
        pytest.param(down(stopped=True, active="failed", result="signal"), DEGRADED, "failed", ["has failed (signal)"], id="stopped-and-failed"),
        pytest.param(down(), OK, "stopped", [], id="down"),
        pytest.param(down(stopped=True), OK, "stopped", [], id="stopped-by-the-user"),
        pytest.param(down(stopped=True, failure="bad"), OK, "stopped", ["bad"], id="stopped-and-bad"),
        pytest.param(running(stopped=True, restarts=3), DEGRADED, "running", ["was restarted 3 times"], id="stopped-but-runs"),
        pytest.param(down(loaded=False, masked=True), OK, "stopped", [], id="masked"),
        pytest.param(down(loaded=False, masked=True, failure="bad"), OK, "stopped", ["bad"], id="masked-and-bad"),
        pytest.param(running(loaded=False, masked=True, restarts=3), DEGRADED, "running", ["was restarted 3 times"], id="masked-but-runs"),
        pytest.param(down(loaded=False), DEGRADED, "unknown", ["systemd has no unit for it: systemctl daemon-reload"], id="no-unit"),
        pytest.param(running(loaded=False), DEGRADED, "running", ["systemd has lost its unit: systemctl daemon-reload"], id="runs-without-a-unit"),
        pytest.param(running(warnings=("a: bad", "b: bad")), DEGRADED, "running", ["a: bad", "b: bad"], id="last-good-version"),
        pytest.param(running(failure="no"), DEGRADED, "running", ["no"], id="could-not-start-again"),
        pytest.param(down(failure="no"), DEGRADED, "stopped", ["no"], id="cannot-start"),
        pytest.param(down(active="failed", sub="failed", result="exit-code", one_shot=True), OK, "stopped", [], id="stopped-halfway"),
        pytest.param(running(sub="exited", one_shot=True), OK, "completed", [], id="completed"),
        pytest.param(running(active="failed", sub="failed", failure="no"), DEGRADED, "failed", ["no"], id="failed-and-we-know-why"),
        pytest.param(down(has_job=True, image_status="fetching x: 3 MB so far"), OK, "waiting", [], id="image-on-its-way"),
        pytest.param(down(has_job=True, image_status="cannot be had: y; attempt 2", image_failed=True), DEGRADED, "waiting", ["waiting for its image: cannot be had: y; attempt 2"], id="image-cannot-be-had"),
        pytest.param(running(active="activating", sub="auto-restart", restarts=9, image_status="fetching x"), OK, "waiting", [], id="image-lost"),
        pytest.param(running(comparable=False), OK, "running", [], id="started-by-nobody-knows-what"),
        pytest.param(running(summary=None), OK, "running", [], id="never-good"),
    ],
)  # fmt: skip
def test_an_app(app: AppState, level: str, current: str, problems: list[str]) -> None:
    found = assess(app, running("b"))
    judged = found["apps"]["web"]
    assert (judged["level"], judged["current"], judged["problems"]) == (level, current, problems)
    assert (found["level"], found["apps"]["b"]["level"]) == (level, OK)
    assert judged["desired"] == ("stopped" if app.stopped or app.unit.masked else "running")


def test_what_it_runs_on_is_told_and_no_problem() -> None:
    app = running(stale=("/x/a.conf",), stale_own=("/x/own.conf",), unit_changed=True)
    judged = assess(app)["apps"]["web"]
    assert judged["stale"] == [
        "a.conf has changed since its start",
        "own.conf has changed since its start",
        "its manifest has changed since its start",
    ]
    assert (judged["level"], judged["problems"]) == (OK, [])
    for state_ in ("inactive", "failed", "deactivating"):
        off = running(active=state_, stale=("/x/a.conf",), unit_changed=True)
        assert assess(off)["apps"]["web"]["stale"] == []


def test_one_that_must_wait_for_its_restart() -> None:
    entry = {"web": {"at": UP - 10, "count": 20}}
    judged = assess(running(stale=("/x/a.conf",)), previous={"history": entry})["apps"]["web"]
    assert (judged["level"], judged["problems"]) == (
        DEGRADED,
        ["will be restarted in 3590 s; it was restarted not long ago"],
    )


@pytest.mark.parametrize(
    ("app", "other", "waits"),
    [
        (running(needs=["db"]), running("db"), []),
        (running(needs=["db"]), running("db", active="reloading"), []),
        (running(needs=["db"]), running("db", **STARTING), ["db"]),
        (running(needs=["db"]), down("db"), ["db"]),
        (running(needs=["db"]), running("db", active="failed"), ["db"]),
        (running(needs=["db", "nothing"]), running("db"), ["nothing"]),
        (down(needs=["db"]), down("db"), []),
        (running(**STARTING, began=UP - 5, needs=["db"]), down("db"), ["db"]),
    ],
)
def test_what_it_waits_for(app: AppState, other: AppState, waits: list[str]) -> None:
    judged = assess(app, other)["apps"]["web"]
    assert (judged["waits_for"], judged["problems"]) == (waits, [])


def part(name: str, *apps: AppState, **fields: Any) -> tuple[str, list[str]]:
    """The judgement over one part of the node, which is that of the node if all else is well."""
    found = assess(*apps, **fields)
    judged = found["node"][name]
    assert found["level"] == judged["level"]
    return judged["level"], judged["problems"]


@pytest.mark.parametrize(
    ("size", "free", "level", "problems"),
    [
        (1000, 1000, OK, []),
        (1000, 51, OK, []),
        (100 * 2**30, 4 * 2**30, DEGRADED, ["96 % of the disk is used: 4096 MiB are left"]),
        (1000, 0, DEGRADED, ["100 % of the disk is used: 0 MiB are left"]),
    ],
)
def test_the_disk(size: int, free: int, level: str, problems: list[str]) -> None:
    assert part("disk", size=size, free=free) == (level, problems)


@pytest.mark.parametrize(
    ("apps", "fields", "level", "problems"),
    [
        ([running()], {"timer": OFF}, DEGRADED, ["no passes are made: systemctl start archy-reconcile.timer archy-reconcile.path"]),
        ([running(active="failed", sub="failed", failure="x")], {}, OK, []),
        ([down()], {"timer": OFF}, OK, []),  # after systemctl stop 'archy-*'
        ([running()], {"user_manager": systemd.Unit("x", active="failed")}, DEGRADED, ["the service user's manager does not run, so no app can"]),
        ([running()], {"user_manager": systemd.Unit("x", active="activating")}, OK, []),
        ([], {"user_manager": OFF}, OK, []),
    ],
)  # fmt: skip
def test_the_ticks(apps: list[AppState], fields: dict[str, Any], level: str, problems: list[str]) -> None:
    judged = assess(*apps, **fields)["node"]["passes"]
    assert (judged["level"], judged["problems"]) == (level, problems)


def test_the_secrets_and_the_files_and_the_settings() -> None:
    said = "/var/lib/archipelago/secrets: is not a directory that only root can read"
    assert part("secrets", running(), failures={"@secrets": said}) == (BROKEN, [said])
    assert part("files", running(), failures={"@node": "disk full"}) == (BROKEN, ["disk full"])
    assert part("settings", running(), warnings=("a", "b")) == (DEGRADED, ["a", "b"])


def test_broken_is_worse_than_degraded() -> None:
    assert assess(running(restarts=9), failures={"@node": "x"}, warnings=("y",))["level"] == BROKEN
    assert assess(running(restarts=9), running("b"))["level"] == DEGRADED


def test_podman_answers() -> None:
    assert assess(probe=probe(listed("1"), listed("2"), podman_at=UP - 20))["node"]["podman"] == {
        "level": OK,
        "problems": [],
        "containers": 2,
        "answered": iso(NOW - 20),
    }


def test_podman_does_not_answer_and_what_it_said_last_stays() -> None:
    before = assess(running(), probe=probe(listed(), podman_at=UP - 20))
    silent = Report(at=UP + 10, podman_at=UP + 10, podman_error="no answer within 8 s")
    for _ in range(2):
        before = assess(running(), monotonic=UP + 30, wall=NOW + 30, previous=before, probe=silent)
        assert before["node"]["podman"] == {
            "level": BROKEN,
            "problems": ["Podman does not answer: no answer within 8 s"],
            "containers": 1,
            "answered": iso(NOW - 20),
        }
        assert before["level"] == BROKEN


def test_podman_was_not_asked_yet() -> None:
    found = assess(probe=Report())["node"]["podman"]
    assert found == {"level": OK, "problems": [], "containers": None, "answered": None}


@pytest.mark.parametrize(
    ("wall", "by"),
    [(30, None), (90, None), (-29, None), (91, 61), (-31, -61), (30 + 86400 * 365, 86400 * 365), (-86400, -86430)],
)
def test_a_jump_of_the_clock(wall: float, by: int | None) -> None:
    """It is told, for an hour, and nothing comes of it."""
    previous = assess(running())
    found = assess(running(), wall=NOW + wall, monotonic=UP + 30, previous=previous)
    jumped = {"by": by, "at": iso(NOW + wall), "monotonic": UP + 30} if by else None
    assert (found["level"], found["node"]["clock"]) == (OK, {"level": OK, "problems": [], "jumped": jumped})
    later = assess(running(), wall=NOW + wall + 3599, monotonic=UP + 30 + 3599, previous=found)
    assert later["node"]["clock"]["jumped"] == jumped
    gone = assess(running(), wall=NOW + wall + 3600, monotonic=UP + 30 + 3600, previous=later)
    assert gone["node"]["clock"]["jumped"] is None


def test_a_boot_is_no_jump() -> None:
    found = assess(running(), wall=NOW + 9999, monotonic=5.0, previous=assess(running()))
    assert found["node"]["clock"]["jumped"] is None


def test_a_clock_that_is_certainly_wrong() -> None:
    built = Path(reconcile_status.__file__).stat().st_mtime
    assert part("clock", wall=built - 86399) == (OK, [])
    wrong = built - 86401
    assert part("clock", wall=wrong) == (DEGRADED, [f"the clock shows {iso(wrong)}, before archy was built"])


@pytest.mark.parametrize("previous", [{}, {"apps": {}}, {"apps": {}, "node": {}, "monotonic": 1.0, "wall": 2.0}])
def test_whatever_an_older_archy_has_left(previous: dict[str, Any]) -> None:
    assert assess(running(), previous=previous)["apps"]["web"]["level"] == OK


class Journal:
    """Counts who asks."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, lines: list[str]) -> None:
        self.asked: list[str] = []
        self.lines = lines
        monkeypatch.setattr(systemd, "journal", self.journal)

    def journal(self, unit: str, _lines: int) -> list[str]:
        self.asked.append(unit)
        return self.lines


LOG = [
    "disk full",
    "archy-web.service: Failed with result 'exit-code'.",
    "Failed to start archy-web.service - Web.",
    " ",
]
FAILED = {"active": "failed", "sub": "failed", "restarts": 1}


def with_errors(*apps: AppState) -> dict[str, str | None]:
    found = assess(*apps)
    told = cli_status.with_errors(found)
    assert {app_id: {**app, "error": None} for app_id, app in told["apps"].items()} == {
        app_id: {**app, "error": None} for app_id, app in found["apps"].items()
    }
    assert b"disk full" not in reconcile_status.pack(found)
    return {app_id: app["error"] for app_id, app in told["apps"].items()}


@pytest.mark.parametrize(
    ("app", "error"),
    [
        (running(**FAILED), "disk full"),
        (running(active="activating", sub="auto-restart", restarts=5), "disk full"),
        (running(restarts=5), "disk full"),
        (running(), None),
        (down(stopped=True, failure="x"), None),
    ],
)
def test_what_an_app_said_last(monkeypatch: pytest.MonkeyPatch, app: AppState, error: str | None) -> None:
    journal = Journal(monkeypatch, LOG)
    assert with_errors(app, running("b")) == {"web": error, "b": None}
    assert journal.asked == (["archy-web.service"] if error else [])


@pytest.mark.parametrize(("lines", "error"), [(LOG[1:], None), ([], None), (["x" * 1000], "x" * 300)])
def test_logs_that_say_nothing_or_too_much(
    monkeypatch: pytest.MonkeyPatch, lines: list[str], error: str | None
) -> None:
    Journal(monkeypatch, lines)
    assert with_errors(running(**FAILED)) == {"web": error}


def test_what_is_known_as_a_problem_is_not_said_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    Journal(monkeypatch, ["manifest.yml:7:3: app.x: is not a known key"])
    assert with_errors(down(**FAILED, failure="manifest.yml:7:3: app.x: is not a known key\nand more")) == {"web": None}
