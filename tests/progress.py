# SPDX-License-Identifier: MIT
"""How far a run of tests is, how long it will take, what is slow and what that waits for, and what is left to run.

Both kinds of tests use it. What came of each test goes at once into build/tests/<kind>.jsonl, one line a test: a run
that was killed can be resumed, and the next run knows what to expect. Workers are told by whom starts them what was
done before, so that all of them choose the same tests.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

RESULTS = Path(__file__).resolve().parent.parent / "build/tests"
SLOWEST = 25
EVERY = 20.0  # seconds between two words about the progress
GUESS = 3.0  # seconds that a test takes of which nothing is known
_spent: dict[str, float] = {}
_inside = threading.local()
Told = dict[str, Any]  # a line of the results


@contextmanager
def spent(reason: str) -> Iterator[None]:
    """Count the time that this block takes as spent for a reason; of blocks in each other, the outermost one counts."""
    if getattr(_inside, "any", False):
        yield
        return
    _inside.any, began = True, time.monotonic()
    try:
        yield
    finally:
        _inside.any = False
        _spent[reason] = _spent.get(reason, 0.0) + time.monotonic() - began


def read(path: Path) -> dict[str, Told]:
    """The last line of each test; a line that was being written when the run was killed is none."""
    found: dict[str, Told] = {}
    for line in path.read_text().splitlines() if path.exists() else ():
        try:
            told = json.loads(line)
            found[told["test"]] = told
        except (ValueError, KeyError, TypeError):
            continue
    return found


def clock(seconds: float) -> str:
    """Minutes and seconds."""
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"


class Progress:
    """The plugin, in whoever starts workers, in each worker, and where there are none."""

    def __init__(self, config: pytest.Config, kind: str) -> None:
        """Know what came of the tests before."""
        self.config, self.path = config, RESULTS / f"{kind}.jsonl"
        self.worker: Told | None = getattr(config, "workerinput", None)
        self.past = read(self.path) if self.worker is None else self.worker["past"]
        self.resume = bool(os.environ.get("RESUME"))
        self.tests: list[str] = []
        self.now: dict[str, Told] = {}
        self.began = self.said = time.monotonic()

    def pytest_configure_node(self, node: Any) -> None:
        """Tell a worker what was before."""
        keep = ("seconds", "outcome")  # a test that the run before did not come to has no outcome
        past = {test: {key: told[key] for key in keep if key in told} for test, told in self.past.items()}
        node.workerinput["past"] = past

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Leave out what passed already, if the run before is to be resumed."""
        if self.resume:
            done = [item for item in items if self.past.get(item.nodeid, {}).get("outcome") in ("passed", "skipped")]
            items[:] = [item for item in items if item not in done]
            self.config.hook.pytest_deselected(items=done)

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """Begin, where there are no workers."""
        if self.worker is None and session.items and not self.config.option.collectonly:
            self.begin([item.nodeid for item in session.items])

    def pytest_xdist_node_collection_finished(self, ids: list[str]) -> None:
        """Begin, where there are workers; all of them found the same."""
        if not self.tests:
            self.begin(ids)

    def begin(self, tests: list[str]) -> None:
        """What will be run now has no outcome yet; that of other tests stays."""
        self.tests, self.began = tests, time.monotonic()
        for test in tests:
            self.past.get(test, {}).pop("outcome", None)
        RESULTS.mkdir(parents=True, exist_ok=True)
        new = self.path.with_suffix(".new")
        new.write_text("".join(json.dumps(told) + "\n" for told in self.past.values()))
        new.rename(self.path)

    @pytest.hookimpl(hookwrapper=True)
    def pytest_runtest_makereport(self) -> Iterator[None]:
        """Where the test runs: say with each phase what it waited for."""
        outcome: Any = yield
        outcome.get_result().user_properties.append(("spent", dict(_spent)))
        _spent.clear()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Write down what came of a test, and now and then how far the run is."""
        if self.worker is not None:
            return
        told = self.now.setdefault(
            report.nodeid, {"test": report.nodeid, "outcome": "passed", "seconds": 0.0, "spent": {}}
        )
        told["seconds"] = round(told["seconds"] + report.duration, 2)
        if not report.passed and told["outcome"] != "failed":
            told["outcome"] = report.outcome
            if report.failed:
                self.say(f"failed: {report.nodeid} ({report.when})")
        properties: list[tuple[str, Any]] = report.user_properties
        for reason, seconds in [pair for key, value in properties if key == "spent" for pair in value.items()]:
            told["spent"][reason] = round(told["spent"].get(reason, 0) + seconds, 2)
        if report.when == "teardown":
            told["worker"] = getattr(report, "worker_id", "")
            told["at"] = round(time.monotonic() - self.began, 1)
            with self.path.open("a") as out:
                out.write(json.dumps(told) + "\n")
            self.progress()

    def expected(self, test: str) -> float:
        """How long a test takes."""
        return float(self.past.get(test, {}).get("seconds", GUESS)) + 0.05

    def say(self, line: str) -> None:
        """A line of its own, between the dots."""
        terminal: Any = self.config.pluginmanager.get_plugin("terminalreporter")
        if terminal is not None:
            terminal.ensure_newline()
            terminal.write_line(line)

    def progress(self) -> None:
        """Say how far the run is."""
        done = [test for test in self.tests if "at" in self.now.get(test, {})]
        now = time.monotonic()
        if now - self.said < EVERY and len(done) < len(self.tests):
            return
        self.said = now
        gone = now - self.began
        left = sum(map(self.expected, self.tests)) - sum(map(self.expected, done))
        left *= gone / sum(map(self.expected, done))  # by how long it took so far what should have taken so long
        known = sum(map(self.expected, done)) > sum(map(self.expected, self.tests)) / 20  # the first ones mislead
        failed = sum(told["outcome"] == "failed" for told in self.now.values())
        about = f"; about {clock(left)} left" if known else ""
        self.say(f"{len(done)} of {len(self.tests)} tests, {failed} failed, after {clock(gone)}{about}")

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        """Say what took longest, and why."""
        if self.worker is not None or len(self.now) < 2:
            return
        terminalreporter.section(f"slowest {SLOWEST} tests, and what they waited for")
        for told in sorted(self.now.values(), key=lambda told: -told["seconds"])[:SLOWEST]:
            terminalreporter.write_line(f"{told['seconds']:7.1f} s  {told['test']}")
            why = sorted(told["spent"].items(), key=lambda pair: -pair[1])[:3]
            if why:
                terminalreporter.write_line(" " * 11 + ", ".join(f"{name} {seconds:.1f} s" for name, seconds in why))
