# SPDX-License-Identifier: MIT
"""A plan is a list of steps, and this is what a step can be. Executed by `execute`, and nowhere else."""

from __future__ import annotations

import shlex
import subprocess
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from archy import paths
from archy.host import read, systemd, user, write


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
class Rebuild:
    """Begin to make the images of apps anew. They run on meanwhile, and are restarted when the image is there."""

    app_ids: tuple[str, ...]
    why: str

    def __str__(self) -> str:
        return f"build the image of {', '.join(self.app_ids)} ({self.why})"


@dataclass(frozen=True)
class ResetFailed:
    """Forget how often an app's unit was restarted: it has run well since, so the next pause is a short one again."""

    app_id: str

    def __str__(self) -> str:
        return f"forget the earlier restarts of {self.app_id}"


@dataclass(frozen=True)
class Resume:
    """Let an app's processes go on that a signal has stopped."""

    app_id: str

    def __str__(self) -> str:
        return f"continue {self.app_id} (a signal had stopped it)"


@dataclass(frozen=True)
class Thaw:
    """Let an app's unit go on that somebody has frozen."""

    app_id: str

    def __str__(self) -> str:
        return f"thaw {self.app_id} (its unit was frozen)"


@dataclass(frozen=True)
class Recover:
    """Have archy-recover mend what is wrong with Podman: it takes longer than a pass may."""

    why: str

    def __str__(self) -> str:
        return f"systemctl start archy-recover.service ({self.why})"


@dataclass(frozen=True)
class Hold:
    """Stop apps that run, each with its grace, and hold their starts (archy-hold.service); over when all are down."""

    app_ids: tuple[str, ...]

    def __str__(self) -> str:
        return f"stop {', '.join(self.app_ids)}"


@dataclass(frozen=True)
class Start:
    """Begin to start apps."""

    app_ids: tuple[str, ...]

    def __str__(self) -> str:
        return f"start {', '.join(self.app_ids)}"


@dataclass(frozen=True)
class AsUser:
    """Run a command as the service user; what it says is said. It may fail: what counts is the look afterwards.

    `timeout` is in seconds.
    """

    command: tuple[str, ...]
    timeout: float = 60

    def __str__(self) -> str:
        return shlex.join(self.command)


Changes = Directory | File | Ownership | Remove

Step = Changes | Reload | Restart | Rebuild | ResetFailed | Resume | Thaw | Recover | Hold | Start | AsUser


def apply(root: str, steps: Iterable[Step]) -> None:
    """Carry out a plan on the node at `root`, in order; raises OSError at the first step that cannot be done."""
    for step in steps:
        match step:
            case Directory(path, uid, gid, mode):
                write.make_directory(root, path, uid, gid, mode)
            case File(path, content, uid, gid, mode, _):
                write.replace_file(root, path, content, uid, gid, mode)
            case Ownership(path, uid, gid, mode):
                write.set_ownership(root, path, uid, gid, mode)
            case Remove(path, _):
                write.remove(root, path)
            case Reload(_):
                systemd.systemctl("daemon-reload")
            case Restart(app_ids, _):
                # Fails where it would cancel a stop that somebody has asked for.
                systemd.systemctl("try-restart", "--no-block", "--job-mode=fail", "--", *map(paths.unit, app_ids))
            case Rebuild(app_ids, _):
                systemd.systemctl("start", "--no-block", "--job-mode=fail", "--", *map(paths.rebuild_unit, app_ids))
            case ResetFailed(app_id):
                systemd.systemctl("reset-failed", "--", paths.unit(app_id))
            case Resume(app_id):
                systemd.systemctl("kill", "--kill-whom=all", "--signal=SIGCONT", "--", paths.unit(app_id))
            case Thaw(app_id):
                # What is frozen may be all that it is in.
                systemd.systemctl("thaw", "--", "archipelago.slice", "archipelago-apps.slice", paths.unit(app_id))
            case Recover(_):
                systemd.systemctl("start", "--no-block", "archy-recover.service")
            case Hold(app_ids):
                systemd.hold([paths.unit(app_id) for app_id in app_ids])
            case Start(app_ids):
                systemd.systemctl("start", "--no-block", "--job-mode=fail", "--", *map(paths.unit, app_ids))
            case AsUser(command, timeout):
                run_as_user(root, command, timeout)


def run_as_user(root: str, command: Sequence[str], timeout: float, quiet: bool = False) -> str:
    """Run a command as the service user; returns its output, and says what it says of errors unless `quiet`."""
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, check=False, timeout=timeout, **as_user(root))
    except subprocess.TimeoutExpired:
        print(f"  {command[0]}: no end within {timeout:g} s", file=sys.stderr, flush=True)
        return ""
    for line in () if quiet else done.stderr.strip().splitlines()[-3:]:
        print(f"  {command[0]}: {line[:300]}", file=sys.stderr, flush=True)
    return str(done.stdout + done.stderr)


def as_user(root: str) -> dict[str, Any]:
    """The options of `subprocess.run` for a command of the service user, whose output is wanted as text."""
    uid, gid = map(int, read.user_ids(root))
    environment = {**user.environment(uid), "PATH": "/usr/bin:/bin", "LANG": "C.UTF-8"}
    who = {"user": uid, "group": gid, "extra_groups": [], "env": environment, "cwd": "/"}
    return {**who, "capture_output": True, "text": True, "errors": "replace"}
