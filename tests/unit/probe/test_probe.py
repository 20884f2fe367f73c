# SPDX-License-Identifier: MIT
"""archy-probe without namespaces: whom it asks, when, how, and what it writes. To join a namespace is to note it."""

from __future__ import annotations

import errno
import json
import os
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from probes import HEALTH
from support import Node, app_of

from archy import __version__, paths
from archy.apps import facts
from archy.host import volatile
from archy.probe import checks, containers, dns, podman, probe, report
from archy.probe.checks import Check
from archy.probe.containers import Container

IDS = {name: f"{number:x}" * 64 for number, name in enumerate(["web", "db", "ui", "x"])}
ROUTES = "Iface\tDestination\tGateway\tFlags\neth0\t0000590A\t00000000\t0001\neth0\t00000000\t0100590A\t0003\n"


def container(app: str, **fields: Any) -> Container:
    made = Container(app, IDS[app], 100 + len(app), 200 + [*IDS].index(app))
    for key, value in {"userns": 1, "cpu": 1.5, **fields}.items():
        setattr(made, key, value)
    return made


class Kernel:
    """Knows which namespaces the probe is in, and refuses what Linux refuses."""

    def __init__(self, node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
        self.node = node
        self.joined: list[tuple[int, str]] = []
        self.gone: set[int] = set()
        self.asked: list[tuple[str, str]] = []
        self.ran: list[tuple[list[str], float]] = []
        self.wrong: set[str] = set()
        monkeypatch.setattr(probe, "_join", self.join)
        monkeypatch.setattr(checks, "run", self.run)
        monkeypatch.setattr(checks, "Command", self.command)
        monkeypatch.setattr(checks, "Tcp", self.begin("tcp"))
        monkeypatch.setattr(checks, "Http", self.begin("http"))
        self.others: set[str] = set()  # that names resolve to, beside the right address
        monkeypatch.setattr(dns, "Name", self.name())

    def join(self, _root: str, pid: int, kind: str, _flag: int) -> None:
        if pid in self.gone:
            raise FileNotFoundError(errno.ENOENT, "No such file or directory")
        if kind == "user" and any(one == "user" for _, one in self.joined):
            raise OSError(errno.EINVAL, "Invalid argument")  # setns(2): it is already a member
        self.joined.append((pid, kind))

    def begin(self, kind: str) -> Any:
        def make(*words: Any) -> Check:
            self.asked.append((kind, " ".join(map(str, words))))
            check = Check(words[-1])
            check.message = kind
            return check

        return make

    def name(self) -> type[dns.Name]:
        kernel, begun = self, self.begin("name")

        class Name(dns.Name):
            def __init__(self, server: str, name: str, timeout: float) -> None:
                Check.__init__(self, timeout)
                self.message, self.others = begun(server, name, timeout).message, kernel.others

        return Name

    def command(self, command: list[str], timeout: float) -> Check:
        assert self.joined == []  # from inside there is no way into another container
        self.ran.append((command, timeout))
        check = Check(timeout)
        check.message = "command"
        return check

    def run(self, todo: Iterable[Check]) -> None:
        for check in todo:
            if check.ok is None:
                (check.failed(checks.BAD_ANSWER, "no") if check.message in self.wrong else check.passed())

    def knows(self, **apps: Any) -> None:
        """The facts that a pass has left: of each app the health check, and whatever else."""
        made = {app: {**facts.summary(app_of()), "container": app, **about} for app, about in apps.items()}
        self.node.write(paths.FACTS, json.dumps({"by": __version__, "host": {}, "apps": made}))

    def look(self, *running: Container, before: dict[str, Any] | None = None) -> dict[str, Any]:
        return probe._apps(self.node.name, str(self.node.path("/run/user/990")), list(running), before or {})


@pytest.fixture
def kernel(node: Node, monkeypatch: pytest.MonkeyPatch) -> Kernel:
    return Kernel(node, monkeypatch)


def test_nothing_runs(kernel: Kernel) -> None:
    assert (kernel.look(), kernel.joined) == ({}, [])


def test_an_app_of_which_nobody_has_said_anything(kernel: Kernel) -> None:
    """Before the first pass: it is seen, and not asked."""
    assert kernel.look(container("web", cpu=2.5)) == {
        "web": {
            "id": IDS["web"],
            "stopped": False,
            "main_stopped": False,
            "frozen": False,
            "cpu": 2.5,
            "forwarded": False,
            "check": None,
            "names": None,
        }
    }
    assert kernel.asked == []


def test_every_app_is_asked_as_its_manifest_says(kernel: Kernel) -> None:
    kernel.knows(
        web={"health": {**HEALTH, "kind": "http", "port": 8080, "path": "/live", "timeout": 7}, "network": "pasta"},
        db={"health": {**HEALTH, "kind": "tcp", "port": 5432}, "network": "pasta"},
        ui={"health": {**HEALTH, "kind": "exec", "command": ["a", "b c"]}, "network": "pasta"},
        x={"health": None, "network": "pasta"},
    )
    found = kernel.look(*map(container, IDS))
    assert kernel.asked == [("http", "8080 /live 7.0"), ("tcp", "5432 5.0")]
    assert kernel.ran == [(["podman", "exec", IDS["ui"], "a", "b c"], 5)]
    assert [found[app]["check"] and found[app]["check"]["ok"] for app in IDS] == [True, True, True, None]
    assert kernel.joined == [(103, "user"), (200, "net"), (201, "net"), (202, "net"), (203, "net")]


def test_one_in_the_network_of_the_node_is_asked_from_there(kernel: Kernel) -> None:
    """It has no other, and what has joined a container's user namespace may not go back."""
    asked = {**HEALTH, "kind": "tcp", "port": 81, "timeout": 7}
    kernel.knows(web={"health": asked, "network": "host"}, db={"health": None, "network": "pasta"})
    found = kernel.look(container("web"), container("db"))
    assert kernel.asked == [("tcp", "81 7.0")]
    assert (found["web"]["check"]["ok"], found["web"]["names"]) == (True, None)
    assert [pid for pid, kind in kernel.joined if kind == "net"] == [201]


def test_the_real_ones_take_what_the_fakes_take() -> None:
    for check in (checks.Tcp(80, 1.0), checks.Http(80, "/", 1.0), dns.Name("192.0.2.1", "web", 1.0)):
        assert check.timeout == 1.0
        check.close()


def test_the_oci_runtime_is_asked_first(kernel: Kernel) -> None:
    runtime = kernel.node.path(f"/run/user/990/crun/{IDS['web']}")
    runtime.mkdir(parents=True)
    kernel.knows(web={"health": {**HEALTH, "kind": "exec", "command": ["a"]}})
    kernel.look(container("web"))
    root = str(runtime.parent)
    assert kernel.ran == [(["crun", "--root", root, "exec", "--no-new-privs", IDS["web"], "a"], 5)]


def test_no_app_holds_up_the_unit(kernel: Kernel) -> None:
    kernel.knows(web={"health": {**HEALTH, "timeout": 9999}, "network": "pasta"})
    kernel.look(container("web"))
    assert kernel.asked == [("tcp", "80 60.0")]


def test_what_is_answered(kernel: Kernel) -> None:
    kernel.knows(web={"health": HEALTH, "network": "pasta"})
    kernel.wrong = {"tcp"}
    before = time.monotonic()
    answer = kernel.look(container("web"))["web"]["check"]
    assert before <= answer.pop("at") <= time.monotonic()
    assert answer == {"ok": False, "kind": "bad answer", "said": "no"}


# When.


def kept(app: str, ago: float, **fields: Any) -> dict[str, Any]:
    """What the last probe has found of an app."""
    answer = {"ok": False, "kind": "bad answer", "said": "before", "at": time.monotonic() - ago}
    return {app: {"id": IDS[app], "check": answer, "names": answer, **fields}}


@pytest.mark.parametrize(
    ("interval", "ago", "due"), [(30, 26, False), (30, 28, True), (300, 260, False), (300, 280, True)]
)
def test_an_app_is_asked_again_after_its_interval(kernel: Kernel, interval: float, ago: float, due: bool) -> None:
    """Ticks are not exact: a little early is in time."""
    kernel.knows(web={"health": {**HEALTH, "interval": interval}, "network": "pasta"})
    before = kept("web", ago)
    found = kernel.look(container("web"), before=before)["web"]
    assert bool(kernel.asked) == due
    assert (found["check"] == before["web"]["check"]) == (not due)


def test_another_container_is_asked_at_once(kernel: Kernel) -> None:
    kernel.knows(web={"health": HEALTH, "network": "pasta"})
    found = kernel.look(container("web"), before=kept("web", 1, id="f" * 64))["web"]
    assert kernel.asked == [("tcp", "80 5.0")]
    assert found["check"]["ok"]


def test_what_is_not_asked_any_more_is_not_kept(kernel: Kernel) -> None:
    """Names are asked each time, or not at all."""
    kernel.knows(web={"health": None, "network": "pasta"})
    assert kernel.look(container("web"), before=kept("web", 1))["web"]["names"] is None


@pytest.mark.parametrize("fields", [{"frozen": True}, {"main_stopped": True, "stopped": [7]}])
def test_who_is_held_is_not_asked(kernel: Kernel, fields: dict[str, Any]) -> None:
    """It could not answer, and all would wait for it."""
    for kind in ("tcp", "exec"):
        kernel.knows(web={"health": {**HEALTH, "kind": kind}, "network": "pasta"})
        found = kernel.look(container("web", **fields))["web"]
        assert (kernel.asked, kernel.ran, found["check"]) == ([], [], None)
    assert (found["frozen"], found["main_stopped"], found["stopped"]) == (
        "frozen" in fields,
        "main_stopped" in fields,
        "stopped" in fields,
    )


@pytest.mark.parametrize("before", [None, {}, {"web": None}, {"web": {}}, {"web": {"id": IDS["web"], "check": None}}])
def test_whatever_was_kept(kernel: Kernel, before: Any) -> None:
    kernel.knows(web={"health": HEALTH, "network": "pasta"})
    assert kernel.look(container("web"), before=before)["web"]["check"]["ok"]


@pytest.mark.parametrize("content", [None, "", "{", "[]", "7", "null", '"x"', "\xff"])
def test_a_damaged_memory_is_none(node: Node, content: str | None) -> None:
    if content is not None:
        node.write(paths.PROBE_CACHE, content.encode("latin-1"))
    assert probe._remembered(node.name) == {}


# Names.


def test_the_name_server_is_at_the_end_of_the_default_route(kernel: Kernel) -> None:
    kernel.knows(web={"container": "archy-web"})
    kernel.node.write("/proc/200/net/route", ROUTES)
    found = kernel.look(container("web"))["web"]
    assert kernel.asked == [("name", "10.89.0.1 archy-web 3.0")]
    assert found["names"]["ok"]


@pytest.mark.parametrize("routes", [None, "", "Iface\n", "Iface\tDestination\tGateway\neth0\t0000590A\t00000000\n"])
def test_a_container_that_has_no_network_any_more(kernel: Kernel, routes: str | None) -> None:
    kernel.knows(web={})
    if routes is not None:
        kernel.node.write("/proc/200/net/route", routes)
    answer = kernel.look(container("web"))["web"]["names"]
    assert (answer["ok"], answer["kind"], answer["said"]) == (False, "refused", "it has no network any more")


def test_one_with_a_network_of_its_own_has_no_name_server(kernel: Kernel) -> None:
    kernel.knows(web={"network": "pasta"})
    kernel.node.write("/proc/200/net/route", ROUTES)
    assert kernel.look(container("web"))["web"]["names"] is None


def test_what_else_a_name_resolves_to_is_told(kernel: Kernel) -> None:
    kernel.knows(web={"container": "archy-web"})
    kernel.node.write("/proc/200/net/route", ROUTES)
    kernel.others = {"10.89.0.9", "10.89.0.10"}
    assert kernel.look(container("web"))["web"]["names"]["others"] == ["10.89.0.10", "10.89.0.9"]


def told(ok: bool = True, *others: str) -> dict[str, Any]:
    return {"ok": ok, "kind": "" if ok else "refused", "said": "" if ok else "no", "at": 1, "others": [*others]}


@pytest.mark.parametrize(
    ("found", "dead"),
    [
        (None, {"10.89.0.9"}),
        (told(), {"10.89.0.9"}),
        (told(True, "10.89.0.8"), {"10.89.0.9"}),
        (told(True, "10.89.0.8"), set()),
        (told(False, "10.89.0.9"), {"10.89.0.9"}),
        ({"ok": False, "kind": "refused", "said": "it has no network any more", "at": 1}, {"10.89.0.9"}),
    ],
)
def test_a_name_may_be_somebody_else_s_too(found: dict[str, Any] | None, dead: set[str]) -> None:
    """As long as somebody is there; and what is bad stays as it is."""
    apps = {"web": {"id": "1", "names": found}}
    probe.flag_stale_addresses(apps, dead)
    assert apps == {"web": {"id": "1", "names": found}}


def test_a_name_that_leads_to_where_nobody_is() -> None:
    """Half of all connections would go there."""
    apps = {"web": {"names": told(True, "10.89.0.8", "10.89.0.9")}, "db": {"names": told(True, "10.89.0.8")}}
    probe.flag_stale_addresses(apps, {"10.89.0.9", "10.89.0.7"})
    found = apps["web"]["names"]
    assert (found["ok"], found["kind"], found["at"]) == (False, checks.BAD_ANSWER, 1)
    assert "10.89.0.9" in found["said"]
    assert apps["db"]["names"]["ok"]


# Who ends in this moment.


def test_one_that_has_ended_keeps_no_other_from_being_asked(kernel: Kernel) -> None:
    """Whether its monitor is gone, or only its process."""
    kernel.knows(**{app: {"health": HEALTH, "network": "pasta"} for app in IDS})
    first = container("web")
    for gone in (first.conmon, first.pid):
        kernel.joined, kernel.asked, kernel.gone = [], [], {gone}
        found = kernel.look(first, *(container(app, conmon=900 + n) for n, app in enumerate(["db", "ui", "x"])))
        assert [app for app, about in found.items() if about["check"]] == ["db", "ui", "x"], gone


def test_those_of_another_user_namespace_are_asked_by_another_process(
    kernel: Kernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The pause process has died, and Podman has made another one since: two namespaces, and no way from one out."""
    kernel.knows(**{app: {"health": HEALTH, "network": "pasta"} for app in IDS})
    found = kernel.look(*(container(app, userns=number) for number, app in enumerate(IDS)))
    assert found.keys() == IDS.keys()
    assert all(about["check"]["ok"] for about in found.values())
    assert [kind for kind, _ in kernel.asked] == ["tcp"]  # by this process
    assert [os.waitstatus_to_exitcode(os.waitpid(-1, 0)[1]) for _ in range(3)] == [0, 0, 0]


# What it writes.


@pytest.fixture
def machine(kernel: Kernel, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, Any]:
    """A machine on which the entry point finds what is said here."""
    said: dict[str, Any] = {"bus": True, "running": [container("web")], "kept": {}, "written": [], "dead": set()}
    said["timers"] = [f"{IDS['web']}-1.timer", f"{IDS['db']}-1.timer"]
    said["podman"] = {"at": 1.0, "error": "", "containers": [[IDS["web"], "running", "web", "u"]], "seen": []}

    class Question:
        def __init__(self, _runtime: str, _running: object, last: object) -> None:
            said["last"] = last

        def answer(self) -> dict[str, Any]:
            answer: dict[str, Any] = said["podman"]
            return answer

    def dead(runtime: str, known: set[str]) -> set[str]:
        said["known"] = (runtime, known)
        found: set[str] = said["dead"]
        return found

    kernel.knows(web={"health": HEALTH, "network": "pasta"})
    known = facts.load(kernel.node.name)
    monkeypatch.setattr(facts, "load", lambda _: known)
    monkeypatch.setattr(os.path, "exists", lambda path: said["bus"] and path.endswith("/bus"))
    monkeypatch.setattr(os, "environ", {})
    monkeypatch.setattr(containers, "running", lambda _: said["running"])
    monkeypatch.setattr(podman, "ContainerList", Question)
    monkeypatch.setattr(podman, "pasta", lambda _: None)
    monkeypatch.setattr(podman, "stale_addresses", dead)
    monkeypatch.setattr(podman, "health_timers", lambda _: said["timers"])
    monkeypatch.setattr(probe, "_remembered", lambda _: said["kept"])
    monkeypatch.setattr(volatile, "write", lambda path, text: said["written"].append((path, text)))
    return said


def test_the_answer_is_what_root_reads(machine: dict[str, Any], node: Node, capsys: pytest.CaptureFixture[str]) -> None:
    assert probe.main([]) == 0
    out = capsys.readouterr().out
    assert machine["written"] == [(paths.PROBE_CACHE, out.rstrip("\n"))]
    node.write(paths.PROBE, out)
    found = report.load(node.name)
    assert (found.error, found.podman_error, found.apps["web"].id) == ("", "", IDS["web"])
    assert [entry.id for entry in found.containers or ()] == [IDS["web"]]
    assert found.timers == (f"{IDS['db']}-1.timer",)
    assert found.digest == json.loads(out)["digest"]
    answer = found.apps["web"].check
    assert answer is not None
    assert answer.ok


def test_the_timer_of_a_container_that_starts_meanwhile_is_not_stale(
    machine: dict[str, Any], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its timer comes after its container: seen in the other order, it would be stopped, and the app never ready."""

    def running(_: str) -> list[Container]:
        machine["timers"] = [*machine["timers"], f"{IDS['ui']}-1.timer"]
        return [container("web"), container("db")]

    monkeypatch.setattr(containers, "running", running)
    assert probe.main([]) == 0
    assert json.loads(capsys.readouterr().out)["timers"] == []


@pytest.mark.parametrize(("error", "ok"), [("", False), ("database is locked", True)])
def test_a_name_of_one_that_is_gone_is_wrong(
    machine: dict[str, Any], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, error: str, ok: bool
) -> None:
    """If Podman says so: without its answer all would be gone."""
    names_ = {"web": {**kept("web", 1)["web"], **dict.fromkeys(("stopped", "frozen", "forwarded"), False)}}
    names_["web"]["names"] = told(True, "10.89.0.9")
    monkeypatch.setattr(probe, "_apps", lambda *_: names_)
    machine["dead"], machine["podman"] = {"10.89.0.9"}, {**machine["podman"], "error": error}
    assert probe.main([]) == 0
    assert json.loads(capsys.readouterr().out)["apps"]["web"]["names"]["ok"] == ok
    assert machine.get("known") == (None if error else (f"/run/user/{os.getuid()}", {IDS["web"]}))


def test_what_was_found_last_is_remembered(machine: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    machine["kept"] = {"podman": {"at": 1}, "apps": kept("web", 1)}
    assert probe.main([]) == 0
    assert machine["last"] == {"at": 1}
    assert json.loads(capsys.readouterr().out)["apps"]["web"]["check"]["said"] == "before"


def test_a_full_disk_is_no_end(
    machine: dict[str, Any], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(volatile, "write", full)
    assert probe.main([]) == 0
    assert json.loads(capsys.readouterr().out)["apps"]


def test_without_its_user_s_manager_nobody_is_asked(
    machine: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    machine["bus"] = False
    assert probe.main([]) == os.EX_TEMPFAIL
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("the manager of user ")


def digest(**fields: Any) -> str:
    app = {"id": "1", "stopped": False, "frozen": False, "cpu": 1.0, "forwarded": True}
    app |= {"check": {"ok": True, "at": 1}, "names": None}
    app |= {key: value for key, value in fields.items() if key in app}
    found = {
        "at": fields.get("at", 1),
        "load": fields.get("load", 0.1),
        "apps": fields.get("apps", {"web": app}),
        "podman": {"at": 1, "error": "", "containers": [["1", "running", "n", "u"], ["2", "exited", "n", "u"]]},
        "pasta": None,
        "timers": [],
    }
    return probe._digest(found | {key: fields[key] for key in ("podman", "pasta", "timers") if key in fields})


@pytest.mark.parametrize(
    "fields",
    [
        {"id": "9"},
        {"stopped": True},
        {"frozen": True},
        {"forwarded": False},
        {"check": {"ok": False, "at": 1}},
        {"check": None},
        {"names": {"ok": True, "at": 1}},
        {"apps": {}},
        {"pasta": True},
        {"pasta": False},
        {"timers": ["x.timer"]},
        {"podman": {"error": "x", "containers": []}},
        {"podman": {"error": "", "containers": [["1", "running", "n", "u"]]}},
        {"podman": {"error": "", "containers": [["1", "exited", "n", "u"], ["2", "exited", "n", "u"]]}},
    ],
)
def test_something_has_happened(fields: dict[str, Any]) -> None:
    assert digest(**fields) != digest()


@pytest.mark.parametrize(
    "fields",
    [
        {"at": 99},
        {"load": 9.9},
        {"cpu": 99.0},
        {"check": {"ok": True, "at": 99}},
        {"podman": {"at": 9, "error": "", "containers": [["2", "exited", "n", "u"], ["1", "running", "n", "u"]]}},
    ],
)
def test_nothing_has_happened(fields: dict[str, Any]) -> None:
    """A pass that was content need not be made again: most are like that."""
    assert digest(**fields) == digest()
