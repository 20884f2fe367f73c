# SPDX-License-Identifier: MIT
"""Locks between programs of archy: files, held as long as their holder lives. Fast path: no heavy imports."""

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from archy import paths


@contextmanager
def hold(root: str, path: str, waiting: Callable[[], None]) -> Iterator[None]:
    """Hold a lock file; `waiting` is called once if another process holds it."""
    file = paths.under(root, path)
    os.makedirs(os.path.dirname(file), exist_ok=True)
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            waiting()
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def is_free(root: str, path: str) -> bool:
    """Whether no process holds a lock file at this moment."""
    try:
        descriptor = os.open(paths.under(root, path), os.O_WRONLY | os.O_CLOEXEC)
    except OSError:
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return True
    except BlockingIOError:
        return False
    finally:
        os.close(descriptor)
