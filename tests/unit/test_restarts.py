# SPDX-License-Identifier: MIT
"""Which apps a pass restarts: those that run on other content than they should have, not too often, and no others."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from support import UP, down, running, state

from archy import restarts
from archy.observe import AppState
from archy.restarts import Decision, decide
from archy.steps import ForgetFailures, Restart

CONF = "/var/lib/archipelago/web/web.conf"
LONGEST, CALM = restarts._LONGEST_PAUSE, restarts._CALM


def restarted(*apps: AppState, **fields: Any) -> list[str]:
    """The apps that are restarted, in one job."""
    steps = [step for step in decide(state(*apps, **fields)).steps if isinstance(step, Restart)]
    assert len(steps) <= 1
    return [app_id for step in steps for app_id in step.app_ids]


def test_nothing_changed_is_nothing_done() -> None:
    assert decide(state(running(), down("b"))) == Decision([], {}, {})


@pytest.mark.parametrize(
    ("app", "wanted"),
    [
        pytest.param(running(stale=(CONF,)), True, id="stale"),
        pytest.param(running(stale=(CONF,), active="activating", sub="start", busy=True), True, id="stale-starting"),
        pytest.param(running(stale=(CONF,), stopped=True), True, id="stopped-but-runs"),
        pytest.param(running(stale=(CONF,), failure="bad"), True, id="stale-and-bad"),
        pytest.param(down(stale=(CONF,)), False, id="down"),
        pytest.param(running(stale=(CONF,), active="failed", sub="failed"), False, id="failed"),
        pytest.param(running(stale=(CONF,), busy=True), False, id="a-job-waits"),
        pytest.param(running(stale=(CONF,), active="activating", sub="auto-restart"), False, id="auto-restart"),
        pytest.param(running(stale=(CONF,), active="activating", sub="start-pre"), False, id="about-to-start"),
        pytest.param(running(stale=(CONF,), active="deactivating", sub="stop-sigterm"), False, id="stopping"),
        pytest.param(running(known=False), False, id="unknown"),
        pytest.param(running(known=False, unrecorded=True, secrets=["p"]), False, id="unrecorded"),
        pytest.param(running(own=(CONF,)), False, id="operator-s-own-file"),
        pytest.param(running(own=(CONF,), restart_when_changed=True), False, id="own-file-of-one-that-may"),
        pytest.param(running(unit_changed=True), False, id="unit"),
        pytest.param(running(unit_changed=True, restart_when_changed=True), True, id="unit-of-one-that-may"),
        pytest.param(running(unit_changed=True, summary=None), False, id="unit-of-one-that-was-never-good"),
        pytest.param(running(stale=(CONF,), summary=None), True, id="stale-and-never-good"),
        pytest.param(down(unit_changed=True, restart_when_changed=True), False, id="unit-of-one-that-is-down"),
    ],
)
def test_who_is_restarted(app: AppState, wanted: bool) -> None:
    assert restarted(running("a"), app, running("z")) == (["web"] if wanted else [])


@pytest.mark.parametrize(
    ("app", "wanted"),
    [
        pytest.param(running(known=False, unrecorded=True, secrets=["q", "p"]), True, id="unrecorded"),
        pytest.param(running(known=False, secrets=["p"]), False, id="cannot-be-compared"),
        pytest.param(running(secrets=["p"]), False, id="has-the-new-value"),
        pytest.param(running(known=False, unrecorded=True, secrets=["q", "p.pw"]), False, id="another-secret"),
        pytest.param(running(known=False, unrecorded=True, summary=None), False, id="nobody-knows-what-it-uses"),
        pytest.param(down(unrecorded=True, secrets=["p"]), False, id="down"),
    ],
)
def test_who_is_restarted_while_a_secret_is_rotated(app: AppState, wanted: bool) -> None:
    """Nobody knows which value an app has that started before archy kept records, and the rotation must end."""
    assert restarted(running("a"), app, rotating=frozenset({"p"})) == (["web"] if wanted else [])


def test_the_reasons() -> None:
    apps = [
        running("a", stale=("/x/a.conf", "/x/b.conf"), own=("/x/own.conf",)),
        running("b", unit_changed=True, restart_when_changed=True),
        running("c", restart_after=["a"]),
    ]
    (step,) = decide(state(*apps)).steps
    assert str(step) == (
        "restart a, b, c (a: a.conf has changed since its start; b.conf has changed since its start; "
        "own.conf has changed since its start, b: its manifest has changed since its start, c: after what it needs)"
    )


def test_those_that_follow() -> None:
    """Also through one another, in circles, and never through one that is down."""
    apps = [
        running("db", stale=(CONF,)),
        running("a", restart_after=["db"]),
        running("b", restart_after=["a"]),
        running("c", restart_after=["b", "d"]),
        running("d", restart_after=["c"]),
        running("other", restart_after=["nothing"], needs=["db"]),
        running("none", summary=None),
        down("off", restart_after=["db"]),
        running("through", restart_after=["off"]),
        running("waits", restart_after=["db"], busy=True),
    ]
    assert restarted(*apps) == ["a", "b", "c", "d", "db"]
    assert restarted(*apps[1:]) == []


def at(count: int, ago: float) -> dict[str, Any]:
    """What the last pass has left: so many restarts, the last so many seconds ago."""
    return {"history": {"web": {"at": UP - ago, "count": count}}}


@pytest.mark.parametrize(
    ("count", "wait"), [(1, 5), (6, 5), (7, 60), (8, 120), (9, 240), (12, 1920), (13, LONGEST), (2000, LONGEST)]
)
def test_a_few_restarts_are_free_and_then_the_pause_doubles(count: int, wait: float) -> None:
    app = running(stale=(CONF,))
    early = decide(state(app, previous=at(count, wait - 1)))
    assert early.steps == []
    assert early.waiting == pytest.approx({"web": 1})
    assert early.history == at(count, wait - 1)["history"]
    late = decide(state(app, previous=at(count, wait)))
    assert isinstance(late.steps[0], Restart)
    assert (late.waiting, late.history) == ({}, {"web": {"at": UP, "count": count + 1}})


def test_an_app_that_is_never_right_is_restarted_ever_more_rarely() -> None:
    """Passes for a day, 30 s apart, over an app that is stale however often it is started."""
    previous: dict[str, Any] = {}
    times = []
    for tick in range(2880):
        found = decide(state(running(stale=(CONF,)), monotonic=UP + 30 * tick, previous=previous))
        times += [30 * tick for step in found.steps if isinstance(step, Restart)]
        previous = {"history": found.history}
    assert len(times) < 40
    gaps = [after - before for before, after in itertools.pairwise(times)]
    assert gaps == sorted(gaps)
    assert gaps[-1] == LONGEST


@pytest.mark.parametrize(
    ("previous", "kept"),
    [
        (at(1, CALM), True),
        (at(1, CALM + 1), False),
        (at(20, 2 * LONGEST), True),
        (at(20, 2 * LONGEST + 1), False),
        (at(1, -1), False),  # of before a boot: the monotonic clock has begun anew
        ({"history": None}, False),
        ({}, False),
    ],
)
def test_what_is_long_past_is_forgotten(previous: dict[str, Any], kept: bool) -> None:
    found = decide(state(running(), previous=previous))
    assert found.history == (previous["history"] if kept else {})


def test_followers_come_along_when_they_were_restarted_a_moment_ago() -> None:
    """It is now or never: in the next pass, what they follow is as it must be."""
    apps = [running("db", stale=(CONF,)), running(restart_after=["db"])]
    found = decide(state(*apps, previous=at(3, 1)))
    assert [step.app_ids for step in found.steps if isinstance(step, Restart)] == [("db", "web")]
    assert found.waiting == {}


def test_followers_wait_with_what_they_follow() -> None:
    apps = [running(stale=(CONF,)), running("ui", restart_after=["web"])]
    found = decide(state(*apps, previous=at(3, 1)))
    assert (found.steps, list(found.waiting)) == ([], ["web"])


@pytest.mark.parametrize(
    ("app", "forgotten"),
    [
        (running(restarts=3, changed=UP - CALM - 1), True),
        (running(restarts=3, changed=UP - CALM + 1), False),
        (running(restarts=0, changed=0.0), False),
        (running(restarts=3, changed=0.0, busy=True), True),
        (running(restarts=3, changed=0.0, active="activating", sub="auto-restart"), False),
        (running(restarts=3, changed=0.0, active="activating", sub="start"), False),
    ],
)
def test_failures_are_forgotten_after_a_while(app: AppState, forgotten: bool) -> None:
    assert decide(state(app)).steps == ([ForgetFailures("web")] if forgotten else [])


def test_one_that_is_restarted_now_has_other_failures_soon() -> None:
    (step,) = decide(state(running(restarts=3, changed=0.0, stale=(CONF,)))).steps
    assert isinstance(step, Restart)
