# SPDX-License-Identifier: MIT
"""A plan is a list of steps, and this is what a step can be. Only `apply` carries steps out."""

from __future__ import annotations

import shlex
import subprocess
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

from archy import paths
from archy.host import read, stat, systemd, user, write


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
    """Write a file whole. `why` tells a person what was wrong with it; the content is never printed."""

    path: str
    content: bytes = field(repr=False)
    uid: int
    gid: int
    mode: int
    why: str = "wanted"

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
class Systemctl:
    """A call of systemctl. Each kind has a `command`, with {units} for those of its apps, and a `text` for people."""

    app_ids: tuple[str, ...] = ()
    why: str = ""

    command: ClassVar[str]
    text: ClassVar[str]
    unit: ClassVar[str] = paths.unit("{}")

    def __str__(self) -> str:
        return self.text.format(apps=", ".join(self.app_ids), why=self.why)

    def arguments(self) -> list[str]:
        """What systemctl is called with."""
        return self.command.format(units=" ".join(map(self.unit.format, self.app_ids))).split()


class Reload(Systemctl):
    """Let systemd run its generators again, and read all units."""

    command, text = "daemon-reload", "systemctl daemon-reload ({why})"


class Recover(Systemctl):
    """Start archy-recover, which repairs Podman: that takes longer than a pass may."""

    command, text = "start --no-block archy-recover.service", "systemctl start archy-recover.service ({why})"


class ResetFailed(Systemctl):
    """Forget how often an app's unit was restarted: it has run well since, so the next pause is a short one again."""

    command, text = "reset-failed -- {units}", "forget the earlier restarts of {apps}"


class Resume(Systemctl):
    """Let the processes of an app continue that a signal has stopped."""

    command, text = "kill --kill-whom=all --signal=SIGCONT -- {units}", "continue {apps} (a signal had stopped it)"


class Thaw(Systemctl):
    """Thaw the unit of an app, and the slices above it: these may be what is frozen."""

    command = "thaw -- archipelago.slice archipelago-apps.slice {units}"
    text = "thaw {apps} (its unit was frozen)"


class Restart(Systemctl):
    """Restart apps that run, and no others, in one job of systemd's: it knows their order, and waits between them.

    Fails where it would cancel a stop that a person has asked for.
    """

    command, text = "try-restart --no-block --job-mode=fail -- {units}", "restart {apps} ({why})"


class Rebuild(Systemctl):
    """Begin to make the images of apps anew. They run on meanwhile, and are restarted when the image is there."""

    command, text = "start --no-block --job-mode=fail -- {units}", "build the image of {apps} ({why})"
    unit = paths.rebuild_unit("{}")


class Start(Systemctl):
    """Begin to start apps."""

    command, text = "start --no-block --job-mode=fail -- {units}", "start {apps}"


@dataclass(frozen=True)
class Hold:
    """Stop apps that run, each with its grace, and hold their starts (archy-hold.service); over when all are down."""

    app_ids: tuple[str, ...]

    def __str__(self) -> str:
        return f"stop {', '.join(self.app_ids)}"


@dataclass(frozen=True)
class AsUser:
    """Run a command as the service user, its errors printed. It may fail: what counts is the state afterwards.

    `timeout` is in seconds.
    """

    command: tuple[str, ...]
    timeout: float = 60

    def __str__(self) -> str:
        return shlex.join(self.command)


Changes = Directory | File | Ownership | Remove

Step = Changes | Systemctl | Hold | AsUser


def to_make(wanted: File, now: stat.FileState | None) -> list[Step]:
    """The steps from a file as it is now to a file as it must be; none when nothing differs."""
    if now is None or now.content != wanted.content:
        return [replace(wanted, why="content differs" if now else "missing")]
    if (now.uid, now.gid, now.mode) != (wanted.uid, wanted.gid, wanted.mode):
        return [Ownership(wanted.path, wanted.uid, wanted.gid, wanted.mode)]
    return []


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
            case Systemctl():
                systemd.systemctl(*step.arguments())
            case Hold(app_ids):
                systemd.hold([paths.unit(app_id) for app_id in app_ids])
            case AsUser(command, timeout):
                run_as_user(root, command, timeout)


def run_as_user(root: str, command: Sequence[str], timeout: float, quiet: bool = False) -> str:
    """Run a command as the service user; returns its output, and prints its errors unless `quiet`."""
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
    identity = {"user": uid, "group": gid, "extra_groups": [], "env": environment, "cwd": "/"}
    return {**identity, "capture_output": True, "text": True, "errors": "replace"}
