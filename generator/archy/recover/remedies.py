# SPDX-License-Identifier: MIT
"""How each fault of Podman is mended: its remedies, from the least force to the most. Data, and pure functions.

A remedy has a title, a pattern in the message of the fault for which it applies, and steps; apps that it holds are
started again. Whether it has helped is seen by the same probe that saw the fault. What still serves is never stopped
because Podman does not answer: it could not be started. `podman system migrate` is no remedy: it stops every container.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from archy import paths
from archy.health.faults import LEFTOVERS, NETWORK, PODMAN, STORAGE, Fault
from archy.host.steps import AsUser, Hold, Step


@dataclass(frozen=True)
class Situation:
    """What the steps of a remedy depend on.

    `runtime` is the service user's runtime directory, `running` are the apps with processes, and `stamp` ends the names
    of files that are set aside.
    """

    fault: Fault
    uid: int
    runtime: str
    stamp: str
    running: tuple[str, ...] = ()


@dataclass(frozen=True)
class Remedy:
    """`when` must match the fault's message. `idle`: only while no app runs. `timeout`: seconds until it has helped."""

    title: str
    steps: Callable[[Situation], list[Step]]
    when: str = ""
    idle: bool = False
    timeout: float = 5


def _run(*command: str, timeout: float = 60) -> AsUser:
    return AsUser(command, timeout)


def _podman(*arguments: str, timeout: float = 60) -> AsUser:
    return _run("podman", *arguments, timeout=timeout)


_RENUMBER, _RECONNECT = _podman("system", "renumber"), _podman("network", "reload", "--all")
_START_PASTA = _podman("unshare", "--rootless-netns", "true")


def _set_aside(situation: Situation, pattern: str, directory: str = paths.STORAGE) -> AsUser:
    """Files of Podman's storage get another name: kept, never deleted."""
    move = ("-exec", "mv", "--no-clobber", "--", "{}", f"{{}}.broken-{situation.stamp}", ";")
    return _run("find", directory, "-maxdepth", "1", "-name", pattern, "!", "-name", "*.broken-*", *move)


def _new_pause(situation: Situation) -> list[Step]:
    # Podman joins the user namespace of a process of its own, and finds none alive. Over an empty store it looks for
    # none, and makes one.
    empty = f"{situation.runtime}/archy-empty"
    start = _podman("--root", f"{empty}/root", "--runroot", f"{empty}/run", "ps", "-q")
    return [start, _podman("unshare", "rm", "-rf", "--", empty)]


def _new_database(situation: Situation) -> list[Step]:
    return [_set_aside(situation, "db.sql*"), _RENUMBER]


def _new_locks(situation: Situation) -> list[Step]:
    return [_run("rm", "-f", "--", f"/dev/shm/libpod_rootless_lock_{situation.uid}"), _RENUMBER]


def _unreadable(situation: Situation) -> list[Step]:
    loading = _LOADING.search(situation.fault.message)
    inside = loading and _INSIDE.fullmatch(loading["path"])
    return [_set_aside(situation, inside["name"], inside["directory"])] if inside else []


def _clear_runtime(situation: Situation) -> list[Step]:
    names = [f"{situation.runtime}/{name}" for name in ("containers", "libpod", "podman", "crun")]
    return [_run("rm", "-rf", "--", *names), _RENUMBER]


def _reload_one(situation: Situation) -> list[Step]:
    return [_podman("network", "reload", *situation.fault.containers[:1])]


def _network_directory(situation: Situation) -> str:
    return f"{situation.runtime}/containers/networks"


def _kill(situation: Situation, *pattern: str) -> AsUser:
    return _run("pkill", "-KILL", "-u", str(situation.uid), *pattern)


def _new_names(situation: Situation) -> list[Step]:
    names = f"{_network_directory(situation)}/aardvark-dns"
    return [_kill(situation, "-x", "aardvark-dns"), _run("rm", "-rf", "--", names), _RECONNECT]


def _new_network(situation: Situation) -> list[Step]:
    unmount = _podman("unshare", "sh", "-c", _UNMOUNT, "sh", _network_directory(situation))
    return [Hold(situation.running), _kill(situation, "^(aardvark-dns|pasta(\\.avx2)?)$"), unmount]


def _repair(situation: Situation) -> list[Step]:
    return [Hold(situation.fault.apps), _podman("system", "check", "--quick", "--repair", timeout=1800)]


def _sweep(situation: Situation) -> list[Step]:
    steps: list[Step] = []
    if situation.fault.containers:
        # Without --time each container has the stop grace that it was made with, as it should.
        steps.append(_podman("rm", "--force", "--ignore", *situation.fault.containers, timeout=3700))
    if situation.fault.timers:
        steps.append(_run("systemctl", "--user", "stop", "--", *situation.fault.timers))
    return steps


_UNMOUNT = 'umount -l "$1/rootless-netns/rootless-netns"; rm -rf -- "$1"'
_INSIDE = re.compile(rf"(?P<directory>{re.escape(paths.STORAGE)}(/\w[\w-]*)+)/(?P<name>\w[\w.-]*)")
_SPACE = "^(?!.*(no space left|is full|quota exceeded))"
_LOADING = re.compile(r'loading "(?P<path>[^"]+)"')

REMEDIES: Mapping[str, tuple[Remedy, ...]] = {
    PODMAN: (
        Remedy("make a new pause process, over an empty store", _new_pause, "invalid internal status"),
        Remedy(
            "set the database aside", _new_database, "not a database|malformed|disk I/O error|no such (table|column)"
        ),
        Remedy("make the file of locks again", _new_locks, "locks in /libpod"),
        Remedy("set the file aside that cannot be read", _unreadable, _LOADING.pattern),
        Remedy("wait", lambda _: [], "no answer within", timeout=60),
        Remedy("clear the runtime directories", _clear_runtime, _SPACE, idle=True),
        Remedy("set the database aside, for want of anything better", _new_database, _SPACE, idle=True),
    ),
    NETWORK: (
        Remedy("start pasta again", lambda _: [_START_PASTA], "pasta does not run"),
        Remedy("start the name server again, with one container", _reload_one, "no name server|no answer within"),
        Remedy(
            "connect all containers again",
            lambda _: [_START_PASTA, _RECONNECT],
            "no network|no way|no name server|no answer within",
        ),
        Remedy("let the name server forget what it knows", _new_names, "resolves|name server|no answer|no network"),
        Remedy(
            "restart the apps that it concerns",
            lambda situation: [Hold(situation.fault.apps)],
            "^(?!all apps|pasta)",
            timeout=60,
        ),
        Remedy("stop all apps, make the network anew, and start them", _new_network, "^all apps", timeout=60),
    ),
    STORAGE: (
        Remedy("set the file aside that cannot be read", _unreadable, _LOADING.pattern),
        Remedy("remove what is damaged from the storage, to be fetched again", _repair, "damage", timeout=60),
    ),
    LEFTOVERS: (Remedy("remove what no unit has", _sweep),),
}

# What a person could do after all remedies.
ADVICE: Mapping[str, str] = {
    PODMAN: "Apps that run go on, but none can be started. If the disk is full, free some space; a reboot makes"
    " Podman's runtime directories anew; see journalctl -u archy-recover",
    NETWORK: "A reboot makes the network anew; see journalctl -u archy-recover",
    STORAGE: "Is there a network, to fetch the images again? see journalctl -u archy-recover",
    LEFTOVERS: "It does no harm but for its space; see journalctl -u archy-recover",
}


def applies(remedy: Remedy, situation: Situation) -> bool:
    """Whether the remedy is one for this situation."""
    return not (remedy.idle and situation.running) and re.search(remedy.when, situation.fault.message) is not None
