# SPDX-License-Identifier: MIT
"""What was done about faults of Podman, when it may be done again, and how that reads. Kept in /run, until a boot.

A fault that returns is mended again, but not for ever: after three times the pauses double.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from archy import paths
from archy.health.backoff import Backoff
from archy.health.faults import LEFTOVERS, PODMAN, STORAGE, Fault
from archy.host import read, write
from archy.host.steps import Recover, Step
from archy.recover.remedies import ADVICE

MENDED, GAVE_UP, AT_WORK, NOT_THE_CAUSE = "mended", "gave up", "at work", "not it"
_RETURNED = Backoff(60.0, 3600.0, 3600.0, free=3)
_IN_VAIN = Backoff(600.0, 6 * 3600.0, 3600.0)  # after all remedies were tried


@dataclass(frozen=True)
class Incident:
    """One kind of fault: what was seen and tried last. Times are seconds since boot, `count` is in a row."""

    result: str = ""
    message: str = ""
    tried: tuple[str, ...] = ()
    since: float = 0
    ended: float = 0
    until: float = 0
    count: int = 0

    @property
    def backoff(self) -> Backoff:
        """The pauses before the next attempt."""
        return _RETURNED if self.result in (MENDED, AT_WORK) else _IN_VAIN


Incidents = dict[str, Incident]  # by the kind of the fault


def load(root: str) -> Incidents:
    """What was done since the boot."""
    try:
        records = json.loads(read.read(paths.under(root, paths.RECOVERY)) or b"")
        return {kind: _incident(**record) for kind, record in records.items()}
    except (ValueError, TypeError, AttributeError, RecursionError):
        return {}


def _incident(*, tried: list[str], since: float, ended: float, until: float, **others: Any) -> Incident:
    return Incident(tried=tuple(tried), since=float(since), ended=float(ended), until=float(until), **others)


def store(root: str, incidents: Incidents) -> None:
    """Keep it."""
    content = json.dumps({kind: asdict(incident) for kind, incident in incidents.items()}).encode()
    write.replace_file(root, paths.RECOVERY, content, os.geteuid(), os.getegid(), 0o644)


def steps(incidents: Incidents, faults: Sequence[Fault], recovering: bool, now: float) -> list[Step]:
    """Have a recovery begin, where there is a fault that may be mended now."""
    due = [fault for fault in faults if is_due(incidents, fault, now)]
    if recovering or not due:
        return []
    return [Recover(why="; ".join(f"{fault.kind}: {fault.message}" for fault in due))]


def is_due(incidents: Incidents, fault: Fault, now: float) -> bool:
    """Whether a fault may be mended now."""
    return fault.kind not in incidents or incidents[fault.kind].until <= now


def begun(last: Incident | None, fault: Fault, now: float) -> Incident:
    """The incident that begins with a fault, after the last one of its kind."""
    count = last.count if last and last.backoff.goes_on(last.count, now - last.ended) else 0
    return Incident(AT_WORK, fault.message, (), now, now, 0, count + 1)


def ended(incident: Incident, result: str, now: float) -> Incident:
    """The incident, over, and when the next one may begin."""
    incident = replace(incident, result=result, ended=now)
    return replace(incident, until=now + incident.backoff.pause(incident.count))


def problems(
    incidents: Incidents, faults: Sequence[Fault], recovering: bool, now: float, shown: Callable[[float], str]
) -> tuple[bool, list[str]]:
    """Whether something is broken that will not be mended by itself soon, and what a person should read.

    `shown` makes a time of the monotonic clock readable.
    """
    result, broken = [], False
    for fault in faults:
        incident = incidents.get(fault.kind)
        if fault.kind == STORAGE and (incident is None or incident.result == NOT_THE_CAUSE):
            continue  # a matter of those apps, which say so
        if recovering or incident is None or incident.until <= now:
            result.append(f"{fault.message} (is being mended)")
            continue
        if incident.result == MENDED:
            broken |= fault.kind == PODMAN
            reason = f"it was mended {incident.count} times, and returned each time"
        else:
            broken |= fault.kind != LEFTOVERS
            tried = f"it did not help to {', or to '.join(incident.tried)}" if incident.tried else ""
            reason = f"{tried or 'nothing is known to help'}. {ADVICE[fault.kind]}"
        result.append(f"{fault.message}: gave up until {shown(incident.until)}, because {reason}")
    return broken, result
