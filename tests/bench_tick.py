# SPDX-License-Identifier: MIT
"""Runs in a node: `bench_tick.py APPS RUNS` prints what a tick costs that finds nothing to do, as JSON.

CPU time is user and system time of a program and all it started, wall time its own; both in ms, medians. What PID 1
spends to answer is beside it. `podman ps` and the tick are run in turns. What a tick
costs the whole node, its units and their sandboxes included, is counted by the kernel: see `whole_node`.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

RECONCILE = "/usr/libexec/archy/archy-reconcile"
TICK = "/usr/libexec/archy/archy-tick"
TIMER = "archy-reconcile.timer"
QUIET = Path("/run/archy/unchanged")  # see unchanged.py
WINDOW = 3.0  # seconds: more than a tick takes that finds nothing to do
MANIFEST = """\
app:
  id: {id}
  name: Stand-in
  version: "1"
  container:
    image: localhost/archy-standin:1
    pull_policy: never
    generated_secrets: [{{name: {id}-secret, kind: hex16}}]
    generated_files:
      - {{path: /var/lib/archipelago/{id}/conf, content: "{{{{secret:{id}-secret}}}}", overwrite: true}}
  environment: [PORT=8080]
  health_check: {{type: http, endpoint: "localhost:8080", path: /health}}
"""


def install(count: int) -> list[str]:
    """Run `count` stand-ins, and wait until all are ready and the node is quiet."""
    app_ids = [f"app-{number:04d}" for number in range(count)]
    for app_id in app_ids:
        path = Path(f"/etc/archy/apps/{app_id}/manifest.yml")
        path.parent.mkdir()
        path.write_text(MANIFEST.format(id=app_id))
    subprocess.run(["systemctl", "start", "archy-reconcile.service"], check=True)
    subprocess.run(["systemctl", "start", *(f"archy-{app_id}" for app_id in app_ids)], check=True)
    settle()
    return app_ids


def settle() -> None:
    """Make passes until one finds nothing to do: apps that have just started are looked at for some seconds."""
    for _ in range(60):
        before = QUIET.read_bytes() if QUIET.exists() else b""
        subprocess.run([RECONCILE], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True)
        if before and QUIET.exists() and QUIET.read_bytes() == before:
            return
        time.sleep(1)
    print("the node does not get quiet: what follows are whole passes", file=sys.stderr)


def timed(command: list[str]) -> dict[str, float]:
    """Wall and CPU time in ms, and peak memory in MiB, of a command and its children."""
    start = time.perf_counter()
    child = subprocess.Popen(command, stdout=subprocess.DEVNULL, cwd="/")
    _, status, used = os.wait4(child.pid, 0)
    if status:
        sys.exit(f"{command}: {status}")
    wall = 1000 * (time.perf_counter() - start)
    return {"wall": wall, "cpu": 1000 * (used.ru_utime + used.ru_stime), "peak": used.ru_maxrss / 1024}


def as_user(*command: str) -> list[str]:
    """A command as the service user, in the environment that its units have."""
    uid = subprocess.run(["id", "-u", "archipelago"], capture_output=True, text=True, check=True).stdout.strip()
    variables = ["HOME=/var/lib/archipelago", "PATH=/usr/bin:/bin", f"XDG_RUNTIME_DIR=/run/user/{uid}"]
    variables.append(f"DBUS_SESSION_BUS_ADDRESS=unix:path=/run/user/{uid}/bus")
    become = ["setpriv", "--reuid", "archipelago", "--regid", "archipelago", "--init-groups"]
    return [*become, "env", "-i", *variables, *command]


def pid1() -> float:
    """The CPU time that PID 1 has used, in ms."""
    fields = Path("/proc/1/stat").read_text().rpartition(")")[2].split()
    return 1000 * (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def node_cpu() -> float:
    """The CPU time in ms of every process in the node, whether it ended or not."""
    fields = dict(line.split() for line in Path("/sys/fs/cgroup/cpu.stat").read_text().splitlines())
    return int(fields["usage_usec"]) / 1000


def spent(unit: str) -> float:
    """The CPU time in ms that the whole node spends from a request to start a unit until WINDOW is over."""
    before = node_cpu()
    subprocess.run(["systemctl", "start", "--no-block", unit], check=True)
    time.sleep(WINDOW)
    return node_cpu() - before


def whole_node(runs: int) -> float:
    """The CPU time in ms that a tick costs the whole node, the median.

    The unit that the timer starts is started by hand. What the node spends in the same time without it, and what the
    request itself costs, are subtracted: a unit that is already active is started in turns with it.
    """
    show = ["systemctl", "show", "--property=Unit", "--value", TIMER]
    unit = subprocess.run(show, stdout=subprocess.PIPE, text=True, check=True).stdout.strip()
    rare = Path(f"/run/systemd/system/{TIMER}.d/50-bench.conf")
    rare.parent.mkdir(parents=True)
    # Stopped, it would make the node read degraded, and then each tick starts a pass.
    rare.write_text("[Timer]\nOnActiveSec=\nOnUnitActiveSec=\nOnActiveSec=1h\n")
    for words in (["daemon-reload"], ["restart", TIMER], *[["start", "archy-reconcile.service"]] * 2):
        subprocess.run(["systemctl", *words], check=True)
    values = [-spent("sysinit.target") + spent(unit) for _ in range(runs)]
    rare.unlink()
    for words in (["daemon-reload"], ["restart", TIMER]):
        subprocess.run(["systemctl", *words], check=True)
    return statistics.median(values)


def healed(harm: Callable[[], object], path: Path) -> float:
    """Seconds from harm until a file changes, or is there again, and is whole."""
    before = path.read_bytes()
    harm()
    start = time.monotonic()
    harmed = path.read_bytes() if path.exists() else b""
    while (now := path.read_bytes() if path.exists() else b"") == harmed or not now:
        if time.monotonic() - start > 120:
            sys.exit(f"{path} was not healed, was {len(before)} bytes")
        time.sleep(0.02)
    return time.monotonic() - start


def main() -> None:
    """Measure, and print JSON."""
    count, runs = int(sys.argv[1]), int(sys.argv[2])
    first = install(count)[0]
    commands = {
        "podman ps": as_user("podman", "ps", "--all", "--format", "json"),
        "tick": [TICK],
    }
    samples: dict[str, list[dict[str, float]]] = {name: [] for name in commands}
    manager = []
    for _ in range(runs):
        for name, command in commands.items():
            before = pid1()
            samples[name].append(timed(command))
            if name == "tick":
                manager.append(pid1() - before)
    result: dict[str, object] = {
        name: {key: statistics.median(sample[key] for sample in found) for key in found[0]}
        for name, found in samples.items()
    }
    result["pid1"] = statistics.mean(manager)
    result["node"] = whole_node(runs)
    conf = Path(f"/var/lib/archipelago/{first}/conf")
    secret = Path(f"/var/lib/archipelago/secrets/{first}-secret")
    result["by the path unit"] = healed(lambda: secret.write_text("another\n"), conf)
    time.sleep(35)
    result["by the tick"] = healed(lambda: conf.write_text("harmed"), conf)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
