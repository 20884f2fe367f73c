# SPDX-License-Identifier: MIT
"""The one module that writes to disk.

`write` and `link` are for generated, volatile output. `replace_file` and its kind are for what must survive a power
cut: written beside the target, fsynced, renamed, and the directory fsynced, so that a reader finds the old content or
the new, never a part. They reach the target through directories opened one by one and refuse links that others than
root have made, because root writes here into directories of the service user.
"""

import os
from contextlib import suppress


def write(path: str, text: str) -> None:
    """Write a world-readable file into a directory that only we write to."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
    try:
        _all(descriptor, text.encode("utf-8", "surrogateescape"))
    finally:
        os.close(descriptor)


def link(target: str, path: str) -> None:
    """Make a symbolic link, or leave it if it is there."""
    with suppress(FileExistsError):
        os.symlink(target, path)


def make_flat(path: str) -> None:
    """Make a directory among generated output, or leave it if it is there."""
    with suppress(FileExistsError):
        os.mkdir(path)


def remove_flat(path: str) -> None:
    """Remove a directory that holds files only."""
    for name in os.listdir(path):
        os.unlink(f"{path}/{name}")
    os.rmdir(path)


def _all(descriptor: int, content: bytes) -> None:
    view = memoryview(content)
    while view:
        view = view[os.write(descriptor, view) :]
