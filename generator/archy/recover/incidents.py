# SPDX-License-Identifier: MIT
"""What was done about faults of Podman, when it may be done again, and how that reads. Kept in /run, until a boot.

A fault that returns is mended again, but not for ever: after three times the pauses double.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field

from archy import paths
from archy.health.backoff import backoff
from archy.health.faults import LEFTOVERS, PODMAN, STORAGE, Fault
from archy.host import read, write
from archy.host.steps import Recover, Step
from archy.recover.remedies import ADVICE

MENDED, GAVE_UP, AT_WORK, NOT_THE_CAUSE = "mended", "gave up", "at work", "not it"
_FREE = 3
_FIRST_PAUSE, _LONGEST_PAUSE = 60.0, 3600.0
_FIRST_REST, _LONGEST_REST = 600.0, 6 * 3600.0  # seconds after all was tried in vain
_FORGET = 3600.0
_TIMES = ("since", "ended", "until")


@dataclass(frozen=True)
class Incident:
    """One kind of fault: what was seen and tried last. Times are seconds since boot, `count` is in a row."""

    result: str = ""
    said: str = ""
    tried: tuple[str, ...] = ()
    since: float = 0
    ended: float = 0
    until: float = 0
    count: int = 0


@dataclass(frozen=True)
class Incidents:
    """All of it, by the kinds of faults."""

    episodes: dict[str, Incident] = field(default_factory=dict)


def load(root: str) -> Incidents:
    """What was done since the boot."""
    try:
        found = json.loads(read.read(paths.under(root, paths.RECOVERY)) or b"")
        episodes = {
            kind: Incident(**{**entry, "tried": tuple(entry["tried"]), **{name: float(entry[name]) for name in _TIMES}})
            for kind, entry in found["episodes"].items()
        }
        return Incidents(episodes)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return Incidents()


def store(root: str, recovery: Incidents) -> None:
    """Keep it."""
    content = json.dumps(asdict(recovery)).encode()
    write.replace_file(root, paths.RECOVERY, content, os.geteuid(), os.getegid(), 0o644)


def steps(recovery: Incidents, faults: Sequence[Fault], recovering: bool, now: float) -> list[Step]:
    """Have it begin, where there is something to mend and it may be tried."""
    due = [fault for fault in faults if is_due(recovery, fault, now)]
    if recovering or not due:
        return []
    return [Recover("; ".join(f"{fault.kind}: {fault.said}" for fault in due))]


def is_due(recovery: Incidents, fault: Fault, now: float) -> bool:
    """Whether a fault may be mended now."""
    return fault.kind not in recovery.episodes or recovery.episodes[fault.kind].until <= now


def begun(last: Incident | None, fault: Fault, now: float) -> Incident:
    """The episode that begins with a fault, after the last one of its kind."""
    count = last.count if last and now - last.ended < max(_FORGET, 2 * (last.until - last.ended)) else 0
    return Incident(AT_WORK, fault.said, (), now, now, 0, count + 1)


def ended(episode: Incident, result: str, now: float) -> Incident:
    """The episode, over, and when the next one may begin."""
    if result == MENDED:
        pause = 0.0 if episode.count <= _FREE else backoff(_FIRST_PAUSE, episode.count - _FREE, _LONGEST_PAUSE)
    else:
        pause = backoff(_FIRST_REST, episode.count, _LONGEST_REST)
    return Incident(result, episode.said, episode.tried, episode.since, now, now + pause, episode.count)


def problems(
    recovery: Incidents, faults: Sequence[Fault], recovering: bool, now: float, shown: Callable[[float], str]
) -> tuple[bool, list[str]]:
    """Whether something is broken that will not be mended by itself soon, and what a person should read.

    `shown` makes a time of the monotonic clock readable.
    """
    result, broken = [], False
    for fault in faults:
        episode = recovery.episodes.get(fault.kind)
        if fault.kind == STORAGE and (episode is None or episode.result == NOT_THE_CAUSE):
            continue  # a matter of those apps, which say so
        if recovering or episode is None or episode.until <= now:
            result.append(f"{fault.said} (is being mended)")
        elif episode.result == MENDED:
            broken = broken or fault.kind == PODMAN
            why = f"was mended {episode.count} times, and returned each time"
            result.append(f"{fault.said}: gave up until {shown(episode.until)}, because it {why}")
        else:
            broken = broken or fault.kind != LEFTOVERS
            why = (
                f"it did not help to {', or to '.join(episode.tried)}" if episode.tried else "nothing is known to help"
            )
            result.append(f"{fault.said}: gave up until {shown(episode.until)}, because {why}. {ADVICE[fault.kind]}")
    return broken, result
