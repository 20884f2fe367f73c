# SPDX-License-Identifier: MIT
"""archy-prepare: makes everything right that an app needs before it starts, as root.

Accepts the manifest as the last good version, makes secrets, directories and derived files, and fills the cache of
the generator. Run for all apps at boot, and for one app by its unit's ExecStartPre=. Idempotent, and whole at every
moment: killed halfway, the next run finishes. When nothing changed, nothing is imported and nothing is written.
"""

import fcntl
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from archy import installed, paths, stamp

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
    return prepare("/", names or app_ids)


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


@contextmanager
def locked(root: str) -> Iterator[None]:
    """Hold the lock under which archy writes to the node; waits for another pass to end."""
    path = paths.under(root, paths.LOCK)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w", encoding="ascii") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
