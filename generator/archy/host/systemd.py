# SPDX-License-Identifier: MIT
"""What we ask of systemd, through systemctl and journalctl: few calls, plain answers."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass

from archy import paths

_PROPERTIES = (
    "Id",
    "LoadState",
    "ActiveState",
    "SubState",
    "NRestarts",
    "FragmentPath",
    "InvocationID",
    "Job",
    "Result",
    "ExecMainStatus",
    "StateChangeTimestampMonotonic",
    "InactiveExitTimestampMonotonic",
    "StatusText",
)

HOLD = "archy-hold.service"
_POLL = 0.2  # seconds
_GENERATED = paths.GENERATED + "/"


@dataclass(frozen=True)
class Unit:
    """A unit as systemd sees it.

    `active` is `active`, `activating`, `inactive`, `failed`, ..., and `sub` more exactly so. `restarts` counts;
    `exit_status` is that of the main process. `changed` and `began` are times, in seconds of the monotonic clock: the
    last change of state, and the end of its last time of being inactive; 0 for never. `status_text` is what the unit
    says of itself (STATUS= of sd_notify(3)).
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

    @property
    def runs(self) -> bool:
        """Whether it is up, or comes or goes. What has run to its end does not, though systemd calls it active."""
        return self.active not in ("inactive", "failed") and self.sub != "exited"


def booted() -> bool:
    """Whether systemd runs this machine (sd_booted(3))."""
    return os.path.isdir("/run/systemd/system")


def units(names: Sequence[str]) -> dict[str, Unit]:
    """The state of each named unit, in one call; empty where systemd does not run."""
    if not names or not booted():
        return {}
    command = ["systemctl", "show", "--property=" + ",".join(_PROPERTIES), "--", *names]
    text = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    found = {}
    for block in text.strip().split("\n\n"):
        values = dict(line.partition("=")[::2] for line in block.splitlines())
        if "Id" in values:
            found[values["Id"]] = Unit(
                values["Id"],
                values.get("LoadState") == "loaded",
                values.get("LoadState") == "masked",
                values.get("FragmentPath", "").startswith(_GENERATED),
                values.get("ActiveState", "unknown"),
                values.get("SubState", ""),
                int(values.get("NRestarts") or 0),
                bool(values.get("Job")) and values["Job"] != "0",
                values.get("InvocationID", ""),
                values.get("Result", ""),
                int(values.get("ExecMainStatus") or 0),
                int(values.get("StateChangeTimestampMonotonic") or 0) / 1e6,
                int(values.get("InactiveExitTimestampMonotonic") or 0) / 1e6,
                values.get("StatusText", ""),
            )
    return found


def unit(app_id: str) -> Unit | None:
    """The state of an app's unit."""
    return units([paths.unit(app_id)]).get(paths.unit(app_id))


def systemctl(*arguments: str) -> None:
    """Run systemctl; raises subprocess.CalledProcessError with what it says."""
    subprocess.run(["systemctl", *arguments], capture_output=True, text=True, check=True)


def hold(names: Sequence[str]) -> None:
    """Restart units, and hold their starts until `release`; wait until all are down, each within its own time.

    One that is being stopped stays stopped: the restart of that one is refused.
    """
    before = {unit.name: unit.invocation for unit in units(names).values()}
    systemctl("start", "--no-block", HOLD)
    for name in names:
        command = ["systemctl", "try-restart", "--no-block", "--job-mode=fail", "--", name]
        subprocess.run(command, capture_output=True, check=False)
    while any(_goes_down(unit) and unit.invocation == before.get(unit.name) for unit in units(names).values()):
        time.sleep(_POLL)


def _goes_down(unit: Unit) -> bool:
    """Whether it has processes, and will not have them for long; between two attempts to start it has none."""
    ends = unit.has_job or unit.active == "deactivating"
    return ends and unit.active not in ("inactive", "failed") and not unit.sub.startswith("auto-restart")


def release() -> None:
    """Let the starts go on that `hold` has held."""
    subprocess.run(["systemctl", "stop", "--", HOLD], capture_output=True, check=False)


def probe() -> None:
    """Have archy-probe look again, and wait for that; its result tells how that went."""
    subprocess.run(["systemctl", "start", "archy-probe.service"], capture_output=True, check=False)


def job(verb: str, name: str) -> subprocess.Popen[str]:
    """Begin to start or stop a unit. The process ends with the job: 0 once the unit is ready, or stopped."""
    return subprocess.Popen(
        ["systemctl", verb, "--", name], stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )


def forget_failures(names: Sequence[str]) -> None:
    """Let units read inactive that read failed."""
    subprocess.run(["systemctl", "reset-failed", "--", *names], capture_output=True, check=False)


def sweep(names: Sequence[str]) -> list[str]:
    """Let units go that no file describes any more: drop failed states, stop networks and volumes that are "active".

    Returns these.
    """
    forget_failures(names)
    command = ["systemctl", "list-units", "--plain", "--no-legend", "--state=not-found", "archy-*-network.service"]
    text = subprocess.run([*command, "archy-*-volume.service"], capture_output=True, text=True, check=False).stdout
    gone = [line.split()[0] for line in text.splitlines()]
    if gone:
        subprocess.run(["systemctl", "stop", "--", *gone], capture_output=True, check=False)
    return gone


def invocation(identity: str) -> list[str]:
    """What a unit's processes said in one of its runs."""
    command = ["journalctl", "--no-pager", "--quiet", "--output=cat", f"_SYSTEMD_INVOCATION_ID={identity}"]
    return subprocess.run(command, capture_output=True, text=True, errors="replace", check=False).stdout.splitlines()


def journal(name: str, lines: int) -> list[str]:
    """The last lines of a unit's log."""
    command = ["journalctl", "--no-pager", "--quiet", "--output=cat", f"--lines={lines}", f"--unit={name}"]
    return subprocess.run(command, capture_output=True, text=True, errors="replace", check=False).stdout.splitlines()
