# SPDX-License-Identifier: MIT
"""Stops that take long, apps that will not stop, starts that fail, and a Podman that has forgotten its containers."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

from conftest import Node, fresh_node, standin

LONG = 150  # seconds that an app needs after SIGTERM: more than systemd's default of 90
STORAGE = "/var/lib/archipelago/.local/share/containers/storage"


def start(node: Node, app: str, **values: Any) -> None:
    """Drop a stand-in's manifest in and start it."""
    node.drop(app, standin(app, **values))
    node.out(f"systemctl start archy-{app}")


def test_a_long_grace_is_given_on_stop_reboot_and_restart_of_the_user_manager() -> None:
    """Three nodes at a time, as each takes its 150 s."""

    def by_stop(node: Node) -> None:
        node.out("systemctl stop archy-long", timeout=400)

    def by_reboot(node: Node) -> None:
        node.ctl("reboot")

    def by_user_manager(node: Node) -> None:
        node.out("systemctl restart user@$(id -u archipelago).service", timeout=400)

    def run(way: str, stop: object) -> tuple[str, list[str]]:
        assert callable(stop)
        with fresh_node(f"long-{way}") as node:
            start(node, "long", env={"STOP_AFTER": str(LONG)}, grace=LONG + 20)
            stop(node)
            log = "journalctl --output short-unix --no-pager _SYSTEMD_UNIT=archy-long.service"
            script = f"journalctl --sync; {log} | grep standin:"
            lines = [line for line in node.out(script).splitlines() if "got TERM" in line or "bye" in line]
            if way != "stop":
                node.wait_active("long")
            node.nothing_failed()
            return way, lines

    ways = {"stop": by_stop, "reboot": by_reboot, "user": by_user_manager}
    with ThreadPoolExecutor() as pool:
        results = list(pool.map(run, ways, ways.values()))
    for way, lines in results:
        assert ["got TERM" in line for line in lines] == [True, False], (way, lines)
        first, last = (float(line.split()[0]) for line in lines)
        assert last - first >= LONG - 2, way


def test_an_app_that_ignores_sigterm_is_stopped_and_does_not_read_failed(node: Node) -> None:
    start(node, "deaf", env={"IGNORE_TERM": "1"}, grace=4)
    node.out("systemctl stop archy-deaf", timeout=4 + 15)
    assert (node.active("deaf"), node.show("archy-deaf", "Result")) == ("inactive", "success")
    assert node.processes("deaf") == []


def test_also_when_podman_has_forgotten_it(node: Node) -> None:
    for app, env in {"deaf": {"IGNORE_TERM": "1"}, "slow": {"STOP_AFTER": "5"}}.items():
        start(node, app, env=env, grace=8)
    with node.without_ticks():  # a pass would start them again
        node.out(f"rm {STORAGE}/db.sql*")
        assert "deaf" not in node.podman("ps --format '{{.Names}}'").split()
        node.out("systemctl stop archy-deaf archy-slow", timeout=8 + 15 + 5)
    for app in ("deaf", "slow"):
        assert (node.active(app), node.show(f"archy-{app}", "Result")) == ("inactive", "success")
        assert node.processes(app) == []
    log = node.out("journalctl --sync; journalctl --unit archy-slow --output cat")
    assert log.rindex("got TERM") < log.rindex("bye")
    node.out("systemctl start archy-deaf archy-slow")
    for app in ("deaf", "slow"):
        assert node.out(f"pgrep -c -P {node.pid(app)}") == "1"


def test_restart_after_a_lost_database_never_makes_two_copies(node: Node) -> None:
    groups = "for pid in $(pgrep -f -x '/bin/sh /standin'); do grep ^0:: /proc/$pid/cgroup 2>/dev/null || true; done"
    with node.without_ticks():  # a pass would replace the one that Podman has forgotten
        node.out(f"rm {STORAGE}/db.sql*; systemctl restart archy-slow")
        found = {line.rpartition("/archipelago-apps.slice/")[2] for line in node.out(groups).splitlines()}
        assert node.out(f"pgrep -c -P {node.pid('slow')}") == "1"
    assert found
    assert found <= {"archy-deaf.service", "archy-slow.service"}


def test_a_hung_podman_does_not_take_the_grace_away(node: Node) -> None:
    start(node, "hung", env={"STOP_AFTER": "5"}, grace=8)
    node.write("/usr/local/hang/podman", "#!/bin/sh\nsleep 1000\n")
    node.write(
        "/run/systemd/system/archy-hung.service.d/path.conf", "[Service]\nEnvironment=PATH=/usr/local/hang:/usr/bin\n"
    )
    node.out("chmod +x /usr/local/hang/podman; systemctl daemon-reload")
    node.out("systemctl stop archy-hung", timeout=60)
    assert (node.active("hung"), node.show("archy-hung", "Result")) == ("inactive", "success")
    assert node.processes("hung") == []
    log = node.out("journalctl --sync; journalctl --unit archy-hung --output cat")
    assert log.rindex("got TERM") < log.rindex("bye")
    node.out("rm -r /run/systemd/system/archy-hung.service.d /etc/archy/apps/hung; systemctl daemon-reload")


def test_a_lost_network_is_made_again(node: Node) -> None:
    start(node, "alone", container=["network: alone-net"])
    node.out("systemctl stop archy-alone")
    node.podman("network rm alone-net")
    node.run("systemctl start archy-alone")
    node.wait_active("alone")
    node.out("archy app remove alone")


def test_a_kill_shows_and_the_app_comes_back(node: Node) -> None:
    start(node, "killed")
    node.out(f"kill -9 $(pgrep -P {node.pid('killed')})")
    node.wait("a restart", lambda: int(node.show("archy-killed", "NRestarts")) >= 1)
    node.wait_active("killed")
    assert "The app was killed (SIGKILL)" in node.out("journalctl --sync; journalctl --unit archy-killed --output cat")
    node.out("systemctl stop archy-killed")
    assert node.out("journalctl --sync; journalctl --unit archy-killed --output cat").count("was killed") == 1


def test_a_crash_shows_and_the_app_comes_back(node: Node) -> None:
    start(node, "crash", env={"EXIT_AFTER": "4", "EXIT_CODE": "3"}, health="")
    node.wait("a restart", lambda: int(node.show("archy-crash", "NRestarts")) >= 1)
    node.wait_active("crash")
    # Where PID 1 is slow, it may find that Podman has gone before its message with the main PID was read: that start
    # ends at once, without an exit status, and the next one counts.
    log = "journalctl --sync; journalctl --unit archy-crash --output cat | grep -F"
    for line in ("Main process exited, code=exited, status=3", "Failed with result 'exit-code'"):
        node.wait(line, lambda line=line: node.run(f'{log} "{line}"').returncode == 0, 120)  # type: ignore[misc]
    node.out("systemctl stop archy-crash")


def test_exit_with_0_is_restarted_too(node: Node) -> None:
    start(node, "leaves", env={"EXIT_AFTER": "3"}, health="")
    node.wait("a restart", lambda: int(node.show("archy-leaves", "NRestarts")) >= 1)
    node.wait_active("leaves")
    node.out("systemctl stop archy-leaves")


def test_failing_starts_back_off_and_never_end(node: Node) -> None:
    node.drop("fails", standin("fails", env={"CRASH": "1"}))
    node.run("systemctl start archy-fails")
    node.wait("six attempts", lambda: int(node.show("archy-fails", "NRestarts")) >= 5, 180)
    assert node.show("archy-fails", "RestartUSecNext") not in ("1s", "infinity")
    assert node.active("slow") == "active"
    node.out("systemctl stop archy-fails")
    assert set(node.failed()) <= {"archy-fails.service"}  # by what the stop came upon, it reads failed or inactive
    node.out("systemctl reset-failed")


def test_a_missing_image_says_so(node: Node) -> None:
    node.drop("noimage", standin("noimage", "localhost/nowhere:1"))
    node.out("systemctl start --no-block archy-noimage")
    said = "cannot be had: localhost/nowhere:1 is not on this node"
    node.wait("the reason", lambda: said in node.run("archy status").stdout)
    assert node.active("noimage") == "inactive"
    node.out("systemctl stop archy-noimage; rm -r /etc/archy/apps/noimage; systemctl daemon-reload")


def test_start_timeout_counts_as_failed(node: Node) -> None:
    node.drop("late", standin("late", env={"READY_AFTER": "100000"}, extra=["start_timeout_secs: 4"], grace=2))
    assert node.run("systemctl start archy-late", timeout=60).returncode == 1
    assert "timeout" in node.out("journalctl --sync; journalctl --unit archy-late --output cat")
    node.out("systemctl stop archy-late; rm -r /etc/archy/apps/late; systemctl daemon-reload")


def test_order_without_pulling_in(node: Node) -> None:
    """A dependent is ordered after what it needs, but neither starts nor stops it."""
    start(node, "base")
    start(node, "upper", extra=["dependencies:", "  - app_id: base"])
    node.out("systemctl stop archy-base")
    assert node.active("upper") == "active"
    node.out(f"kill -9 {node.pid('upper')}")
    node.wait("a restart", lambda: int(node.show("archy-upper", "NRestarts")) >= 1)
    node.wait_active("upper")
    assert node.active("base") == "inactive"
    assert "archy-base.service" in node.show("archy-upper", "After").split()


def test_the_session_of_the_user_ending_stops_nothing(node: Node) -> None:
    pid = node.pid("slow")
    node.out("systemd-run --quiet --user -M archipelago@ --wait true", timeout=60)
    sessions = "systemctl list-units --plain --no-legend 'session-*.scope'"
    node.wait("no session is left", lambda: node.out(sessions) == "")
    node.out("systemctl restart systemd-logind")
    assert node.pid("slow") == pid
    assert node.active("slow") == "active"


def test_files_that_matter_are_fsynced_before_the_rename(node: Node) -> None:
    extra = [
        "  generated_files:",
        "    - {path: /var/lib/archipelago/synced/made.conf, content: made, overwrite: true}",
        "  generated_secrets: [{name: synced-password, kind: hex32}]",
    ]
    calls = "trace=fsync,rename,renameat,renameat2,openat"
    script = f"strace -f -y -qq -e {calls} /usr/libexec/archy/archy-prepare synced 2>&1 | grep -E 'fsync|rename'"
    with node.without_ticks():
        node.tick()
        node.write("/etc/archy/apps/synced/manifest.yml", standin("synced", container=[line[2:] for line in extra]))
        lines = node.out(script).splitlines()
    for name in ("synced-password", "made.conf", "manifest.yml"):
        rename = next(i for i, line in enumerate(lines) if "rename" in line and f'"{name}"' in line)
        before = [line for line in lines[:rename] if "fsync" in line and f".archy-new-{name}" in line]
        after = [line for line in lines[rename:] if "fsync" in line]
        assert before, name
        assert after, name
