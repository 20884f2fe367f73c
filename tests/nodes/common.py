# SPDX-License-Identifier: MIT
"""What all of nodectl uses: where things are, speaking, running, deleting, locks."""

from __future__ import annotations

import ctypes
import fcntl
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

REPO = Path(__file__).resolve().parent.parent.parent
NODECTL = str(REPO / "tests/nodectl")
STORE = Path(os.environ.get("ARCHY_NODES", "/var/tmp/archy-nodes"))
LAYERS, NODES, LOCKS, LOGS = STORE / "layers", STORE / "nodes", STORE / "locks", STORE / "log"
MEMORY = STORE / "memory"  # disks of nodes that were started with --memory

# A box whose processes and mounts end with its first process.
BOX = ("unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc")
PR_SET_PDEATHSIG = 1
LIBC = ctypes.CDLL(None, use_errno=True)


class Problem(Exception):
    """What went wrong, for the person at the terminal."""


def say(message: str) -> None:
    """Report progress."""
    print(f"nodectl: {message}", file=sys.stderr, flush=True)


def libc(function: str, *args: int) -> None:
    """Call what Python has only since 3.12, or not at all."""
    if getattr(LIBC, function)(*args) != 0:
        raise OSError(ctypes.get_errno(), f"{function}: {os.strerror(ctypes.get_errno())}")


def die_with_parent() -> None:
    """Let a child process not outlive us, however we die."""
    libc("prctl", PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def run(*command: str | Path, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run a command that ends when we do."""
    return subprocess.run(command, check=False, text=True, preexec_fn=die_with_parent, **options)


def quietly(*command: str | Path) -> bool:
    """Run a command that may well fail, without a word."""
    return run(*command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode == 0


def step(log: Path, *command: str | Path, **options: Any) -> None:
    """Run a step of a build, which must succeed."""
    with log.open("ab") as out:
        done = run(*command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, **options)
    if done.returncode != 0:
        raise Problem(f"{log.stem}: a step failed with status {done.returncode}; the end of {log}:\n{tail(log)}")


def tail(path: Path) -> str:
    """Return the end of a log."""
    return "\n".join(path.read_text(errors="replace").splitlines()[-25:]) if path.exists() else ""


def environment(*passed: str) -> dict[str, str]:
    """Make an environment that owes nothing to ours, but for the variables with these beginnings."""
    clean = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8"}
    clean |= {"HOME": "/root", "USER": "root", "LOGNAME": "root"}
    return clean | {key: value for key, value in os.environ.items() if key.startswith(("TERM", *passed))}


def delete(path: Path) -> None:
    """Remove a file or a tree; never what is mounted in it."""
    for attempt in range(5):
        if quietly("rm", "-rf", "--one-file-system", path):
            return
        quietly("chattr", "-R", "-f", "-i", "-a", path)
        time.sleep(0.1 * attempt)
    raise Problem(f"{path}: cannot be deleted")


@contextmanager
def locked(name: str, busy: str, *, wait: bool) -> Iterator[None]:
    """Hold a lock, which the kernel takes from us when we die."""
    LOCKS.mkdir(parents=True, exist_ok=True)
    with (LOCKS / name).open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if not wait:
                raise Problem(busy) from None
            say(f"{busy}; waiting for it")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield
