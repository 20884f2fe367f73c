# SPDX-License-Identifier: MIT
"""What we read of systemd: its units by name, what their states mean, and the end of a log."""

from __future__ import annotations

import subprocess
import sys
import types
from typing import Any, Self

import pytest

from archy.host import systemd
from archy.host.systemd import Unit

SHOWN = """\
Id=archy-web.service
LoadState=loaded
ActiveState=active
SubState=running
NRestarts=2
FragmentPath=/run/systemd/generator/archy-web.service
InvocationID=1f
Job=
Result=success
ExecMainStatus=0
StateChangeTimestampMonotonic=2500000
InactiveExitTimestampMonotonic=1500000
StatusText=a=b

Id=archy-reconcile.timer
LoadState=masked
ActiveState=inactive
SubState=dead
FragmentPath=/dev/null
Job=77
"""


def test_units_are_read_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """A timer, for one, has no number of restarts."""
    shown = subprocess.CompletedProcess([], 0, SHOWN, "")
    monkeypatch.setattr(systemd, "booted", lambda: True)
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: shown)
    found = systemd.units(["archy-web.service", "archy-reconcile.timer"])
    assert found == {
        "archy-web.service": Unit(
            "archy-web.service",
            loaded=True,
            generated=True,
            active="active",
            sub="running",
            restarts=2,
            invocation="1f",
            changed=2.5,
            began=1.5,
            status_text="a=b",
        ),
        "archy-reconcile.timer": Unit("archy-reconcile.timer", masked=True, has_job=True),
    }


STATES = [
    # as systemctl shows it, whether it has a job; then the properties that hold
    ("active", "running", False, "is_up is_running is_ready is_alive is_steady"),
    ("active", "running", True, "is_up is_running is_ready is_alive"),
    ("active", "exited", False, "is_up has_exited is_ready"),
    ("reloading", "reload", True, "is_up is_alive"),
    ("activating", "start-pre", True, "is_activating is_alive"),
    ("activating", "start", True, "is_activating is_starting is_alive is_steady"),
    ("activating", "auto-restart", False, "is_activating is_restarting is_alive"),
    ("activating", "auto-restart-queued", True, "is_activating is_restarting is_alive is_queued"),
    ("deactivating", "stop-sigterm", True, "is_stopping is_alive"),
    ("inactive", "dead", False, "is_inactive is_down"),
    ("inactive", "dead", True, "is_inactive is_down is_queued"),
    ("failed", "failed", False, "is_failed is_down"),
    ("failed", "failed", True, "is_failed is_down is_queued"),
]


@pytest.mark.parametrize(("active", "sub", "has_job", "holds"), STATES)
def test_what_a_state_means(active: str, sub: str, has_job: bool, holds: str) -> None:
    unit = Unit("x", active=active, sub=sub, has_job=has_job)
    names = [name for name in vars(Unit) if isinstance(getattr(Unit, name), property)]
    assert {name for name in names if getattr(unit, name)} == set(holds.split())


class Journal:
    """A journal with these entries, the last one the newest, in the place of systemd.journal.Reader."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *messages: Any) -> None:
        self.messages = list(messages)
        self.asked: list[str] = []
        module = types.ModuleType("systemd.journal")
        module.Reader = self.opened  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "systemd.journal", module)

    def opened(self, converters: dict[str, Any]) -> Self:
        self.convert = converters["MESSAGE"]
        return self

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.asked.append("closed")

    def add_match(self, field: str) -> None:
        self.asked.append(field)

    def add_disjunction(self) -> None:
        self.asked.append("or")

    def seek_tail(self) -> None:
        self.asked.append("tail")

    def get_previous(self) -> dict[str, Any]:
        message = self.messages.pop() if self.messages else None
        if isinstance(message, OSError):
            raise message
        return {} if message is None else {"_PID": 1, "MESSAGE": self.convert(message)}


def test_the_end_of_a_log(monkeypatch: pytest.MonkeyPatch) -> None:
    journal = Journal(monkeypatch, b"old", b"one\ntwo", b"\xff three")
    assert systemd.journal("archy-web.service", 2) == ["one", "two", "\ufffd three"]
    fields = ["or", "_SYSTEMD_UNIT=archy-web.service", "or", "_PID=1", "UNIT=archy-web.service", "tail", "closed"]
    assert journal.asked == fields


def test_the_log_of_one_run(monkeypatch: pytest.MonkeyPatch) -> None:
    journal = Journal(monkeypatch, b"a", b"b")
    assert systemd.invocation("1f") == ["a", "b"]
    assert "_SYSTEMD_INVOCATION_ID=1f" in journal.asked


def test_a_journal_that_cannot_be_read_has_no_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    Journal(monkeypatch, b"a", OSError(74, "Bad message"), b"b")
    assert systemd.journal("archy-web.service", 9) == ["b"]
