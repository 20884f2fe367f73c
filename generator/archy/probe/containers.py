# SPDX-License-Identifier: MIT
"""What runs, told by the kernel alone: the cgroup of each app's unit, and the processes in it.

Podman need not know, or answer. Run as the service user, which owns conmon and the user namespace of its containers.
Fast path: no heavy imports.
"""

import os

from archy import paths
from archy.apps import installed
from archy.host import read

_CPU = b"usage_usec "


class Container:
    """A container with processes in the cgroup of an app's unit.

    `id` is Podman's, `conmon` and `pid` are processes: the monitor, and the container's PID 1, or 0 if that has ended
    while the monitor is stopped. `userns` is the inode number of their user namespace. `stopped` are all processes that
    a signal has stopped (SIGSTOP), `main_stopped` says whether one of those two is among them; `frozen` is the whole
    unit. `cpu` is the unit's time, in seconds.
    """

    __slots__ = ("app", "conmon", "cpu", "forwarded", "frozen", "id", "main_stopped", "pid", "stopped", "userns")

    def __init__(self, app: str, identity: str, conmon: int, pid: int) -> None:
        self.app = app
        self.id = identity
        self.conmon = conmon
        self.pid = pid
        self.userns = 0
        self.stopped: list[int] = []
        self.main_stopped = False
        self.frozen = False
        self.cpu = 0.0
        self.forwarded = False


def running(root: str) -> list[Container]:
    """All containers of apps, by the names of the apps."""
    result = []
    for app in sorted(installed.running(root)):
        try:
            found = _container(root, app)
        except (OSError, ValueError, IndexError):
            continue  # it has ended in this moment
        if found is not None:
            result.append(found)
    return result


def _container(root: str, app: str) -> Container | None:
    base = f"{paths.under(root, paths.SLICE_CGROUP)}/{paths.unit(app)}"
    states: dict[int, str] = {}
    parents: dict[int, int] = {}
    conmon, forwarded = 0, False
    for pid in map(int, (read.read(f"{base}/cgroup.procs") or b"").split()):
        stat = read.read(paths.under(root, f"/proc/{pid}/stat"))
        if stat is None:
            continue
        # The name, in parentheses, may hold anything; what comes after it are words (proc_pid_stat(5)).
        name, _, rest = stat.rpartition(b")")
        fields = rest.split()
        states[pid], parents[pid] = fields[0].decode(), int(fields[1])
        # PID 1 adopts conmon, and nothing that a container could name like it: orphans there have another PID 1.
        if name.endswith(b"(conmon") and parents[pid] == 1:
            conmon = pid
        forwarded = forwarded or b"(rootlessport" in name or b"(pasta" in name
    children = [pid for pid, parent in parents.items() if parent == conmon]
    # A conmon that is stopped does not see that its container has ended, and its unit reads active.
    if not conmon or not (children or states[conmon] == "T"):
        return None
    found = Container(app, _identity(root, conmon), conmon, min(children, default=0))
    found.forwarded = forwarded
    found.userns = os.stat(paths.under(root, f"/proc/{conmon}/ns/user")).st_ino
    found.stopped = sorted(pid for pid, state in states.items() if state == "T")
    found.main_stopped = bool({conmon, found.pid} & set(found.stopped))
    found.frozen = b"frozen 1" in (read.read(f"{base}/cgroup.events") or b"")
    used = (read.read(f"{base}/cpu.stat") or b"").partition(_CPU)[2].split(maxsplit=1)
    found.cpu = int(used[0]) / 1e6 if used else 0.0
    return found


def _identity(root: str, conmon: int) -> str:
    words = (read.read(paths.under(root, f"/proc/{conmon}/cmdline")) or b"").split(b"\0")
    return words[words.index(b"-c") + 1].decode()
