# SPDX-License-Identifier: MIT
"""Runs inside a node: is all as it should be? Asks the node, Podman, and each app where its users would ask it.

argv: the apps as JSON, see chaos.App. Prints a JSON list of all that is not right.
"""

from __future__ import annotations

import json
import os
import re
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

SLICE = Path("/sys/fs/cgroup/archipelago.slice/archipelago-apps.slice")
# Says how it was while it was not well, for ten minutes afterwards. By then it is.
PAST = re.compile(r"was restarted \d+ times")
NODE_PORT = 9735  # on all addresses of the node: lnd's, which hangs up
HTTP = b"GET / HTTP/1.0\r\n\r\n"
ASK: dict[str, tuple[bytes, bytes]] = {
    "http": (HTTP, b"HTTP/1."),
    "https": (HTTP, b"HTTP/1."),
    "electrum": (b'{"id": 0, "method": "server.ping", "params": []}\n', b'{"jsonrpc"'),
    "postgres": (b"\0\0\0\x08\x04\xd2\x16\x2f", b""),  # SSLRequest, answered by one letter
}


def run(*words: str, seconds: float = 10) -> tuple[int, str]:
    """A command's status and output; -1 if it takes too long."""
    try:
        done = subprocess.run(words, capture_output=True, text=True, errors="replace", timeout=seconds, check=False)
    except subprocess.TimeoutExpired:
        return -1, f"no answer within {seconds:g} s"
    return done.returncode, done.stdout if done.returncode == 0 else done.stderr.strip() or done.stdout


def podman(*words: str) -> tuple[int, str]:
    """Podman, as the service user."""
    uid = run("id", "-u", "archipelago")[1].strip()
    bus = f"DBUS_SESSION_BUS_ADDRESS=unix:path=/run/user/{uid}/bus"
    env = (
        "env",
        "-i",
        "-C",
        "/",
        "HOME=/var/lib/archipelago",
        "PATH=/usr/bin",
        f"XDG_RUNTIME_DIR=/run/user/{uid}",
        bus,
    )
    user = ("setpriv", "--reuid=archipelago", "--regid=archipelago", "--init-groups")
    return run(*user, *env, "podman", *words)


def status() -> Iterator[str]:
    """What `archy status` complains of."""
    code, _ = run("archy", "status")
    said = subprocess.run(("archy", "status", "--json"), capture_output=True, text=True, check=False).stdout
    try:
        found: dict[str, Any] = json.loads(said)
    except ValueError:
        yield f"archy status: {code}, and no JSON"
        return
    problems = []
    for group in ("node", "apps"):
        for name, part in found.get(group, {}).items():
            problems += [f"archy status: {name}: {text}" for text in part.get("problems", ()) if not PAST.search(text)]
            state = part.get("current", "running")
            problems += [f"archy status: {name}: {state}"] if state != "running" else []
    yield from problems
    if code not in (0, 1) and not problems:
        yield f"archy status: {code}"


def units(apps: dict[str, Any]) -> Iterator[str]:
    """Units that are not active, and processes that are held."""
    for app in apps:
        state = run("systemctl", "show", "--property=ActiveState,FreezerState", "--value", f"archy-{app}")[1].split()
        if state != ["active", "running"] and state != ["running", "active"]:
            yield f"{app}: its unit is {' '.join(state)}"
        try:
            pids = (SLICE / f"archy-{app}.service/cgroup.procs").read_text().split()
        except OSError:
            pids = []
        for pid in pids:
            try:
                stat = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if stat[0] in "Tt":
                yield f"{app}: process {pid} is stopped"


def answers(app: str, kind: str, port: int) -> str | None:
    """Whether an app answers on its port of the node, in its own language."""
    say, expected = ASK[kind]
    try:
        with socket.create_connection(("127.0.0.1", port), 5) as plain:
            talk = plain
            if kind == "https":
                context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
                context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
                talk = context.wrap_socket(plain)
            talk.settimeout(5)
            talk.sendall(say)
            got = talk.recv(100)
    except OSError as error:
        return f"{app}: port {port}: {error}"
    return None if got and got.startswith(expected) else f"{app}: port {port} answers {got!r}"


def knows(apps: dict[str, Any]) -> Iterator[str]:
    """What Podman thinks: of containers, of images, and of names in the shared network."""
    wanted = {entry["container"] for entry in apps.values()}
    code, said = podman("ps", "--format", "{{.Names}}")
    if code:
        yield f"podman ps: {said}"
        return
    if wanted - set(said.split()):
        yield f"Podman does not know {sorted(wanted - set(said.split()))}"
        return
    code, said = podman("images", "--quiet")
    if code:
        yield f"podman images: {said}"
    form = "{{.Name}} {{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}"
    code, said = podman("inspect", "--format", form, *sorted(wanted))
    if code:
        yield f"podman inspect: {said}"
        return
    yield from names({line.split()[0]: line.split()[1] for line in said.splitlines() if len(line.split()) == 2}, apps)


def names(addresses: dict[str, str], apps: dict[str, Any]) -> Iterator[str]:
    """Containers whose name leads others elsewhere, or nowhere."""
    inside = {app: entry["container"] for app, entry in apps.items() if entry["asks"]}
    for app, container in inside.items():
        there = sorted(set(addresses) - {container})
        script = "".join(f"echo @{name}; nslookup -type=a {name}.dns.podman 2>&1; " for name in there)
        get = "wget -q -T 5 -O /dev/null --header 'Host: localhost'"
        web = sorted(entry["container"] for entry in apps.values() if entry["web"] and entry["container"] != container)
        script += "".join(f"{get} http://{name}:8080/health || echo !{name}; " for name in web)
        script += f"nc -w 5 host.containers.internal {NODE_PORT} </dev/null || echo !the-node; "
        code, said = podman("exec", container, "sh", "-c", script)
        if code:
            yield f"{app}: podman exec: {said}"
            continue
        for part in said.split("@")[1:]:
            name, _, told = part.partition("\n")
            found = set(re.findall(r"^Address: ([0-9.]+)$", told, re.MULTILINE))
            if found != {addresses[name]}:
                yield f"{app}: {name} is {addresses[name]} and resolves to {sorted(found)}"
        yield from (f"{app}: nothing from {name}" for name in re.findall(r"^!(\S+)", said, re.MULTILINE))


def main() -> None:
    """Look."""
    apps = json.loads(sys.argv[1])
    os.chdir("/")
    with ThreadPoolExecutor() as pool:
        talks = [pool.submit(answers, app, entry["speaks"], entry["port"]) for app, entry in apps.items()]
        wrong = [*status(), *units(apps)]
        wrong += [text for talk in talks if (text := talk.result())]
    if not wrong:
        wrong += knows(apps)
    print(json.dumps(wrong))


if __name__ == "__main__":
    main()
