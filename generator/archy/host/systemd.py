# SPDX-License-Identifier: MIT
"""What we ask of systemd, through systemctl and the journal: few calls, plain answers."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from archy import paths

HOLD = "archy-hold.service"
_POLL = 0.2  # seconds
_GENERATED = paths.GENERATED + "/"
_MAX_ENTRIES = 1000  # of the log of one run


def _number(text: str) -> int:
    return int(text or 0)


def _seconds(microseconds: str) -> float:
    return _number(microseconds) / 1e6


# The property of systemd that each field of Unit is read from, and how.
_PROPERTIES: dict[str, tuple[str, Callable[[str], Any]]] = {
    "name": ("Id", str),
    "loaded": ("LoadState", "loaded".__eq__),
    "masked": ("LoadState", "masked".__eq__),
    "generated": ("FragmentPath", lambda path: path.startswith(_GENERATED)),
    "active": ("ActiveState", str),
    "sub": ("SubState", str),
    "restarts": ("NRestarts", _number),
    "has_job": ("Job", lambda job: job not in ("", "0")),
    "invocation": ("InvocationID", str),
    "result": ("Result", str),
    "exit_status": ("ExecMainStatus", _number),
    "changed": ("StateChangeTimestampMonotonic", _seconds),
    "began": ("InactiveExitTimestampMonotonic", _seconds),
    "status_text": ("StatusText", str),
    "status_errno": ("StatusErrno", _number),
}


@dataclass(frozen=True)
class Unit:
    """A unit as systemd sees it. Others ask its properties, and compare no words of systemd themselves.

    `active` and `sub` are what `systemctl status` shows as "active (running)". `restarts` counts; `exit_status` is that
    of the main process. `changed` and `began` are times, in seconds of the monotonic clock: the last change of state,
    and the end of its last time of being inactive; 0 for never. `status_text` is STATUS= of sd_notify(3),
    `status_errno` is ERRNO=.
    """

    name: str
    loaded: bool = False
    masked: bool = False
    generated: bool = False
    active: str = "inactive"
    sub: str = "dead"
    restarts: int = 0
    has_job: bool = False
    invocation: str = ""
    result: str = "success"
    exit_status: int = 0
    changed: float = 0
    began: float = 0
    status_text: str = ""
    status_errno: int = 0

    @property
    def is_up(self) -> bool:
        """It is started, and not stopped since: "active" or "reloading"; also after it has run to its end."""
        return self.active in ("active", "reloading")

    @property
    def is_running(self) -> bool:
        """Its main process runs and is ready: "active (running)"."""
        return self.sub == "running"

    @property
    def has_exited(self) -> bool:
        """It has run to its end, as it should: "active (exited)"."""
        return self.sub == "exited"

    @property
    def is_ready(self) -> bool:
        """It is up, and nothing goes on with it, as a reload: "active (running)" or "active (exited)"."""
        return self.is_running or self.has_exited

    @property
    def is_activating(self) -> bool:
        """It is on its way up, pauses between attempts included: "activating"."""
        return self.active == "activating"

    @property
    def is_starting(self) -> bool:
        """Its main process runs and is not ready yet: "activating (start)"."""
        return self.sub == "start"

    @property
    def is_restarting(self) -> bool:
        """It has failed and has no process until the next attempt: "activating (auto-restart)"."""
        return self.sub.startswith("auto-restart")

    @property
    def is_stopping(self) -> bool:
        """It is on its way down: "deactivating"."""
        return self.active == "deactivating"

    @property
    def is_failed(self) -> bool:
        """It is down, and systemd does not try again: "failed"."""
        return self.active == "failed"

    @property
    def is_inactive(self) -> bool:
        """It is down, and did not fail: "inactive"."""
        return self.active == "inactive"

    @property
    def is_down(self) -> bool:
        """It is neither up nor on its way: "inactive" or "failed"."""
        return self.is_inactive or self.is_failed

    @property
    def is_alive(self) -> bool:
        """It is up, or on its way up or down. What has run to its end is not, though systemd calls it active."""
        return not (self.is_down or self.has_exited)

    @property
    def is_queued(self) -> bool:
        """It has no process, and a job that waits in systemd's queue: "inactive" with a line "Job:", for example."""
        return self.has_job and (self.is_down or self.is_restarting)

    @property
    def is_steady(self) -> bool:
        """Its process is there and stays: it runs without a job that would change that, or starts, which is a job."""
        return self.is_starting or (self.is_running and not self.has_job)


def booted() -> bool:
    """Whether systemd runs this machine (sd_booted(3))."""
    return os.path.isdir("/run/systemd/system")


def units(names: Sequence[str]) -> dict[str, Unit]:
    """The state of each named unit, in one call; empty where systemd does not run."""
    if not names or not booted():
        return {}
    properties = ",".join(dict.fromkeys(name for name, _ in _PROPERTIES.values()))
    blocks = _try("show", f"--property={properties}", "--", *names).strip().split("\n\n")
    return {unit.name: unit for unit in map(_unit, blocks) if unit}


def _unit(block: str) -> Unit | None:
    values = dict(line.partition("=")[::2] for line in block.splitlines())
    fields = {field: read(values[name]) for field, (name, read) in _PROPERTIES.items() if name in values}
    return Unit(**fields) if "name" in fields else None


def unit(app_id: str) -> Unit | None:
    """The state of an app's unit."""
    return units([paths.unit(app_id)]).get(paths.unit(app_id))


def systemctl(*arguments: str) -> None:
    """Run systemctl; raises subprocess.CalledProcessError with its message."""
    subprocess.run(["systemctl", *arguments], capture_output=True, text=True, check=True)


def _try(*arguments: str) -> str:
    """Run systemctl, whether it succeeds or not; its output."""
    return subprocess.run(["systemctl", *arguments], capture_output=True, text=True, check=False).stdout


def hold(names: Sequence[str]) -> None:
    """Restart units, and hold their starts until `release`; wait until all are down, each within its own time.

    One that is being stopped stays stopped: the restart of that one is refused.
    """
    before = {unit.name: unit.invocation for unit in units(names).values()}
    systemctl("start", "--no-block", HOLD)
    for name in names:
        _try("try-restart", "--no-block", "--job-mode=fail", "--", name)
    while any(_goes_down(unit) and unit.invocation == before.get(unit.name) for unit in units(names).values()):
        time.sleep(_POLL)


def _goes_down(unit: Unit) -> bool:
    """Whether it has processes, and will not have them for long; between two attempts to start it has none."""
    return (unit.has_job or unit.is_stopping) and not (unit.is_down or unit.is_restarting)


def release() -> None:
    """Let the starts go on that `hold` has held."""
    _try("stop", "--", HOLD)


def probe() -> None:
    """Have archy-probe look again, and wait for that; the result of its unit is how that went."""
    _try("start", "archy-probe.service")


def job(verb: str, name: str) -> subprocess.Popen[str]:
    """Begin to start or stop a unit. The process ends with the job: 0 once the unit is ready, or stopped."""
    command = ["systemctl", verb, "--", name]
    return subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def forget_failures(names: Sequence[str]) -> None:
    """Let failed units be inactive."""
    _try("reset-failed", "--", *names)


def sweep(names: Sequence[str]) -> list[str]:
    """Remove the state of units that no file describes any more: failures, and "active" networks and volumes.

    Returns these.
    """
    forget_failures(names)
    patterns = ("archy-*-network.service", "archy-*-volume.service")
    lines = _try("list-units", "--plain", "--no-legend", "--state=not-found", *patterns).splitlines()
    gone = [line.split()[0] for line in lines]
    if gone:
        _try("stop", "--", *gone)
    return gone


def invocation(identity: str) -> list[str]:
    """The log of one run of a unit."""
    return _log(_MAX_ENTRIES, [f"_SYSTEMD_INVOCATION_ID={identity}"])


def journal(name: str, entries: int) -> list[str]:
    """The end of a unit's log: lines of its processes, and those of systemd about it (as `journalctl --unit`)."""
    return _log(entries, [f"_SYSTEMD_UNIT={name}"], ["_PID=1", f"UNIT={name}"])


def _log(entries: int, *alternatives: list[str]) -> list[str]:
    """The lines of the last entries of the journal that have all the fields of one of the alternatives."""
    from systemd.journal import Reader

    lines: list[str] = []
    try:
        with Reader(converters={"MESSAGE": lambda content: content.decode(errors="replace")}) as reader:
            for fields in alternatives:
                reader.add_disjunction()
                for field in fields:
                    reader.add_match(field)
            reader.seek_tail()
            while entries > 0 and (entry := reader.get_previous()):
                entries -= 1
                lines[:0] = str(entry.get("MESSAGE", "")).splitlines()
    except OSError:  # it is damaged, or was rotated just now
        pass
    return lines
