# SPDX-License-Identifier: MIT
"""archy-reconcile: one pass over the node, as root. What has drifted is put right; what that needs is restarted.

The timer, the path unit and `archy reconcile` run the same pass. It compares all that is wanted with all that is
there, so a pass that was missed, or was cut short, does not matter.
"""

import os
import sys

from archy import paths
from archy.apps import installed
from archy.host import locks, write
from archy.prepare import prepare

TYPE_CHECKING = False
if TYPE_CHECKING:
    from archy.host import steps

EX_FAILED = 1
UNIT = "archy-reconcile.service"
_SOON = 3.0  # seconds


def main(argv: list[str]) -> int:
    """The entry point. Exit codes: 0, also when some app is not well (`archy status` tells), 1 if the pass failed."""
    os.umask(0o022)
    return run("/", dry=False)


def run(root: str, dry: bool) -> int:
    """Make a pass; with `dry`, print its steps and do nothing."""
    if dry:  # whoever looks, and may stop looking halfway, holds up nobody
        return _pass(root, dry)[0]
    with locks.hold(root, paths.PASS_LOCK, _waiting):
        code, again = _pass(root, dry)
        if again is None:
            return code
        if again:
            _look_again(again)
        return code | _pass(root, dry)[0]


def _waiting() -> None:
    print("waiting for another pass to finish", file=sys.stderr, flush=True)


def _look_again(seconds: float) -> None:
    import time

    from archy.host import systemd

    time.sleep(seconds)
    systemd.probe()


def _pass(root: str, dry: bool) -> tuple[int, float | None]:
    """One pass: the exit code, and after how many seconds what it did or saw asks for another; None for not at all."""
    planned: prepare.Planned | None = {} if dry else None
    try:
        failures = files(root, planned)
    except OSError as error:
        print(f"node: {error}", file=sys.stderr)
        failures = {paths.NODE_KEY: str(error)}
    from archy.apps import pending
    from archy.reconcile import unchanged
    from archy.units import drift as units_drift

    drift = units_drift.drift(root)
    begun = pending.interrupted(root)
    if not (dry or failures or drift or begun) and unchanged.holds(root):
        return 0, None
    from archy.health import current
    from archy.host import steps
    from archy.reconcile import plan
    from archy.reconcile import status as reconcile_status
    from archy.recover import incidents

    code = 0
    if drift and not units_drift.is_futile(root, drift):
        code |= _execute(root, [steps.Reload(why=drift)], dry)
        drift = "" if dry else units_drift.drift(root)
        if drift:
            print("that did not mend it: is the generator masked, or does it fail (journalctl -k)?", file=sys.stderr)
        if not dry:
            units_drift.record(root, drift)
    elif not (drift or dry):
        units_drift.record(root, "")
    if begun:
        code |= _execute(root, [steps.Start(tuple(begun))], dry)
        if not dry:
            pending.forget(root, begun)
    seen = unchanged.listing(root)
    node = current.observe(root, reconcile_status.load(root), failures, planned)
    all_ = plan.make(node, incidents.load(root))
    over = plan.finished_rotations(node)
    code |= _execute(root, [*all_.steps, *over], dry)
    if not dry:
        found = reconcile_status.assess(all_)
        try:
            write.replace_file(root, paths.STATUS, reconcile_status.pack(found), os.geteuid(), os.getegid(), 0o644)
            unchanged.record(root, found, all_.is_pending, seen, node.probe.digest)
        except OSError as error:
            print(f"{paths.STATUS}: {error}", file=sys.stderr)
            code = EX_FAILED
    if dry or not (over or all_.needs_second_look):
        return code, None
    return code, _SOON if all_.needs_second_look else 0


def files(root: str, planned: "prepare.Planned | None") -> dict[str, str]:
    """Secrets, directories and files of all apps and of the node: what archy-prepare does. Returns failures."""
    app_ids, _ = installed.ids(root)
    if planned is None:
        prepare.forget_gone(root, app_ids)
    return prepare.prepare(root, app_ids, planned=planned)


def _execute(root: str, todo: "list[steps.Step]", dry: bool) -> int:
    from subprocess import SubprocessError

    from archy.host.steps import Rebuild, Recover, Restart, Resume, Thaw, apply

    for step in todo:
        print(step, file=sys.stdout if dry else sys.stderr, flush=True)
        try:
            if not dry:
                apply(root, [step])
        except (OSError, SubprocessError) as error:
            print(f"{step}: {getattr(error, 'stderr', None) or error}", file=sys.stderr, flush=True)
            if not isinstance(step, Restart | Rebuild | Thaw | Resume | Recover):  # the next pass looks again
                return EX_FAILED
    return 0
