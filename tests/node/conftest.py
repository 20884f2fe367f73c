# SPDX-License-Identifier: MIT
"""Tests on booted nodes. A `Node` is a real Debian 13 system with the package installed (see tests/nodectl)."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import nodes.node
import pytest
from nodes.common import environment
from nodes.inside import step_inside
from progress import Progress, spent

pytest.register_assert_rewrite("matrix")  # so that it says what was found
NODECTL = str(Path(__file__).resolve().parent.parent / "nodectl")
# As the service user, with the environment that Podman wants.
AS_USER = (
    "cd / && exec setpriv --reuid archipelago --regid archipelago --init-groups env -i HOME=/var/lib/archipelago"
    " PATH=/usr/bin:/bin XDG_RUNTIME_DIR=/run/user/$(id -u archipelago)"
    " DBUS_SESSION_BUS_ADDRESS=unix:path=/run/user/$(id -u archipelago)/bus "
)

# Files of tests that take longest, by `make test` on two processors; what is not named takes less than a minute.
LONGEST = (
    "chaos_podman alternatives passes power lifecycle bench liveness recovery logins databases stacks images hooks"
)

TICKS = "archy-reconcile.timer archy-reconcile.path"


class CommandFailed(Exception):
    """A command in a node ended with another status than 0; the text has its output."""


@dataclass(frozen=True)
class Node:
    """A test node by its name."""

    name: str

    def ctl(self, verb: str, *arguments: str, timeout: float = 900) -> None:
        """Run a verb of nodectl on this node."""
        with spent(f"nodectl {verb}"):
            done = subprocess.run(
                [NODECTL, verb, self.name, *arguments], capture_output=True, text=True, timeout=timeout, check=False
            )
        if done.returncode:
            raise CommandFailed(f"nodectl {verb} {self.name}: {done.returncode}\n{done.stdout}{done.stderr}")

    def run(self, script: str, stdin: str | None = None, timeout: float = 300) -> subprocess.CompletedProcess[str]:
        """Run a shell script in the node as root, whatever its exit status."""
        with spent("run: " + script.strip().removeprefix(AS_USER).partition("\n")[0][:50]):
            # As `nodectl exec` does it, which would start another Python each time.
            return subprocess.run(
                ["bash", "-c", script],
                preexec_fn=partial(step_inside, nodes.node.Node(self.name)),
                env=environment(),
                input=stdin,
                stdin=subprocess.DEVNULL if stdin is None else None,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=timeout,
                check=False,
            )

    def out(self, script: str, stdin: str | None = None, timeout: float = 300) -> str:
        """The output of a script that must succeed."""
        done = self.run(script, stdin, timeout)
        if done.returncode:
            raise CommandFailed(f"{script}\nexit status {done.returncode}\n{done.stdout}{done.stderr}")
        return done.stdout.strip()

    def podman(self, arguments: str, timeout: float = 120) -> str:
        """The output of a Podman command of the service user."""
        return self.out(f"{AS_USER} podman {arguments}", timeout=timeout)

    def show(self, unit: str, name: str) -> str:
        """One property of a unit."""
        return self.out(f"systemctl show --property={name} --value {unit}")

    def pid(self, app: str) -> int:
        """The main PID of an app's unit."""
        return int(self.show(f"archy-{app}", "MainPID"))

    def pids(self, *apps: str) -> dict[str, int]:
        """The main PIDs of the units of these apps; 0 for one that does not run."""
        values = self.out("systemctl show --property=MainPID --value " + " ".join(f"archy-{app}" for app in apps))
        return dict(zip(apps, map(int, values.split()), strict=True))

    def active(self, app: str) -> str:
        """The state of an app's unit: active, activating, inactive, failed."""
        return self.show(f"archy-{app}", "ActiveState")

    def processes(self, app: str) -> list[int]:
        """All processes in the cgroup of an app's unit."""
        base = "/sys/fs/cgroup/archipelago.slice/archipelago-apps.slice"
        return [
            int(pid) for pid in self.out(f"cat {base}/archy-{app}.service/cgroup.procs 2>/dev/null || true").split()
        ]

    def write(self, path: str, text: str) -> None:
        """Write a file in the node, and the directories above it."""
        self.out(f"mkdir -p $(dirname {path}) && cat > {path}", stdin=text)

    def drop(self, app: str, manifest: str) -> None:
        """Put an operator's own manifest in place and reload."""
        self.write(f"/etc/archy/apps/{app}/manifest.yml", manifest)
        self.out("systemctl daemon-reload")

    def wait(self, what: str, condition: Callable[[], bool], seconds: float = 60) -> None:
        """Wait until a condition holds, and fail with its name and the node's state if it does not."""
        with spent(f"wait: {what}"):
            self._wait(what, condition, seconds)

    def _wait(self, what: str, condition: Callable[[], bool], seconds: float) -> None:
        end = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > end:
                state = self.run(
                    "archy status; systemctl list-units 'archy*' --all --no-pager; journalctl -n 30 --no-pager"
                ).stdout
                pytest.fail(f"not within {seconds:g} s: {what}\n{state}")
            time.sleep(0.2)

    def passes_until(self, what: str, condition: Callable[[], bool], seconds: float = 60) -> None:
        """Have passes made until a condition holds: who is not testing the timer need not wait for it."""

        def holds() -> bool:
            if condition():
                return True
            self.tick()
            return condition()

        self.wait(what, holds, seconds)

    def wait_active(self, *apps: str, seconds: float = 60) -> None:
        """Wait until the units of all these apps are active."""
        self.wait(f"{', '.join(apps)} active", lambda: all(self.active(app) == "active" for app in apps), seconds)

    def bitcoin(self, arguments: str) -> str:
        """The output of bitcoin-cli in the container."""
        return self.podman(f"exec bitcoin-knots bitcoin-cli -datadir=/data -conf=/data/bitcoin.conf {arguments}")

    def height(self) -> int:
        """The height of the chain, asked through the companion's proxy."""
        call = json.dumps({"method": "getblockcount", "params": []})
        answer = self.out(f"curl -sf -H 'Content-Type: application/json' -d '{call}' http://127.0.0.1:8334/rpc")
        result: int = json.loads(answer)["result"]
        return result

    def tick(self) -> None:
        """A pass, as the timer makes it: one that begins now, with a probe of its own, and not one under way."""
        began = time.monotonic() * 1e6  # a node's clock is its host's
        began_at = "systemctl show --property=ExecMainStartTimestampMonotonic --value archy-probe archy-reconcile"
        with spent("pass"):
            for _ in range(3):
                if all(int(at) >= began for at in self.out(f"systemctl start archy-reconcile && {began_at}").split()):
                    return

    @contextmanager
    def without_ticks(self) -> Iterator[None]:
        """No pass is made but those that a test makes, and none is under way.

        By a condition, as the start of any app wants the timer; and what is masked, systemd forgets, with all that
        only it refers to.
        """
        self.out(
            f"for unit in {TICKS}; do mkdir -p /run/systemd/system/$unit.d &&"
            " printf '[Unit]\nConditionPathExists=/nowhere\n' >/run/systemd/system/$unit.d/no-ticks.conf || exit; done;"
            f" systemctl daemon-reload; systemctl stop {TICKS}"
        )
        at_work = "systemctl list-jobs --no-legend | grep -qE 'archy-(reconcile|probe|recover|tick).service'"
        try:
            self.wait("no pass is under way", lambda: self.run(at_work).returncode == 1, 120)
            yield
        finally:
            self.with_ticks()

    def with_ticks(self) -> None:
        """Ticks come again."""
        self.out(
            f"for unit in {TICKS}; do rm -rf /run/systemd/system/$unit.d; done;"
            f" systemctl daemon-reload; systemctl start {TICKS}"
        )

    def calm(self) -> None:
        """Forget recent restarts, which would make the next ones wait: as if ten minutes had passed."""
        self.out("flock /run/archy/pass.lock rm -f /run/archy/status.json")  # a pass under way would write it again

    def status(self) -> tuple[int, dict[str, Any]]:
        """The exit code of `archy status`, and what it says to a program."""
        done = self.run("archy status --json")
        try:
            return done.returncode, json.loads(done.stdout)
        except ValueError:
            raise CommandFailed(f"archy status: {done.returncode}\n{done.stdout}{done.stderr}") from None

    def failed(self) -> list[str]:
        """The units that read failed."""
        return self.out("systemctl --failed --plain --no-legend | cut -d' ' -f1").split()

    def nothing_failed(self) -> None:
        """Wait until no unit reads failed: a look at Podman does until the next tick, if it came in a bad moment."""
        self.wait("no unit reads failed", lambda: self.failed() == [], 90)


def standin(app: str, image: str = "localhost/archy-standin:1", **values: Any) -> str:
    """A manifest of a stand-in. `env` tells it how to behave, `health` is a health check, `extra` more keys."""
    env = {"PORT": "8080", **values.get("env", {})}
    lines = ["app:", f"  id: {app}", f"  name: Stand-in {app}", "  version: '1'", "  container:", f"    image: {image}"]
    lines += ["    pull_policy: never", *(f"    {line}" for line in values.get("container", ()))]
    lines += [f"  stop_grace_secs: {values.get('grace', 10)}"]
    health = values.get("health", "{type: http, endpoint: 'localhost:8080', path: /health, interval: 1s}")
    lines += [f"  health_check: {health}"] if health else []
    if env and "standin" in image:
        lines += ["  environment:", *(f"    - {key}={value}" for key, value in env.items())]
    if "port" in values:
        lines += ["  ports:", f"    - {{host: {values['port']}, container: 8080, bind: 127.0.0.1}}"]
    return "\n".join([*lines, *(f"  {line}" for line in values.get("extra", ()))]) + "\n"


@contextmanager
def fresh_node(name: str) -> Iterator[Node]:
    """A fresh node, removed afterwards unless ARCHY_KEEP_NODES is set. Two clones at work need two prefixes."""
    node = Node(os.environ.get("ARCHY_NODE_PREFIX", "t-") + name)
    node.ctl("rm")
    node.ctl("start", "--memory", timeout=1800)
    try:
        yield node
    finally:
        if "ARCHY_KEEP_NODES" not in os.environ:
            node.ctl("rm")


@pytest.fixture(scope="module")
def node(request: pytest.FixtureRequest) -> Iterator[Node]:
    """A fresh node for the tests of one file."""
    with fresh_node(request.module.__name__.removeprefix("test_").replace("_", "-")[:9]) as fresh:
        yield fresh


def pytest_configure(config: pytest.Config) -> None:
    """Say how far the tests are, and what they wait for."""
    config.pluginmanager.register(Progress(config, "node"))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the files that take longest: a worker that gets one of them last would be alone with it."""
    places = {f"test_{name}": place for place, name in enumerate(LONGEST.split())}
    items.sort(key=lambda item: places.get(item.path.stem, len(places)))


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Show what came of all harm that was done, see chaos.py, and of all events of apps, see matrix.py."""
    import chaos  # which need this module
    import matrix

    reports = [report for kind in ("passed", "failed") for report in terminalreporter.stats.get(kind, ())]
    for name, table in (("chaos", chaos.table), ("matrix", matrix.table)):
        rows = [value for report in reports for key, value in report.user_properties if key == name]
        if rows:
            terminalreporter.section(name)
            for line in table(rows):
                terminalreporter.write_line(line)
            if name == "matrix":
                matrix.write(rows)
