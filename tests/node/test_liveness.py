# SPDX-License-Identifier: MIT
"""An app that should serve, serves: what is ready is asked again by every tick, and restarted if it is dead."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator

import pytest
from conftest import AS_USER, CommandFailed, Node, fresh_node, standin

CHECKS = {
    "web": "{type: http, endpoint: 'localhost:8080', path: /health, interval: 1s, timeout: 2s, retries: 2}",
    "port": "{type: tcp, endpoint: 'localhost:8080', interval: 1s, timeout: 2s, retries: 2}",
    "order": "{type: exec, command: [wget, -qO, /dev/null, '127.0.0.1:8080/health'], interval: 1s, retries: 2}",
}
SPACED = 1.2  # seconds: more than the interval


@pytest.fixture(scope="module")
def node() -> Iterator[Node]:
    """A node with a stand-in for each kind of check, where ticks come by hand only."""
    with fresh_node("liveness") as fresh:
        for app, check in CHECKS.items():
            fresh.drop(app, standin(app, health=check))
        fresh.out("systemctl start " + " ".join(f"archy-{app}" for app in CHECKS))
        fresh.tick()
        with fresh.without_ticks():
            yield fresh


@pytest.fixture
def calm(node: Node) -> Node:
    """All runs, and nothing was restarted a moment ago."""
    node.wait_active(*CHECKS)
    node.calm()
    tick(node)
    return node


def tick(node: Node, times: int = 1) -> None:
    """Passes, far enough from each other that each asks every app."""
    for _ in range(times):
        time.sleep(SPACED)
        node.tick()


def stop_serving(node: Node, app: str) -> None:
    """Close the listening socket inside a live container: its server ends, its main process stays."""
    pids = " ".join(map(str, node.processes(app)))
    node.out(f"kill -9 $(ps -o pid=,comm= -p {pids.replace(' ', ',')} | awk '$2 == \"httpd\" {{print $1}}')")


def health(node: Node, app: str) -> tuple[str, str]:
    """The app's health in `archy status`, and what is wrong with it."""
    found = node.status()[1]["apps"][app]
    return found["health"], "; ".join(found["problems"])


@pytest.mark.parametrize("app", CHECKS)
def test_what_does_not_serve_is_restarted_after_its_retries(calm: Node, app: str) -> None:
    node = calm
    before = node.pids(*CHECKS)
    assert health(node, app) == ("healthy", "")
    stop_serving(node, app)
    tick(node)
    assert node.pids(*CHECKS) == before  # once is not enough
    tick(node)
    node.wait("another process", lambda: node.pid(app) not in (0, before[app]))
    node.wait_active(app)
    assert {name for name, pid in node.pids(*CHECKS).items() if pid != before[name]} == {app}
    said = node.out("journalctl -u archy-reconcile -o cat -n 20")
    assert f"restart {app} ({app}: does not answer, 2 times in a row: " in said
    tick(node)
    assert health(node, app) == ("healthy", "")


def test_one_answer_between_makes_it_begin_again(calm: Node) -> None:
    """Twice in a row are two in a row: stopped, served again, stopped."""
    node = calm
    before = node.pids(*CHECKS)
    for _ in range(3):
        node.out(f"kill -STOP {before['web']}")  # conmon: the app serves, but a stopped process is a failure
        tick(node)
        tick(node)  # the pass before has let it go on
    assert node.pids(*CHECKS) == before
    assert health(node, "web")[0] == "healthy"


@pytest.mark.parametrize("harm", ["kill -STOP $(pgrep -P {pid})", "kill -STOP {pid}", "systemctl freeze archy-web"])
def test_what_is_held_goes_on(calm: Node, harm: str) -> None:
    node = calm
    before = node.pids(*CHECKS)
    node.out(harm.format(pid=before["web"]))
    tick(node)
    tick(node)
    assert health(node, "web") == ("healthy", "")
    assert node.pids(*CHECKS) == before


def test_an_end_that_a_stopped_conmon_has_not_seen(calm: Node) -> None:
    """The unit reads active, and nobody is there: conmon goes on at the next tick, and systemd hears of it."""
    node = calm
    before = node.pids(*CHECKS)
    inside = node.out(f"pgrep -P {before['web']}")
    node.out(f"kill -STOP {before['web']}; kill -KILL {inside}")
    assert node.active("web") == "active"
    tick(node)
    node.wait("another process", lambda: node.pid("web") not in (0, before["web"]))
    node.wait_active("web")
    assert {name for name, pid in node.pids(*CHECKS).items() if pid != before[name]} == {"web"}
    tick(node)
    assert health(node, "web") == ("healthy", "")


def test_who_fails_again_and_again_is_not_restarted_all_the_time(calm: Node) -> None:
    node = calm
    for _ in range(2):
        before = node.pid("web")
        stop_serving(node, "web")
        tick(node, 2)
        if _ == 0:
            node.wait("the first restart", lambda: node.pid("web") not in (0, before))  # noqa: B023
            node.wait_active("web")
            tick(node)
    assert node.pid("web") == before
    state, said = health(node, "web")
    assert state == "unhealthy"
    assert "does not answer, 2 times in a row: port 8080: Connection refused" in said
    assert "gave up until " in said
    assert "because one restart has not helped" in said
    node.calm()
    tick(node, 2)  # both are counted again
    node.wait("the restart after all", lambda: node.pid("web") not in (0, before))


@pytest.fixture
def idle(calm: Node) -> Iterator[Node]:
    """A node whose load is low. It would have that of its host, on which other tests run at the same time."""
    calm.out("echo '0.10 0.10 0.10 1/100 1' >/run/loadavg; mount --bind /run/loadavg /proc/loadavg")
    yield calm
    calm.out("umount /proc/loadavg")


def test_who_answers_while_systemd_waits_for_ever_is_restarted(idle: Node) -> None:
    """Whatever was lost between the app and systemd: a message, a health timer, Podman's memory of the container."""
    node = idle
    node.drop("untold", standin("untold", env={"READY_AFTER": "20"}, health=CHECKS["web"]))
    node.out("systemctl start --no-block archy-untold")
    node.wait("its container", lambda: node.run("test -s /run/archipelago/archy-untold.cid").returncode == 0)
    identity = node.out("cat /run/archipelago/archy-untold.cid")
    listed = f"({AS_USER} systemctl --user list-units --plain --no-legend '{identity}*.timer' | grep -q .)"
    stop = f"{listed} && ({AS_USER} systemctl --user stop '{identity}*.timer')"
    node.wait("its timer", lambda: node.run(stop).returncode == 0)
    time.sleep(62)
    assert node.active("untold") == "activating"
    before = node.pid("untold")

    def is_restarted() -> bool:
        tick(node)
        return node.pid("untold") not in (0, before)

    node.wait("a restart", is_restarted, 300)
    node.wait_active("untold")
    said = node.out("journalctl -u archy-reconcile -o cat -n 50")
    assert "answers, but systemd was never told that it is ready" in said
    node.out("systemctl stop archy-untold; rm -r /etc/archy/apps/untold; systemctl daemon-reload")


def counted(node: Node) -> dict[str, int]:
    """The processes of the apps: the most of some looks, for a stand-in sleeps a second, and then the next."""
    looks = [{app: len(node.processes(app)) for app in CHECKS} for _ in range(5)]
    return {app: max(look[app] for look in looks) for app in CHECKS}


def test_probes_leave_nothing_behind(calm: Node) -> None:
    """No process, no session of Podman's, nothing in the log."""
    node = calm
    before = counted(node)
    since = node.out("date +%s")
    for _ in range(5):
        node.tick()
    assert counted(node) == before
    assert (
        node.out(
            "systemctl show -p ControlGroup --value archy-probe | xargs -I{} cat /sys/fs/cgroup/{}/cgroup.procs || true"
        )
        == ""
    )
    assert node.out(f"journalctl -o cat --since @{since} -u archy-probe -u archy-order") == ""


@pytest.mark.chaos
def test_a_loaded_machine_restarts_nobody() -> None:
    """40 stand-ins while every CPU is wanted by four, for ten minutes."""
    apps = [f"app-{number:02d}" for number in range(40)]
    with fresh_node("load") as node:
        for app in apps:
            node.write(f"/etc/archy/apps/{app}/manifest.yml", standin(app, health=CHECKS["web"].replace("1s", "30s")))
        node.out("systemctl daemon-reload && systemctl start " + " ".join(f"archy-{app}" for app in apps), timeout=600)
        before = node.pids(*apps)
        hogs = 4 * (os.cpu_count() or 1)
        node.out(f"for i in $(seq {hogs}); do systemd-run -q --unit=hog-$i sh -c 'while :; do :; done'; done")
        ticks = node.out("systemctl show -p ExecMainStartTimestampMonotonic --value archy-tick")
        time.sleep(600)
        assert node.pids(*apps) == before
        assert node.out("systemctl show -p ExecMainStartTimestampMonotonic --value archy-tick") != ticks
        assert "restart" not in node.out("journalctl -u archy-reconcile -o cat")
        node.out("systemctl stop 'hog-*'")
        node.wait("all is well", lambda: node.run("archy status").returncode == 0, 120)


def test_the_service_user_can_do_all_of_it(calm: Node) -> None:
    """The probe needs no right that the service user has not."""
    found = calm.out(f"{AS_USER} /usr/libexec/archy/archy-probe")
    assert '"ok": true' in found
    with pytest.raises(CommandFailed):
        calm.out(f"{AS_USER} /usr/libexec/archy/archy-recover")
