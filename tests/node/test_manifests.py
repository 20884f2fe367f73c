# SPDX-License-Identifier: MIT
"""A manifest's life on a node: dropped in, changed, turned bad, deleted; and who wins over what we generate."""

from __future__ import annotations

import pytest
from conftest import AS_USER, Node, fresh_node, standin

BAD = standin("one").replace("app:\n", "app:\n  nmae: x\n")
REASON = "/etc/archy/apps/one/manifest.yml:2:3: app.nmae: is not a known key; did you mean name?"


def start(node: Node, app: str, manifest: str) -> None:
    """Drop a manifest in and start it."""
    node.drop(app, manifest)
    node.out(f"systemctl start archy-{app}")


def test_dropped_in_changed_and_restarted(node: Node) -> None:
    start(node, "one", standin("one", port=18001))
    assert node.out("curl -sf http://127.0.0.1:18001/health") == "ok"
    assert node.show("archy-one", "SourcePath") == "/etc/archy/apps/one/manifest.yml"
    pid = node.pid("one")
    node.drop("one", standin("one", port=18002))
    assert (node.pid("one"), node.active("one")) == (pid, "active")
    assert node.out("curl -sf http://127.0.0.1:18001/health") == "ok"
    node.out("systemctl restart archy-one")
    assert node.out("curl -sf http://127.0.0.1:18002/health") == "ok"
    assert node.run("curl -sf http://127.0.0.1:18001/health").returncode != 0


def test_turned_bad_the_last_good_version_stays_in_force(node: Node) -> None:
    pid = node.pid("one")
    node.drop("one", BAD)
    assert node.pid("one") == pid
    assert REASON in node.out("systemctl status archy-one --no-pager")
    node.out("systemctl restart archy-one")
    assert node.out("curl -sf http://127.0.0.1:18002/health") == "ok"
    node.out("systemctl stop archy-one")
    node.nothing_failed()
    node.out("systemctl start archy-one")


def test_bad_without_a_good_version_states_the_reason(node: Node) -> None:
    node.drop("new", BAD.replace("one", "new").replace("grace_secs: 10", "grace_secs: x"))
    assert node.run("systemctl start archy-new").returncode == 1
    status = node.run("journalctl --sync; systemctl status archy-new --no-pager --lines 20").stdout
    assert REASON.replace("one", "new") in status
    assert 'app.stop_grace_secs: must be a whole number, is "x"' in status
    assert "status=78/CONFIG" in status
    assert node.active("one") == "active"
    node.out("rm -r /etc/archy/apps/new && systemctl daemon-reload && systemctl reset-failed archy-new")


def test_deleted_while_running_still_stops_well_and_then_is_gone(node: Node) -> None:
    start(node, "gone", standin("gone", env={"STOP_AFTER": "3"}))
    pid = node.pid("gone")
    node.out("mv /etc/archy/apps/gone /root/gone && systemctl daemon-reload && systemctl daemon-reload")
    assert (node.pid("gone"), node.active("gone")) == (pid, "active")
    assert "its manifest is gone" in node.out("systemctl status archy-gone --no-pager")
    node.out("systemctl stop archy-gone")
    assert node.show("archy-gone", "Result") == "success"
    log = node.out("journalctl --sync; journalctl --unit archy-gone --output cat")
    assert log.index("got TERM") < log.index("bye")
    node.out("systemctl daemon-reload")
    assert node.show("archy-gone", "LoadState") == "not-found"
    assert node.processes("gone") == []


def test_never_accepted_and_bad_while_running_still_stops_well(node: Node) -> None:
    start(node, "bad", standin("bad", env={"STOP_AFTER": "2"}))
    node.out("rm -r /etc/archy/accepted/bad /etc/archy/accepted/.bad-*")
    node.drop("bad", BAD)
    assert node.active("bad") == "active"
    node.out("systemctl stop archy-bad")
    assert "bye" in node.out("journalctl --sync; journalctl --unit archy-bad --output cat")
    node.out("rm -r /etc/archy/apps/bad && systemctl daemon-reload")


def test_an_operators_native_unit_wins_whole(node: Node) -> None:
    native = "[Service]\nExecStart=/bin/sleep infinity\n"
    node.write("/etc/systemd/system/archy-native.service", native)
    node.drop("native", standin("native"))
    node.out("systemctl start archy-native")
    shown = node.out("systemctl cat archy-native")
    assert shown.splitlines()[0] == "# /etc/systemd/system/archy-native.service"
    assert shown.count("\n# /") == 0
    assert node.show("archy-native", "User") == ""
    assert node.show("archy-native", "DropInPaths") == ""
    assert node.out(f"cat /proc/{node.pid('native')}/comm") == "sleep"
    node.out("systemctl stop archy-native; rm -r /etc/systemd/system/archy-native.service /etc/archy/apps/native")
    node.out("systemctl daemon-reload")


def test_an_operators_drop_in_wins(node: Node) -> None:
    node.write("/etc/systemd/system/archy-one.service.d/my.conf", "[Service]\nTimeoutStopSec=77\nNice=5\n")
    node.out("systemctl daemon-reload")
    assert node.show("archy-one", "TimeoutStopUSec") == "1min 17s"
    assert node.show("archy-one", "Nice") == "5"
    node.out("rm -r /etc/systemd/system/archy-one.service.d && systemctl daemon-reload")


def test_values_arrive_byte_for_byte(node: Node) -> None:
    value = """a 'b' "c" $d ${e} %n %% \\n \\ # ; |&"""
    quoted = value.replace("'", "''")
    extra = ["environment:", f"  - 'NASTY={quoted}'", "  - PORT=8080"]
    manifest = standin("nasty", env={}).replace("  environment:\n    - PORT=8080\n", "")
    start(node, "nasty", manifest + "\n".join(f"  {line}" for line in extra) + "\n")
    shown = node.podman("exec nasty sh -c 'printf %s \"$NASTY\"'")
    assert shown == value
    node.out("systemctl stop archy-nasty; rm -r /etc/archy/apps/nasty; systemctl daemon-reload")


def test_checks_work_in_an_image_without_a_shell(node: Node) -> None:
    for app, check in {
        "http": "{type: http, endpoint: 'http://localhost:8080', path: /health}",
        "tcp": "{type: tcp, endpoint: 'localhost:8080'}",
    }.items():
        name = f"noshell-{app}"
        start(node, name, standin(name, "localhost/archy-noshell:1", health=check, grace=2))
        assert node.active(name) == "active"
        for program in ("sh", "wget", "curl"):
            done = node.run(f"{AS_USER} podman exec {name} {program}")
            assert (done.returncode, "not found" in done.stderr) == (127, True), done.stderr
        node.out(f"systemctl stop archy-{name}; rm -r /etc/archy/apps/{name}")


def test_start_waits_for_readiness(node: Node) -> None:
    node.drop("slow", standin("slow", env={"READY_AFTER": "6"}, port=18006))
    node.out("systemctl start --no-block archy-slow")
    node.wait("slow is starting", lambda: node.active("slow") == "activating")
    node.out("systemctl start archy-slow && curl -sf http://127.0.0.1:18006/health")
    node.out("systemctl stop archy-slow; rm -r /etc/archy/apps/slow; systemctl daemon-reload")


def test_named_volume_keeps_its_data(node: Node) -> None:
    extra = ["volumes:", "  - {type: volume, source: kept-data, target: /kept}"]
    start(node, "kept", standin("kept", extra=extra))
    node.podman("exec kept sh -c 'echo still here > /kept/note'")
    node.out(
        "systemctl restart archy-kept-data-volume archy-kept && systemctl stop archy-kept && systemctl start archy-kept"
    )
    assert node.podman("exec kept cat /kept/note") == "still here"
    node.out("systemctl stop archy-kept; rm -r /etc/archy/apps/kept; systemctl daemon-reload")


def test_boot_with_a_bad_manifest_brings_every_other_app_up(node: Node) -> None:
    node.drop("other", standin("other"))
    node.write("/etc/archy/apps/bad/manifest.yml", "app: [\n")
    node.out("mkdir -p '/etc/archy/apps/Not An App'; ln -s /nowhere /etc/archy/apps/dangling")
    node.ctl("reboot")
    node.wait_active("one", "other")
    bad = {"archy-bad.service", "archy-dangling.service", "archy-prepare.service"}
    node.wait("no others have failed", lambda: set(node.failed()) == bad, 90)
    assert node.out("systemctl is-active multi-user.target") == "active"
    node.out("rm -r /etc/archy/apps/bad '/etc/archy/apps/Not An App' /etc/archy/apps/dangling; systemctl daemon-reload")
    node.out("systemctl reset-failed")


def test_an_app_that_never_gets_ready_does_not_hold_up_the_boot(node: Node) -> None:
    node.drop("never", standin("never", env={"READY_AFTER": "100000"}))
    node.ctl("reboot", "--no-wait")
    node.wait("multi-user.target", lambda: node.run("systemctl is-active multi-user.target").returncode == 0)
    node.wait_active("one", "other")
    node.wait("its start", lambda: node.active("never") == "activating")
    node.out("systemctl stop archy-never")
    node.nothing_failed()
    node.out("rm -r /etc/archy/apps/never; systemctl daemon-reload")


def test_masked_generator_leaves_nothing_behind() -> None:
    with fresh_node("masked") as node:
        node.drop("one", standin("one"))
        assert node.show("archy-one", "LoadState") == "loaded"
        mask = "/etc/systemd/system-generators/archy-generator"
        node.out(f"mkdir -p $(dirname {mask}); ln -s /dev/null {mask}; systemctl daemon-reload")
        assert node.show("archy-one", "LoadState") == "not-found"
        assert node.out("find /run/systemd/generator* -name '*arch*' -o -name 'user@*'") == ""


def test_generated_units_verify(node: Node) -> None:
    """The node has no man, so that Documentation= cannot be looked up; nothing else may be said."""
    said = node.run("systemd-analyze verify /run/systemd/generator/archy-*.service /usr/lib/systemd/system/archy* 2>&1")
    assert [line for line in said.stdout.splitlines() if "Command 'man " not in line] == []


@pytest.mark.parametrize("verb", ["cold", "warm"])
def test_generator_under_a_read_only_root_writes_only_its_output(node: Node, verb: str) -> None:
    clear = "rm -rf /etc/archy/accepted/*.units /etc/archy/accepted/.snapshot;" if verb == "cold" else ""
    script = f"""
        {clear} mkdir -p /run/out && mount -t tmpfs out /run/out && touch /run/before && sleep 0.1
        unshare --mount sh -ec 'mount --make-rprivate /; mount -o bind / /mnt; mount -o remount,bind,ro /mnt
            mount --rbind /run /mnt/run; mount -o remount,bind,ro /mnt/run; mount -o bind /run/out /mnt/run/out
            mount --rbind /proc /mnt/proc; mount --rbind /sys /mnt/sys
            exec chroot /mnt strace -f -qq -e trace=openat,mkdir,mkdirat,rename,renameat,unlink,symlink,symlinkat \\
                -o /run/out/.trace /usr/lib/systemd/system-generators/archy-generator /run/out'
        rm /run/out/.trace; cd /run/out; find . ! -type d | sort; cat $(find . -type f | sort) | sha256sum
        umount -l /run/out
    """
    lines = node.out(script).splitlines()
    uid = node.out("id -u archipelago")
    apps = node.out("ls /etc/archy/apps").split()
    wants = [f"./{by}.wants/archy-{app}.service" for by in ("archy-all.service", "archy.target") for app in apps]
    units = [f"./archy-{app}.service" for app in apps]
    drop_ins = [f"./{unit}.d/50-archy.conf" for unit in ("archy-image@.service", f"user@{uid}.service")]
    expected = [*wants, *units, "./archy-net-network.service", *drop_ins]
    assert lines[:-1] == sorted(expected)
    generated = node.out("cd /run/systemd/generator && cat $(find . -type f | sort) | sha256sum")
    assert lines[-1] == generated
