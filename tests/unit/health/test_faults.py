# SPDX-License-Identifier: MIT
"""What is wrong with Podman: each fault, from what a probe found, and everything that looks like one and is none."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from probes import ASKED, ID, OTHER, container, listed, probe
from support import down, running, state

from archy.health.current import AppState
from archy.health.faults import LEFTOVERS, NETWORK, PODMAN, STORAGE, Fault, could_see, faults
from archy.probe.checks import BAD_ANSWER, REFUSED, TIMEOUT
from archy.probe.report import CheckResult, ContainerReport, PodmanContainer, Report

LOST = CheckResult(False, REFUSED, "no name server: Connection refused", ASKED)
TIMER = f"{OTHER}-0123456789abcdef.timer"


def found(*installed: AppState, known: tuple[PodmanContainer, ...] = (listed(),), **fields: Any) -> list[Fault]:
    """The faults of a node with these apps and this probe."""
    return faults(state(*installed or (running(),), probe=probe(*known, **fields)))


def test_a_node_that_is_well() -> None:
    names = CheckResult(True, "", "", ASKED)
    assert found(apps={"web": container(names=names)}, pasta=True, timers=(f"{ID}-1.timer",)) == []


def test_nothing_is_known_without_a_probe() -> None:
    assert faults(state(running(), probe=Report())) == []
    assert faults(state(running(), probe=Report(error="no answer"))) == []
    assert faults(state(probe=Report(containers=()))) == []


def test_podman_does_not_answer() -> None:
    """Nothing else can be told then, whatever else the probe says."""
    silent = Report(
        at=ASKED,
        apps={"web": container(names=LOST)},
        podman_error="no answer within 8 s",
        pasta=False,
        timers=(TIMER,),
    )
    assert faults(state(running(), probe=silent)) == [Fault(PODMAN, "no answer within 8 s")]


# The network.


def test_a_name_that_does_not_resolve() -> None:
    (fault,) = found(apps={"web": container(names=LOST)})
    assert fault == Fault(NETWORK, "web: no name server: Connection refused", ("web",), (ID,))


def test_names_that_were_not_asked_for_or_resolve() -> None:
    assert found(apps={"web": container(names=None)}) == []
    assert found(apps={"web": container(names=CheckResult(True, "", "", ASKED))}) == []


def test_many_names_are_one_fault_with_a_short_text() -> None:
    apps = [running(f"a{number}") for number in range(9)]
    known = tuple(listed(f"{number:064x}", app=f"a{number}") for number in range(9))
    probed = {f"a{number}": container(id=f"{number:064x}", names=LOST) for number in reversed(range(9))}
    (fault,) = found(*apps, known=known, apps=probed)
    assert fault.apps == tuple(f"a{number}" for number in range(9))
    assert fault.containers == tuple(f"{number:064x}" for number in range(9))
    assert fault.message == "all apps: " + "; ".join(f"a{number}: {LOST.message}" for number in range(4))


@pytest.mark.parametrize(
    ("others", "whole"),
    [
        ({}, False),
        ({"b": container(id=OTHER, names=LOST)}, True),
        ({"b": container(id=OTHER, names=CheckResult(True, "", "", ASKED))}, False),
        ({"b": container(id=OTHER, names=None)}, False),  # it has a network of its own: pasta
    ],
)
def test_whether_it_concerns_all(others: dict[str, ContainerReport], whole: bool) -> None:
    known = (listed(), *(listed(OTHER, app=app) for app in others))
    (fault,) = found(running(), running("b"), known=known, apps={"web": container(names=LOST), **others})
    assert fault.message.startswith("all apps: ") == whole


@pytest.mark.parametrize(
    ("load", "kind", "is_fault"),
    [(2.0, TIMEOUT, True), (2.1, TIMEOUT, False), (99.0, REFUSED, True), (99.0, BAD_ANSWER, True)],
)
def test_on_a_loaded_machine_a_name_server_may_be_silent(load: float, kind: str, is_fault: bool) -> None:
    seen = found(apps={"web": container(names=replace(LOST, kind=kind))}, load=load)
    assert [fault.kind for fault in seen] == [NETWORK] * is_fault


@pytest.mark.parametrize(
    ("app", "is_fault"),
    [
        (running(changed=ASKED - 6), True),
        (running(changed=ASKED - 5), False),
        (running(changed=ASKED + 1), False),
        (running(active="activating", sub="start"), False),
        (running(active="deactivating", sub="stop-sigterm"), False),
        (running(active="activating", sub="auto-restart"), False),
        (down(), False),
        (running("other"), False),
    ],
)
def test_only_who_has_run_for_a_while_has_a_name(app: AppState, is_fault: bool) -> None:
    seen = found(app, apps={"web": container(names=LOST)})
    assert [fault.kind for fault in seen] == [NETWORK] * is_fault


@pytest.mark.parametrize(("app", "is_fault"), [(running(), True), (running(changed=ASKED - 5), False), (down(), False)])
def test_where_nothing_runs_nobody_needs_a_way_out(app: AppState, is_fault: bool) -> None:
    assert [fault.kind for fault in found(app, known=(), apps={}, pasta=False)] == [NETWORK] * is_fault


@pytest.mark.parametrize("known", [(), (listed(OTHER, app="b"),)])
def test_what_podman_has_forgotten_has_no_name_and_that_is_no_fault_of_the_network(
    known: tuple[PodmanContainer, ...],
) -> None:
    """It is restarted, and connected anew with that."""
    apps = [running(), running("b")]
    assert found(*apps, known=known, apps={"web": container(names=LOST), "b": container(id=OTHER)}) == []


@pytest.mark.parametrize(("pasta", "is_fault"), [(None, False), (True, False), (False, True)])
def test_no_way_out(pasta: bool | None, is_fault: bool) -> None:
    wanted = [Fault(NETWORK, "pasta does not run: no way out")] if is_fault else []
    assert found(apps={"web": container()}, pasta=pasta) == wanted


def test_no_way_out_comes_first() -> None:
    wrong = replace(LOST, kind=BAD_ANSWER, message="the name web resolves to nothing instead of 10.89.0.2")
    (fault,) = found(apps={"web": container(names=wrong)}, pasta=False)
    assert fault.message == f"pasta does not run: no way out; web: {wrong.message}"


# The storage.

FAILING = {"active": "activating", "sub": "auto-restart", "restarts": 3, "exit_status": 125}


@pytest.mark.parametrize(
    ("fields", "is_fault"),
    [
        ({}, True),
        ({"exit_status": 126}, True),
        ({"exit_status": 127}, True),
        ({"sub": "start"}, True),
        ({"restarts": 300}, True),
        ({"exit_status": 1}, False),
        ({"exit_status": 0}, False),
        ({"exit_status": 128}, False),
        ({"restarts": 2}, False),
        ({"active": "active", "sub": "running"}, False),
        ({"active": "failed", "sub": "failed"}, False),
        ({"active": "inactive", "sub": "dead"}, False),
    ],
)
def test_podman_fails_to_start_an_app_again_and_again(fields: dict[str, Any], is_fault: bool) -> None:
    wanted = [Fault(STORAGE, "Podman fails to start web", ("web",))] if is_fault else []
    assert found(running(**{**FAILING, **fields}), running("b"), known=(), apps={}) == wanted


def test_all_that_fail_to_start_are_one_fault() -> None:
    apps = [running("a", **FAILING), running("b"), running("c", **{**FAILING, "exit_status": 127})]
    assert found(*apps, known=(), apps={}) == [Fault(STORAGE, "Podman fails to start a, c", ("a", "c"))]


# What is left over.


def test_a_container_that_its_unit_has_not() -> None:
    (fault,) = found(known=(listed(), listed(OTHER, "exited")), apps={"web": container()})
    assert fault == Fault(LEFTOVERS, "container web of archy-web.service, exited", (), (OTHER,))


@pytest.mark.parametrize(
    ("entry", "is_fault"),
    [
        (listed(OTHER, "created"), True),
        (listed(OTHER, "running"), False),
        (listed(OTHER, "exited", "old"), False),
        (PodmanContainer(OTHER, "exited", "x", ""), False),
        (PodmanContainer(OTHER, "running", "x", "postgres.service"), False),
        (PodmanContainer(OTHER, "exited", "x", "my-archy-web.service"), False),
    ],
)
def test_only_containers_of_ours_are_swept(entry: PodmanContainer, is_fault: bool) -> None:
    """Not those that somebody else, as the service user, has made, nor those of an app that is not installed.

    One that runs beside that of its unit is somebody's: of a cgroup of its own, say.
    """
    seen = found(known=(listed(), entry), apps={"web": container()})
    assert [fault.containers for fault in seen] == [(OTHER,)] * is_fault


@pytest.mark.parametrize("app", [down(), down(active="failed", sub="failed")])
def test_one_that_runs_though_its_unit_does_not(app: AppState) -> None:
    """Its monitor was killed: its next start would fail for its name, or its ports."""
    assert [fault.containers for fault in found(app, known=(listed(OTHER),), apps={})] == [(OTHER,)]


@pytest.mark.parametrize("app", [down(generated=False), running(generated=False)])
@pytest.mark.parametrize("state", ["exited", "running"])
def test_a_unit_of_that_name_that_somebody_else_has_made(app: AppState, state: str) -> None:
    assert found(app, known=(listed(OTHER, state),), apps={}) == []


@pytest.mark.parametrize(
    ("app", "is_fault"),
    [
        (running(changed=ASKED - 6), True),
        (running(changed=ASKED - 5), False),
        (running(changed=ASKED + 1), False),
        (down(changed=ASKED - 6), True),
        (down(changed=ASKED - 5), False),
        (down(active="failed", sub="failed", changed=ASKED - 6), True),
        (running(active="activating", sub="start", changed=ASKED - 6), False),
        (running(active="activating", sub="start-pre", changed=ASKED - 6), False),
        (running(active="activating", sub="auto-restart", changed=ASKED - 6), False),
        (running(active="deactivating", sub="stop-sigterm", changed=ASKED - 6), False),
        (running(active="deactivating", sub="stop-post", changed=ASKED - 6), False),
    ],
)
def test_nobody_sweeps_what_a_unit_is_about_to_make_or_remove(app: AppState, is_fault: bool) -> None:
    probed = {"web": container()} if app.unit.sub == "running" else {}
    known = (listed(OTHER, "exited"), *([listed()] if probed else []))
    assert [fault.kind for fault in found(app, known=known, apps=probed)] == [LEFTOVERS] * is_fault


def test_an_answer_of_podman_that_is_older_than_a_stop_sweeps_nothing() -> None:
    """The probe is new, and what Podman said is kept from before."""
    app = down(changed=ASKED - 60)
    old, new = ASKED - 100, ASKED - 50
    assert found(app, known=(listed(),), podman_at=old, apps={}) == []
    assert [fault.kind for fault in found(app, known=(listed(),), podman_at=new, apps={})] == [LEFTOVERS]


def test_the_container_that_runs_is_never_left_over() -> None:
    """Whatever Podman says of it."""
    assert found(known=(listed(state="exited"),), apps={"web": container()}) == []
    renamed = PodmanContainer(ID, "running", "x", "archy-gone.service")
    assert found(known=(renamed,), apps={"web": container()}) == []


def test_timers_of_containers_that_are_gone() -> None:
    """Not of those that Podman still knows: it will remove them itself."""
    third = "c" * 64
    timers = (f"{ID}-1.timer", TIMER, f"{third}-1.timer")
    known = (listed(), PodmanContainer(third, "exited", "x", ""))
    (fault,) = found(known=known, apps={"web": container()}, timers=timers)
    assert fault == Fault(LEFTOVERS, "1 health timers of containers that are gone", (), (), (TIMER,))


def test_only_what_was_left_over_before_is_left_over() -> None:
    """Where apps crash, each look may find something else that will be gone in a moment."""
    old, new = (f"{'c' * 64}-{number}.timer" for number in (1, 2))
    node = state(running(), down("old"), probe=probe(listed(), listed(OTHER, "exited", "old"), timers=(old, new)))
    before = [WEB, Fault(LEFTOVERS, "x", (), (OTHER,), (old, "gone.timer"))]
    (fault,) = faults(node, before)
    assert (fault.containers, fault.timers) == ((OTHER,), (old,))
    assert faults(node, [WEB]) == []
    assert [found.timers for found in faults(node)] == [(old, new)]


def test_all_that_is_left_over_is_one_fault() -> None:
    (fault,) = found(down("old"), known=(listed(OTHER, "exited", "old"),), apps={}, timers=(f"{'c' * 64}-1.timer",))
    assert fault.message == "container old of archy-old.service, exited; 1 health timers of containers that are gone"
    assert (fault.containers, len(fault.timers)) == ((OTHER,), 1)


def test_the_one_first_that_the_others_may_come_from() -> None:
    apps = [running(), running("b", **FAILING), down("old")]
    known = (listed(), listed(OTHER, "exited", "old"))
    seen = found(*apps, known=known, apps={"web": container(names=LOST)}, timers=(f"{'c' * 64}-1.timer",))
    assert [fault.kind for fault in seen] == [NETWORK, STORAGE, LEFTOVERS]


# Whether one would be seen.

WEB = Fault(NETWORK, "web: no name server", ("web",))
ALL = [Fault(kind, "x", ("web",)) for kind in (PODMAN, NETWORK, STORAGE, LEFTOVERS)]


@pytest.mark.parametrize("fault", ALL, ids=lambda fault: str(fault.kind))
@pytest.mark.parametrize(
    "seen", [Report(), Report(at=ASKED), Report(error="no answer"), Report(error="x", containers=())]
)
def test_who_is_blind_sees_nothing(fault: Fault, seen: Report) -> None:
    assert not could_see(state(running(), probe=seen), fault)


@pytest.mark.parametrize("fault", ALL, ids=lambda fault: str(fault.kind))
def test_a_podman_that_does_not_answer_is_all_that_is_seen_then(fault: Fault) -> None:
    silent = Report(at=ASKED, podman_error="no answer within 8 s")
    assert could_see(state(running(), probe=silent), fault) == (fault.kind == PODMAN)


@pytest.mark.parametrize(
    ("app", "sees"),
    [
        (running(), True),
        (running(changed=ASKED - 6), True),
        (running(changed=ASKED - 5), False),
        (running(changed=ASKED + 1), False),
        (running(active="activating", sub="start"), False),
        (running(active="activating", sub="auto-restart"), False),
        (running(active="deactivating", sub="stop-sigterm"), False),
        (running(active="reloading", sub="reload"), False),
        (down(), True),
        (down(active="failed", sub="failed"), True),
        (down(changed=ASKED + 1), True),
    ],
)
def test_those_that_it_concerns_must_have_run_for_a_while(app: AppState, sees: bool) -> None:
    """Or not run at all. What others do does not matter; and Podman's own faults are seen at once."""
    for others in ((), (running("b", active="activating", sub="start"), running("c", changed=ASKED))):
        node = state(app, *others, probe=probe())
        assert [could_see(node, fault) for fault in ALL] == [True, sees, sees, sees]
    both = state(running(), replace(app, id="b"), probe=probe())
    assert could_see(both, Fault(STORAGE, "x", ("web", "b"))) == sees
    # The network is that of all, and one app is enough to see it: the other may take an hour to stop.
    assert could_see(both, Fault(NETWORK, "x", ("web", "b")))


def test_whom_it_concerned_may_be_gone() -> None:
    assert could_see(state(running("b"), probe=probe()), WEB)
    assert could_see(state(probe=probe()), WEB)


def test_what_concerns_nobody_is_seen_at_once() -> None:
    fault = Fault(NETWORK, "pasta does not run: no way out")
    assert could_see(state(running(active="activating", sub="start"), probe=probe()), fault)


def test_what_is_there_could_be_seen() -> None:
    """Of each kind: who could not see it could not have found it."""
    cases = [
        state(running(), probe=Report(at=ASKED, podman_error="x")),
        state(running(), probe=probe(listed(), apps={"web": container(names=LOST)}, pasta=False)),
        state(running(), probe=probe(listed(), listed(OTHER, "exited"), apps={"web": container()}, timers=(TIMER,))),
    ]
    for node in cases:
        (fault,) = faults(node)
        assert could_see(node, fault), fault.kind
