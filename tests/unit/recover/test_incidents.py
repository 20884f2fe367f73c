# SPDX-License-Identifier: MIT
"""What is kept of earlier recoveries, when the next one may begin, and what a person reads of all that."""

from __future__ import annotations

import json
from typing import Any

import pytest
from probes import ASKED, ID, OTHER, container, listed, probe
from support import NOW, UP, Node, running, state

from archy import paths
from archy.health.faults import LEFTOVERS, NETWORK, PODMAN, STORAGE, Fault
from archy.host.steps import Recover, Restart, Resume
from archy.probe.report import CheckResult, Report
from archy.reconcile import plan
from archy.reconcile import status as reconcile_status
from archy.reconcile.plan import Plan
from archy.reconcile.unchanged import iso
from archy.recover import incidents
from archy.recover.incidents import AT_WORK, GAVE_UP, MENDED, NOT_THE_CAUSE, Incident, Incidents
from archy.recover.remedies import ADVICE

LOCKS = Fault(PODMAN, "locks in /libpod")
NAMES = Fault(NETWORK, "web: no name server", ("web",))
KINDS = [PODMAN, NETWORK, STORAGE, LEFTOVERS]


def episode(result: str = MENDED, /, **fields: Any) -> Incident:
    return Incident(**{"result": result, "message": "x", "since": UP - 130, "ended": UP - 100, "count": 1, **fields})


def after(fault: Fault, result: str, count: int) -> Incidents:
    """What is left of the last of so many episodes in a row, which has ended now."""
    last = Incident(AT_WORK, fault.message, ("try this", "do that"), UP - 30, UP - 30, 0, count)
    return Incidents({fault.kind: incidents.ended(last, result, UP)})


# What is kept.


def test_what_is_kept_is_read_again(node: Node) -> None:
    kept = Incidents({PODMAN: episode(tried=("a", "b"), until=UP + 60.5), NETWORK: episode(GAVE_UP)})
    node.path("/run/archy").mkdir(parents=True, exist_ok=True)
    incidents.store(node.name, kept)
    assert incidents.load(node.name) == kept
    assert node.path(paths.RECOVERY).stat().st_mode & 0o777 == 0o644  # archy status reads it


@pytest.mark.parametrize(
    "content",
    [
        None,
        "",
        "{",
        "[]",
        "null",
        "[" * 100_000,
        '{"podman": {"tried": [], "since": 0, "ended": 0, "until": "x"}}',
        "7",
        "{}",
        '{"episodes": {}}',
        '{"podman": 1}',
        '{"podman": {}}',
        '{"podman": {"tried": [], "other": 1}}',
    ],
)
def test_a_damaged_file_is_none(node: Node, content: str | None) -> None:
    if content is not None:
        node.write(paths.RECOVERY, content)
    assert incidents.load(node.name) == Incidents()


def problems(known: Incidents, *faults: Fault, recovering: bool = False, now: float = UP + 1) -> tuple[bool, list[str]]:
    """Whether something is broken, and what is said. Times are shown as seconds from now on."""
    return incidents.problems(known, faults, recovering, now, lambda moment: f"+{moment - UP:.0f} s")


# When the next one may begin.


def test_the_first_time_it_begins_at_once() -> None:
    found = incidents.steps(Incidents(), [LOCKS, NAMES], False, UP)
    assert found == [Recover(why="podman: locks in /libpod; network: web: no name server")]


def test_it_does_not_begin_twice_nor_without_a_fault() -> None:
    assert incidents.steps(Incidents(), [LOCKS], True, UP) == []
    assert incidents.steps(Incidents(), [], False, UP) == []


def test_what_was_cut_short_begins_anew() -> None:
    """Somebody has killed it. If the fault is gone, nothing is left to do."""
    begun = incidents.begun(None, LOCKS, UP - 5)
    assert incidents.steps(Incidents({PODMAN: begun}), [], False, UP) == []
    assert incidents.steps(Incidents({PODMAN: begun}), [LOCKS], False, UP) == [Recover(why="podman: locks in /libpod")]


@pytest.mark.parametrize(
    ("result", "count", "pause"),
    [
        (MENDED, 1, 0),
        (MENDED, 3, 0),
        (MENDED, 4, 60),
        (MENDED, 5, 120),
        (MENDED, 9, 1920),
        (MENDED, 10, 3600),
        (MENDED, 5000, 3600),
        (GAVE_UP, 1, 600),
        (GAVE_UP, 2, 1200),
        (GAVE_UP, 6, 19200),
        (GAVE_UP, 7, 21600),
        (GAVE_UP, 5000, 21600),
        (NOT_THE_CAUSE, 1, 600),
        (NOT_THE_CAUSE, 9, 21600),
    ],
)
def test_the_pauses(result: str, count: int, pause: float) -> None:
    known = after(LOCKS, result, count)
    if pause:
        assert incidents.steps(known, [LOCKS], False, UP + pause - 1) == []
    assert incidents.steps(known, [LOCKS], False, UP + pause) == [Recover(why="podman: locks in /libpod")]


def test_one_that_must_wait_keeps_no_other_waiting() -> None:
    assert incidents.steps(after(LOCKS, GAVE_UP, 1), [LOCKS, NAMES], False, UP + 1) == [
        Recover(why="network: web: no name server")
    ]


def test_an_episode_begins() -> None:
    found = incidents.begun(None, LOCKS, UP)
    assert found == Incident(AT_WORK, LOCKS.message, (), UP, UP, 0, 1)


@pytest.mark.parametrize(
    ("result", "count", "later", "wanted"),
    [
        (MENDED, 1, 10, 2),
        (MENDED, 3, 3599, 4),
        (MENDED, 3, 3601, 1),
        (MENDED, 10, 7199, 11),
        (MENDED, 10, 7201, 1),
        (GAVE_UP, 1, 3599, 2),
        (GAVE_UP, 7, 2 * 21600 - 1, 8),
        (GAVE_UP, 7, 2 * 21600 + 1, 1),
        (AT_WORK, 4, 10, 5),  # it was killed
    ],
)
def test_how_often_in_a_row(result: str, count: int, later: float, wanted: int) -> None:
    """What stays away for an hour, or twice its pause, has not returned."""
    last = (
        incidents.ended(Incident(AT_WORK, count=count), result, UP) if result != AT_WORK else episode(AT_WORK, count=4)
    )
    assert incidents.begun(last, LOCKS, UP + later).count == wanted


def test_a_fault_that_always_returns_is_mended_ever_more_rarely() -> None:
    """A day of it; each recovery takes ten seconds, and the fault is back ten seconds later."""
    known: Incidents = {}
    now, times = 0.0, []
    while now < 86400:
        if incidents.steps(known, [LOCKS], False, now):
            begun = incidents.begun(known.get(PODMAN), LOCKS, now)
            known = Incidents({PODMAN: incidents.ended(begun, MENDED, now + 10)})
            times.append(now)
        now += 30
    assert 20 < len(times) < 40
    assert times[3] < 180
    assert times[-1] - times[-2] >= 3600


# What a person reads.


@pytest.mark.parametrize(
    ("known", "recovering"),
    [
        (Incidents(), False),
        (Incidents(), True),
        (after(LOCKS, MENDED, 1), False),
        (after(LOCKS, GAVE_UP, 1), True),
        (Incidents({PODMAN: incidents.begun(None, LOCKS, UP - 5)}), False),
    ],
)
def test_what_is_being_mended(known: Incidents, recovering: bool) -> None:
    assert problems(known, LOCKS, recovering=recovering, now=UP) == (False, ["locks in /libpod (is being mended)"])


def test_what_was_mended_is_no_problem() -> None:
    assert problems(after(LOCKS, MENDED, 1)) == (False, [])
    assert problems(after(LOCKS, GAVE_UP, 1)) == (False, [])


@pytest.mark.parametrize("fault", [LOCKS, NAMES, Fault(LEFTOVERS, "container x")])
def test_what_returns_again_and_again(fault: Fault) -> None:
    """Without Podman no app can be started; the rest is not so bad."""
    broken, said = problems(after(fault, MENDED, 5), fault)
    assert said == [f"{fault.message}: gave up until +120 s, because it was mended 5 times, and returned each time"]
    assert broken == (fault is LOCKS)


@pytest.mark.parametrize("kind", KINDS)
def test_what_could_not_be_mended(kind: str) -> None:
    fault = Fault(kind, "it is bad")
    why = "it did not help to try this, or to do that"
    said = f"it is bad: gave up until +600 s, because {why}. {ADVICE[kind]}"
    assert problems(after(fault, GAVE_UP, 1), fault) == (kind != LEFTOVERS, [said])


def test_what_nothing_could_be_tried_for() -> None:
    known = Incidents({PODMAN: incidents.ended(Incident(count=1), GAVE_UP, UP)})
    said = f"locks in /libpod: gave up until +600 s, because nothing is known to help. {ADVICE[PODMAN]}"
    assert problems(known, LOCKS) == (True, [said])


@pytest.mark.parametrize("recovering", [False, True])
@pytest.mark.parametrize("count", [0, 1, 9])
def test_apps_that_cannot_be_started_say_so_themselves(recovering: bool, count: int) -> None:
    """As long as nobody knows that it is the storage."""
    fault = Fault(STORAGE, "Podman fails to start web", ("web",))
    known = after(fault, NOT_THE_CAUSE, count) if count else Incidents()
    assert problems(known, fault, recovering=recovering) == (False, [])


def test_all_problems_at_once() -> None:
    known = after(LOCKS, GAVE_UP, 1)
    broken, said = problems(known, LOCKS, NAMES)
    assert (broken, len(said), said[1]) == (True, 2, "web: no name server (is being mended)")


# The plan, and the status.

SILENT = Report(at=ASKED, podman_at=ASKED, podman_error=LOCKS.message)
LOST = CheckResult(False, "refused", "no name server: Connection refused", ASKED)


def planned(known: Incidents = Incidents(), **fields: Any) -> Plan:  # noqa: B008
    return plan.make(state(running(), **fields), known)


def told(known: Incidents, /, **fields: Any) -> reconcile_status.Status:
    found = reconcile_status.assess(planned(known, **fields))
    assert json.loads(reconcile_status.pack(found)) == found
    return found


def test_podman_is_mended_before_apps_are_restarted() -> None:
    stopped = container(None, main_stopped=True, stopped=True)
    entry = {"id": ID, "failed": 2, "at": UP - 50, "cpu": 0}
    networkless = probe(listed(), apps={"web": stopped}, pasta=False)
    found = planned(probe=networkless, previous={"liveness": {"web": entry}})
    assert [type(step) for step in found.steps] == [Recover, Resume, Restart]


def test_while_it_is_mended_there_is_nothing_to_do() -> None:
    assert planned(probe=SILENT, recovering=True).steps == []
    assert [type(step) for step in planned(probe=SILENT).steps] == [Recover]


@pytest.mark.parametrize(
    ("fields", "pending"),
    [
        ({}, False),
        ({"check": LOST}, True),
        ({"main_stopped": True}, True),
        ({"frozen": True}, True),
        ({"id": OTHER}, True),
    ],
)
def test_what_another_pass_has_to_look_at(fields: dict[str, Any], pending: bool) -> None:
    apps = {"web": container(**fields)}
    assert planned(probe=probe(listed(), apps=apps)).is_pending == pending


def test_stale_apps_are_to_be_looked_at_again() -> None:
    assert plan.make(state(running(stale=("/x/conf",))), Incidents()).is_pending


def test_the_status_while_podman_is_mended() -> None:
    found = told(Incidents(), probe=SILENT, recovering=True)
    assert found["node"]["recovery"] == {
        "level": "degraded",
        "problems": ["locks in /libpod (is being mended)"],
        "last": {},
    }
    assert found["node"]["podman"]["problems"] == ["Podman does not answer: locks in /libpod"]


def test_the_status_when_all_was_tried() -> None:
    found = told(after(LOCKS, GAVE_UP, 1), probe=SILENT, monotonic=UP + 60, wall=NOW + 60)
    judged = found["node"]["recovery"]
    assert (judged["level"], found["level"]) == ("broken", "broken")
    (said,) = judged["problems"]
    assert said.startswith(f"locks in /libpod: gave up until {iso(NOW + 600)}, because it did not help to ")
    assert judged["last"] == {
        "podman": {
            "result": "gave up",
            "tried": ["try this", "do that"],
            "times": 1,
            "saw": "locks in /libpod",
            "at": iso(NOW),
            "took": 30.0,
        }
    }


def test_the_status_afterwards() -> None:
    """What was mended is told, and is no problem."""
    found = told(after(LOCKS, MENDED, 1), probe=probe(listed(), apps={"web": container()}))
    assert (found["level"], found["node"]["recovery"]["problems"]) == ("ok", [])
    assert found["node"]["recovery"]["last"]["podman"]["result"] == "mended"


def test_names_that_are_lost_degrade_the_node() -> None:
    found = told(Incidents(), probe=probe(listed(), apps={"web": container(names=LOST)}))
    assert (found["level"], found["apps"]["web"]["level"]) == ("degraded", "ok")
    assert found["node"]["recovery"]["problems"] == [f"web: {LOST.message} (is being mended)"]
