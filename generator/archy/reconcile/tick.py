# SPDX-License-Identifier: MIT
"""archy-tick: whether a pass would find anything to do, asked every 30 s as root; only then a pass is started.

A child asks the apps and Podman, with the rights of the service user. Root compares the digest of what it found as
bytes, and reads nothing of it: a pass has a probe of its own. Fast path: no heavy imports.
"""

import os

from archy import paths
from archy.apps import installed, pending
from archy.host import locks, read
from archy.prepare import prepare
from archy.reconcile import unchanged
from archy.units import drift

_MOST = 1024 * 1024
_PASS = ["systemctl", "start", "--no-block", "archy-reconcile.service"]


def main(argv: list[str]) -> int:
    """The entry point. Exit codes: 0, 1 if a pass is needed and cannot be started."""
    os.umask(0o022)
    try:
        if not idle("/"):
            unchanged.output(_PASS)
    except BlockingIOError:
        return 0  # a pass is under way
    except OSError:
        return 1
    return 0


def idle(root: str) -> bool:
    """Whether a pass would find nothing to do; if so, the status is brought up to date.

    Raises BlockingIOError while a pass is made.
    """
    if not unchanged.remembered(root):
        return False
    digest = ask(root)
    with locks.hold(root, paths.PASS_LOCK, _busy):
        return bool(digest) and _prepared(root) and unchanged.holds(root, digest)


def _busy() -> None:
    raise BlockingIOError


def _prepared(root: str) -> bool:
    """Whether there is nothing to prepare, to forget, to reload or to finish."""
    app_ids, _ = installed.ids(root)
    failures: dict[str, str] = {}
    gone = set(installed.accepted_ids(root)) - {*app_ids, *installed.running(root)}
    stale = prepare.stale(root, app_ids, failures, retry_failed=False)
    return not (stale or failures or gone or drift.drift(root) or pending.interrupted(root))


def ask(root: str) -> bytes:
    """The digest of a probe that a child makes as the service user; empty if it cannot tell."""
    fields = read.user_line(root).split(b":")
    if len(fields) < 4:
        return b""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.close(reading)
            _answer(writing, int(fields[2]), int(fields[3]))
        finally:
            os._exit(1)
    os.close(writing)
    with open(reading, "rb") as answer:
        digest = answer.read(_MOST)
    # Who sends more than there is to say is not waited for: the end of this process closes the pipe.
    return digest if os.waitpid(child, 0)[1] == 0 else b""


def _answer(writing: int, uid: int, gid: int) -> None:
    """The child: give up all rights of root for good, and only then ask. It cannot be traced, and ends in any case."""
    nowhere = os.open("/dev/null", os.O_RDWR)  # a pass will say what is wrong, once
    for descriptor in range(3):
        os.dup2(nowhere, descriptor)
    os.initgroups(paths.USER, gid)
    os.setresgid(gid, gid, gid)
    os.setresuid(uid, uid, uid)
    if 0 in os.getresuid() + os.getresgid():
        os._exit(1)
    from archy.probe import probe

    found = probe.probe()
    if found is not None:
        with open(writing, "wb") as answer:
            answer.write(found[1].encode())
        os._exit(0)
