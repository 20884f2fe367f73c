# SPDX-License-Identifier: MIT
# ruff: noqa: E501 - a case is a line
"""One pass over a node, with a systemd that only says what it is told to: what is done, and when nothing is."""

from __future__ import annotations

import functools
import json
import os
import re
import shutil
import subprocess
import time
from collections.abc import Callable
from typing import Any

import pytest
from probes import file, pack
from support import Node, app_text

from archy import paths
from archy.host import locks, systemd
from archy.prepare import starts
from archy.reconcile import reconcile, unchanged
from archy.units import generator

pytestmark = [
    pytest.mark.programs,
    pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files to the service user"),
]

D = "/var/lib/archipelago"
OUT = "/run/systemd/generator"
UNITS = ("web", "ui")


def app(app_id: str, more: str = "", about: str = "") -> str:
    files = f"generated_files: [{{path: {D}/{app_id}/f, overwrite: true, template: t.j2}}]"
    return app_text(app_id, f"generated_secrets: [{{name: p, kind: hex32}}]\n{files}\n{more}", about)


class Systemd:
    """Runs `web` and `ui`, and notes what it is asked to do. A restart is one, and a reload too."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self.asked: list[str] = []
        self.listed = 0
        self.starts = dict.fromkeys(UNITS, 1)
        self.states: dict[str, dict[str, Any]] = {}
        self.masked = False
        self.failing = ""
        self.refused = ""  # how the words begin that fail

    def units(self, names: list[str]) -> dict[str, systemd.Unit]:
        active = {"loaded": True, "active": "active", "sub": "running", "changed": 1.0, "began": 1.0}
        fields: dict[str, dict[str, Any]] = {name: {**active, **self.states.get(name, {})} for name in names}
        for app_id, count in self.starts.items():
            fields.setdefault(f"archy-{app_id}.service", {})["invocation"] = f"{app_id}{count}"
        return {name: systemd.Unit(name, **fields[name]) for name in names}

    def ctl(self, *words: str) -> None:
        self.asked.append(" ".join(words))
        if self.failing and words[0].startswith(self.refused):
            raise subprocess.CalledProcessError(1, "systemctl", stderr=self.failing)
        if words[0] == "daemon-reload":
            self.reload()
        elif words[0] == "try-restart":
            for name in words[4:]:
                self.start(name.removeprefix("archy-").removesuffix(".service"))

    def reload(self) -> None:
        if not self.masked:
            shutil.rmtree(self.node.path(OUT), ignore_errors=True)
            self.node.path(OUT).mkdir(parents=True)
            generator.generate(self.node.name, str(self.node.path(OUT)))

    def start(self, app_id: str) -> None:
        self.starts[app_id] += 1
        self.node.failures(app_id, retry_failed=True)
        starts.record(self.node.name, app_id, f"{app_id}{self.starts[app_id]}")

    def listing(self, command: list[str]) -> bytes:
        assert command[:2] == ["systemctl", "list-units"]
        self.listed += 1
        return repr((self.starts, self.states)).encode()


@pytest.fixture
def pid1(node: Node, monkeypatch: pytest.MonkeyPatch) -> Systemd:
    """A node with two apps that run, on which a pass has found all well."""
    node.app("web", app("web"), **{"t.j2": "{{ secret('p') }}"})
    node.app("ui", app("ui", about="restart_when_changed: true"), **{"t.j2": "plain"})
    one = Systemd(node)
    monkeypatch.setattr(systemd, "units", one.units)
    monkeypatch.setattr(systemd, "systemctl", one.ctl)
    monkeypatch.setattr(systemd, "journal", lambda *_: [])
    monkeypatch.setattr(unchanged, "output", one.listing)
    node.failures()
    one.reload()
    for app_id in UNITS:
        one.start(app_id)
    node.write(paths.PROBE, pack(file(UNITS)))
    assert reconcile.run(node.name, dry=False) == 0
    assert (one.asked, status(node)["level"]) == ([], "ok")
    return one


def status(node: Node) -> Any:
    return json.loads(node.path(paths.STATUS).read_text())


def tick(pid1: Systemd) -> list[str]:
    """Make a pass: what systemd was asked to do."""
    pid1.asked = []
    assert reconcile.run(pid1.node.name, dry=False) == 0
    return pid1.asked


def write(path: str, text: str) -> Callable[[Node], object]:
    return lambda node: node.write(path, text)


WEB = "try-restart --no-block --job-mode=fail -- archy-web.service"
UI = "try-restart --no-block --job-mode=fail -- archy-ui.service"
RELOAD = "daemon-reload"


@pytest.mark.parametrize(
    ("change", "asked"),
    [
        pytest.param(lambda _: None, [], id="nothing"),
        pytest.param(write(f"{D}/web/f", "tampered"), [], id="tampered"),
        pytest.param(lambda node: node.path(f"{D}/web/f").unlink(), [], id="lost"),
        pytest.param(write("/etc/archy/apps/web/t.j2", "other"), [WEB], id="template"),
        pytest.param(write(f"{D}/secrets/p", "rotated\n"), [WEB], id="secret"),
        pytest.param(lambda node: node.app("web", app("web", about="stop_grace_secs: 7")), [RELOAD], id="manifest"),
        pytest.param(lambda node: node.app("ui", app("ui", about="restart_when_changed: true\nstop_grace_secs: 7")), [RELOAD, UI], id="manifest-of-one-that-may"),
        pytest.param(lambda node: node.path(f"{OUT}/archy-web.service").unlink(), [RELOAD], id="unit-lost"),
        pytest.param(lambda node: node.path(f"{OUT}/archy.target.wants/archy-web.service").unlink(), [RELOAD], id="link-lost"),
    ],
)  # fmt: skip
def test_what_is_done(pid1: Systemd, change: Callable[[Node], object], asked: list[str]) -> None:
    change(pid1.node)
    assert tick(pid1) == asked
    assert tick(pid1) == []
    assert status(pid1.node)["level"] == "ok"
    assert pid1.node.path(f"{D}/ui/f").read_text() == "plain"
    assert pid1.node.path(f"{D}/web/f").read_text() not in ("tampered", "")


def test_a_dry_run_tells_it_all_and_does_nothing(pid1: Systemd, capsys: pytest.CaptureFixture[str]) -> None:
    pid1.node.write("/etc/archy/apps/web/t.j2", "other")
    pid1.node.path(f"{OUT}/archy.target.wants/archy-ui.service").unlink()
    before = status(pid1.node)
    capsys.readouterr()
    assert reconcile.run(pid1.node.name, dry=True) == 0
    said = capsys.readouterr()
    assert said.out.splitlines() == [
        "web: accept version 1.0.0",
        f"web: write {D}/web/f (content differs)",
        "systemctl daemon-reload (archy.target.wants/archy-ui.service: missing)",
        "restart web (web: f has changed since its start)",
    ]
    assert (pid1.asked, said.err, status(pid1.node)) == ([], "", before)
    assert pid1.node.path(f"{D}/web/f").read_text() != "other"
    assert tick(pid1) == [RELOAD, WEB]


def test_nobody_is_restarted_too_often(pid1: Systemd) -> None:
    """A file that is another one at each start: the app is restarted once, and then has to wait."""
    asked = []
    for number in range(5):
        pid1.node.write("/etc/archy/apps/web/t.j2", f"{number}")
        asked += tick(pid1)
    assert asked == [WEB]
    found = status(pid1.node)
    assert found["level"] == "degraded"
    assert found["apps"]["web"]["problems"][0].startswith("will be restarted in ")
    assert found["history"]["web"]["count"] == 1


@pytest.mark.parametrize(
    "state",
    [
        {"active": "inactive", "sub": "dead"},
        {"active": "activating", "sub": "auto-restart"},
        {"has_job": True},
        {"active": "deactivating", "sub": "stop-sigterm"},
    ],
)
def test_who_does_not_run_is_left_alone(pid1: Systemd, state: dict[str, Any]) -> None:
    pid1.states["archy-web.service"] = state
    pid1.node.write(f"{D}/secrets/p", "rotated\n")
    assert tick(pid1) == []
    assert pid1.node.path(f"{D}/web/f").read_text() == "rotated"


def test_a_rotation_ends_by_itself(pid1: Systemd, monkeypatch: pytest.MonkeyPatch) -> None:
    """The value before goes when all have the new one, and what is made of it goes at once."""
    node, secret = pid1.node, pid1.node.path(f"{D}/secrets/p")
    node.write(f"{D}/secrets/p.previous", secret.read_text()).chmod(0o600)
    node.write(f"{D}/secrets/p", "new\n")
    before = node.path(f"{D}/secrets/p.previous")
    assert tick(pid1) == [WEB]
    assert before.exists()
    looks = passes(pid1, monkeypatch)
    assert tick(pid1) == []
    assert not before.exists()
    assert len(looks) == 2
    assert secret.read_text() == "new\n"


def test_an_app_that_started_before_there_were_records(pid1: Systemd) -> None:
    """It is left alone, but for a rotation that would wait for it for ever."""
    pid1.node.path("/run/archy/started/web.json").unlink()
    pid1.node.write("/etc/archy/apps/web/t.j2", "other")
    assert tick(pid1) == []
    pid1.node.write(f"{D}/secrets/p.previous", "old\n").chmod(0o600)
    assert sorted(tick(pid1)) == [WEB]


def test_what_systemd_refuses_is_told(pid1: Systemd, capsys: pytest.CaptureFixture[str]) -> None:
    pid1.failing = "Access denied"
    pid1.node.write("/etc/archy/apps/web/t.j2", "other")
    capsys.readouterr()
    assert reconcile.run(pid1.node.name, dry=False) == 0  # somebody may want it stopped: the next pass looks again
    assert "restart web (web: f has changed since its start): Access denied" in capsys.readouterr().err
    assert status(pid1.node)["apps"]["web"]["stale"] == ["f has changed since its start"]


def test_a_generator_that_is_masked_is_no_reason_to_reload_for_ever(
    pid1: Systemd, capsys: pytest.CaptureFixture[str]
) -> None:
    pid1.masked = True
    pid1.node.path(f"{OUT}/archy-web.service").unlink()
    capsys.readouterr()
    assert tick(pid1) == [RELOAD]
    assert "that did not mend it" in capsys.readouterr().err
    assert tick(pid1) == tick(pid1) == []
    pid1.masked = False
    pid1.node.app("web", app("web", about="stop_grace_secs: 7"))
    assert tick(pid1) == [RELOAD]
    assert pid1.node.path(f"{OUT}/archy-web.service").exists()


def test_a_bad_app_does_not_keep_the_pass_from_the_others(pid1: Systemd) -> None:
    pid1.node.app("bad", "app: 1")
    pid1.node.write("/etc/archy/apps/web/t.j2", "other")
    pid1.states["archy-bad.service"] = {"active": "inactive", "sub": "dead"}
    assert tick(pid1) == [RELOAD, WEB]
    found = status(pid1.node)
    assert found["apps"]["bad"]["problems"] == ['/etc/archy/apps/bad/manifest.yml:1:1: app: must be a mapping, is "1"']
    assert {name: one["level"] for name, one in found["apps"].items()} == {"bad": "degraded", "ui": "ok", "web": "ok"}


def passes(pid1: Systemd, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Note each whole look at the node."""
    looks: list[str] = []
    real = pid1.units

    def looking(names: list[str]) -> dict[str, systemd.Unit]:
        looks.append("look")
        return real(names)

    monkeypatch.setattr(systemd, "units", looking)
    return looks


def test_a_quiet_pass_asks_one_cheap_question(pid1: Systemd, monkeypatch: pytest.MonkeyPatch) -> None:
    looks = passes(pid1, monkeypatch)
    before, pid1.listed = status(pid1.node), 0
    assert tick(pid1) == []
    after = status(pid1.node)
    assert (looks, pid1.listed) == ([], 1)
    assert after["monotonic"] > before["monotonic"]
    moving = ("time", "wall", "monotonic", "node")
    assert {key: one for key, one in after.items() if key not in moving} == {
        key: one for key, one in before.items() if key not in moving
    }


def later(monkeypatch: pytest.MonkeyPatch, clocks: str, seconds: float) -> None:
    for clock in clocks.split():
        now: Callable[[], float] = getattr(time, clock)
        monkeypatch.setattr(time, clock, functools.partial(lambda now: now() + seconds, now))


def rename(path: str) -> Callable[[Systemd, pytest.MonkeyPatch], object]:
    return lambda pid1, _: pid1.node.path(path).unlink()


def probed(pid1: Systemd, **fields: Any) -> None:
    """Let the probe say something odd, with the digest of when all was well."""
    pid1.node.write(paths.PROBE, pack(file(UNITS, **fields)))


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda pid1, _: pid1.states.update({"archy-web.service": {"restarts": 1}}), id="systemd-says-so"),
        pytest.param(lambda pid1, _: pid1.start("web"), id="started-again"),
        pytest.param(lambda pid1, _: pid1.node.write(f"{paths.STOPPED}/web", ""), id="stopped-by-the-user"),
        pytest.param(lambda pid1, _: pid1.node.write(f"{D}/web/f", "tampered"), id="drift"),
        pytest.param(lambda pid1, _: pid1.node.write(paths.PROBE, ""), id="nobody-could-be-asked"),
        pytest.param(rename(paths.PROBE), id="nobody-was-ever-asked"),
        pytest.param(
            lambda pid1, _: pid1.node.write(paths.PROBE, pack(file(UNITS, digest="2"))), id="the-probe-found-something"
        ),
        pytest.param(rename(paths.STATUS), id="no-status"),
        pytest.param(lambda pid1, _: pid1.node.write(paths.STATUS, "{"), id="damaged-status"),
        pytest.param(lambda pid1, _: pid1.node.write(paths.STATUS, "[" * 100_000), id="deep-status"),
        pytest.param(lambda pid1, _: probed(pid1, podman=None), id="odd-probe"),
        pytest.param(lambda pid1, _: probed(pid1, podman={"at": 1e300}), id="a-time-that-is-none"),
        pytest.param(lambda pid1, _: probed(pid1, podman={"at": float("nan")}), id="a-time-that-is-no-number"),
        pytest.param(rename("/run/archy/unchanged"), id="no-memory"),
        pytest.param(lambda pid1, _: pid1.node.write("/run/archy/unchanged", "[]"), id="damaged-memory"),
        pytest.param(lambda _, patch: later(patch, "time", 10), id="clock-jumps"),
        pytest.param(lambda _, patch: later(patch, "time", -10), id="clock-jumps-back"),
        pytest.param(lambda _, patch: later(patch, "time monotonic", 601), id="long-ago"),
        pytest.param(lambda _, patch: patch.setattr(unchanged, "_FULL", 1.0), id="disk-full"),
    ],
)
def test_what_makes_a_pass_whole(
    pid1: Systemd, monkeypatch: pytest.MonkeyPatch, change: Callable[[Systemd, pytest.MonkeyPatch], object]
) -> None:
    looks = passes(pid1, monkeypatch)
    assert tick(pid1) == looks == []
    change(pid1, monkeypatch)
    tick(pid1)
    assert looks == ["look"]


@pytest.mark.parametrize(
    "state", [{"restarts": 1}, {"active": "activating", "sub": "start"}, {"active": "failed", "sub": "failed"}]
)
def test_as_long_as_something_moves_each_pass_is_whole(
    pid1: Systemd, monkeypatch: pytest.MonkeyPatch, state: dict[str, Any]
) -> None:
    pid1.states["archy-web.service"] = state
    looks = passes(pid1, monkeypatch)
    for _ in range(3):
        tick(pid1)
    assert len(looks) == 3


def dead(pid1: Systemd, ago: float = 0, **podman: Any) -> None:
    """Let the probe find that `web` does not answer, as another answer each time."""
    found = file(UNITS, digest="2")
    refused = {"ok": False, "kind": "refused", "said": "port 80: Connection refused"}
    found["apps"]["web"]["check"] |= refused | {"at": time.monotonic() - ago}
    found["podman"] |= podman
    pid1.node.write(paths.PROBE, pack(found))


def test_an_app_that_does_not_answer_three_times_is_restarted(pid1: Systemd, monkeypatch: pytest.MonkeyPatch) -> None:
    looks = passes(pid1, monkeypatch)
    asked = []
    for _ in range(5):
        dead(pid1)
        asked.append(tick(pid1))
    assert asked == [[], [], [WEB], [], []]
    assert len(looks) == 5
    found = status(pid1.node)
    assert (found["level"], found["apps"]["web"]["health"], found["apps"]["ui"]["level"]) == (
        "degraded",
        "unhealthy",
        "ok",
    )
    dead_, gave_up = found["apps"]["web"]["problems"]
    assert dead_ == "does not answer, 3 times in a row: port 80: Connection refused"
    assert re.fullmatch("gave up until .*, because one restart has not helped", gave_up)
    assert found["faults"]["web"]["count"] == 1


def test_what_is_frozen_is_let_go_on(pid1: Systemd) -> None:
    found = file(UNITS, digest="2")
    found["apps"]["web"] |= {"frozen": True, "check": None}
    found["apps"]["ui"] |= {"stopped": True, "main_stopped": True, "check": None}
    pid1.node.write(paths.PROBE, pack(found))
    assert [words.split()[0] for words in tick(pid1)] == ["thaw", "kill"]


def test_one_that_cannot_be_let_go_on_keeps_no_other_from_its_restart(
    pid1: Systemd, capsys: pytest.CaptureFixture[str]
) -> None:
    """An app fails alone."""
    found = file(UNITS, digest="2")
    found["apps"]["ui"] |= {"frozen": True, "check": None}
    pid1.node.write(paths.PROBE, pack(found))
    pid1.node.write("/etc/archy/apps/web/t.j2", "other")
    pid1.failing, pid1.refused, pid1.asked = "Unit is busy", "thaw", []
    reconcile.run(pid1.node.name, dry=False)
    assert pid1.asked[-1] == WEB
    assert "thaw ui (its unit was frozen): Unit is busy" in capsys.readouterr().err


def test_after_one_failure_passes_are_whole_until_it_answers(pid1: Systemd, monkeypatch: pytest.MonkeyPatch) -> None:
    """A status that reads well does not mean that there is nothing to come back to."""
    looks = passes(pid1, monkeypatch)
    dead(pid1)
    assert (tick(pid1), tick(pid1), status(pid1.node)["level"]) == ([], [], "ok")
    assert len(looks) == 2
    pid1.node.write(paths.PROBE, pack(file(UNITS)))
    assert (tick(pid1), tick(pid1)) == ([], [])
    assert len(looks) == 3


def test_what_podman_has_forgotten_is_restarted_after_a_second_look(
    pid1: Systemd, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not at the next tick: the app may not be reachable."""
    waited: list[float] = []

    def probe() -> None:
        found = file(UNITS, digest=f"{len(waited)}")
        found["podman"]["containers"] = found["podman"]["containers"][1:]
        pid1.node.write(paths.PROBE, pack(found))

    monkeypatch.setattr(systemd, "probe", probe)
    monkeypatch.setattr(time, "sleep", waited.append)
    probe()
    assert tick(pid1) == [WEB]
    assert waited == [3.0]


def test_a_fault_of_podman_starts_its_recovery(pid1: Systemd) -> None:
    dead(pid1, error="locks in /libpod")
    assert tick(pid1) == ["start --no-block archy-recover.service"]
    found = status(pid1.node)
    assert (found["level"], found["node"]["recovery"]["problems"]) == ("broken", ["locks in /libpod (is being mended)"])
    pid1.states["archy-recover.service"] = {"active": "activating", "sub": "start"}
    assert tick(pid1) == []


def test_one_pass_at_a_time(pid1: Systemd, monkeypatch: pytest.MonkeyPatch) -> None:
    locked: list[str] = []
    real = locks.hold

    def lock(root: str, path: str, waiting: Callable[[], None]) -> Any:
        locked.append(path)
        return real(root, path, waiting)

    monkeypatch.setattr(locks, "hold", lock)
    tick(pid1)
    assert locked == ["/run/archy/pass.lock"]
