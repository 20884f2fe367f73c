# SPDX-License-Identifier: MIT
"""Whether an app serves: what counts as a failure, how much, and for how long."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from probes import ASKED, HEALTH, ID, OTHER, YES, container, listed, no, probe
from support import UP, down, running, state

from archy.health.current import AppState, NodeState
from archy.health.liveness import HEALTHY, NONE, STARTING, UNHEALTHY, Health, judge
from archy.probe.checks import BAD_ANSWER, REFUSED, TIMEOUT
from archy.probe.report import CheckResult, ContainerReport, PodmanContainer, Report

KNOWN = (listed(),)
START = {"active": "activating", "sub": "start", "has_job": True}


class Passes:
    """Passes over one app, 30 s apart, each after a probe of its own."""

    def __init__(self, app: AppState | None = None, **fields: Any) -> None:
        self.app = app or running(health=HEALTH)
        self.fields = fields
        self.now = ASKED
        self.entry: dict[str, Any] = {}

    def see(
        self, found: ContainerReport, known: tuple[PodmanContainer, ...] | None = KNOWN, load: float = 0, **fields: Any
    ) -> Health:
        """The next pass. The answers are of the same moment as the probe, if they have none."""
        self.now += 30
        made: dict[str, Any] = {"at": self.now, "podman_at": self.now, "load": load, "apps": {"web": self.fresh(found)}}
        return self.judged(Report(**{**made, "containers": known, **fields}))

    def fresh(self, found: ContainerReport) -> ContainerReport:
        check = found.check and replace(found.check, at=self.now - 1)
        return replace(found, check=check)

    def judged(self, found: Report) -> Health:
        """What a pass makes of this answer; it is not asked again if it has been seen already."""
        previous = {"liveness": {"web": self.entry}}
        node = state(self.app, monotonic=self.now + 5, probe=found, previous=previous, **self.fields)
        health = judge(node).get("web", Health())
        self.entry = dict(health.counters)
        return health


def health_of(app: AppState, found: ContainerReport, *known: PodmanContainer, **fields: Any) -> Health | None:
    """What the first pass makes of it."""
    return judge(state(app, probe=probe(*known or KNOWN, apps={"web": found}, **fields))).get("web")


def test_who_serves_is_healthy() -> None:
    found = Passes().see(container())
    assert (found.state, found.message, found.restart_reason, found.stopped, found.frozen) == (
        HEALTHY,
        "",
        "",
        False,
        False,
    )
    assert not found.is_pending


def test_who_is_asked_nothing_is_neither() -> None:
    found = Passes(running()).see(container(None))
    assert (found.state, found.restart_reason, found.is_pending) == (NONE, "", False)


@pytest.mark.parametrize(("retries", "passes"), [(1, 1), (2, 2), (3, 3), (10, 10)])
@pytest.mark.parametrize("kind", [REFUSED, BAD_ANSWER, TIMEOUT])
def test_so_many_failures_in_a_row_and_it_is_dead(retries: int, passes: int, kind: str) -> None:
    seen = Passes(running(health={**HEALTH, "retries": retries}))
    seen.see(container())
    found = [seen.see(container(no(kind, "why"))) for _ in range(passes)]
    said = f"does not answer, {retries} times in a row: why"
    assert [one.restart_reason for one in found] == [""] * (passes - 1) + [said]
    assert all(one.is_pending for one in found)


def test_one_failure_is_not_worth_a_word_two_are() -> None:
    seen = Passes(running(health={**HEALTH, "retries": 9}))
    found = [seen.see(container(no(said="why"))) for _ in range(3)]
    assert [(one.state, one.message) for one in found] == [(HEALTHY, ""), (UNHEALTHY, "why"), (UNHEALTHY, "why")]


def test_an_answer_ends_the_row() -> None:
    seen = Passes()
    answers = [no(), no(), YES, no(), no(), YES, no(), no(), no()]
    found = [seen.see(container(answer)) for answer in answers]
    assert [bool(one.restart_reason) for one in found] == [False] * 8 + [True]
    assert [one.is_pending for one in found] == [not answer.ok for answer in answers]


def test_the_same_answer_counts_once() -> None:
    """A path unit, or a person, makes passes between two probes; and what is not due is not asked."""
    seen = Passes()
    seen.see(container(no()))
    asked = seen.entry["failed_at"]
    for _ in range(10):
        seen.now += 30
        old = container(no(at=asked))
        found = seen.judged(probe(*KNOWN, at=seen.now, apps={"web": old}))
        assert (found.restart_reason, found.counters["failed"]) == ("", 1)


def test_while_the_node_is_mended_the_last_failure_is_not_reached() -> None:
    """Apps fail for reasons of the node then; the answer after that decides."""
    for answer, dead in ((YES, False), (no(), True)):
        seen = Passes(recovering=True)
        assert [seen.see(container(no())).restart_reason for _ in range(9)] == [""] * 9
        seen.fields = {}
        assert bool(seen.see(container(answer)).restart_reason) is dead


def test_what_is_to_end_may_do_so_whatever_podman_has_forgotten() -> None:
    seen = Passes(running(one_shot=True))
    assert [seen.see(container(None), known=()).restart_reason for _ in range(5)] == [""] * 5


def test_a_restart_is_a_new_beginning() -> None:
    seen = Passes()
    for _ in range(2):
        seen.see(container(no()))
    found = seen.see(container(no(), id=OTHER), (listed(OTHER),))
    assert (found.restart_reason, found.counters["failed"], found.counters["id"]) == ("", 1, OTHER)


@pytest.mark.parametrize(
    ("load", "cpu", "kind", "counts"),
    [
        (0.0, 0.0, TIMEOUT, 1),
        (2.0, 0.0, TIMEOUT, 1),
        (2.1, 0.0, TIMEOUT, 0.1),
        (0.0, 2.9, TIMEOUT, 1),
        (0.0, 3.1, TIMEOUT, 0.1),
        (50.0, 30.0, REFUSED, 1),
        (50.0, 30.0, BAD_ANSWER, 1),
    ],
    ids=str,
)
def test_slow_is_not_dead(load: float, cpu: float, kind: str, counts: float) -> None:
    """Where the machine is loaded, or the app has used a tenth of a CPU since, silence counts a tenth."""
    seen = Passes()
    seen.see(container(cpu=100))
    found = seen.see(container(no(kind), cpu=100 + cpu), load=load)
    assert found.counters["failed"] == counts


def test_who_is_busy_and_silent_for_ever_is_dead_in_the_end() -> None:
    seen = Passes()
    seen.see(container(cpu=0))
    found = [seen.see(container(no(TIMEOUT), cpu=30.0 * number)) for number in range(1, 31)]
    assert [bool(one.restart_reason) for one in found] == [False] * 29 + [True]
    assert [one.state for one in found].index(UNHEALTHY) == 19


def test_of_an_app_that_is_seen_the_first_time_nobody_knows_what_it_has_used() -> None:
    assert Passes().see(container(no(TIMEOUT), cpu=9999)).counters["failed"] == 1


def test_what_it_has_used_is_what_it_used_since_it_was_asked_last() -> None:
    """It is asked every five minutes, and passes are made in between."""
    seen = Passes(running(health={**HEALTH, "interval": 300}))
    seen.see(container(cpu=0))
    asked = seen.now - 1
    for number in range(1, 10):
        seen.now += 30
        old = container(replace(YES, at=asked), cpu=15.0 * number)
        seen.judged(probe(*KNOWN, at=seen.now, apps={"web": old}))
    assert seen.see(container(no(TIMEOUT), cpu=150.0)).counters["failed"] == 0.1


def test_an_app_of_which_no_version_was_ever_good() -> None:
    seen = Passes(running(summary=None))
    assert [bool(seen.see(container(no())).restart_reason) for _ in range(3)] == [False, False, True]


@pytest.mark.parametrize(
    ("fields", "said", "stopped", "frozen"),
    [
        ({"main_stopped": True, "stopped": True}, "its main process is stopped (SIGSTOP)", True, False),
        ({"frozen": True}, "its unit is frozen", False, True),
        ({"frozen": True, "main_stopped": True, "stopped": True}, "its unit is frozen", False, True),
    ],
)
@pytest.mark.parametrize("check", [None, YES, no(TIMEOUT)])
def test_who_is_held_goes_on_at_once_and_is_dead_if_that_does_not_help(
    fields: dict[str, Any], said: str, stopped: bool, frozen: bool, check: CheckResult | None
) -> None:
    """The kernel accepts connections for it: an answer in TCP says nothing."""
    seen = Passes()
    found = [seen.see(container(check, **fields)) for _ in range(3)]
    assert {(one.stopped, one.frozen) for one in found} == {(stopped, frozen)}
    assert [one.state for one in found[1:]] == [UNHEALTHY] * 2
    assert [one.restart_reason for one in found] == ["", "", f"does not answer, 3 times in a row: {said}"]
    assert all(one.is_pending for one in found)


def test_one_look_at_who_is_held_counts_once() -> None:
    seen = Passes()
    seen.see(container(frozen=True))
    found = [seen.judged(probe(*KNOWN, at=seen.now, apps={"web": container(frozen=True)})) for _ in range(5)]
    assert {one.counters["failed"] for one in found} == {1}


def test_after_it_went_on_its_next_answer_counts() -> None:
    seen = Passes()
    seen.see(container(frozen=True))
    assert seen.see(container(no())).counters["failed"] == 2
    assert seen.see(container()).counters["failed"] == 0


@pytest.mark.parametrize(
    ("check", "stopped"),
    [(no(TIMEOUT), True), (no(REFUSED), True), (no(BAD_ANSWER), True), (YES, False), (None, False)],
)
def test_a_stopped_child_is_let_go_on_if_the_app_does_not_serve(check: CheckResult | None, stopped: bool) -> None:
    """A program may stop its own children, and that is nobody's business as long as it serves."""
    found = Passes().see(container(check, stopped=True))
    assert (found.stopped, found.is_pending) == (stopped, stopped)


@pytest.mark.parametrize(
    "app",
    [
        down(health=HEALTH),
        running(has_job=True),
        running(active="activating", sub="auto-restart"),
        running(active="deactivating", sub="stop-sigterm"),
        running(active="failed", sub="failed"),
    ],
)
def test_who_does_not_run_or_is_about_to_change_is_not_judged(app: AppState) -> None:
    assert health_of(app, container(no())) is None


def test_who_has_no_container_is_not_judged() -> None:
    assert judge(state(running(), running("b"), probe=probe(listed(), apps={"web": container()}))).keys() == {"web"}


@pytest.mark.parametrize(("changed", "judged"), [(ASKED - 1, True), (ASKED, False), (ASKED + 1, False)])
def test_a_probe_of_before_the_unit_s_last_change_says_nothing(changed: float, judged: bool) -> None:
    assert (health_of(running(changed=changed), container()) is not None) == judged


@pytest.mark.parametrize(("at", "counts"), [(UP - 100, 0), (UP - 101, 0), (UP - 99, 1)])
def test_an_answer_of_before_the_unit_s_last_change_says_nothing(at: float, counts: float) -> None:
    found = health_of(running(changed=UP - 100), container(no(at=at)))
    assert found is not None
    assert (found.counters["failed"], found.stopped, found.state) == (counts, False, HEALTHY if counts else NONE)


def test_nothing_is_judged_without_a_probe() -> None:
    assert judge(state(running(), probe=Report(error="no answer"))) == judge(state(running(), probe=Report())) == {}


# What Podman knows of it.


@pytest.mark.parametrize(
    ("known", "fault"),
    [
        ((), "Podman does not know its container"),
        ((listed(OTHER),), "Podman does not know its container"),
        ((listed(state="exited"),), "Podman calls its container exited"),
        ((listed(state="created"),), "Podman calls its container created"),
    ],
)
def test_podman_must_say_it_twice(known: tuple[PodmanContainer, ...], fault: str) -> None:
    seen = Passes()
    found = [seen.see(container(), known) for _ in range(2)]
    assert [one.restart_reason for one in found] == ["", fault]
    assert [(one.state, one.is_pending) for one in found] == [(HEALTHY, True)] * 2


def test_podman_may_be_wrong_once_now_and_then() -> None:
    seen = Passes()
    found = [seen.see(container(), known) for known in [(), KNOWN, (), KNOWN, ()]]
    assert [one.restart_reason for one in found] == [""] * 5
    assert [one.is_pending for one in found] == [True, False, True, False, True]


def test_one_probe_counts_once() -> None:
    """Passes are made between two of them."""
    seen = Passes()
    seen.see(container(), ())
    for _ in range(5):
        found = seen.judged(probe(at=seen.now, apps={"web": container()}))
        assert (found.counters["podman_mismatch"], found.restart_reason) == (1, "")


PORTS = "nothing forwards its ports"


@pytest.mark.parametrize(
    ("fields", "fault"),
    [
        ({"ports": True}, PORTS),
        ({"ports": False}, ""),
        ({"ports": True, "network": "pasta"}, PORTS),
        ({"ports": False, "network": "pasta"}, PORTS),  # it connects it with the node, at that
        ({"summary": None}, ""),
    ],
)
def test_who_has_ports_needs_somebody_who_passes_on_what_comes_to_them(fields: dict[str, Any], fault: str) -> None:
    """It is inside its container that it is asked: it answers there. Podman need not say anything new."""
    seen = Passes(running(health=HEALTH, **fields))
    asked = seen.now + 30
    found = [seen.see(container(forwarded=False), podman_at=asked) for _ in range(3)]
    assert [one.restart_reason for one in found] == ["", fault, fault]
    assert [one.is_pending for one in found] == [bool(fault)] * 3
    assert seen.see(container(forwarded=True)).restart_reason == ""


def test_once_is_not_enough_for_that_either() -> None:
    """The start is not over, say."""
    seen = Passes(running(health=HEALTH, ports=True))
    found = [seen.see(container(forwarded=one)) for one in (False, True, False, True, False)]
    assert [(one.restart_reason, one.counters["podman_mismatch"]) for one in found] == [
        ("", 1),
        ("", 0),
        ("", 1),
        ("", 0),
        ("", 1),
    ]


def test_nobody_is_restarted_for_its_ports_while_podman_does_not_answer() -> None:
    """It could not be started."""
    seen = Passes(running(health=HEALTH, ports=True))
    for _ in range(5):
        assert seen.see(container(forwarded=False), None, podman_error="x").restart_reason == ""


@pytest.mark.parametrize("known", [(), (listed(OTHER),), (listed(state="exited"),)])
def test_what_podman_says_of_it_comes_first(known: tuple[PodmanContainer, ...]) -> None:
    seen = Passes(running(health=HEALTH, ports=True))
    found = [seen.see(container(forwarded=False), known) for _ in range(2)][1].restart_reason
    assert found.startswith("Podman ")


def test_what_podman_does_not_answer_is_no_answer() -> None:
    seen = Passes()
    seen.see(container(), ())
    for _ in range(5):
        found = seen.see(container(), None, podman_error="locks in /libpod")
        assert (found.counters["podman_mismatch"], found.restart_reason) == (1, "")


def test_podman_s_answer_may_be_older_than_the_start() -> None:
    """Some seconds pass from the end of the start to the entry in its list."""
    for began, odd in ((ASKED - 5, 0), (ASKED - 6, 1)):
        app = running(changed=began, began=began)
        found = judge(state(app, probe=probe(apps={"web": container(YES)})))["web"]
        assert found.counters["podman_mismatch"] == odd


def test_while_it_starts_its_container_has_a_minute_to_leave_its_first_state() -> None:
    for began, odd in ((ASKED - 60, 0), (ASKED - 61, 1)):
        app = running(**START | {"has_job": False}, changed=began, began=began)
        created = listed(state="created")
        found = judge(state(app, probe=probe(created, apps={"web": container(None)})))["web"]
        assert (found.counters["podman_mismatch"], found.state) == (odd, STARTING)


# An app that waits for its own readiness.


def starting(**fields: Any) -> AppState:
    return running(**{**START, "has_job": False, "changed": UP - 3600, "began": UP - 3600, "health": HEALTH, **fields})


def test_who_starts_has_as_much_time_as_its_unit_gives_it() -> None:
    seen = Passes(starting())
    found = [seen.see(container(no())) for _ in range(20)]
    assert {(one.state, one.restart_reason, one.message) for one in found} == {(STARTING, "", "")}


def test_who_answers_three_times_and_systemd_was_never_told() -> None:
    seen = Passes(starting())
    found = [seen.see(container()) for _ in range(3)]
    said = "answers, but systemd was never told that it is ready"
    assert [(one.state, one.restart_reason, one.is_pending) for one in found] == [
        (STARTING, "", True),
        (STARTING, "", True),
        (STARTING, said, True),
    ]


def test_the_same_answer_tells_it_once() -> None:
    seen = Passes(starting())
    seen.see(container())
    asked = seen.now - 1
    for _ in range(5):
        seen.now += 30
        old = container(replace(YES, at=asked))
        assert seen.judged(probe(*KNOWN, at=seen.now, apps={"web": old})).counters["not_notified"] == 1


def test_who_has_begun_a_moment_ago_will_tell() -> None:
    seen = Passes(starting(changed=ASKED, began=ASKED))
    found = [seen.see(container()) for _ in range(4)]
    assert [one.counters["not_notified"] for one in found] == [0, 1, 2, 3]


@pytest.mark.parametrize(("load", "counts"), [(2.0, [1, 2, 3]), (2.1, [0, 0, 0])])
def test_on_a_loaded_machine_systemd_may_be_told_later(load: float, counts: list[int]) -> None:
    seen = Passes(starting())
    assert [seen.see(container(), load=load).counters["not_notified"] for _ in range(3)] == counts


def test_one_failure_and_it_is_not_ready_yet() -> None:
    seen = Passes(starting())
    found = [seen.see(container(answer)) for answer in (YES, YES, no(), YES, YES)]
    assert [one.counters["not_notified"] for one in found] == [1, 2, 0, 1, 2]


def test_failures_of_the_start_are_none_of_the_app_that_is_ready() -> None:
    """It was not yet asked again since it is ready, for its interval is long."""
    seen = Passes(starting())
    for _ in range(5):
        seen.see(container(no()))
    last = seen.now - 1
    seen.app = running(health=HEALTH, changed=seen.now + 10, began=UP - 3600)
    seen.now += 30
    found = seen.judged(probe(*KNOWN, at=seen.now, apps={"web": container(no(at=last))}))
    assert (found.restart_reason, found.counters["failed"]) == ("", 0)
    found = seen.see(container(no()))
    assert (found.restart_reason, found.counters["failed"]) == ("", 1)


def test_one_that_podman_has_forgotten_is_not_restarted_while_podman_does_not_answer() -> None:
    """It serves, and could not be started."""
    seen = Passes()
    for _ in range(2):
        seen.see(container(), ())
    found = seen.see(container(), None, podman_error="locks in /libpod")
    assert found.restart_reason == ""


@pytest.mark.parametrize("before", [{}, {"id": ID}, {"id": ID, "failed": 2}, {"failed": 9.0, "podman_mismatch": 9.0}])
def test_whatever_the_last_pass_has_left(before: dict[str, Any]) -> None:
    node: NodeState = state(running(), probe=probe(*KNOWN, apps={"web": container()}))
    assert judge(replace(node, previous={"liveness": {"web": before}}))["web"].restart_reason == ""
