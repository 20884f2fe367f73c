# SPDX-License-Identifier: MIT
"""Apps that are being installed, and not started yet. After a kill in between, the next pass starts them.

Without this record they would look like apps that the user has stopped. Fast path: no heavy imports.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from archy import paths
from archy.apps import installed
from archy.host import locks, volatile, write

_NAMES = "/run/archy/pending"
_LOCK = "/run/archy/install.lock"


@contextmanager
def installing(root: str, app_ids: list[str], waiting: Callable[[], None]) -> Iterator[None]:
    """Record these apps while this block installs and starts them; only a kill leaves the record behind."""
    with locks.hold(root, _LOCK, waiting):
        os.makedirs(paths.under(root, _NAMES), exist_ok=True)
        for app_id in app_ids:
            volatile.write(paths.under(root, f"{_NAMES}/{app_id}"), "")
        try:
            yield
        finally:
            forget(root, app_ids)


def interrupted(root: str) -> list[str]:
    """The apps whose installation was killed."""
    try:
        names = os.listdir(paths.under(root, _NAMES))
    except FileNotFoundError:
        return []
    return sorted(set(names) & set(installed.ids(root)[0])) if names and locks.is_free(root, _LOCK) else []


def forget(root: str, app_ids: list[str]) -> None:
    """Remove the record of these apps."""
    for app_id in app_ids:
        write.remove(root, f"{_NAMES}/{app_id}")
