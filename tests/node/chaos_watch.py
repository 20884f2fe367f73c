# SPDX-License-Identifier: MIT
"""Runs inside a node while harm is done to it: every 100 ms, how many copies of each app are alive, and which start.

A copy is a process that is PID 1 of its container, wherever in the node it is: in its unit's cgroup, or as a child of a
conmon that has the app's name. What cannot be told from either is counted as `?`, if it was not seen as a copy before.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path

PERIOD = 0.1
Key = tuple[int, str]  # a PID may come again, but not with the same start


def read(path: str) -> str:
    """A file of /proc, empty if the process is gone."""
    try:
        return Path(path).read_text(errors="replace")
    except OSError:
        return ""


def copies(known: dict[Key, str], names: dict[str, str]) -> dict[str, list[Key]]:
    """All copies that are alive now, by app."""
    found: dict[str, list[Key]] = {}
    for pid in filter(str.isdigit, os.listdir("/proc")):
        status = dict(line.split(":\t", 1) for line in read(f"/proc/{pid}/status").splitlines() if ":\t" in line)
        levels = status.get("NSpid", "").split()
        # pasta makes a PID namespace for itself.
        if len(levels) < 2 or levels[-1] != "1" or status["State"][0] in "ZX" or status["Name"].startswith("pasta"):
            continue
        key = int(pid), born(pid)
        if key not in known or known[key] == "?":
            known[key] = app_of(pid, status["PPid"], names)
        found.setdefault(known[key], []).append(key)
    return found


def born(pid: str) -> str:
    """When a process was started; empty if it is gone."""
    fields = read(f"/proc/{pid}/stat").rpartition(")")[2].split()
    return fields[19] if len(fields) > 19 and fields[0] not in "ZX" else ""


def app_of(pid: str, parent: str, names: dict[str, str]) -> str:
    """The app whose container a process is PID 1 of."""
    unit = os.path.basename(read(f"/proc/{pid}/cgroup").strip())
    if unit.startswith("archy-") and unit.endswith(".service"):
        return unit[len("archy-") : -len(".service")]
    words = read(f"/proc/{parent}/cmdline").split("\0")
    if os.path.basename(words[0]) == "conmon" and "-n" in words:
        name = words[words.index("-n") + 1]
        return names.get(name, name)
    return "?"


def main() -> None:
    """Watch until SIGTERM; argv: where to write, and a JSON mapping of containers to apps."""
    out, names = sys.argv[1], json.loads(sys.argv[2])
    most: dict[str, int] = {}
    down: dict[str, float] = {}
    starts: dict[str, list[str]] = {app: [] for app in names.values()}
    evidence: list[str] = []
    known: dict[Key, str] = {}
    samples, longest, last, stop = 0, 0.0, time.monotonic(), False

    def told(*_: object) -> None:
        nonlocal stop
        stop = True

    signal.signal(signal.SIGTERM, told)
    while True:
        now = time.monotonic()
        found = copies(known, names)
        for app, keys in found.items():
            if len(keys) > 1:  # the one may have ended before the other began, in the course of this look
                keys = [key for key in keys if key[1] and born(str(key[0])) == key[1]]
                if len(keys) > 1 and len(evidence) < 20:
                    evidence.append(f"{time.time():.1f} {app}: {keys}")
            most[app] = max(most.get(app, 0), len(keys))
        for app, seen in starts.items():
            if app not in found:
                down[app] = down.get(app, 0) + now - last
            try:
                invocation = os.readlink(f"/run/systemd/units/invocation:archy-{app}.service")
            except OSError:
                continue
            if invocation not in seen:
                seen.append(invocation)
        longest, last, samples = max(longest, now - last), now, samples + 1
        if stop:
            break
        time.sleep(max(0.0, now + PERIOD - time.monotonic()))
    result = {
        "samples": samples,
        "longest_gap": round(longest, 2),
        "copies": most,
        "evidence": evidence,
        "down": {app: round(seconds, 1) for app, seconds in sorted(down.items()) if seconds >= PERIOD},
        "restarts": {app: len(seen) - 1 for app, seen in sorted(starts.items()) if len(seen) > 1},
    }
    Path(out).write_text(json.dumps(result))


if __name__ == "__main__":
    main()
