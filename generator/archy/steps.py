# SPDX-License-Identifier: MIT
"""A plan is a list of steps, and this is what a step can be. Executed by `execute`, and nowhere else."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from archy import accept, disk, paths, systemd


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


@dataclass(frozen=True)
class Accept:
    """Keep the version of an app that was checked as its last good one."""

    app_id: str
    version: str
    shown: str

    def __str__(self) -> str:
        return f"accept version {self.shown}"


@dataclass(frozen=True)
class Remove:
    """Remove a file."""

    path: str
    why: str

    def __str__(self) -> str:
        return f"remove {self.path} ({self.why})"


@dataclass(frozen=True)
class Reload:
    """Let systemd run its generators again, and read all units."""

    why: str

    def __str__(self) -> str:
        return f"systemctl daemon-reload ({self.why})"


@dataclass(frozen=True)
class Restart:
    """Restart apps that run, and no others, in one job of systemd's: it knows their order, and waits between them."""

    app_ids: tuple[str, ...]
    why: str

    def __str__(self) -> str:
        return f"restart {', '.join(self.app_ids)} ({self.why})"


@dataclass(frozen=True)
class ForgetFailures:
    """Forget how often an app's unit was restarted: it has run well since, so the next pause is a short one again."""

    app_id: str

    def __str__(self) -> str:
        return f"forget the earlier restarts of {self.app_id}"


Step = Directory | File | Ownership | Accept | Remove | Reload | Restart | ForgetFailures


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
            case Accept(app_id, version, _):
                accept.store(root, app_id, version)
            case Remove(path, _):
                disk.remove(root, path)
            case Reload(_):
                systemd.ctl("daemon-reload")
            case Restart(app_ids, _):
                # Fails where it would cancel a stop that somebody has asked for.
                systemd.ctl("try-restart", "--no-block", "--job-mode=fail", "--", *map(paths.unit, app_ids))
            case ForgetFailures(app_id):
                systemd.ctl("reset-failed", "--", paths.unit(app_id))
