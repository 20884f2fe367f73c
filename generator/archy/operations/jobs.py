# SPDX-License-Identifier: MIT
"""Starts and stops that a person waits for: how they go, and why they fail."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable

from archy import paths
from archy.apps import installed
from archy.host import systemd
from archy.images import pull
from archy.operations.progress import CannotDo, Progress, progress
from archy.prepare.prepare import prepare

_POLL = 0.5  # seconds


def start(what: str, names: list[str]) -> None:
    """Start apps, and wait until each is ready or has failed."""
    units = list(map(paths.unit, names))
    before = dict.fromkeys(units, 0) | {name: unit.restarts for name, unit in systemd.units(units).items()}

    def failing() -> list[str]:
        """Who has failed meanwhile. systemd tries again, and the job may wait for that; a person should know.

        An attempt that is just being made may be the one that succeeds.
        """
        found = systemd.units(units).values()
        failed = {one.name for one in found if one.restarts > before[one.name] and one.is_restarting}
        return [name for name in names if paths.unit(name) in failed]

    begun = [(name, systemd.job("start", paths.unit(name))) for name in names]
    failed = [name for name, job in begun if not await_job(name, job, "starting", "ready", failing)]
    failed = failing() or failed  # the first one may only wait for another that fails
    for name in failed:
        for line in systemd.journal(paths.unit(name), 15):
            progress(f"  {line}")
    if failed:
        unit = paths.unit(failed[0])
        raise CannotDo(what, unit, "did not start, see above", f"systemctl status {unit}")


def await_job(
    app_id: str, job: subprocess.Popen[str], doing: str, done: str, failing: Callable[[], list[str]] = list
) -> bool:
    """Wait for a job, however long it takes, and say how it goes. Interrupting the wait does not interrupt the job.

    The wait ends, too, once something is `failing`: what that is, is said in the place of how the job ended.
    """
    since, progress = time.monotonic(), Progress()
    try:
        while True:
            waits, amount = _waits(app_id) if doing == "starting" else ("", "")
            progress.show(f"{app_id}: {waits or doing}", f"{amount} {time.monotonic() - since:.0f} s".strip())
            try:
                _, said = job.communicate(timeout=_POLL)
            except subprocess.TimeoutExpired:
                if bad := failing():
                    job.terminate()
                    job.communicate()
                    whose = "" if app_id in bad else f", because of {', '.join(bad)}"
                    progress.show(f"{app_id}: does not start{whose}; systemd goes on trying")
                    return False
                continue
            progress.show(f"{app_id}: {done}" if job.returncode == 0 else f"{app_id}: {' '.join(said.split())}")
            return job.returncode == 0
    finally:
        progress.done()


def _waits(app_id: str) -> tuple[str, str]:
    """What an app waits for before its start, and how much of that has come, which changes all the time."""
    found = systemd.units([paths.image_unit(app_id), paths.wait_unit(app_id)])
    said = {name: unit.status_text for name, unit in found.items() if unit.is_activating and unit.status_text}
    if says := said.get(paths.image_unit(app_id)):
        text, _, amount = says.rpartition(": ") if says.endswith(pull.SO_FAR) else (says, "", "")
        return f"waiting for its image: {text}", amount
    return said.get(paths.wait_unit(app_id), ""), ""


def apply(what: str) -> None:
    """Let what is installed now take effect: files, also of others that it concerns; units; restarts of who needs it.

    What is wrong is said; the start of that app fails, and the others are started.
    """
    prepare("/", installed.ids("/")[0])
    ctl(what, "daemon-reload")
    ctl(what, "start", "archy-reconcile.service")


def ctl(what: str, *arguments: str) -> None:
    """Run systemctl; raises CannotDo with what it says."""
    try:
        systemd.systemctl(*arguments)
    except subprocess.CalledProcessError as error:
        why = " ".join(error.stderr.split())
        raise CannotDo(what, "systemctl " + " ".join(arguments), why, f"mend that, then: archy app {what}") from None
