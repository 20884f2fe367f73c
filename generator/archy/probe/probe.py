# SPDX-License-Identifier: MIT
"""archy-probe: whether apps serve, and whether Podman knows what runs; as the service user, JSON to standard output.

Only looks. Every app is asked as its manifest says, all at once, from inside the network namespace of its container;
so is the name server of its network. Podman is asked at once, within 8 s, unless nothing of what it would tell has
changed. Fast path: no heavy imports.
"""

import json
import os
import socket
import sys
import time
from contextlib import suppress

from archy import __version__, paths
from archy.apps import facts
from archy.host import read, user, volatile
from archy.probe import checks, containers, dns
from archy.probe import podman as probe_podman

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from archy.probe.containers import Container

_NAME_TIME = 3.0
_LONGEST = 60.0  # seconds that an app may take, whatever its manifest says: the unit has 90
_LABEL = 63  # bytes of a name that a name server can know (RFC 1035)
_MOST = 16 * 1024 * 1024
_EARLY = 0.9  # of its interval, after which an app is asked again: ticks are not exact


def main(argv: list[str]) -> int:
    """The entry point. Exit codes: 0, whatever was found, 75 (EX_TEMPFAIL) if nothing can be found out now."""
    found = probe()
    if found is None:
        return os.EX_TEMPFAIL
    print(found[0])
    return 0


def probe() -> tuple[str, str] | None:
    """Ask: all that was found, as JSON, and its digest; None if nothing can be found out now."""
    uid = os.getuid()
    runtime = user.runtime_directory(uid)
    os.environ |= user.environment(uid)
    # Without its user's manager Podman would keep its state elsewhere, and find it again nowhere.
    if not os.path.exists(f"{runtime}/bus"):
        print(f"the manager of user {uid} does not run: systemctl start user@{uid}.service", file=sys.stderr)
        return None
    before = _remembered("/")
    began = time.monotonic()
    timers = probe_podman.health_timers(runtime)
    running = containers.running("/")
    question = probe_podman.ContainerList(runtime, running, before.get("podman"))
    apps = _apps("/", runtime, running, before.get("apps") or {})
    answer = question.answer()
    if not answer["error"]:
        flag_stale_addresses(apps, probe_podman.stale_addresses(runtime, {entry[0] for entry in answer["containers"]}))
    found = {
        "by": __version__,
        "at": began,
        "load": os.getloadavg()[0] / (os.cpu_count() or 1),
        "apps": apps,
        "podman": answer,
        "pasta": probe_podman.pasta(runtime),
        "timers": _stale(timers, running),
    }
    digest = found["digest"] = _digest(found)
    content = json.dumps(found)
    with suppress(OSError):  # then the next one asks everything again
        volatile.write(paths.PROBE_CACHE, content)
    return content, digest


def _stale(timers: "list[str]", running: "list[Container]") -> list[str]:
    """Those whose container does not run."""
    living = {container.id for container in running}
    return [timer for timer in timers if timer.partition("-")[0] not in living]


def _digest(found: "dict[str, Any]") -> str:
    """What is the same as long as nothing has happened: a pass that was content with it need not read the rest."""
    apps = [
        [
            name,
            app["id"],
            app["stopped"],
            app["frozen"],
            app["forwarded"],
            *(app[what] and app[what]["ok"] for what in ("check", "names")),
        ]
        for name, app in sorted(found["apps"].items())
    ]
    podman = [found["podman"]["error"], *sorted(entry[:2] for entry in found["podman"]["containers"])]
    return json.dumps([apps, podman, found["pasta"], found["timers"]])


def _remembered(root: str) -> "dict[str, Any]":
    try:
        found: dict[str, Any] = json.loads(read.read(paths.under(root, paths.PROBE_CACHE), _MOST) or b"")
        return found if found["by"] == __version__ else {}
    except (ValueError, KeyError, TypeError):
        return {}


def _apps(root: str, runtime: str, running: "list[Container]", before: "Mapping[str, Any]") -> "dict[str, Any]":
    """All apps with a container. Those of another user namespace are asked by a child: none can be left again."""
    known = facts.load(root)["apps"]
    groups: dict[int, list[Container]] = {}
    for container in running:
        groups.setdefault(container.userns, []).append(container)
    children = []
    *others, own = groups.values() or [[]]
    for group in others:
        reading, writing = os.pipe()
        if os.fork() == 0:
            try:
                os.close(reading)
                with open(writing, "w") as answer:
                    answer.write(json.dumps(_group(root, runtime, group, known, before)))
            finally:
                os._exit(0)
        os.close(writing)
        children.append(reading)
    result = _group(root, runtime, own, known, before)
    for reading in children:
        with open(reading) as answer:
            result |= json.loads(answer.read() or "{}")
    return result


def _group(
    root: str, runtime: str, group: "list[Container]", known: "Mapping[str, Any]", before: "Mapping[str, Any]"
) -> "dict[str, Any]":
    """Those of one user namespace, which this process joins."""
    result: dict[str, Any] = {}
    asked: dict[str, dict[str, checks.Check]] = {}
    for container in group:
        last = before.get(container.app) or {}
        result[container.app] = {
            "id": container.id,
            "stopped": bool(container.stopped),
            "main_stopped": container.main_stopped,
            "frozen": container.frozen,
            "cpu": container.cpu,
            "forwarded": container.forwarded,
            "check": last.get("check") if last.get("id") == container.id else None,
            "names": None,
        }
        asked[container.app] = {}
    due = {
        container.app: health
        for container in group
        if (health := (known.get(container.app) or {}).get("health"))
        and not (container.frozen or container.main_stopped)  # it could not answer
        and _is_due(result[container.app], health)
    }
    # From here, where there is still the way into each container, and to those that are in no network but the node's.
    for container in group:
        health, summary = due.get(container.app), known.get(container.app)
        if health and health["kind"] == "exec":
            asked[container.app]["check"] = checks.Command(_inside(runtime, container, health), _timeout(health))
        if summary and summary["network"] == "host":
            _ask(root, container, health, summary, asked[container.app])
    inside = False
    for container in group:
        if (known.get(container.app) or {}).get("network") == "host":
            continue
        try:
            if not inside:
                _join(root, container.conmon, "user", os.CLONE_NEWUSER)
                inside = True
            _join(root, container.pid, "net", os.CLONE_NEWNET)
        except OSError:
            continue  # it ends in this moment
        _ask(root, container, due.get(container.app), known.get(container.app), asked[container.app])
    checks.run(check for each in asked.values() for check in each.values())
    for app, each in asked.items():
        for what, check in each.items():
            result[app][what] = {**checks.result(check), "at": check.began}
            if isinstance(check, dns.Name):
                result[app][what]["others"] = sorted(check.others)
    return result


def flag_stale_addresses(apps: "dict[str, Any]", dead: "set[str]") -> None:
    """A name that leads to a container that is gone, besides its own, is wrong."""
    for app in apps.values():
        found = app["names"]
        if found and found["ok"] and (lost := sorted(dead.intersection(found["others"]))):
            said = f"its name resolves to {', '.join(lost)}, too, where nobody is"
            app["names"] = {**found, "ok": False, "kind": checks.BAD_ANSWER, "said": said}


def _is_due(app: "dict[str, Any]", health: "Mapping[str, Any]") -> bool:
    last = app["check"]
    return not last or time.monotonic() - last["at"] >= _EARLY * health["interval"]


def _timeout(health: "Mapping[str, Any]") -> float:
    return float(min(health["timeout"], _LONGEST))


def _ask(root: str, container: "Container", health: "Any", summary: "Any", asked: "dict[str, checks.Check]") -> None:
    """Begin what is to be asked in the network namespace of a container, which this process has joined."""
    if health and health["kind"] == "tcp":
        asked["check"] = checks.Tcp(health["port"], _timeout(health))
    elif health and health["kind"] == "http":
        asked["check"] = checks.Http(health["port"], health["path"], _timeout(health))
    if not summary or summary["network"] in ("pasta", "host") or len(summary["container"]) > _LABEL:
        return
    server = _gateway(root, container.pid)
    if server:
        asked["names"] = dns.Name(server, summary["container"], _NAME_TIME)
    else:
        asked["names"] = lost = checks.Check(0)
        lost.failed(checks.REFUSED, "it has no network any more")


def _inside(runtime: str, container: "Container", health: "Mapping[str, Any]") -> list[str]:
    """A command inside a container. The OCI runtime alone needs a tenth of the time that Podman takes for it."""
    if os.path.isdir(f"{runtime}/crun/{container.id}"):
        return ["crun", "--root", f"{runtime}/crun", "exec", "--no-new-privs", container.id, *health["command"]]
    return ["podman", "exec", container.id, *health["command"]]


def _join(root: str, pid: int, kind: str, flag: int) -> None:
    descriptor = os.open(paths.under(root, f"/proc/{pid}/ns/{kind}"), os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.setns(descriptor, flag)
    finally:
        os.close(descriptor)


def _gateway(root: str, pid: int) -> str:
    """Where the container's default route leads; there its network has its name server, too. Empty if nowhere."""
    for line in (read.read(paths.under(root, f"/proc/{pid}/net/route")) or b"").splitlines()[1:]:
        fields = line.split()
        if fields[1] == b"00000000":
            return socket.inet_ntoa(int(fields[2], 16).to_bytes(4, sys.byteorder))
    return ""
