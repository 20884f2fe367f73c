# SPDX-License-Identifier: MIT
"""A plan is a list of steps, and this is what a step can be. Executed by `execute`, and nowhere else."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from archy import disk


@dataclass(frozen=True)
class Directory:
    """Make a directory, with those above it; one that exists is left as it is."""

    path: str
    uid: int
    gid: int
    mode: int

    def __str__(self) -> str:
        return f"make directory {self.path}"


@dataclass(frozen=True)
class File:
    """Write a file whole. `why` tells a person what was wrong with it; the content is never shown."""

    path: str
    content: bytes = field(repr=False)
    uid: int
    gid: int
    mode: int
    why: str

    def __str__(self) -> str:
        return f"write {self.path} ({self.why})"


@dataclass(frozen=True)
class Ownership:
    """Give a file its owner and mode again, its content untouched."""

    path: str
    uid: int
    gid: int
    mode: int

    def __str__(self) -> str:
        return f"set owner and mode of {self.path} to {self.uid}:{self.gid} {self.mode:04o}"


Step = Directory | File | Ownership


def execute(root: str, steps: Iterable[Step]) -> None:
    """Carry out a plan on the node at `root`, in order; raises OSError at the first step that cannot be done."""
    for step in steps:
        match step:
            case Directory(path, uid, gid, mode):
                disk.make_directory(root, path, uid, gid, mode)
            case File(path, content, uid, gid, mode, _):
                disk.replace_file(root, path, content, uid, gid, mode)
            case Ownership(path, uid, gid, mode):
                disk.set_ownership(root, path, uid, gid, mode)
