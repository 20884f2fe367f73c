# SPDX-License-Identifier: MIT
"""Jobs of systemd that a person waits for: their progress, and the reason if they fail."""

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
        """The apps that have failed meanwhile. systemd tries again, and the job may wait for that.

        An attempt that is under way may succeed.
        """
        found = systemd.units(units).values()
        failed = {one.name for one in found if one.restarts > before[one.name] and one.is_restarting}
        return [name for name in names if paths.unit(name) in failed]

    begun = [(name, systemd.job("start", paths.unit(name))) for name in names]
    failed = [name for name, job in begun if not _wait(name, job, "starting", "ready", failing)]
    failed = failing() or failed  # an app may only wait for another one that fails
    for name in failed:
        for line in systemd.journal(paths.unit(name), 15):
            progress(f"  {line}")
    if failed:
        unit = paths.unit(failed[0])
        raise CannotDo(what, unit, "did not start, see above", f"systemctl status {unit}")


def stop(what: str, app_id: str) -> None:
    """Stop an app if it has a unit, and wait, however long that takes; raises CannotDo if it fails."""
    unit = systemd.unit(app_id)
    job = systemd.job("stop", unit.name) if unit and (unit.loaded or unit.masked) else None
    if job and not _wait(app_id, job, "stopping", "stopped"):
        name = paths.unit(app_id)
        raise CannotDo(what, name, "could not be stopped, see above", f"systemctl status {name}")


def _wait(
    app_id: str, job: subprocess.Popen[str], doing: str, done: str, failing: Callable[[], list[str]] = list
) -> bool:
    """Wait for a job, however long it takes, and print its progress. To interrupt the wait does not interrupt the job.

    The wait also ends once an app is `failing`, which is then printed instead of the job's result.
    """
    since, progress = time.monotonic(), Progress()
    try:
        while True:
            waits, amount = _waits_for(app_id) if doing == "starting" else ("", "")
            progress.show(f"{app_id}: {waits or doing}", f"{amount} {time.monotonic() - since:.0f} s".strip())
            try:
                _, error = job.communicate(timeout=_POLL)
            except subprocess.TimeoutExpired:
                if failed := failing():
                    job.terminate()
                    job.communicate()
                    cause = "" if app_id in failed else f", because of {', '.join(failed)}"
                    progress.show(f"{app_id}: does not start{cause}; systemd tries again")
                    return False
                continue
            progress.show(f"{app_id}: {done}" if job.returncode == 0 else f"{app_id}: {' '.join(error.split())}")
            return job.returncode == 0
    finally:
        progress.done()


def _waits_for(app_id: str) -> tuple[str, str]:
    """What an app waits for before its start, and the amount of it that has come, which changes all the time."""
    image, wait = paths.image_unit(app_id), paths.wait_unit(app_id)
    units = systemd.units([image, wait]).values()
    texts = {unit.name: unit.status_text for unit in units if unit.is_activating}
    if text := texts.get(image):
        text, _, amount = text.rpartition(": ") if text.endswith(pull.SO_FAR) else (text, "", "")
        return f"waiting for its image: {text}", amount
    return texts.get(wait, ""), ""


def apply(what: str) -> None:
    """Put the installed apps into force: derived files, units, and the restarts that follow from them.

    Problems are printed; the start of that app fails, and the others are started.
    """
    prepare("/", installed.ids("/")[0])
    ctl(what, "daemon-reload")
    ctl(what, "start", "archy-reconcile.service")


def ctl(what: str, *arguments: str) -> None:
    """Run systemctl; raises CannotDo with its error."""
    try:
        systemd.systemctl(*arguments)
    except subprocess.CalledProcessError as error:
        where, reason = f"systemctl {' '.join(arguments)}", " ".join(error.stderr.split())
        raise CannotDo(what, where, reason, f"repair that, then: archy app {what}") from None
