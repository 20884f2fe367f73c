# SPDX-License-Identifier: MIT
"""The verbs of nodectl, and its command line. What a verb's docstring says is what --help says."""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable
from typing import NoReturn

from nodes.common import NODES, STORE, Problem, environment, say
from nodes.disks import create, has_memory, images, template_layer
from nodes.inside import run_inside
from nodes.layers import base_layer, hold, host_prerequisites, toolbox, tools_layer
from nodes.node import Node, uptime
from nodes.power import cut_power, power_off, power_on, reboot, remove, settle


def report(node: Node, began: float, args: argparse.Namespace, what: str) -> None:
    """Wait for a node that boots, and tell how long it took."""
    state = settle(node, args.timeout, wait=not args.no_wait)
    say(f"{node.name} {what}: {state} after {time.monotonic() - began:.1f} s, at {node.address}")


def verb_build(_: argparse.Namespace) -> None:
    """make all that start needs, where it is missing or out of date"""
    host_prerequisites()
    template_layer()


def verb_start(args: argparse.Namespace) -> None:
    """make a fresh node and boot it; build first what is missing or out of date"""
    node = Node(args.name)
    host_prerequisites()
    with node.mine():
        if node.dir.exists():
            raise Problem(f"there is a node {node.name} already (`nodectl rm {node.name}` removes it)")
        if node.alive():
            raise Problem(f"a node {node.name} runs from another store than {STORE}")
        source = base_layer() if args.no_package else template_layer()
        wanted = images(source) if args.no_package else []
        began = time.monotonic()
        create(node, source, wanted, memory=args.memory and has_memory())
        power_on(node)
    report(node, began, args, "started")


def verb_boot(args: argparse.Namespace) -> None:
    """boot a node that is off, from the disk as it was left"""
    node = Node(args.name).existing()
    began = time.monotonic()
    with node.mine():
        power_on(node)
    report(node, began, args, "booted")


def verb_reboot(args: argparse.Namespace) -> None:
    """reboot in good order"""
    node = Node(args.name).existing()
    began = time.monotonic()
    reboot(node)
    report(node, began, args, "rebooted")


def verb_stop(args: argparse.Namespace) -> None:
    """power off in good order; wait for as long as the apps take"""
    power_off(Node(args.name).existing())


def verb_kill(args: argparse.Namespace) -> None:
    """cut the power"""
    cut_power(Node(args.name).existing())


def verb_rm(args: argparse.Namespace) -> None:
    """cut the power and delete the disk; no node of that name is fine too"""
    node = Node(args.name)
    with node.mine():
        remove(node)


def verb_exec(args: argparse.Namespace) -> int:
    """run a command (a shell by default) in the node, as root"""
    return run_inside(Node(args.name).existing(), args.command or ["bash", "-l"])


def verb_toolbox(args: argparse.Namespace) -> NoReturn:
    """run a command on Debian 13 with the project's tools, the repository at /src; all else it writes is thrown away"""
    host_prerequisites()
    tools = tools_layer()
    os.set_inheritable(hold(tools), True)
    command = toolbox(tools, "ro", args.command or ["bash"])
    env = environment("PIP_", "DEB_", "PYTEST_", "RESUME", "HYPOTHESIS_", "SOURCE_DATE", "http", "no_proxy")
    os.execvpe(command[0], command, env)


def verb_list(args: argparse.Namespace) -> None:
    """list the nodes; ages are in seconds, since start and since boot"""
    rows: list[dict[str, str | int | None]] = []
    for path in sorted(NODES.glob("[!.]*/number")):
        node = Node(path.parent.name)
        leader = node.leader()
        state = "running" if leader else "changing" if node.alive() else "off"
        age, up = round(time.time() - path.stat().st_mtime), uptime(leader) if leader else None
        rows.append({"name": node.name, "state": state, "pid": leader, "age": age, "up": up, "address": node.address})
    if args.json:
        print(json.dumps(rows, indent=2))
        return
    form = "{:16} {:9} {:>8} {:>7} {:>7}  {}"
    print(form.format("NAME", "STATE", "PID", "AGE", "UP", "ADDRESS"))
    for row in rows:
        print(form.format(*("-" if value is None else value for value in row.values())))


def parser() -> argparse.ArgumentParser:
    """Describe the command line."""
    top = argparse.ArgumentParser(prog="nodectl", description="Test nodes: Debian 13 systems that boot in seconds.")
    top.epilog = f"All is kept in {STORE}, or in $ARCHY_NODES. Needs root on Debian 12 or 13."
    verbs = top.add_subparsers(metavar="VERB", required=True)

    def add(name: str, do: Callable[[argparse.Namespace], int | None], *operands: str) -> argparse.ArgumentParser:
        sub = verbs.add_parser(name, help=do.__doc__, description=do.__doc__)
        for operand in operands:
            sub.add_argument(operand, metavar=operand.upper())
        sub.set_defaults(do=do)
        return sub

    add("build", verb_build)
    start = add("start", verb_start, "name")
    start.add_argument("--no-package", action="store_true", help="a bare node, the images in /var/lib/archy-images")
    start.add_argument(
        "--memory", action="store_true", help="its disk in memory, if there is enough: quick, and gone with the host"
    )
    for sub in (start, add("boot", verb_boot, "name"), add("reboot", verb_reboot, "name")):
        sub.add_argument("--no-wait", action="store_true", help="return as soon as the node can be talked to")
        sub.add_argument("--timeout", type=float, default=600, metavar="S", help="time it has to settle (600)")
    add("stop", verb_stop, "name")
    add("kill", verb_kill, "name")
    add("rm", verb_rm, "name")
    add("exec", verb_exec, "name").add_argument("command", nargs=argparse.REMAINDER, metavar="CMD")
    add("list", verb_list).add_argument("--json", action="store_true", help="for programs")
    add("toolbox", verb_toolbox).add_argument("command", nargs=argparse.REMAINDER, metavar="CMD")
    return top
