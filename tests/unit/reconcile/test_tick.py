# SPDX-License-Identifier: MIT
# ruff: noqa: F811 - a fixture of another module
"""The look of every 30 s: what starts a pass, and what of the service user's answer root takes."""

from __future__ import annotations

import json
import os
from collections.abc import Callable

import pytest
from probes import file, pack
from support import Node
from test_reconcile import Systemd, later, passes, pid1, status  # noqa: F401  a fixture

from archy import paths
from archy.host import locks
from archy.probe import probe
from archy.reconcile import tick, unchanged

pytestmark = [
    pytest.mark.programs,
    pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files to the service user"),
]

D = "/var/lib/archipelago"


def digest() -> bytes:
    found: str = json.loads(pack(file(("web", "ui"))))["digest"]
    return found.encode()


@pytest.fixture
def look(pid1: Systemd, monkeypatch: pytest.MonkeyPatch) -> Callable[..., bool]:
    """Make a look at a node on which a pass has found all well."""

    def once(answer: bytes | None = None) -> bool:
        monkeypatch.setattr(tick, "ask", lambda _: digest() if answer is None else answer)
        return tick.idle(pid1.node.name)

    return once


Change = Callable[[Systemd, pytest.MonkeyPatch], object]


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda pid1, _: pid1.states.update({"archy-web.service": {"active": "failed"}}), id="unit-failed"),
        pytest.param(lambda pid1, _: pid1.states.update({"archy-web.service": {"has_job": True}}), id="queued-job"),
        pytest.param(lambda pid1, _: pid1.start("web"), id="crashed-and-came-back"),
        pytest.param(lambda pid1, _: pid1.node.write(f"{paths.STOPPED}/web", ""), id="stopped-by-hand"),
        pytest.param(lambda pid1, _: pid1.node.write(f"{D}/web/f", "tampered"), id="derived-file"),
        pytest.param(lambda pid1, _: pid1.node.write(f"{D}/secrets/p", "other\n"), id="secret"),
        pytest.param(lambda pid1, _: pid1.node.write("/etc/archy/apps/web/t.j2", "other"), id="template"),
        pytest.param(lambda pid1, _: pid1.node.path("/run/systemd/generator/archy-web.service").unlink(), id="unit"),
        pytest.param(lambda pid1, _: pid1.node.path("/run/archy/started/web.json").unlink(), id="record"),
        pytest.param(lambda pid1, _: pid1.node.path(paths.STATUS).unlink(), id="no-status"),
        pytest.param(lambda pid1, _: pid1.node.write(paths.STATUS, "{"), id="damaged-status"),
        pytest.param(lambda pid1, _: pid1.node.write(paths.STATUS, "[" * 100_000), id="deep-status"),
        pytest.param(lambda pid1, _: pid1.node.path("/run/archy/unchanged").unlink(), id="no-memory"),
        pytest.param(lambda pid1, _: pid1.node.write("/run/archy/unchanged", "[]"), id="damaged-memory"),
        pytest.param(lambda pid1, _: pid1.node.write("/run/archy/unchanged", '{"probe": 1}'), id="odd-memory"),
        pytest.param(lambda _, patch: later(patch, "time", 10), id="clock-jumps"),
        pytest.param(lambda _, patch: later(patch, "time monotonic", 600), id="long-ago"),
        pytest.param(lambda _, patch: patch.setattr(unchanged, "_FULL", 1.0), id="disk-full"),
    ],
)
def test_what_starts_a_pass(
    pid1: Systemd,
    look: Callable[..., bool],
    monkeypatch: pytest.MonkeyPatch,
    change: Change,
) -> None:
    assert look()
    change(pid1, monkeypatch)
    assert not look()


@pytest.mark.parametrize("answer", [b"", b"2", b"\xff\x00", b"[" * 100_000], ids=["none", "other", "binary", "deep"])
def test_another_answer_starts_a_pass_and_is_not_read(look: Callable[..., bool], answer: bytes) -> None:
    assert not look(answer)


def test_an_idle_look_makes_no_pass_and_keeps_the_status_fresh(
    pid1: Systemd,
    look: Callable[..., bool],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    looks, before = passes(pid1, monkeypatch), status(pid1.node)
    pid1.node.write(paths.PROBE, "what the probe of the last pass has left is not read")
    assert look()
    assert (looks, pid1.asked) == ([], [])
    assert status(pid1.node)["monotonic"] > before["monotonic"]


def test_while_a_pass_is_made_none_is_started(pid1: Systemd, look: Callable[..., bool]) -> None:
    with locks.hold(pid1.node.name, paths.PASS_LOCK, lambda: None), pytest.raises(BlockingIOError):
        look()


def test_what_a_pass_itself_changes_is_no_difference(monkeypatch: pytest.MonkeyPatch, node: Node) -> None:
    """A listing made within a pass, and one made within a tick."""
    made = {
        "pass": b"archy-reconcile.service loaded activating start P\narchy-reconcile.timer loaded active running T\n",
        "tick": b"archy-tick.service loaded activating start Tick\narchy-reconcile.timer loaded active waiting T\n",
        "stopped": b"archy-reconcile.timer loaded inactive dead T\n",
    }
    seen = {}
    for name, text in made.items():
        monkeypatch.setattr(unchanged, "output", lambda _, text=text: text)
        seen[name] = unchanged.listing(node.name)
    assert seen["pass"] == seen["tick"] != seen["stopped"]


def test_the_child_has_no_right_of_root(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    """It gives them up before it asks; if it cannot, nobody is asked."""
    node.write("/etc/passwd", f"{paths.USER}:x:4711:4712::/:\n")
    monkeypatch.setattr(os, "initgroups", lambda _, gid: os.setgroups([gid]))
    monkeypatch.setattr(probe, "probe", lambda: ("", repr((os.getresuid(), os.getresgid(), os.getgroups()))))
    assert tick.ask(node.name) == repr(((4711,) * 3, (4712,) * 3, [4712])).encode()
    node.write("/etc/passwd", f"{paths.USER}:x:0:0::/:\n")
    assert tick.ask(node.name) == b""
    node.write("/etc/passwd", "")
    assert tick.ask(node.name) == b""


def test_a_child_that_finds_nothing_out_or_fails_is_a_difference(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    node.write("/etc/passwd", f"{paths.USER}:x:4711:4712::/:\n")
    monkeypatch.setattr(os, "initgroups", lambda _, gid: os.setgroups([gid]))
    monkeypatch.setattr(probe, "probe", lambda: None)
    assert tick.ask(node.name) == b""
    monkeypatch.setattr(probe, "probe", lambda: 1 // 0)
    assert tick.ask(node.name) == b""


def test_a_command_that_fails_says_so() -> None:
    assert unchanged.output(["echo", "word"]) == b"word\n"
    with pytest.raises(OSError, match="ended with status 1"):
        unchanged.output(["false"])
