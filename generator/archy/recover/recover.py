# SPDX-License-Identifier: MIT
"""archy-recover: mends what is wrong with Podman, with the least force that works, as root.

Started by a pass that has seen a fault. It looks again itself, climbs the fault's ladder, and looks after each rung
whether that has helped; its story is in the journal. Cut short at any moment, the next one begins anew, and the apps
that it holds are started (see archy-hold.service).
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from dataclasses import replace

from archy import paths
from archy.apps import installed
from archy.health import current
from archy.health import faults as health_faults
from archy.health.current import NodeState
from archy.health.faults import Fault
from archy.host import locks, read, steps, systemd, user
from archy.recover import incidents, remedies
from archy.recover.incidents import Incident, Incidents
from archy.recover.remedies import Remedy, Situation

_LOCK = "/run/archy/recover.lock"
_AGAIN = 3.0  # seconds until the second look: what is gone by then was none of ours
_BETWEEN = 1.0
_CHECK_TIME = 1800.0
_SUSPECT, _LINES = re.compile("overlay|layer|/storage/"), 40  # in what Podman said of a start that failed
_DAMAGED = re.compile("^Damaged container ([0-9a-f]{64})", re.MULTILINE)


def main(argv: list[str]) -> int:
    """The entry point. Exit codes: 0 nothing is left to mend, 1 something is, and all was tried."""
    os.umask(0o022)
    with locks.hold("/", _LOCK, lambda: _say("waiting for another recovery to finish")):
        return Recovery("/").run()


def _waits(app: current.AppState) -> bool:
    """Whether the next attempt to start it is yet to come, after one that failed in Podman itself."""
    return app.unit.sub.startswith("auto-restart") and app.unit.exit_status in health_faults.FAILED and not app.stopped


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


class Recovery:
    """One run: all faults that may be mended now, one after the other."""

    def __init__(self, root: str) -> None:
        self.root = root
        self.recovery = incidents.load(root)
        self.seen: list[Fault] = []

    def run(self) -> int:
        """Mend what can be mended. Returns the exit code."""
        self.seen = health_faults.faults(self._look())
        time.sleep(_AGAIN)
        gave_up, mended_kinds = False, set[str]()
        while (fault := self._due()) is not None:
            gave_up |= not self._mend(fault)
            if self.recovery.episodes[fault.kind].result == incidents.MENDED:
                mended_kinds.add(fault.kind)
        # Those that Podman has failed to start need not wait for the end of their pause, now that it is mended.
        mended = bool({health_faults.PODMAN, health_faults.STORAGE} & mended_kinds)
        waiting = tuple(app.id for app in self._look().apps if _waits(app)) if mended else ()
        if waiting:
            self._try(steps.Restart(waiting, "not to wait for the end of their pause"))
        # The apps that Podman has forgotten meanwhile, and the status, are for a pass.
        subprocess.run(["systemctl", "start", "--no-block", "archy-reconcile.service"], check=False)
        return 1 if gave_up else 0

    def _due(self) -> Fault | None:
        node, now = self._look(), time.monotonic()
        faults, self.seen = health_faults.faults(node, self.seen), health_faults.faults(node)
        return next((fault for fault in faults if incidents.is_due(self.recovery, fault, now)), None)

    def _look(self) -> NodeState:
        systemd.probe()
        return current.observe(self.root, {})

    def _mend(self, fault: Fault) -> bool:
        """Climb the ladder of a fault. Whether it is gone, or was none."""
        episode = incidents.begun(self.recovery.episodes.get(fault.kind), fault, time.monotonic())
        _say(f"{fault.kind}: {fault.said}")
        done: set[int] = set()
        while True:
            self._store(fault.kind, episode)
            if fault.kind == health_faults.STORAGE:
                fault = self._examined(fault)
            scene = self._scene(fault)
            found = self._next(fault, scene, done)
            if found is None:
                result = incidents.GAVE_UP
                if fault.kind == health_faults.STORAGE and not episode.tried:
                    result = incidents.NOT_THE_CAUSE
                self._store(fault.kind, incidents.ended(episode, result, time.monotonic()))
                _say(f"{fault.kind}: " + ("gave up" if result == incidents.GAVE_UP else "its storage is sound"))
                return result == incidents.NOT_THE_CAUSE
            number, rung = found
            done.add(number)
            episode = replace(episode, tried=(*episode.tried, rung.title))
            self._store(fault.kind, episode)
            _say(f"{fault.kind}: {rung.title}")
            self._execute(rung.steps(scene))
            left = self._settle(fault, rung)
            if left is None:
                took = time.monotonic() - episode.since
                self._store(fault.kind, incidents.ended(episode, incidents.MENDED, time.monotonic()))
                _say(f"{fault.kind}: mended in {took:.0f} s")
                return True
            _say(f"{fault.kind}: that did not help: {left.said}")
            fault = left

    def _next(self, fault: Fault, scene: Situation, done: set[int]) -> tuple[int, Remedy] | None:
        rungs = enumerate(remedies.REMEDIES[fault.kind])
        return next(((n, rung) for n, rung in rungs if n not in done and remedies.applies(rung, scene)), None)

    def _scene(self, fault: Fault) -> Situation:
        fields = read.user_line(self.root).split(b":")
        uid = int(fields[2])
        running = tuple(sorted(installed.running(self.root) & set(installed.ids(self.root)[0])))
        stamp = time.strftime("%Y%m%d-%H%M%S", time.gmtime())
        return Situation(fault, uid, user.runtime_directory(uid), stamp, running)

    def _examined(self, fault: Fault) -> Fault:
        """The fault with what Podman says of its storage, and with the apps whose containers are damaged.

        Podman looks into every layer for that: only where it has said that this is why it cannot start an app.
        """
        if not any(_SUSPECT.search("\n".join(systemd.journal(paths.unit(app), _LINES))) for app in fault.apps):
            return fault
        check = ("podman", "system", "check", "--quick")
        said = steps.run_as_user(self.root, check, _CHECK_TIME, quiet=True)
        errors = [line for line in said.splitlines() if line.startswith("Error: ")]
        if not errors:
            return fault
        ids = set(_DAMAGED.findall(said))
        damaged = {name for name, app in self._look().probe.apps.items() if app.id in ids}
        return replace(fault, said=f"{fault.said}: {errors[-1][:300]}", apps=tuple(sorted({*fault.apps, *damaged})))

    def _settle(self, fault: Fault, rung: Remedy) -> Fault | None:
        """Wait until the fault is gone, as long as the rung may take for it; the fault if it stays.

        Gone it is only for a look that could have seen it.
        """
        began = time.monotonic()
        while True:
            node = self._look()
            faults = health_faults.faults(node, [fault])
            left = next((found for found in faults if found.kind == fault.kind), None)
            if left is None and node.probe.at > began and health_faults.could_see(node, fault):
                return None
            if time.monotonic() > began + rung.timeout:
                return left or fault
            time.sleep(_BETWEEN)

    def _execute(self, plan: list[steps.Step]) -> None:
        try:
            for step in plan:
                self._try(step)
        finally:
            if any(isinstance(step, steps.Hold) for step in plan):
                systemd.release()

    def _try(self, step: steps.Step) -> None:
        _say(f"  {step}")
        try:
            steps.apply(self.root, [step])
        except (OSError, subprocess.SubprocessError) as error:
            _say(f"  {step}: {getattr(error, 'stderr', None) or error}")

    def _store(self, kind: str, episode: Incident) -> None:
        self.recovery = Incidents({**self.recovery.episodes, kind: episode})
        incidents.store(self.root, self.recovery)
