# SPDX-License-Identifier: MIT
"""archy-recover on a node that only exists as a list of faults: what it tries, when it stops, and what it leaves."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from probes import ID, OTHER, container, listed, probe
from support import REPO, UP, Node, down, running, setting, state

from archy.health import faults
from archy.health.current import AppState, NodeState
from archy.health.faults import LEFTOVERS, NETWORK, PODMAN, STORAGE, Fault
from archy.host import locks, steps, systemd
from archy.host.steps import AsUser, Hold, Restart, Start, Step
from archy.probe.report import Report
from archy.recover import incidents, recover, remedies
from archy.recover.incidents import AT_WORK, GAVE_UP, MENDED, NOT_THE_CAUSE, Incidents
from archy.recover.remedies import REMEDIES, Remedy

LOCKS = Fault(PODMAN, "failed to open locks in /libpod_rootless_lock_990")
PAUSE = Fault(PODMAN, "invalid internal status")
NAMES = Fault(NETWORK, "all apps: web: no name server; db: no name server", ("db", "web"), (OTHER, ID))
ONE = Fault(NETWORK, "web: no name server: Connection refused", ("web",), (ID,))
SWEEP = Fault(LEFTOVERS, "container x of archy-x.service, exited", (), (ID,))
FAILING = Fault(STORAGE, "Podman fails to start web", ("web",))


RECONCILE = "systemctl start --no-block archy-reconcile.service"
RELEASE = "release"  # the end of a hold, among the steps


class World:
    """A node, and what becomes of it. `mends` are parts of steps' texts that end a kind of fault."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self.apps: tuple[AppState, ...] = (running(), running("db"))
        self.faults: list[Fault] = []
        self.mends: dict[str, str] = {}
        self.done: list[Step | str] = []
        self.asked: list[str] = []
        self.raising: dict[str, BaseException] = {}
        self.now = UP
        self.looks = 0
        self.checked = ""
        self.log: list[str] = []
        self.probed: dict[str, Any] = {}
        self.watch: Callable[[Step], None] = lambda _: None
        self.seen: Callable[[], Report] = lambda: probe(listed(), at=self.now, apps=self.probed)

    def look(self, *_: object) -> NodeState:
        self.looks += 1
        self.now += 0.5
        return state(*self.apps, probe=self.seen(), monotonic=self.now)

    def execute(self, root: str, plan: Sequence[Step]) -> None:
        assert root == self.node.name
        for step in plan:
            self.done.append(step)
            self.watch(step)
            for part, error in self.raising.items():
                if part in str(step):
                    raise error
            for part, kind in self.mends.items():
                if part in str(step):
                    self.faults = [fault for fault in self.faults if fault.kind != kind]

    def check(self, _root: str, command: Sequence[str], _time: float, quiet: bool = False) -> str:
        self.asked.append(" ".join(command))
        return self.checked

    def sleep(self, seconds: float) -> None:
        self.now += seconds

    @property
    def said(self) -> list[str]:
        """What was done, but for looks."""
        return [str(step) for step in self.done]

    @property
    def kept(self) -> Incidents:
        return incidents.load(self.node.name)

    def run(self) -> int:
        """One run of archy-recover."""
        self.done = []
        return recover.Recovery(self.node.name).run()


@pytest.fixture
def world(node: Node, monkeypatch: pytest.MonkeyPatch) -> World:
    """A node on which `web` and `db` run, and nothing is wrong."""
    one = World(node)
    for app in ("web", "db"):
        node.app(app)
        node.runs(app)
    node.path("/run/archy").mkdir(parents=True, exist_ok=True)
    monkeypatch.setattr(recover.Recovery, "_look", one.look)
    monkeypatch.setattr(steps, "apply", one.execute)
    monkeypatch.setattr(steps, "run_as_user", one.check)
    monkeypatch.setattr(faults, "faults", lambda *_: list(one.faults))
    monkeypatch.setattr(systemd, "journal", lambda *_: one.log)
    monkeypatch.setattr(systemd, "release", lambda: one.done.append(RELEASE))
    monkeypatch.setattr(time, "monotonic", lambda: one.now)
    monkeypatch.setattr(time, "sleep", one.sleep)
    monkeypatch.setattr(subprocess, "run", lambda words, **_: one.asked.append(" ".join(words)))
    return one


def test_nothing_to_mend(world: World) -> None:
    assert (world.run(), world.done, world.asked, world.kept) == (0, [], [RECONCILE], Incidents())


def test_what_is_gone_at_the_second_look_was_none(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.faults = [LOCKS]

    def sleep(seconds: float) -> None:
        world.now += seconds
        world.faults = []

    monkeypatch.setattr(time, "sleep", sleep)
    assert (world.run(), world.done, world.kept) == (0, [], {})


def test_who_crashes_all_the_time_leaves_nothing_over(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """What each look finds is something else, and will be gone in a moment."""
    monkeypatch.undo()
    monkeypatch.setattr(recover.Recovery, "_look", world.look)
    monkeypatch.setattr(time, "sleep", world.sleep)
    monkeypatch.setattr(time, "monotonic", lambda: world.now)
    monkeypatch.setattr(subprocess, "run", lambda words, **_: world.asked.append(" ".join(words)))
    world.seen = lambda: probe(listed(), at=world.now, timers=(f"{world.looks:064x}-1.timer",))
    assert (world.run(), world.looks, world.kept) == (0, 2, {})


def test_the_first_rung_helps(world: World) -> None:
    world.faults, world.mends = [LOCKS], {"rm -f -- /dev/shm": PODMAN}
    assert world.run() == 0
    assert world.said == ["rm -f -- /dev/shm/libpod_rootless_lock_990", "podman system renumber"]
    episode = world.kept[PODMAN]
    assert (episode.result, episode.message, episode.count) == (MENDED, LOCKS.message, 1)
    assert episode.tried == ("make the file of locks again",)
    assert episode.until == episode.ended > episode.since
    assert world.asked[-1] == RECONCILE


def test_it_climbs_until_it_helps(world: World) -> None:
    world.faults, world.mends = [NAMES], {"pkill -KILL -u 990 -x aardvark-dns": NETWORK}
    assert world.run() == 0
    assert [step for step in world.said if step.startswith(("podman network", "pkill"))] == [
        f"podman network reload {OTHER}",
        "podman network reload --all",
        "pkill -KILL -u 990 -x aardvark-dns",
        "podman network reload --all",
    ]
    assert not [step for step in world.done if isinstance(step, Hold | Start) or step == RELEASE]
    assert len(world.kept[NETWORK].tried) == 3


def test_after_each_rung_it_looks_until_its_time_is_over(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """What needs a moment to be well is not climbed over."""
    looks: list[int] = []

    def settle(step: Step) -> None:
        looks.append(world.looks)

    world.faults, world.watch = [NAMES], settle
    real = world.look

    def look(*words: object) -> NodeState:
        if looks and world.looks >= looks[0] + 2:
            world.faults = []
        return real(*words)

    monkeypatch.setattr(recover.Recovery, "_look", look)
    assert world.run() == 0
    assert world.said == [f"podman network reload {OTHER}"]


def test_what_is_seen_then_chooses_the_next_rung(world: World) -> None:
    """One message hides another."""

    def other(step: Step) -> None:
        if "archy-empty/root" in str(step):
            world.faults = [LOCKS]

    world.faults, world.watch, world.mends = [PAUSE], other, {"rm -f -- /dev/shm": PODMAN}
    assert world.run() == 0
    tried = world.kept[PODMAN].tried
    assert tried == ("make a new pause process, over an empty store", "make the file of locks again")
    assert world.kept[PODMAN].message == PAUSE.message


def test_when_nothing_helps_it_gives_up_and_says_what_it_tried(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    world.faults = [NAMES]
    assert world.run() == 1
    episode = world.kept[NETWORK]
    assert (episode.result, episode.until - episode.ended) == (GAVE_UP, 600)
    scene = recover.Recovery(world.node.name)._situation(NAMES)
    assert episode.tried == tuple(rung.title for rung in REMEDIES[NETWORK] if remedies.applies(rung, scene))
    said = capsys.readouterr().err.splitlines()
    assert said[0] == f"network: {NAMES.message}"
    assert [line for line in said if line.endswith("gave up")] == ["network: gave up"]
    assert sum(line.startswith("network: that did not help") for line in said) == len(episode.tried)


def test_no_rung_twice(world: World) -> None:
    world.faults = [NAMES]
    world.run()
    tried = world.kept[NETWORK].tried
    assert len(tried) == len(set(tried))


def test_one_that_cannot_be_mended_keeps_no_other_from_it(world: World) -> None:
    world.faults, world.mends = [NAMES, SWEEP], {"podman rm": LEFTOVERS}
    assert world.run() == 1
    assert {kind: one.result for kind, one in world.kept.items()} == {NETWORK: GAVE_UP, LEFTOVERS: MENDED}


def test_what_must_wait_is_not_tried(world: World) -> None:
    world.faults = [NAMES]
    assert world.run() == 1
    world.looks = 0
    assert (world.run(), world.done) == (0, [])
    world.now += 700
    assert world.run() == 1
    assert world.done
    assert world.kept[NETWORK].count == 2


def test_one_that_returns_each_time_is_mended_so_often_in_a_run_and_then_waits(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No loop without an end: the fault is gone for one look only."""
    gone: list[bool] = []
    real = world.look

    def look(*words: object) -> NodeState:
        world.faults = [] if gone else [LOCKS]
        gone.clear()
        return real(*words)

    monkeypatch.setattr(recover.Recovery, "_look", look)
    world.watch = lambda _: gone.append(True)
    assert world.run() == 0
    episode = world.kept[PODMAN]
    assert (episode.result, episode.count) == (MENDED, 4)
    assert episode.until - episode.ended == 60


def test_with_no_app_running_the_runtime_directories_may_go(world: World) -> None:
    for app in ("web", "db"):
        world.node.runs(app, 0)
    world.faults, world.mends = [Fault(PODMAN, "what is this")], {"rm -rf -- /run/user/990/containers": PODMAN}
    assert world.run() == 0
    assert world.kept[PODMAN].tried == ("clear the runtime directories",)


def test_with_an_app_running_they_may_not(world: World) -> None:
    """Not even that of one that was removed a moment ago would be asked: what is installed counts."""
    world.node.runs("db", 0)
    world.faults = [Fault(PODMAN, "what is this")]
    assert (world.run(), world.done) == (1, [])
    assert world.kept[PODMAN].tried == ()


# Apps that are held for it.

UNSHARE = "podman unshare sh -c"  # the last step of the last rung


def test_who_is_held_is_let_go_when_all_is_done(world: World) -> None:
    world.faults, world.mends = [NAMES], {UNSHARE: NETWORK}
    assert world.run() == 0
    at = world.done.index(Hold(("db", "web")))
    kill, unmount, end = world.said[at + 1 :]
    assert (kill.split()[0], unmount.startswith(UNSHARE), end) == ("pkill", True, RELEASE)
    assert not [step for step in world.done if isinstance(step, Start)]
    assert world.done.count(RELEASE) == 1


def test_it_is_let_go_before_anybody_looks_whether_that_has_helped(world: World) -> None:
    """Nobody who is held has a name."""
    world.faults = [NAMES]
    looked: list[bool] = []
    real = world.seen

    def seen() -> Report:
        looked.append(world.done.count(RELEASE) == sum(isinstance(step, Hold) for step in world.done))
        return real()

    world.seen = seen
    assert world.run() == 1
    assert world.done.count(RELEASE) == 1
    assert all(looked)


def test_where_others_have_their_names_only_those_are_restarted_that_have_none(world: World) -> None:
    world.faults, world.mends = [ONE], {"stop web": NETWORK}
    assert world.run() == 0
    assert world.done[-2:] == [Hold(("web",)), RELEASE]


ERRORS = [
    subprocess.CalledProcessError(1, "systemctl", stderr="Job for archy-web.service failed."),
    OSError(2, "No such file"),
    subprocess.TimeoutExpired("podman", 60),
]


@pytest.mark.parametrize("part", ["stop db, web", "pkill", UNSHARE])
@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_also_when_a_step_fails(world: World, part: str, error: BaseException) -> None:
    """The other steps are tried all the same."""
    world.faults, world.raising = [NAMES], {part: error}
    assert world.run() == 1
    held = world.done.index(Hold(("db", "web")))
    assert [str(step).split()[0] for step in world.done[held:]] == ["stop", "pkill", "podman", RELEASE]


@pytest.mark.parametrize("part", ["stop db, web", "dns|pasta", UNSHARE])
@pytest.mark.parametrize("end", [KeyboardInterrupt(), SystemExit(143)], ids=repr)
def test_and_when_somebody_ends_it(world: World, part: str, end: BaseException) -> None:
    """The next one has nothing to do with that: it begins anew, if there is something to mend."""
    world.faults, world.raising = [NAMES], {part: end}
    with pytest.raises(type(end)):
        world.run()
    assert world.done[-1] == RELEASE
    assert world.kept[NETWORK].result == AT_WORK
    world.faults, world.raising = [], {}
    assert (world.run(), world.done) == (0, [])


def test_killed_at_once_its_lock_is_what_the_apps_wait_for() -> None:
    """The kernel frees it."""
    unit = (REPO / "units/archy-hold.service").read_text()
    assert setting(unit, "ExecStart") == [f"/usr/bin/flock {recover._LOCK} true"]
    assert systemd.HOLD == "archy-hold.service"


def test_killed_in_between_it_is_written_down_what_was_tried(world: World) -> None:
    """Before the rung: the next run knows how often it was begun."""
    world.faults, world.raising = [LOCKS], {"/dev/shm": KeyboardInterrupt()}
    for count in (1, 2):
        with pytest.raises(KeyboardInterrupt):
            world.run()
        episode = world.kept[PODMAN]
        assert (episode.result, episode.count) == (AT_WORK, count)
        assert episode.tried == ("make the file of locks again",)


# Whether it has helped.


def test_a_look_that_sees_nothing_is_no_proof(world: World) -> None:
    """Nobody answers the first three times after the rung."""
    world.faults, world.mends = [ONE], {"network reload": NETWORK}
    real, blind = world.seen, [Report(), Report(error="no answer"), Report(at=UP * 2)]

    def seen() -> Report:
        return blind.pop() if world.done and blind else real()

    world.seen = seen
    assert world.run() == 0
    assert (blind, world.said, world.kept[NETWORK].result) == ([], [f"podman network reload {ID}"], MENDED)


def test_nor_is_one_of_before(world: World) -> None:
    """The file of an earlier probe: the new one could not be started, say."""
    world.faults, world.mends = [ONE], {"network reload": NETWORK}
    fixed = UP + 4
    world.seen = lambda: probe(listed(), at=fixed if world.done else world.now)
    assert world.run() == 1
    assert world.kept[NETWORK].result == GAVE_UP


@pytest.mark.parametrize("blind", [Report(), Report(error="no answer")], ids=["nothing", "error"])
def test_who_never_sees_that_it_helped_climbs_on_and_gives_up(
    world: World, blind: Report, capsys: pytest.CaptureFixture[str]
) -> None:
    """Said is then what was seen before."""
    world.faults, world.mends = [ONE], {"network reload": NETWORK}
    real = world.seen
    world.seen = lambda: blind if world.done else real()
    assert world.run() == 1
    assert len(world.kept[NETWORK].tried) > 1
    assert f"network: that did not help: {ONE.message}" in capsys.readouterr().err.splitlines()


def test_who_was_restarted_for_it_must_run_for_a_while_before_its_name_is_judged(world: World) -> None:
    """A minute for that: the last rung but one."""
    world.faults, world.mends = [ONE], {"stop web": NETWORK}
    began: list[float] = []

    def held(step: Step) -> None:
        if isinstance(step, Hold):
            began.append(world.now)
            world.apps = (running(active="activating", sub="start", changed=world.now), running("db"))

    real = world.seen

    def seen() -> Report:
        if began and world.now > began[0] + 20:
            world.apps = (running(changed=began[0] + 20), running("db"))
        return real()

    world.watch, world.seen = held, seen
    assert world.run() == 0
    assert world.kept[NETWORK].result == MENDED
    assert began[0] + 25 < world.now < began[0] + 40


def test_one_that_starts_for_ever_is_not_mended(world: World) -> None:
    world.faults, world.mends = [ONE], {"stop web": NETWORK}

    def held(step: Step) -> None:
        if isinstance(step, Hold):
            world.apps = (running(active="activating", sub="auto-restart"), running("db"))

    world.watch = held
    assert world.run() == 1
    assert world.kept[NETWORK].result == GAVE_UP


def test_one_that_was_stopped_meanwhile_has_no_fault_any_more(world: World) -> None:
    world.faults, world.mends = [ONE], {"stop web": NETWORK}

    def by_hand(step: Step) -> None:
        if isinstance(step, Hold):
            world.apps = (down(), running("db"))

    world.watch = by_hand
    assert world.run() == 0
    assert world.kept[NETWORK].result == MENDED


# The storage.

DAMAGED = (
    f"Damaged layer {OTHER}:\n- file missing\nDamaged container {ID}:\n- x\nError: damage detected in local storage\n"
)


def storage(world: World, checked: str, log: str) -> int:
    world.faults, world.checked, world.log = [FAILING], checked, ["x", log]
    world.mends = {"podman system check": STORAGE}
    return world.run()


def test_an_image_that_is_not_there_is_no_fault_of_the_storage(world: World) -> None:
    """It is not even looked for: that takes minutes."""
    assert storage(world, DAMAGED, "Error: initializing source docker://x: requested access is denied") == 0
    assert (world.done, world.asked) == ([], [RECONCILE])
    assert world.kept[STORAGE].result == NOT_THE_CAUSE


def test_a_storage_that_is_sound(world: World) -> None:
    assert storage(world, "", "Error: creating container storage: layer not known") == 0
    assert (world.done, world.asked) == ([], ["podman system check --quick", RECONCILE])
    assert world.kept[STORAGE].result == NOT_THE_CAUSE


def test_a_damaged_storage(world: World) -> None:
    """The app that fails, and the one whose container is damaged, stand still; what is damaged goes."""
    world.probed = {"db": container(id=ID), "other": container(id="c" * 64)}
    assert storage(world, DAMAGED, "Error: creating container storage: layer not known") == 0
    assert world.done == [
        Hold(("db", "web")),
        AsUser(("podman", "system", "check", "--quick", "--repair"), 1800),
        RELEASE,
    ]
    assert world.kept[STORAGE].result == MENDED


def test_a_damaged_storage_that_stays_so(world: World) -> None:
    world.faults, world.checked, world.log = [FAILING], DAMAGED, ["Error: layer not known"]
    assert world.run() == 1
    assert world.kept[STORAGE].result == GAVE_UP
    assert world.done[-1] == RELEASE


# And then.


def test_who_waits_for_its_next_start_need_not_wait(world: World) -> None:
    pausing = {"active": "activating", "sub": "auto-restart", "exit_status": 125}
    world.apps = (running(**pausing), running("db"), running("c", stopped=True, **pausing))
    world.faults, world.mends = [LOCKS], {"rm -f": PODMAN}
    assert world.run() == 0
    assert world.done[-1] == Restart(("web",), "not to wait for the end of their pause")


def test_the_rungs_of_every_ladder_can_be_climbed(world: World) -> None:
    """Whatever they need of the scene is there."""
    climber = recover.Recovery(world.node.name)
    for fault in (LOCKS, NAMES, SWEEP, FAILING):
        scene = climber._situation(fault)
        assert (scene.uid, scene.runtime, scene.running) == (990, "/run/user/990", ("db", "web"))
        for rung in REMEDIES[fault.kind]:
            rung.steps(scene)


def test_a_ladder_of_ones_own(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """In order, the first that applies, and each once."""

    def rung(number: int, when: str) -> Remedy:
        return Remedy(f"{number}", lambda _: [AsUser((f"{number}",))], when)

    made = tuple(rung(number, when) for number, when in enumerate(["a", "b", "", "a"]))
    monkeypatch.setattr(remedies, "REMEDIES", {**REMEDIES, PODMAN: made})
    world.faults = [Fault(PODMAN, "a")]
    assert world.run() == 1
    assert world.said == ["0", "2", "3"]


def test_one_at_a_time(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A second one waits until the first has ended."""
    locked: list[str] = []

    class Lock:
        def __enter__(self) -> None:
            locked.append("in")

        def __exit__(self, *_: object) -> None:
            locked.append("out")

    class Quick(recover.Recovery):
        def run(self) -> int:
            locked.append("run")
            return 7

    climber = Quick(world.node.name)
    monkeypatch.setattr(locks, "hold", lambda *_: Lock())
    monkeypatch.setattr(recover, "Recovery", lambda _: climber)
    monkeypatch.setattr(os, "umask", lambda _: 0)
    assert (recover.main([]), locked) == (7, ["in", "run", "out"])
