# SPDX-License-Identifier: MIT
"""A node, and what can be seen of it."""

from __future__ import annotations

import os
import re
import sys
import time
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from nodes.common import MEMORY, NODECTL, NODES, Problem, locked


def cgroup_root() -> Path:
    """Return where cgroup v2 is mounted: alone, or beside v1."""
    for line in Path("/proc/mounts").read_text().splitlines():
        _, target, kind, *_ = line.split()
        if kind == "cgroup2":
            return Path(target)
    raise Problem("cgroup v2 is not mounted on this machine")


@dataclass(frozen=True)
class Node:
    """A node: a folder with its disk, console log and number; while it runs, a cgroup with all its processes."""

    name: str

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?", self.name):
            raise Problem(f"{self.name}: not a name for a node (lower case letters, digits, inner hyphens)")

    @property
    def dir(self) -> Path:
        """The node's folder."""
        return NODES / self.name

    @property
    def root(self) -> Path:
        """The node's disk."""
        memory = MEMORY / self.name
        return memory if memory.exists() else self.dir / "root"

    @property
    def console(self) -> Path:
        """What the node and its keeper had to say."""
        return self.dir / "console.log"

    @property
    def link(self) -> str:
        """The host's end of the node's link."""
        return f"archy-{self.number}"

    @property
    def number(self) -> int:
        """What tells the node's network from the others'."""
        return int((self.dir / "number").read_text())

    @property
    def address(self) -> str:
        """Where the host reaches the node."""
        return f"10.213.{self.number}.2"

    @property
    def cgroup(self) -> Path:
        """The cgroup of all that belongs to the node."""
        return cgroup_root() / f"archy-{self.name}"

    @property
    def payload(self) -> Path:
        """The cgroup that is the root for the node."""
        return self.cgroup / "node/payload"

    def existing(self) -> Node:
        """Insist that the node exists."""
        if not self.dir.exists():
            raise Problem(f"there is no node {self.name}")
        return self

    def alive(self) -> bool:
        """Tell whether any process of the node is left."""
        try:
            return "populated 1" in (self.cgroup / "cgroup.events").read_text()
        except OSError:
            return False

    def leader(self) -> int | None:
        """Return the process that is PID 1 in the node, once it is there."""
        try:
            for pid in (self.payload / "init.scope/cgroup.procs").read_text().split():
                if re.search(r"^NSpid:.*\t1$", Path("/proc", pid, "status").read_text(), re.MULTILINE):
                    return int(pid)
        except OSError:
            pass
        return None

    def command(self, *command: str) -> list[str]:
        """Compose the command that runs another in the node."""
        return [sys.executable, NODECTL, "exec", self.name, *command]

    def mine(self) -> AbstractContextManager[None]:
        """Let nobody else start, boot or remove the node."""
        return locked(f"node.{self.name}", f"another nodectl is at work on node {self.name}", wait=False)


def uptime(pid: int) -> int:
    """Tell how many seconds ago a process began."""
    ticks = int(Path("/proc", str(pid), "stat").read_text().rpartition(")")[2].split()[19])
    return round(time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK"))
