# SPDX-License-Identifier: MIT
"""When the rotation of a secret is over: nobody who runs was started with the value before."""

from __future__ import annotations

import pytest
from support import Node, down, running, state

from archy.health import current
from archy.health.current import AppState
from archy.host import systemd
from archy.reconcile import plan

SECRETS = "/var/lib/archipelago/secrets"
USER = {"secrets": ["p"]}
CONF = ("/x/a.conf",)


@pytest.mark.parametrize(
    ("app", "waits"),
    [
        pytest.param(running(**USER), False, id="new"),
        pytest.param(running(**USER, stale=CONF), True, id="runs-on-the-old-one"),
        pytest.param(running(**USER, comparable=False), True, id="nobody-knows"),
        pytest.param(running(**USER, has_job=True), True, id="about-to-change"),
        pytest.param(running(**USER, active="activating", sub="start"), False, id="starting-with-the-new-one"),
        pytest.param(
            running(**USER, active="activating", sub="start", stale=CONF), True, id="starting-with-the-old-one"
        ),
        pytest.param(
            running(**USER, active="activating", sub="start", comparable=False), True, id="starting-with-who-knows"
        ),
        pytest.param(
            running(**USER, active="activating", sub="start-pre", comparable=False), True, id="about-to-start"
        ),
        pytest.param(running(**USER, active="activating", sub="auto-restart", stale=CONF), False, id="between-starts"),
        pytest.param(running(**USER, active="deactivating", sub="stop-sigterm", stale=CONF), True, id="stopping"),
        pytest.param(
            running(**USER, active="activating", sub="auto-restart-queued", comparable=False),
            False,
            id="between-starts-queued",
        ),
        pytest.param(down(**USER, has_job=True), False, id="waits-for-its-image"),
        pytest.param(down(**USER, active="failed", sub="failed", has_job=True), False, id="waits-for-another"),
        pytest.param(running(**USER, sub="exited", comparable=False), False, id="ran-to-its-end"),
        pytest.param(down(**USER), False, id="down"),
        pytest.param(running(**USER, active="failed", sub="failed", comparable=False), False, id="failed"),
        pytest.param(running(**USER, stale_own=CONF), False, id="its-operator-s-file-is-another-matter"),
        pytest.param(running(secrets=["q", "pp", "p.pw"], stale=CONF), False, id="does-not-use-it"),
        pytest.param(running(summary=None, stale=CONF), False, id="nobody-knows-what-it-uses"),
    ],
)
def test_whom_it_waits_for(app: AppState, waits: bool) -> None:
    found = state(running("a", **USER), app, rotating=frozenset({"p"}))
    assert plan.outdated_users(found, "p") == (["web"] if waits else [])
    steps = [str(step) for step in plan.finished_rotations(found)]
    assert steps == ([] if waits else [f"remove {SECRETS}/p.previous (its rotation is over)"])


def test_each_rotation_for_itself() -> None:
    apps = [running(secrets=["p"], stale=CONF), running("b", secrets=["q", "q.pw"])]
    steps = plan.finished_rotations(state(*apps, rotating=frozenset({"q.pw", "p", "q", "of-nobody"})))
    assert [str(step).split()[1] for step in steps] == [
        f"{SECRETS}/{name}.previous" for name in ("of-nobody", "q", "q.pw")
    ]


def test_no_rotation() -> None:
    assert plan.finished_rotations(state(running(**USER, stale=CONF))) == []


def test_which_secrets_are_rotated(node: Node) -> None:
    """A file beside the secret says so, and nothing else."""
    for name in ("p", "p.previous", "q.pw.previous", "previous", "x.previous.old"):
        node.write(f"{SECRETS}/{name}", "x")
    node.path(f"{SECRETS}/d.previous").mkdir()
    node.path(f"{SECRETS}/l.previous").symlink_to("p")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(systemd, "units", lambda _: {})
        assert current.observe(node.name, {}).rotating == {"p", "q.pw"}
