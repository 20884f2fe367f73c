# SPDX-License-Identifier: MIT
"""Runs in a node: `bench_idle.py archy|stock|none APPS SECONDS` prints what the idle node costs, as JSON.

The same containers run as archy's apps, as stock Quadlet files of the service user with a health check every 30 s, or
as the latter without a check once they are ready. They serve http and do nothing by themselves. Nothing is asked of
the node for SECONDS, in which the kernel counts: the CPU time of the node's root cgroup is that of every process in
the node, whether it ended or not, and of nothing outside. What a cgroup has used without those below it that are still
there tells where it went.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

HOME = Path("/var/lib/archipelago")
CGROUPS = Path("/sys/fs/cgroup")
SETTLE = 100  # seconds from the last app's readiness: three ticks, three checks of each app
HTTPD = ["httpd", "-f", "-p", "8080", "-h", "/www"]  # it never wakes up by itself, as the stand-in would every second

MANIFEST = """\
app:
  id: {id}
  name: Stand-in
  version: "1"
  container:
    image: localhost/archy-standin:1
    pull_policy: never
    entrypoint: {httpd}
    generated_secrets: [{{name: {id}-secret, kind: hex16}}]
    generated_files:
      - {{path: /var/lib/archipelago/{id}/conf, content: "{{{{secret:{id}-secret}}}}", overwrite: true}}
  stop_grace_secs: 1
  environment: [PORT=8080]
  health_check: {{type: http, endpoint: "localhost:8080", path: /health, interval: 30s}}
"""

# What archy makes of that, but for what only archy needs; the start-up check, too, which ends once it has passed.
CONTAINER = """\
[Container]
ContainerName={id}
Image=localhost/archy-standin:1
Pull=never
Entrypoint={httpd}
Network=idle.network
ReadOnly=true
NoNewPrivileges=true
DropCapability=all
Environment=PORT=8080
LogDriver=journald
StopTimeout=1
Volume=/usr/bin/busybox:/.archy/busybox:ro
Notify=healthy
HealthStartupCmd={wget}
HealthStartupInterval=1s
HealthStartupSuccess=1
HealthCmd={wget}
HealthInterval={interval}
HealthTimeout=5s
HealthRetries=3

[Service]
Restart=always
TimeoutStartSec=900
"""
WGET = ["/.archy/busybox", "wget", "-q", "-T", "5", "-O", "/dev/null", "http://127.0.0.1:8080/health"]

# Where CPU time goes, by the first pattern that a cgroup's path matches as a whole. Units that come and go within the
# time are counted by the slice that they were in: passes of archy in the system's, Podman's checks in the user's. A
# `podman` that a person or archy calls makes itself a scope in the user's manager, and the rest of its work is there.
PLACES = {
    "PID 1": r"init\.scope",
    "user manager": r"user\.slice/.*/init\.scope",
    "D-Bus": r".*/dbus[^/]*",
    "journald": r"system\.slice/systemd-journald\.service",
    "apps": r"archipelago\.slice.*|user\.slice/.*/idle-[0-9]+\.service.*",
    "archy": r"system\.slice(/archy-.*)?",
    "Podman": r"user\.slice/.*/user\.slice(/podman-.*)?",
    "checks": r"user\.slice/.*/app\.slice",
    "rest": r".*",
}


def as_user(*command: str) -> str:
    """The output of a command of the service user, in the environment that its units have."""
    uid = subprocess.run(["id", "-u", "archipelago"], capture_output=True, text=True, check=True).stdout.strip()
    variables = [f"HOME={HOME}", "PATH=/usr/bin:/bin", f"XDG_RUNTIME_DIR=/run/user/{uid}"]
    variables.append(f"DBUS_SESSION_BUS_ADDRESS=unix:path=/run/user/{uid}/bus")
    become = ["setpriv", "--reuid", "archipelago", "--regid", "archipelago", "--init-groups"]
    return subprocess.run(
        [*become, "env", "-i", *variables, *command], stdout=subprocess.PIPE, text=True, check=True, cwd="/"
    ).stdout


def wait(what: str, condition: Callable[[], bool], seconds: float = 900) -> None:
    """Wait until a condition holds."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            sys.exit(f"not within {seconds:g} s: {what}")
        time.sleep(1)


def healthy(count: int) -> bool:
    """Whether Podman finds so many containers, and all of them healthy."""
    states = as_user("podman", "ps", "--all", "--format", "{{.Status}}").splitlines()
    return len(states) == count and all("(healthy)" in state for state in states)


def archy_is_well() -> bool:
    """Whether archy thinks so."""
    return subprocess.run(["archy", "status"], stdout=subprocess.DEVNULL, check=False).returncode == 0


def last_pass() -> str:
    """When the last tick ended."""
    command = ["systemctl", "show", "--property=ExecMainExitTimestampMonotonic", "archy-tick.service"]
    return subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout


def start_archy(app_ids: list[str]) -> None:
    """Run the apps by archy."""
    for app_id in app_ids:
        path = Path(f"/etc/archy/apps/{app_id}/manifest.yml")
        path.parent.mkdir()
        path.write_text(MANIFEST.format(id=app_id, httpd=json.dumps(HTTPD)))
    subprocess.run(["systemctl", "start", "archy-reconcile.service"], check=True)
    subprocess.run(["systemctl", "start", *(f"archy-{app_id}" for app_id in app_ids)], check=True)
    wait("archy status says that all is well", archy_is_well)


def start_stock(app_ids: list[str], interval: str) -> None:
    """Run the apps as stock Quadlet files, by the service user's manager; nothing of archy's runs any more."""
    subprocess.run(["systemctl", "stop", *(f"archy*.{kind}" for kind in ("timer", "path", "target"))], check=True)
    subprocess.run(["systemctl", "stop", "archy*"], check=True)
    # Quadlet's units of users wait for it, for 90 s, and nothing else in the node wants it.
    subprocess.run(["systemctl", "start", "network-online.target"], check=True)
    directory = HOME / ".config/containers/systemd"
    as_user("mkdir", "-p", str(directory))
    (directory / "idle.network").write_text("[Network]\nNetworkName=idle\n")
    for app_id in app_ids:
        text = CONTAINER.format(id=app_id, httpd=json.dumps(HTTPD), wget=json.dumps(WGET), interval=interval)
        (directory / f"{app_id}.container").write_text(text)
    as_user("systemctl", "--user", "daemon-reload")
    as_user("systemctl", "--user", "start", *(f"{app_id}.service" for app_id in app_ids))


def used() -> dict[str, int]:
    """The CPU time in microseconds of each cgroup, those below it included, by its path; the node's own is `.`."""
    found = {}
    for path in CGROUPS.rglob("cpu.stat"):
        fields = dict(line.split() for line in path.read_text().splitlines())
        found[str(path.parent.relative_to(CGROUPS))] = int(fields["usage_usec"])
    return found


def places(before: dict[str, int], after: dict[str, int]) -> dict[str, float]:
    """Where the CPU time went, in seconds."""
    spent = {path: value - before.get(path, 0) for path, value in after.items()}
    own = dict(spent)
    for path, value in spent.items():
        if path != ".":
            own[str(Path(path).parent)] -= value
    result = dict.fromkeys(PLACES, 0.0)
    for path, value in own.items():
        result[next(name for name, pattern in PLACES.items() if re.fullmatch(pattern, path))] += value / 1e6
    return result


def main() -> None:
    """Measure, and print JSON."""
    kind, count, seconds = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
    app_ids = [f"idle-{number:04d}" for number in range(count)]
    if kind == "archy":
        start_archy(app_ids)
    else:
        start_stock(app_ids, {"stock": "30s", "none": "1h"}[kind])
    wait("all are healthy", lambda: healthy(count))
    time.sleep(SETTLE)
    if kind == "archy":  # begin between two ticks, so that their number does not depend on chance
        seen = last_pass()
        wait("a tick", lambda: last_pass() != seen, 120)
        time.sleep(14)
    begin = time.monotonic()
    before = used()
    time.sleep(seconds)
    after = used()
    passed = time.monotonic() - begin
    if not healthy(count) or (kind == "archy" and not archy_is_well()):
        sys.exit("not all are healthy any more")
    cpu = (after["."] - before["."]) / 1e6
    print(json.dumps({"cpu": cpu, "core": cpu / passed, "places": places(before, after)}))


if __name__ == "__main__":
    main()
