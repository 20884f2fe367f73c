# SPDX-License-Identifier: MIT
"""Whether a pass that found all well may rest: not as long as time alone could change what it says."""

from __future__ import annotations

from dataclasses import replace

from probes import ASKED, ID, container, listed, probe
from support import running, state

from archy.health.current import AppState
from archy.probe.checks import REFUSED, TIMEOUT
from archy.probe.report import CheckResult
from archy.reconcile import plan
from archy.reconcile.plan import Plan
from archy.recover.incidents import Incidents

LOST = CheckResult(False, REFUSED, "no name server: Connection refused", ASKED)
SLOW = CheckResult(False, TIMEOUT, "no answer in time", ASKED)


def planned(app: AppState, names: CheckResult | None = None, load: float = 0.1) -> Plan:
    seen = probe(listed(), apps={"web": container(id=ID, names=names)}, load=load)
    return plan.make(state(app, probe=seen), Incidents())


def started(before: float) -> AppState:
    """An app that became ready so many seconds before the probe."""
    app = running()
    return replace(app, unit=replace(app.unit, changed=ASKED - before))


def test_all_is_well_and_stays_so() -> None:
    assert not planned(started(60)).is_pending
    assert not planned(started(60), CheckResult(True, "", "", ASKED)).is_pending


def test_what_is_seen_right_after_a_start_is_looked_at_again() -> None:
    found = planned(started(3), LOST)
    assert (found.faults, found.is_pending) == ([], True)
    assert planned(started(3)).is_pending
    assert planned(started(60), LOST).faults


def test_what_does_not_count_on_a_busy_machine_is_looked_at_again() -> None:
    found = planned(started(60), SLOW, load=9.0)
    assert (found.faults, found.is_pending) == ([], True)
    assert planned(started(60), SLOW).faults
