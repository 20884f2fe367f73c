# SPDX-License-Identifier: MIT
"""Writes generated output, which is made anew at each boot. Fast path of the generator: imports nothing but `os`."""

import os


def write(path: str, text: str) -> None:
    """Write a world-readable file into a directory that only we write to."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
    try:
        _all(descriptor, text.encode("utf-8", "surrogateescape"))
    finally:
        os.close(descriptor)


def link(target: str, path: str) -> None:
    """Make a symbolic link, or leave it if it is there."""
    try:  # noqa: SIM105  contextlib takes 4 ms to load
        os.symlink(target, path)
    except FileExistsError:
        pass


def make_flat(path: str) -> None:
    """Make a directory among generated output, or leave it if it is there."""
    try:  # noqa: SIM105
        os.mkdir(path)
    except FileExistsError:
        pass


def remove_flat(path: str) -> None:
    """Remove a directory that holds files only."""
    for name in os.listdir(path):
        os.unlink(f"{path}/{name}")
    os.rmdir(path)


def _all(descriptor: int, content: bytes) -> None:
    view = memoryview(content)
    while view:
        view = view[os.write(descriptor, view) :]
