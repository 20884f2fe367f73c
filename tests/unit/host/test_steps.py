# SPDX-License-Identifier: MIT
# ruff: noqa: E501 - a case is a line
"""What each step makes of itself: the one command of systemd, or of the service user, and how a person reads it."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from support import Node

from archy.host import steps, systemd
from archy.host.steps import AsUser, Hold, Recover, Resume, Start, Step, Thaw


@pytest.mark.parametrize(
    ("step", "words", "text"),
    [
        (Resume(("web",)), "kill --kill-whom=all --signal=SIGCONT -- archy-web.service", "continue web (a signal had stopped it)"),
        (Thaw(("web",)), "thaw -- archipelago.slice archipelago-apps.slice archy-web.service", "thaw web (its unit was frozen)"),
        (Recover(why="podman: x"), "start --no-block archy-recover.service", "systemctl start archy-recover.service (podman: x)"),
        (Start(("web", "db")), "start --no-block --job-mode=fail -- archy-web.service archy-db.service", "start web, db"),
    ],
)  # fmt: skip
def test_what_systemd_is_asked(node: Node, monkeypatch: pytest.MonkeyPatch, step: Step, words: str, text: str) -> None:
    asked: list[str] = []
    monkeypatch.setattr(systemd, "systemctl", lambda *arguments: asked.append(" ".join(arguments)))
    steps.apply(node.name, [step])
    assert (asked, str(step)) == ([words], text)


class Pid1:
    """Has units, and notes what is asked of it. Who is restarted is down after its grace, in looks, if `grace` has it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, **active: str) -> None:
        self.asked: list[str] = []
        self.grace: dict[str, list[systemd.Unit]] = {}
        self.slept = 0
        self.states = {
            f"archy-{app}.service": systemd.Unit(f"archy-{app}.service", active=state, invocation=f"{app}1")
            for app, state in active.items()
        }
        monkeypatch.setattr(systemd, "units", self.units)
        monkeypatch.setattr(subprocess, "run", self.run)
        monkeypatch.setattr(time, "sleep", self.sleep)

    def units(self, names: Sequence[str]) -> dict[str, systemd.Unit]:
        return {name: self.states[name] for name in names if name in self.states}

    def run(self, words: Sequence[str], **options: Any) -> subprocess.CompletedProcess[str]:
        self.asked.append(" ".join(words))
        refused = words[1] == "try-restart" and self.states[words[-1]].active == "deactivating"
        if refused and options["check"]:
            raise subprocess.CalledProcessError(1, words)
        if words[1] == "try-restart" and not refused and self.states[words[-1]].active != "inactive":
            self.becomes(words[-1].removeprefix("archy-").removesuffix(".service"), active="deactivating", has_job=True)
        return subprocess.CompletedProcess([*words], int(refused), "", "")

    def becomes(self, app: str, **fields: Any) -> None:
        name = f"archy-{app}.service"
        self.states[name] = replace(self.states[name], **fields)

    def sleep(self, _: float) -> None:
        self.slept += 1
        assert self.slept < 100, "it waits for ever"
        for name, coming in self.grace.items():
            if coming:
                self.states[name] = coming.pop(0)

    def will(self, app: str, *states: str, **fields: Any) -> None:
        """With each look that follows."""
        name = f"archy-{app}.service"
        self.grace[name] = [replace(self.states[name], active=state, has_job=True, **fields) for state in states]


HELD = "systemctl start --no-block archy-hold.service"


def restart(app: str) -> str:
    return f"systemctl try-restart --no-block --job-mode=fail -- archy-{app}.service"


def hold(node: Node, *apps: str) -> str:
    step = Hold(apps)
    steps.apply(node.name, [step])
    return str(step)


def test_who_is_held_is_restarted_and_its_start_waits(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    """First nobody may start any more. It is over when the last one is down, each with its grace."""
    pid1 = Pid1(monkeypatch, web="active", db="active")
    pid1.will("web", "inactive")
    pid1.will("db", *["deactivating"] * 5, "inactive")
    assert hold(node, "web", "db") == "stop web, db"
    assert (pid1.asked, pid1.slept) == ([HELD, restart("web"), restart("db")], 6)


@pytest.mark.parametrize("state", ["inactive", "failed"])
def test_who_is_down_is_not_waited_for(node: Node, monkeypatch: pytest.MonkeyPatch, state: str) -> None:
    """Nor started: try-restart is for those that run."""
    pid1 = Pid1(monkeypatch, web=state)
    pid1.states["archy-web.service"] = replace(pid1.states["archy-web.service"], invocation="")
    pid1.will("web", state)
    hold(node, "web")
    assert pid1.asked == [HELD, restart("web")]


def test_one_that_a_person_is_stopping_stays_stopped(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    """The restart of that one is refused, which is no error; it is waited for all the same."""
    pid1 = Pid1(monkeypatch, web="deactivating", db="active")
    pid1.becomes("web", has_job=True)
    pid1.will("web", "deactivating", "deactivating", "inactive")
    pid1.will("db", "inactive")
    hold(node, "web", "db")
    assert pid1.asked == [HELD, restart("web"), restart("db")]
    assert pid1.slept == 3


def test_one_that_was_down_and_runs_again_is_not_waited_for(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between two looks: somebody has let go what is held."""
    pid1 = Pid1(monkeypatch, web="active")
    pid1.will("web", "deactivating", "activating", invocation="web2")
    pid1.grace["archy-web.service"][0] = replace(pid1.grace["archy-web.service"][0], invocation="web1")
    hold(node, "web")
    assert pid1.slept == 2


@pytest.mark.parametrize("sub", ["auto-restart", "auto-restart-queued"])
def test_one_that_waits_for_its_next_attempt_is_down(node: Node, monkeypatch: pytest.MonkeyPatch, sub: str) -> None:
    """That attempt has to wait, too."""
    pid1 = Pid1(monkeypatch, web="active")
    pid1.will("web", "deactivating", "activating", sub=sub)
    pid1.grace["archy-web.service"][0] = replace(pid1.grace["archy-web.service"][0], sub="stop-post")
    hold(node, "web")
    assert pid1.slept == 2


def test_one_that_systemd_does_not_know(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    """It was removed in this moment."""
    pid1 = Pid1(monkeypatch, web="active")
    monkeypatch.setattr(systemd, "units", lambda _: {})
    hold(node, "web")
    assert pid1.asked == [HELD, restart("web")]


def test_nobody_is_held(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    pid1 = Pid1(monkeypatch)
    hold(node)
    assert (pid1.asked, pid1.slept) == ([HELD], 0)


def test_where_nothing_holds_their_starts_nobody_is_restarted(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    pid1 = Pid1(monkeypatch, web="active")

    def refusing(words: Sequence[str], **_: Any) -> None:
        pid1.asked.append(" ".join(words))
        raise subprocess.CalledProcessError(5, [*words], stderr="Unit archy-hold.service not found.")

    monkeypatch.setattr(subprocess, "run", refusing)
    with pytest.raises(subprocess.CalledProcessError):
        hold(node, "web")
    assert pid1.asked == [HELD]


def test_the_end_of_a_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    pid1 = Pid1(monkeypatch)
    systemd.release()
    assert pid1.asked == ["systemctl stop -- archy-hold.service"]


class Run:
    """In the place of subprocess.run."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, out: str = "", errors: str = "", code: int = 0) -> None:
        self.words: list[str] = []
        self.options: dict[str, Any] = {}
        self.done = subprocess.CompletedProcess[str]([], code, out, errors)
        self.late = False
        monkeypatch.setattr(subprocess, "run", self.run)

    def run(self, words: tuple[str, ...], **options: Any) -> subprocess.CompletedProcess[str]:
        self.words, self.options = [*words], options
        if self.late:
            raise subprocess.TimeoutExpired(words, options["timeout"])
        return self.done


def test_a_command_is_run_as_the_service_user(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    """With its groups and an environment of its own: nothing of root's comes along."""
    monkeypatch.setenv("SECRET", "x")
    run = Run(monkeypatch)
    step = AsUser(("podman", "ps", "a b"), 7)
    steps.apply(node.name, [step])
    assert (run.words, str(step)) == (["podman", "ps", "a b"], "podman ps 'a b'")
    assert {key: run.options[key] for key in ("user", "group", "extra_groups", "timeout", "cwd", "check")} == {
        "user": 990,
        "group": 989,
        "extra_groups": [],
        "timeout": 7,
        "cwd": "/",
        "check": False,
    }
    assert run.options["env"] == {
        "XDG_RUNTIME_DIR": "/run/user/990",
        "DBUS_SESSION_BUS_ADDRESS": "unix:path=/run/user/990/bus",
        "HOME": "/var/lib/archipelago",
        "PATH": "/usr/bin:/bin",
        "LANG": "C.UTF-8",
    }


def test_what_it_says_of_errors_is_said(
    node: Node, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Run(monkeypatch, "out\n", "one\ntwo\nthree\n" + "4" * 1000 + "\n", 125)
    assert steps.run_as_user(node.name, ["podman", "x"], 1) == "out\none\ntwo\nthree\n" + "4" * 1000 + "\n"
    assert capsys.readouterr().err.splitlines() == ["  podman: two", "  podman: three", "  podman: " + "4" * 300]
    steps.run_as_user(node.name, ["podman", "x"], 1, quiet=True)
    assert capsys.readouterr() == ("", "")


def test_what_does_not_end_is_told_and_no_error(
    node: Node, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = Run(monkeypatch)
    run.late = True
    assert steps.run_as_user(node.name, ["podman", "x"], 90) == ""
    assert capsys.readouterr().err == "  podman: no end within 90 s\n"


@pytest.mark.programs
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another")
def test_it_really_is_the_service_user(node: Node) -> None:
    script = "import os; print(os.getresuid(), os.getresgid(), os.getgroups(), os.getcwd())"
    said = steps.run_as_user(node.name, [sys.executable, "-ISc", script], 60)
    assert said == "(990, 990, 990) (989, 989, 989) [] /\n" or said == "(990, 990, 990) (989, 989, 989) [989] /\n"


def test_one_that_cannot_be_restarted_is_not_waited_for(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    """It was masked while it ran: it has no job, and goes on."""
    pid1 = Pid1(monkeypatch, web="active")

    def refused(words: Sequence[str], **_: Any) -> subprocess.CompletedProcess[str]:
        return subprocess.CompletedProcess([*words], 1, "", "Unit archy-web.service is masked.")

    monkeypatch.setattr(subprocess, "run", refused)
    hold(node, "web")
    assert pid1.slept == 0
