# SPDX-License-Identifier: MIT
"""What root reads of archy-probe: all that is right, and nothing of what is not. It comes from the service user."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from probes import file, pack
from support import NOW, UP, Node, running, state

from archy import paths
from archy.health.current import NodeState, _probe
from archy.host import systemd
from archy.probe import report
from archy.probe.report import CheckResult, ContainerReport, PodmanContainer, Report
from archy.reconcile import plan
from archy.reconcile import status as reconcile_status
from archy.recover.incidents import Incidents

A, B = "a" * 64, "b" * 64
TIMER = f"{A}-1234567890abcdef.timer"


def load(node: Node, found: Any) -> Report:
    node.write(paths.PROBE, found if isinstance(found, str | bytes) else pack(found))
    return report.load(node.name)


def app(**fields: Any) -> dict[str, Any]:
    """What is said of one app."""
    return {**file(("web",))["apps"]["web"], **fields}


def podman(**fields: Any) -> dict[str, Any]:
    return {**file()["podman"], **fields}


def judged(found: Report) -> reconcile_status.Status:
    """A status is made of it, whatever it is, and can be written."""
    node: NodeState = state(running(), probe=found, wall=NOW, monotonic=UP)
    result = reconcile_status.assess(plan.make(node, Incidents()))
    json.dumps(result, allow_nan=False)
    reconcile_status.pack(result)
    return result


def test_all_of_it(node: Node) -> None:
    answer = {"ok": False, "kind": "refused", "said": "port 80: Connection refused", "at": 7.5}
    held = {"id": A, "stopped": True, "main_stopped": True, "frozen": True, "cpu": 2, "forwarded": False}
    found = {
        "at": 10,
        "load": 0.25,
        "apps": {"web": app(**held, check=answer, names=None)},
        "podman": {
            "at": 9.5,
            "error": "",
            "containers": [[A, "running", "web", "archy-web.service"], [B, "exited", "x", ""]],
            "seen": [],
        },
        "pasta": True,
        "timers": [TIMER],
        "digest": "0123",
    }
    assert load(node, found) == Report(
        10,
        0.25,
        {
            "web": ContainerReport(
                A, True, True, True, 2, False, CheckResult(False, "refused", "port 80: Connection refused", 7.5)
            )
        },
        (PodmanContainer(A, "running", "web", "archy-web.service"), PodmanContainer(B, "exited", "x", "")),
        9.5,
        "",
        True,
        (TIMER,),
        digest="0123",
    )


@pytest.mark.parametrize(("pasta", "wanted"), [(None, None), (True, True), (False, False)])
def test_pasta(node: Node, pasta: bool | None, wanted: bool | None) -> None:
    assert load(node, file(pasta=pasta)).pasta is wanted


def test_podman_s_error_is_no_list(node: Node) -> None:
    found = load(node, file(podman=podman(error="database is locked")))
    assert (found.containers, found.podman_error, found.error) == (None, "database is locked", "")
    assert load(node, file(podman=podman())).containers == ()


@pytest.mark.parametrize(
    ("content", "errors", "said"),
    [
        (None, None, "no answer"),
        ("", None, "no answer"),
        ("", "", "no answer"),
        ("", " \n", "no answer"),
        ("", "the manager of user 990 does not run\n", "the manager of user 990 does not run"),
        ("", "Traceback\n  File x\nValueError: y\n", "ValueError: y"),
        ("", "a\x1b[31mb\x00\n", "a[31mb"),
        ("", "x" * 10_000, "x" * 300),
        ("", b"\xff\xfe", "\ufffd\ufffd"),
        ("", "\x01\x02", "no answer"),
    ],
)
def test_why_there_is_no_answer(node: Node, content: str | None, errors: str | bytes | None, said: str) -> None:
    if content is not None:
        node.write(paths.PROBE, content)
    if errors is not None:
        node.write(paths.PROBE_ERROR, errors)
    assert report.load(node.name) == Report(error=said)


def test_errors_of_before_do_not_matter_if_there_is_an_answer(node: Node) -> None:
    node.write(paths.PROBE_ERROR, "a warning\n")
    assert load(node, file()).error == ""


def test_neither_a_link_nor_a_pipe_is_followed_for_ever(node: Node) -> None:
    node.path(paths.PROBE).parent.mkdir(parents=True)
    node.path(paths.PROBE).mkdir()
    assert report.load(node.name).error == "no answer"


NOTHING: list[Any] = [None, 7, True, "x", [], [[]], {}, {"a": 1}, -1.5, "9" * 400]


@pytest.mark.parametrize("key", sorted(file()))
@pytest.mark.parametrize("value", NOTHING, ids=lambda value: repr(value)[:12])
def test_a_part_of_another_type(node: Node, key: str, value: Any) -> None:
    judged(load(node, file(("web",), **{key: value})))


@pytest.mark.parametrize("key", sorted(app()))
@pytest.mark.parametrize("value", NOTHING, ids=lambda value: repr(value)[:12])
def test_a_part_of_an_app_of_another_type(node: Node, key: str, value: Any) -> None:
    judged(load(node, file(apps={"web": app(**{key: value})})))


@pytest.mark.parametrize("where", ["podman", "check", "names"])
@pytest.mark.parametrize("value", NOTHING, ids=lambda value: repr(value)[:12])
def test_a_part_further_down_of_another_type(node: Node, where: str, value: Any) -> None:
    for key in podman() if where == "podman" else ("ok", "kind", "said", "at"):
        answer = {"ok": True, "kind": "", "said": "", "at": 1.0, key: value}
        parts: dict[str, Any] = (
            {"podman": podman(**{key: value})} if where == "podman" else {"apps": {"web": app(**{where: answer})}}
        )
        judged(load(node, file(**parts)))


@pytest.mark.parametrize("missing", sorted(set(file())))
def test_a_part_that_is_missing_is_no_answer(node: Node, missing: str) -> None:
    found = file(("web",))
    del found[missing]
    assert load(node, found) == Report(error="no answer")


@pytest.mark.parametrize(
    "value",
    ["NaN", "Infinity", "-Infinity", "1e999", "1e300", "-1e300", "1" + "0" * 400, '"nan"', '"inf"', '"1e300"'],
    ids=lambda value: value[:10],
)
@pytest.mark.parametrize(
    "where",
    [
        '"at": %s, "load"',
        '"load": %s, "apps"',
        '"cpu": %s, "check"',
        '"said": "", "at": %s}, "names"',
        '"podman": {"at": %s, "error"',
    ],
)
def test_numbers_that_are_none(node: Node, where: str, value: str) -> None:
    """They would make a status that nobody can read, or none at all."""
    text = pack(file(("web",)))
    before, after = where.split("%s")
    start = text.index(before)
    end = text.index(after, start)
    judged(load(node, text[:start] + before + value + text[end:]))


@pytest.mark.parametrize(
    "identity",
    ["", "x", "A" * 64, "a" * 63, "a" * 65, f"{'a' * 64}\n", "\ud800", "../x", "x" * 10**6],
    ids=lambda value: repr(value)[:12],
)
def test_an_identity_that_is_none_reaches_nobody(node: Node, identity: str) -> None:
    found = load(
        node,
        file(apps={"web": app(id=identity)}, podman=podman(containers=[[identity, "running", "n", "u"]])),
    )
    assert not found.containers
    assert found.apps == {}
    judged(found)


@pytest.mark.parametrize("name", ["", "-x", "../x", "a b", "x" * 64, "A", "\x1b[31m", "@node"])
def test_a_name_that_no_app_can_have(node: Node, name: str) -> None:
    assert load(node, file(apps={name: app(), "web": app()})).apps.keys() == {"web"}


@pytest.mark.parametrize(
    "timer", ["", "x.timer", f"{A}.timer", f"{A}-x.timer", f"{A}-1.timer\n", f"{A}-1.service", f"-{TIMER}", "--all"]
)
def test_a_timer_that_is_none_of_podman_s(node: Node, timer: str) -> None:
    """Their names become arguments of a command."""
    assert load(node, file(timers=[timer, TIMER])).timers == (TIMER,)


def test_the_timer_of_a_start_up_check_is_one(node: Node) -> None:
    assert load(node, file(timers=[f"{A}-startup-1f.timer"])).timers == (f"{A}-startup-1f.timer",)


@pytest.mark.parametrize(
    "entries", [[[]], [[A]], [[A, "running", "n"]], [[A, "running", "n", "u", "v"]], [A], [7], [None], [{"id": A}]]
)
def test_a_list_of_podman_that_is_none(node: Node, entries: list[Any]) -> None:
    found = load(node, file(podman=podman(containers=entries)))
    assert not found.containers
    judged(found)


def test_what_it_says_is_cut_and_has_no_control_characters(node: Node) -> None:
    bad = "\x1b[2J\r\n\t\x00\u202e\u2028\ud800" + "é" * 1000
    answer = {"ok": False, "kind": "bad answer", "said": bad, "at": 1}
    found = load(
        node,
        file(
            apps={"web": app(check=answer, names=answer)},
            podman=podman(containers=[[A, bad, bad, bad]]),
        ),
    )
    assert found.containers is not None
    said = [found.apps["web"].check, found.apps["web"].names]
    texts = [*(answer.message for answer in said if answer), found.containers[0].name, found.containers[0].unit]
    texts += [found.containers[0].state, load(node, file(podman=podman(error=bad))).podman_error]
    assert texts == ["[2J" + "é" * 297] * 6


@pytest.mark.parametrize(
    "text",
    ["[" * 100_000, '{"at":' * 100_000, '"', "{}", "null", "\xff", "nul", '{"at": ' + "9" * 5000 + "}", "[]" * 2, "\0"],
    ids=lambda text: text[:8],
)
def test_no_json_or_no_object(node: Node, text: str) -> None:
    assert load(node, text.encode("latin-1")) == Report(error="no answer")


def test_nested_where_a_text_belongs(node: Node) -> None:
    deep: Any = "x"
    for _ in range(500):
        deep = [deep]
    judged(load(node, file(podman=podman(error=deep))))
    judged(load(node, file(apps={"web": app(check={"ok": False, "kind": deep, "said": deep, "at": 1})})))


def test_a_huge_file_is_cut_and_so_no_answer(node: Node) -> None:
    assert load(node, pack(file(filler="x" * 17 * 1024**2))) == Report(error="no answer")


def test_ten_thousand_containers_of_strangers(node: Node) -> None:
    """They are not ours to judge, and not ours to sweep."""
    entries = [[f"{number:064x}", "running", f"c{number}", "other.service"] for number in range(10_000)]
    found = load(node, file(podman=podman(containers=entries)))
    assert judged(found)["node"]["podman"]["containers"] == 10_000
    assert judged(found)["node"]["recovery"]["problems"] == []


JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["ok", "at", "said", "kind"]), inner),
    max_leaves=8,
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from(sorted(file())), JSON, st.sampled_from(sorted(app())), JSON)
def test_whatever_it_is_a_pass_can_be_made(node: Node, key: str, value: Any, inner: str, other: Any) -> None:
    found = file(apps={"web": app(**{inner: other})})
    judged(load(node, found))
    judged(load(node, {**found, key: value}))


# When it is read at all.


@pytest.mark.parametrize(
    ("unit", "asked"),
    [
        ({}, False),
        ({"began": 5.0}, True),
        ({"began": 5.0, "active": "failed"}, True),
        ({"began": 5.0, "active": "failed", "result": "exit-code"}, True),
        ({"began": 5.0, "active": "activating"}, False),
    ],
)
def test_no_probe_yet_or_one_at_work_is_no_fault(node: Node, unit: dict[str, Any], asked: bool) -> None:
    made = systemd.Unit("archy-probe.service", **unit)
    assert _probe(node.name, made) == (Report(error="no answer") if asked else Report())


def test_a_unit_that_systemd_has_forgotten_is_no_reason_not_to_know(node: Node) -> None:
    """As where somebody has masked the timer: nothing refers to the unit any more, and it is loaded anew."""
    load(node, file(("web",)))
    assert _probe(node.name, systemd.Unit("archy-probe.service")).apps.keys() == {"web"}


MADE = systemd.Unit("archy-probe.service", began=5.0)


@pytest.mark.parametrize("result", ["exit-code", "timeout", "signal", "oom-kill", "start-limit-hit"])
@pytest.mark.parametrize("active", ["failed", "inactive"])
def test_one_that_failed_has_not_said_what_an_earlier_one_did(node: Node, result: str, active: str) -> None:
    """The file is that of before."""
    load(node, file())
    failed = replace(MADE, active=active, result=result)
    assert _probe(node.name, failed) == Report(error="no answer")
    node.write(paths.PROBE_ERROR, "the manager of user 990 does not run\n")
    assert _probe(node.name, failed) == Report(error="the manager of user 990 does not run")


@pytest.mark.parametrize(
    ("ago", "error"),
    [(0, ""), (60, ""), (590, ""), (610, "the last probe was 10 min ago"), (86400, "the last probe was 1440 min ago")],
)
def test_an_old_answer_is_none(node: Node, ago: float, error: str) -> None:
    """Its timer, or its unit, is masked, say."""
    load(node, file(at=time.monotonic() - ago))
    found = _probe(node.name, MADE)
    assert found.error == error
    assert found == Report(error=error) if error else found.at


@pytest.mark.parametrize("at", [-1e9, 0])
def test_an_answer_of_another_boot_is_none(node: Node, at: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "monotonic", lambda: UP)
    load(node, file(at=at))
    assert _probe(node.name, MADE).error.startswith("the last probe was ")


def test_of_an_answer_that_cannot_be_read_it_is_said_why(node: Node) -> None:
    """Not how old it is."""
    load(node, "{")
    assert _probe(node.name, MADE) == Report(error="no answer")


@pytest.mark.parametrize("content", [None, "", "{", pack(file())], ids=["none", "empty", "cut-off", "whole"])
def test_one_at_work_says_nothing_yet(node: Node, content: str | None) -> None:
    if content is not None:
        node.write(paths.PROBE, content)
    assert _probe(node.name, replace(MADE, active="activating", sub="start")) == Report()
