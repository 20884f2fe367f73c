# SPDX-License-Identifier: MIT
# ruff: noqa: E501 - a case is a line
"""What each step makes of itself: the one command of systemd, or of the service user, and how a person reads it."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import pytest
from support import Node

from archy import steps, systemd
from archy.steps import AsUser, Continue, Hold, Recover, Start, Step, Thaw


@pytest.mark.parametrize(
    ("step", "words", "text"),
    [
        (Continue("web"), "kill --kill-whom=all --signal=SIGCONT -- archy-web.service", "continue web (a signal had stopped it)"),
        (Thaw("web"), "thaw -- archipelago.slice archipelago-apps.slice archy-web.service", "thaw web (its unit was frozen)"),
        (Recover("podman: x"), "start --no-block archy-recover.service", "systemctl start archy-recover.service (podman: x)"),
        (Start(("web", "db")), "start --no-block --job-mode=fail -- archy-web.service archy-db.service", "start web, db"),
    ],
)  # fmt: skip
def test_what_systemd_is_asked(node: Node, monkeypatch: pytest.MonkeyPatch, step: Step, words: str, text: str) -> None:
    asked: list[str] = []
    monkeypatch.setattr(systemd, "ctl", lambda *arguments: asked.append(" ".join(arguments)))
    steps.execute(node.name, [step])
    assert (asked, str(step)) == ([words], text)


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
    steps.execute(node.name, [step])
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
