# SPDX-License-Identifier: MIT
"""Which apps a pass restarts: those that run on other content than they should have, not too often, and no others."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from probes import ASKED
from support import UP, down, running, state

from archy.health.current import AppState, NodeState
from archy.health.liveness import Health
from archy.host.steps import Rebuild, ResetFailed, Restart, Resume, Thaw
from archy.prepare.starts import CONTEXT
from archy.probe.report import Report
from archy.reconcile import restarts
from archy.reconcile.restarts import Decision

CONF = "/var/lib/archipelago/web/web.conf"
FAULT = "does not answer, 3 times in a row: port 80: Connection refused"
LONGEST, CALM = restarts._LONGEST_PAUSE, restarts._CALM


def decide(node: NodeState, /, **faults: str) -> Decision:
    """What is decided where these apps have a fault."""
    return restarts.decide(node, {name: Health(restart_reason=said) for name, said in faults.items()})


def restarted(*apps: AppState, **fields: Any) -> list[str]:
    """The apps that are restarted, in one job."""
    steps = [step for step in decide(state(*apps, **fields)).steps if isinstance(step, Restart)]
    assert len(steps) <= 1
    return [app_id for step in steps for app_id in step.app_ids]


def test_nobody_is_restarted_while_podman_could_not_start_it() -> None:
    """It serves on, on what it has."""
    silent = Report(at=ASKED, podman_error="file is not a database")
    node = state(running(stale=(CONF,)), running("b"), probe=silent)
    assert decide(node, b=FAULT) == Decision([], {}, {})


def test_who_fails_again_however_slowly_is_one_that_returns() -> None:
    """Its pauses go on to double: an app that is asked every 5 min needs more than 10 to be found dead again."""
    before = {"faults": {"web": {"at": UP - CALM - 900, "count": 2.0}}}
    node = state(running(), previous=before)
    assert restarts.decide(node, {}).faults == {}
    assert restarts.decide(node, {"web": Health(counters={"failed": 1})}).faults["web"]["count"] == 2
    assert decide(node, web=FAULT).faults["web"]["count"] == 1
    pending = {"web": Health(restart_reason=FAULT, counters={"failed": 3})}
    assert restarts.decide(node, pending).faults["web"]["count"] == 3


def test_nothing_changed_is_nothing_done() -> None:
    assert decide(state(running(), down("b"))) == Decision([], {}, {})


@pytest.mark.parametrize(
    ("app", "wanted"),
    [
        pytest.param(running(stale=(CONF,)), True, id="stale"),
        pytest.param(running(stale=(CONF,), active="activating", sub="start", has_job=True), True, id="stale-starting"),
        pytest.param(running(stale=(CONF,), stopped=True), True, id="stopped-but-runs"),
        pytest.param(running(stale=(CONF,), failure="bad"), True, id="stale-and-bad"),
        pytest.param(down(stale=(CONF,)), False, id="down"),
        pytest.param(running(stale=(CONF,), active="failed", sub="failed"), False, id="failed"),
        pytest.param(running(stale=(CONF,), has_job=True), False, id="a-job-waits"),
        pytest.param(running(stale=(CONF,), active="activating", sub="auto-restart"), False, id="auto-restart"),
        pytest.param(running(stale=(CONF,), active="activating", sub="start-pre"), False, id="about-to-start"),
        pytest.param(running(stale=(CONF,), active="deactivating", sub="stop-sigterm"), False, id="stopping"),
        pytest.param(running(comparable=False), False, id="unknown"),
        pytest.param(running(comparable=False, start_unknown=True, secrets=["p"]), False, id="unrecorded"),
        pytest.param(running(stale_own=(CONF,)), False, id="operator-s-own-file"),
        pytest.param(running(stale_own=(CONF,), restart_when_changed=True), False, id="own-file-of-one-that-may"),
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
    ("fields", "others", "wanted"),
    [
        pytest.param({"stale": (CONTEXT,)}, [], "Rebuild", id="only-that"),
        pytest.param({"stale": (CONTEXT,), "unit_changed": True}, [], "Rebuild", id="and-a-unit-that-may-wait"),
        pytest.param({"stale": (CONF, CONTEXT)}, [], "Restart", id="and-a-file"),
        pytest.param(
            {"stale": (CONTEXT,), "unit_changed": True, "restart_when_changed": True}, [], "Restart", id="and-a-unit"
        ),
        pytest.param({"stale": (CONTEXT,)}, [running("b", restart_after=["web"])], "Restart", id="is-followed"),
        pytest.param({"stale": (CONTEXT,)}, [down("b", restart_after=["web"])], "Rebuild", id="by-one-that-is-down"),
    ],
)
def test_an_app_runs_on_while_its_image_is_made(fields: dict[str, Any], others: list[AppState], wanted: str) -> None:
    (step,) = decide(state(running(**fields), *others)).steps
    assert type(step).__name__ == wanted


def test_as_long_as_it_is_made_nothing_is_asked_for_and_nothing_counts() -> None:
    assert decide(state(running(stale=(CONTEXT,), image_status="it is being made"))) == Decision([], {}, {})
    (step,) = decide(state(running(stale=(CONF, CONTEXT), image_status="it is being made"))).steps
    assert isinstance(step, Restart)


@pytest.mark.parametrize("sub", ["start", "exited"])
def test_what_runs_to_its_end_may_do_so(sub: str) -> None:
    assert decide(state(running(stale=(CONF,), sub=sub, one_shot=True))) == Decision([], {}, {})


def test_what_has_run_to_its_end_is_as_calm_as_what_runs() -> None:
    (step,) = decide(state(running(sub="exited", one_shot=True, restarts=3))).steps
    assert isinstance(step, ResetFailed)


def test_of_two_one_is_built_and_one_restarted() -> None:
    found = decide(state(running("a", stale=(CONTEXT,)), running("b", stale=(CONF,)), running("c", stale=(CONTEXT,))))
    assert found.steps == [
        Rebuild(("a", "c"), f"a: {CONTEXT} has changed since its start, c: {CONTEXT} has changed since its start"),
        Restart(("b",), "b: web.conf has changed since its start"),
    ]


def test_one_that_is_dead_does_not_wait_for_its_image() -> None:
    steps = decide(state(running(stale=(CONTEXT,))), web=FAULT).steps
    assert [type(step) for step in steps] == [Restart]


@pytest.mark.parametrize(
    ("app", "wanted"),
    [
        pytest.param(running(comparable=False, start_unknown=True, secrets=["q", "p"]), True, id="unrecorded"),
        pytest.param(running(comparable=False, secrets=["p"]), False, id="cannot-be-compared"),
        pytest.param(running(secrets=["p"]), False, id="has-the-new-value"),
        pytest.param(running(comparable=False, start_unknown=True, secrets=["q", "p.pw"]), False, id="another-secret"),
        pytest.param(
            running(comparable=False, start_unknown=True, summary=None), False, id="nobody-knows-what-it-uses"
        ),
        pytest.param(down(start_unknown=True, secrets=["p"]), False, id="down"),
    ],
)
def test_who_is_restarted_while_a_secret_is_rotated(app: AppState, wanted: bool) -> None:
    """Nobody knows which value an app has that started before archy kept records, and the rotation must end."""
    assert restarted(running("a"), app, rotating=frozenset({"p"})) == (["web"] if wanted else [])


def test_the_reasons() -> None:
    apps = [
        running("a", stale=("/x/a.conf", "/x/b.conf"), stale_own=("/x/own.conf",)),
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
        running("waits", restart_after=["db"], has_job=True),
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
    assert early.deferred == pytest.approx({"web": 1})
    assert early.history == at(count, wait - 1)["history"]
    late = decide(state(app, previous=at(count, wait)))
    assert isinstance(late.steps[0], Restart)
    assert (late.deferred, late.history) == ({}, {"web": {"at": UP, "count": count + 1}})


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
    assert found.deferred == {}


def test_followers_wait_with_what_they_follow() -> None:
    apps = [running(stale=(CONF,)), running("ui", restart_after=["web"])]
    found = decide(state(*apps, previous=at(3, 1)))
    assert (found.steps, list(found.deferred)) == ([], ["web"])


@pytest.mark.parametrize(
    ("app", "forgotten"),
    [
        (running(restarts=3, changed=UP - CALM - 1), True),
        (running(restarts=3, changed=UP - CALM + 1), False),
        (running(restarts=0, changed=0.0), False),
        (running(restarts=3, changed=0.0, has_job=True), True),
        (running(restarts=3, changed=0.0, active="activating", sub="auto-restart"), False),
        (running(restarts=3, changed=0.0, active="activating", sub="start"), False),
    ],
)
def test_failures_are_forgotten_after_a_while(app: AppState, forgotten: bool) -> None:
    assert decide(state(app)).steps == ([ResetFailed(("web",))] if forgotten else [])


def test_one_that_is_restarted_now_has_other_failures_soon() -> None:
    (step,) = decide(state(running(restarts=3, changed=0.0, stale=(CONF,)))).steps
    assert isinstance(step, Restart)


def faulty(count: int, ago: float) -> dict[str, Any]:
    """What the last pass has left: so many restarts of a dead app in a row, the last so many seconds ago."""
    return {"faults": {"web": {"at": UP - ago, "count": count}}}


def test_who_is_dead_is_restarted_at_once() -> None:
    found = decide(state(running("a"), running()), web=FAULT)
    assert [str(step) for step in found.steps] == [f"restart web (web: {FAULT})"]
    assert found == Decision(found.steps, {}, {}, {"web": {"at": UP, "count": 1}}, {})


@pytest.mark.parametrize(
    ("count", "wait"), [(1, 60), (2, 120), (3, 240), (6, 1920), (7, LONGEST), (8, LONGEST), (2000, LONGEST)]
)
def test_who_is_dead_again_waits_and_the_pause_doubles(count: int, wait: float) -> None:
    early = decide(state(running(), previous=faulty(count, wait - 1)), web=FAULT)
    assert (early.steps, early.deferred) == ([], {})
    assert early.backing_off == pytest.approx({"web": 1})
    assert early.faults == faulty(count, wait - 1)["faults"]
    late = decide(state(running(), previous=faulty(count, wait)), web=FAULT)
    assert isinstance(late.steps[0], Restart)
    assert (late.backing_off, late.faults) == ({}, {"web": {"at": UP, "count": count + 1}})


def test_an_app_that_is_dead_for_ever_is_restarted_ever_more_rarely() -> None:
    """Passes for two days, 30 s apart; each restart leaves it dead."""
    previous: dict[str, Any] = {}
    times = []
    for tick in range(5760):
        found = decide(state(running(), monotonic=UP + 30 * tick, previous=previous), web=FAULT)
        times += [30 * tick for step in found.steps if isinstance(step, Restart)]
        previous = {"faults": found.faults}
    gaps = [after - before for before, after in itertools.pairwise(times)]
    assert gaps[:7] == [60, 120, 240, 480, 960, 1920, LONGEST]
    assert set(gaps[6:]) == {LONGEST}


@pytest.mark.parametrize(
    ("previous", "kept"),
    [
        (faulty(1, CALM), True),
        (faulty(1, CALM + 1), False),
        (faulty(4, 960), True),
        (faulty(4, 961), False),
        (faulty(20, 2 * LONGEST), True),
        (faulty(20, 2 * LONGEST + 1), False),
        (faulty(1, -1), False),
    ],
)
def test_who_was_well_for_long_was_never_dead(previous: dict[str, Any], kept: bool) -> None:
    found = decide(state(running(), previous=previous))
    assert found.faults == (previous["faults"] if kept else {})
    again = decide(state(running(), previous=previous), web=FAULT)
    assert again.backing_off.keys() == ({"web"} if kept and previous["faults"]["web"]["at"] + 60 > UP else set())


def test_what_was_said_of_one_is_no_reason_for_the_other() -> None:
    """Restarts for other content do not count as those of a dead app, nor the other way round."""
    stale = decide(state(running(stale=(CONF,)), previous=faulty(3, 1)))
    assert [type(step) for step in stale.steps] == [Restart]
    assert (stale.history, stale.faults) == ({"web": {"at": UP, "count": 1}}, faulty(3, 1)["faults"])
    dead = decide(state(running(), previous=at(20, 1)), web=FAULT)
    assert [type(step) for step in dead.steps] == [Restart]
    assert (dead.history, dead.faults) == (at(20, 1)["history"], {"web": {"at": UP, "count": 1}})


def test_who_is_given_up_and_changed_is_restarted() -> None:
    """Somebody has mended its configuration: it need not wait for the hour."""
    found = decide(state(running(stale=(CONF,)), previous=faulty(9, 1)), web=FAULT)
    assert [step.app_ids for step in found.steps if isinstance(step, Restart)] == [("web",)]
    assert (found.backing_off, found.deferred) == ({}, {})


def test_while_the_node_is_mended_no_app_is_restarted_for_a_fault() -> None:
    apps = [running(), running("b", stale=(CONF,))]
    found = decide(state(*apps, recovering=True), web=FAULT)
    assert [step.app_ids for step in found.steps if isinstance(step, Restart)] == [("b",)]
    assert (found.faults, found.backing_off) == ({}, {})
    assert decide(state(*apps[:1], recovering=True, previous=faulty(1, 10)), web=FAULT).backing_off == {}


def test_who_follows_a_dead_one() -> None:
    apps = [running("db"), running(restart_after=["db"]), running("other")]
    found = decide(state(*apps), db=FAULT)
    assert [str(step) for step in found.steps] == [f"restart db, web (db: {FAULT}, web: after what it needs)"]
    assert (found.history, found.faults) == ({"web": {"at": UP, "count": 1}}, {"db": {"at": UP, "count": 1}})


def test_who_was_stopped_by_a_signal_or_frozen_is_let_go_on() -> None:
    """Before anything is restarted, and also while the node is mended."""
    health = {"web": Health(stopped=True), "b": Health(frozen=True), "c": Health(restart_reason=FAULT), "d": Health()}
    apps = [running(), running("b"), running("c"), running("d")]
    steps = restarts.decide(state(*apps), health).steps
    assert steps == [Thaw(("b",)), Resume(("web",)), Restart(("c",), f"c: {FAULT}")]
    assert restarts.decide(state(*apps, recovering=True), health).steps == steps[:2]
