# SPDX-License-Identifier: MIT
"""Power on, off and cut: a node's cgroup, its network, and the keeper that sees it through its reboots."""

from __future__ import annotations

import os
import select
import subprocess
import sys
import time
from pathlib import Path

from nodes.common import MEMORY, NODECTL, NODES, STORE, Problem, delete, environment, libc, quietly, run, say, tail
from nodes.node import Node, cgroup_root

CLONE_NEWNET = 0x40000000
NSPAWN_REBOOT = 133


def power_on(node: Node) -> None:
    """Start the node's keeper, which outlives us and sees the node through its reboots."""
    if node.alive():
        raise Problem(f"node {node.name} is running")
    remove_cgroup(node.cgroup)
    command = ["unshare", "--mount", "--propagation", "private", sys.executable, NODECTL, "keep", node.name]
    env = environment() | {"ARCHY_NODES": str(STORE)}
    with node.console.open("ab") as out:
        keeper = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, env=env, cwd="/", start_new_session=True
        )
    while node.leader() is None:
        if keeper.poll() is not None:
            raise Problem(f"node {node.name} did not boot; the end of {node.console}:\n{tail(node.console)}")
        time.sleep(0.02)


def keep(node: Node) -> None:
    """Run the node until it powers off, through any number of reboots."""
    quietly("umount", "-R", "/sys/fs/cgroup")
    run("mount", "-t", "cgroup2", "cgroup2", "/sys/fs/cgroup")
    # Where there are controllers, a cgroup cannot have both processes and children: the keeper goes beside the node.
    keeper, inner = node.cgroup / "keeper", node.cgroup / "node"
    keeper.mkdir(parents=True)
    (keeper / "cgroup.procs").write_text("0")
    controllers = (node.cgroup / "cgroup.controllers").read_text().split()
    (node.cgroup / "cgroup.subtree_control").write_text(" ".join(f"+{name}" for name in controllers))
    command = [
        "systemd-nspawn",
        "--quiet",
        "--register=no",
        "--keep-unit",
        "--boot",
        "--capability=all",
        "--drop-capability=CAP_SYS_TIME",
    ]
    command.append("--network-namespace-path=/proc/self/ns/net")
    for device in ("/dev/fuse", "/dev/net/tun"):
        os.chmod(device, 0o666)  # as udev has it; where none runs, nobody but root may open them
        command.append(f"--bind={device}")
    command += ["--resolv-conf=off", "--timezone=off", "--link-journal=no"]
    command += [f"--directory={node.root}", f"--machine={node.name}"]
    told = {"UNIFIED_HIERARCHY": "1", "API_VFS_WRITABLE": "network"}
    env = environment() | {f"SYSTEMD_NSPAWN_{key}": value for key, value in told.items()} | {"SYSTEMD_SECCOMP": "0"}
    outside = os.open("/proc/self/ns/net", os.O_RDONLY)

    def enter() -> None:
        (inner / "cgroup.procs").write_text("0")

    status = NSPAWN_REBOOT
    while status == NSPAWN_REBOOT:
        remove_cgroup(inner)
        inner.mkdir()
        plug(node, outside)
        status = subprocess.run(command, env=env, check=False, preexec_fn=enter).returncode
        libc("setns", outside, CLONE_NEWNET)
        unplug(node)
    (cgroup_root() / "cgroup.procs").write_text("0")
    remove_cgroup(node.cgroup)


def plug(node: Node, outside: int) -> None:
    """Enter a new network with a link to the host's. The node finds it ready at boot, and nothing in it from before."""
    unplug(node)
    libc("unshare", CLONE_NEWNET)
    near, net = node.link, f"10.213.{node.number}"
    host = f"link add {near} type veth peer name host0 netns {os.getpid()}\naddr add {net}.1/30 dev {near}\n"
    own = f"link set lo up\naddr add {net}.2/30 dev host0\nlink set host0 up\nroute add default via {net}.1\n"
    across = ("nsenter", f"--net=/proc/self/fd/{outside}", "ip", "-batch", "-")
    run(*across, input=f"{host}link set {near} up\n", pass_fds=[outside]).check_returncode()
    run("ip", "-batch", "-", input=own).check_returncode()


def unplug(node: Node) -> None:
    """Remove the node's link, if there is one."""
    quietly("ip", "link", "delete", node.link)


def remove_cgroup(cgroup: Path) -> None:
    """Remove a cgroup and those below it. Its last process may take a moment to be gone."""
    for folder, _, _ in os.walk(cgroup, topdown=False):
        for _ in range(100):
            try:
                os.rmdir(folder)
            except FileNotFoundError:
                break
            except OSError:
                time.sleep(0.02)
            else:
                break


def settle(node: Node, timeout: float, *, wait: bool = True) -> str:
    """Wait until the node has done all it does at boot, or only until it can be talked to; return its state."""
    deadline = time.monotonic() + timeout
    ask = node.command("systemctl", "is-system-running", *(["--wait"] if wait else []))
    wanted = {"running", "degraded"} if wait else {"running", "degraded", "initializing", "starting", "maintenance"}
    while node.alive():
        try:
            left = max(deadline - time.monotonic(), 0.1)
            state = run(*ask, capture_output=True, timeout=left).stdout.strip()
        except subprocess.TimeoutExpired:
            jobs = run(*node.command("systemctl", "list-jobs"), capture_output=True).stdout
            raise Problem(f"node {node.name} has not settled in {timeout:.0f} s; it is busy with\n{jobs}") from None
        if state in wanted:
            return state
        time.sleep(0.05)
    raise Problem(f"node {node.name} went off as it booted; the end of {node.console}:\n{tail(node.console)}")


def power_off(node: Node) -> None:
    """Shut down in good order, however long the apps take."""
    if node.leader():
        quietly(*node.command("systemctl", "poweroff"))
    clear(node)


def reboot(node: Node) -> None:
    """Reboot in good order; return when the node is up again, though busy."""
    leader = node.leader()
    if leader is None:
        raise Problem(f"node {node.name} is not running")
    gone = os.pidfd_open(leader)
    if not quietly(*node.command("systemctl", "reboot")):
        say(f"{node.name}: systemctl reboot failed; waiting for it all the same")
    select.select([gone], [], [])
    while node.alive() and node.leader() in (None, leader):
        time.sleep(0.02)


def cut_power(node: Node) -> None:
    """Kill everything in the node at once."""
    if node.alive():
        (node.cgroup / "cgroup.kill").write_text("1")
    clear(node)


def clear(node: Node) -> None:
    """Wait until no process of the node is left, and clear away what the kernel holds for it."""
    while node.alive():
        time.sleep(0.05)
    remove_cgroup(node.cgroup)
    unplug(node)
    nspawn = Path("/run/systemd/nspawn")  # a killed one leaves things there
    quietly("rmdir", nspawn / "propagate" / node.name)
    if node.root.exists():
        disk = node.root.stat()
        (nspawn / f"locks/inode-{disk.st_dev}:{disk.st_ino}").unlink(missing_ok=True)


def remove(node: Node) -> None:
    """Leave nothing of the node."""
    gone = NODES / f".{node.name}.gone"
    delete(gone)
    delete(NODES / f".{node.name}.new")
    delete(MEMORY / f".{node.name}.new")
    if node.dir.exists():
        cut_power(node)
        node.dir.rename(gone)
        delete(gone)
    for left in (MEMORY / node.name, MEMORY / f".#{node.name}.lck"):  # the lock is nspawn's, beside the disk
        delete(left)
