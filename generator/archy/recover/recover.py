# SPDX-License-Identifier: MIT
"""archy-recover: mends what is wrong with Podman, with the least force that works, as root.

Started by a pass that has seen a fault. It looks again itself, applies the remedies of the fault one after the other,
and looks after each whether it has helped; the log is in the journal. If it is killed, the next one begins anew, and
the apps that it holds are started (see archy-hold.service).
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
from archy.recover.incidents import Incident
from archy.recover.remedies import Remedy, Situation

_LOCK = "/run/archy/recover.lock"
_SECOND_LOOK = 3.0  # seconds; a fault that is gone by then is none
_BETWEEN = 1.0
_CHECK_TIME = 1800.0
_SUSPECT, _ENTRIES = re.compile("overlay|layer|/storage/"), 40  # in the log of Podman of a start that failed
_DAMAGED = re.compile("^Damaged container ([0-9a-f]{64})", re.MULTILINE)


def main(argv: list[str]) -> int:
    """The entry point. Exit codes: 0 nothing is left to mend, 1 something is, and all was tried."""
    os.umask(0o022)
    with locks.hold("/", _LOCK, lambda: _log("waiting for another recovery to finish")):
        return Recovery("/").run()


def _waits(app: current.AppState) -> bool:
    """Whether the next attempt to start it is yet to come, after one that failed in Podman itself."""
    return app.unit.is_restarting and app.unit.exit_status in health_faults.FAILED and not app.stopped


def _log(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


class Recovery:
    """One run: all faults that may be mended now, one after the other."""

    def __init__(self, root: str) -> None:
        self.root = root
        self.incidents = incidents.load(root)
        self.faults: list[Fault] = []

    def run(self) -> int:
        """Mend what can be mended. Returns the exit code."""
        self.faults = health_faults.faults(self._look())
        time.sleep(_SECOND_LOOK)
        gave_up, mended = False, set[str]()
        while (fault := self._due()) is not None:
            gave_up |= not self._mend(fault)
            if self.incidents[fault.kind].result == incidents.MENDED:
                mended.add(fault.kind)
        # Apps that Podman has failed to start need not wait for the end of their pause, now that it is mended.
        apps = self._look().apps if {health_faults.PODMAN, health_faults.STORAGE} & mended else ()
        if waiting := tuple(app.id for app in apps if _waits(app)):
            self._try(steps.Restart(waiting, "not to wait for the end of their pause"))
        # The apps that Podman has forgotten meanwhile, and the status, are for a pass.
        subprocess.run(["systemctl", "start", "--no-block", "archy-reconcile.service"], check=False)
        return 1 if gave_up else 0

    def _due(self) -> Fault | None:
        node, now = self._look(), time.monotonic()
        faults, self.faults = health_faults.faults(node, self.faults), health_faults.faults(node)
        return next((fault for fault in faults if incidents.is_due(self.incidents, fault, now)), None)

    def _look(self) -> NodeState:
        systemd.probe()
        return current.observe(self.root, {})

    def _mend(self, fault: Fault) -> bool:
        """Apply the remedies of a fault until it is gone. Whether it is, or was none."""
        incident = incidents.begun(self.incidents.get(fault.kind), fault, time.monotonic())
        _log(f"{fault.kind}: {fault.message}")
        untried = list(remedies.REMEDIES[fault.kind])
        while True:
            self._store(fault.kind, incident)
            if fault.kind == health_faults.STORAGE:
                fault = self._examined(fault)
            situation = self._situation(fault)
            remedy = next((one for one in untried if remedies.applies(one, situation)), None)
            if remedy is None:
                return self._end_in_vain(fault, incident)
            untried.remove(remedy)
            incident = replace(incident, tried=(*incident.tried, remedy.title))
            self._store(fault.kind, incident)
            _log(f"{fault.kind}: {remedy.title}")
            self._apply(remedy.steps(situation))
            left = self._wait(fault, remedy)
            if left is None:
                self._store(fault.kind, incidents.ended(incident, incidents.MENDED, time.monotonic()))
                _log(f"{fault.kind}: mended in {time.monotonic() - incident.since:.0f} s")
                return True
            _log(f"{fault.kind}: that did not help: {left.message}")
            fault = left

    def _end_in_vain(self, fault: Fault, incident: Incident) -> bool:
        """No remedy is left. Whether there was none, because the fault is not that of Podman."""
        sound = fault.kind == health_faults.STORAGE and not incident.tried
        result = incidents.NOT_THE_CAUSE if sound else incidents.GAVE_UP
        self._store(fault.kind, incidents.ended(incident, result, time.monotonic()))
        _log(f"{fault.kind}: " + ("its storage is sound" if sound else "gave up"))
        return sound

    def _situation(self, fault: Fault) -> Situation:
        uid = int(read.user_line(self.root).split(b":")[2])
        running = tuple(sorted(installed.running(self.root) & set(installed.ids(self.root)[0])))
        stamp = time.strftime("%Y%m%d-%H%M%S", time.gmtime())
        return Situation(fault, uid, user.runtime_directory(uid), stamp, running)

    def _examined(self, fault: Fault) -> Fault:
        """The fault with Podman's message about its storage, and with the apps whose containers are damaged.

        Podman reads every layer for that: only where its log names its storage as the reason why an app cannot start.
        """
        if not any(_SUSPECT.search("\n".join(systemd.journal(paths.unit(app), _ENTRIES))) for app in fault.apps):
            return fault
        check = ("podman", "system", "check", "--quick")
        output = steps.run_as_user(self.root, check, _CHECK_TIME, quiet=True)
        errors = [line for line in output.splitlines() if line.startswith("Error: ")]
        if not errors:
            return fault
        ids = set(_DAMAGED.findall(output))
        damaged = {name for name, app in self._look().probe.apps.items() if app.id in ids}
        message = f"{fault.message}: {errors[-1][:300]}"
        return replace(fault, message=message, apps=tuple(sorted({*fault.apps, *damaged})))

    def _wait(self, fault: Fault, remedy: Remedy) -> Fault | None:
        """Wait until the fault is gone, as long as the remedy may take for it; the fault if it stays.

        It is gone only if a probe that could have seen it does not see it.
        """
        began = time.monotonic()
        while True:
            node = self._look()
            left = next((one for one in health_faults.faults(node, [fault]) if one.kind == fault.kind), None)
            if left is None and node.probe.at > began and health_faults.could_see(node, fault):
                return None
            if time.monotonic() > began + remedy.timeout:
                return left or fault
            time.sleep(_BETWEEN)

    def _apply(self, plan: list[steps.Step]) -> None:
        try:
            for step in plan:
                self._try(step)
        finally:
            if any(isinstance(step, steps.Hold) for step in plan):
                systemd.release()

    def _try(self, step: steps.Step) -> None:
        _log(f"  {step}")
        try:
            steps.apply(self.root, [step])
        except (OSError, subprocess.SubprocessError) as error:
            _log(f"  {step}: {getattr(error, 'stderr', None) or error}")

    def _store(self, kind: str, incident: Incident) -> None:
        self.incidents = {**self.incidents, kind: incident}
        incidents.store(self.root, self.incidents)
