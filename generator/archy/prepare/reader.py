# SPDX-License-Identifier: MIT
"""Reads for a pass, and notes what was read: so a stamp holds each path on which the result depends."""

from __future__ import annotations

import os
from collections.abc import Iterable

from archy import paths
from archy.host import read, stat
from archy.host.idmap import Owner, owner_of
from archy.host.stat import MAX_FILE, FileState
from archy.host.steps import File, Ownership, Remove, Step
from archy.prepare import stamps


class Reader:
    """What one pass over an app, or over the node, reads and writes.

    `seen` holds the fingerprint of each path from before its content was read: a change meanwhile makes the stamp
    stale. What is written after that has the fingerprint of what was written. `directories` only must be there.
    """

    def __init__(self, root: str) -> None:
        self.root = root
        self.seen: dict[str, str] = {}
        self.directories: set[str] = set()

    def note(self, path: str) -> str:
        """Note a path, as seen from outside of the node, and return it: it is read next."""
        if path not in self.seen:
            self.seen[path] = stamps.fingerprint(path)
        return path

    def note_anew(self, *names: str) -> None:
        """Note paths of the node as they are now: something of ours has just written them."""
        for path in (paths.under(self.root, name) for name in names):
            self.seen[path] = stamps.fingerprint(path)

    def written(self, steps: Iterable[Step]) -> None:
        """Note what was written: the steps themselves say it, so that a change since then is seen."""
        for step in steps:
            if isinstance(step, File):
                self.seen[paths.under(self.root, step.path)] = stamps.of_file(
                    step.content, step.uid, step.gid, step.mode
                )
            elif isinstance(step, Remove):
                self.note_anew(step.path)
            elif isinstance(step, Ownership):
                path = paths.under(self.root, step.path)
                if self.seen.get(path, "").startswith("file "):
                    self.seen[path] = stamps.with_owner(self.seen[path], step.uid, step.gid, step.mode)
                else:
                    self.note_anew(step.path)

    def content(self, path: str) -> bytes | None:
        """The bytes of a regular file, at a path as seen from outside; None if it cannot be read."""
        return read.read(self.note(path), MAX_FILE)

    def record(self, path: str) -> bytes | None:
        """The bytes of a file of root's on the node; see `read.content`."""
        self.note(paths.under(self.root, path))
        return read.content(self.root, path)

    def files(self, names: Iterable[str]) -> dict[str, FileState]:
        """The files of the node that are there, each as it is now."""
        names = list(names)
        for name in names:
            self.note(paths.under(self.root, name))
        return stat.files(self.root, names)

    def is_directory(self, path: str) -> bool:
        """Whether there is such a directory on the node; there must be one from now on."""
        self.directories.add(paths.under(self.root, path))
        return stat.is_directory(self.root, path)

    def tree(self, directory: str) -> list[str]:
        """All files below a directory, as `read.tree` lists them; each of them, and each directory, is noted."""
        self.note(directory)
        if read.tree(directory):  # raises OSError where there is too much
            for above, _, names in os.walk(directory):
                for path in (above, *(os.path.join(above, name) for name in names)):
                    self.note(path)
        return read.tree(directory)

    def owner(self) -> Owner:
        """The service user; raises LookupError."""
        for name in ("/etc/passwd", "/etc/subuid", "/etc/subgid"):
            self.note(paths.under(self.root, name))
        return owner_of(self.root)
