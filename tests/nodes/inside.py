# SPDX-License-Identifier: MIT
"""Commands in a node, quickly: this module and what it imports are all that `nodectl exec NAME CMD` loads."""

from __future__ import annotations

import os
import shlex
import signal
import sys
from typing import NoReturn

from nodes.common import Problem, die_with_parent, environment, libc, say
from nodes.node import Node

CLONE_NODE = 0x00020000 | 0x02000000 | 0x04000000 | 0x08000000 | 0x20000000 | 0x40000000  # all that nspawn makes
PR_CAPBSET_DROP, CAP_SYS_TIME = 24, 25


def run_inside(node: Node, command: list[str]) -> int:
    """Run a command as root in the node; input, output, signals and exit status pass through."""
    leader = node.leader()
    if leader is None:
        raise Problem(f"node {node.name} is not running")
    if sys.stdin.isatty() and sys.stdout.isatty():  # the host's terminal does not exist in there
        command = ["script", "-qec", shlex.join(command), "/dev/null"]
    names = ("CHLD", "HUP", "INT", "QUIT", "TERM", "ALRM", "USR1", "USR2")
    signals = [signal.Signals[f"SIG{name}"] for name in names]
    try:
        procs = enter(node, leader)
        signal.pthread_sigmask(signal.SIG_BLOCK, signals)
        child = os.fork()
    except OSError as error:
        raise Problem(f"node {node.name} is going down ({error.strerror})") from None
    if child == 0:
        become(command, procs)
    while True:
        got = signal.sigwaitinfo(signals)
        if got.si_signo == signal.SIGCHLD:
            done, status = os.waitpid(child, os.WNOHANG)
            if done:
                code = os.waitstatus_to_exitcode(status)
                return code if code >= 0 else 128 - code
        elif got.si_code <= 0:  # sent by a process; what a terminal sends reaches the child without us
            os.kill(child, got.si_signo)


def step_inside(node: Node) -> None:
    """Put a child process, which is about to become a command, into the node: for the preexec_fn of subprocess.

    What returns is a child of it. It itself stays outside and ends as that one does.
    """
    try:
        die_with_parent()
        leader = node.leader()
        if leader is None:
            say(f"node {node.name} is not running")
            os._exit(1)
        procs = enter(node, leader)
        child = os.fork()
        if child == 0:
            prepare(procs)
            return
        os.closerange(3, 1024)  # one of them tells subprocess that the command runs
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        os._exit(code if code >= 0 else 128 - code)
    except OSError as error:
        say(f"node {node.name} is going down ({error.strerror})")
        os._exit(1)


def enter(node: Node, leader: int) -> int:
    """Have children of ours be in the node; what they write to this descriptor puts them into its cgroup.

    It is one that belongs to none of the node's units. We do not go there: we are outside the node.
    """
    cgroup = node.payload / "nodectl.exec"
    cgroup.mkdir(exist_ok=True)
    procs = os.open(cgroup / "cgroup.procs", os.O_WRONLY)
    libc("setns", os.pidfd_open(leader), CLONE_NODE)
    return procs


def prepare(procs: int) -> None:
    """Be as a process of the node is."""
    die_with_parent()
    libc("prctl", PR_CAPBSET_DROP, CAP_SYS_TIME, 0, 0, 0)  # the clock is not the node's own, but the host's
    os.write(procs, b"0")
    for ignored in (signal.SIGPIPE, signal.SIGXFSZ):  # by Python
        signal.signal(ignored, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    os.umask(0o022)
    os.chdir("/root")


def become(command: list[str], procs: int) -> NoReturn:
    """Turn into a command, in the node."""
    try:
        prepare(procs)
        os.execvpe(command[0], command, environment())
    except OSError as error:
        say(f"{command[0]}: {error.strerror}")
        os._exit(127 if isinstance(error, FileNotFoundError) else 126)
