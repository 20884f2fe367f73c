# SPDX-License-Identifier: MIT
"""archy-prepare: makes everything right that an app needs before it starts, as root.

Accepts the manifest as the last good version, makes secrets, directories and derived files, and fills the cache of
the generator. Run for all apps at boot, and for one app by its unit's ExecStartPre=. Idempotent, and whole at every
moment: killed halfway, the next run finishes. When nothing changed, nothing is imported and nothing is written.
"""

import os
import sys
from contextlib import AbstractContextManager

from archy import disk, installed, paths, stamp

EX_FAILED, EX_USAGE, EX_NOT_INSTALLED = 1, 2, 4


def main(argv: list[str]) -> int:
    """The entry point. Exit codes: 0 all prepared, 1 an app could not be, 2 usage, 4 no such app installed."""
    names = argv[1:]
    if any(name.startswith("-") for name in names):
        print("usage: archy-prepare [APP...]", file=sys.stderr)
        return EX_USAGE
    app_ids, _ = installed.ids("/")
    for name in names:
        if name not in app_ids:
            print(f"{name}: {paths.APPS}/{name}: is not installed", file=sys.stderr)
            return EX_NOT_INSTALLED
    os.umask(0o022)
    if not names:
        forget_gone("/", app_ids)
    return prepare("/", names or app_ids)


def forget_gone(root: str, app_ids: list[str]) -> None:
    """Remove the last good versions of apps that somebody has uninstalled by hand, and that run no more."""
    known = {*app_ids, *installed.running(root)}
    gone = [app_id for app_id in installed.accepted_ids(root) if app_id not in known]
    if gone:
        from archy import accept

        with locked(root):
            for app_id in gone:
                accept.forget(root, app_id)


def prepare(root: str, app_ids: list[str]) -> int:
    """Prepare the given apps; 0, or 1 if one of them cannot be started. The others are not harmed."""
    todo = [app_id for app_id in app_ids if not stamp.is_fresh(root, app_id)]
    if not todo:
        return 0
    with locked(root):
        todo = [app_id for app_id in todo if not stamp.is_fresh(root, app_id)]
        if not todo:
            return 0
        from archy import preparation

        return EX_FAILED if preparation.run(root, todo) else 0


def locked(root: str) -> AbstractContextManager[None]:
    """The lock under which archy writes to the node."""
    return disk.lock(
        root, paths.LOCK, lambda: print("waiting for another archy to finish", file=sys.stderr, flush=True)
    )
