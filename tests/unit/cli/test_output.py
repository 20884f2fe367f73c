# SPDX-License-Identifier: MIT
"""Colour and progress on terminals only."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
import tty
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
from support import REPO

from archy.cli import main as cli_main
from archy.cli import output
from archy.operations import progress as operations_progress
from archy.operations.progress import CannotDo, Progress


def on_a_terminal(monkeypatch: pytest.MonkeyPatch, act: Callable[[], object]) -> str:
    """What `act` prints where both streams are a terminal."""
    main, side = pty.openpty()
    tty.setraw(side)
    with open(side, "w", encoding="utf-8") as terminal, monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", terminal)
        patch.setattr(sys, "stderr", terminal)
        act()
    shown = b""
    with open(main, "rb", 0) as reader, suppress(OSError):  # EIO once all is read and nobody writes any more
        while part := reader.read(65536):
            shown += part
    return shown.decode()


def show() -> None:
    output.table(["APP", "STATE"], [["a", "active"], ["bb", "failed"]], {"active": "green", "failed": "red"})
    output.print_error(CannotDo("do", "there", "so", "then"))


PLAIN = "APP  STATE\na    active\nbb   failed\narchy: do: there: so\nhint: then\n"


def test_colour_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    shown = on_a_terminal(monkeypatch, show)
    for text, code in (("APP", "1"), ("active", "32"), ("failed", "31"), ("archy:", "31"), ("hint:", "2")):
        assert f"\x1b[{code}m{text}" in shown
    bare = shown
    for code in ("0", "1", "2", "31", "32"):
        bare = bare.replace(f"\x1b[{code}m", "")
    assert [line.rstrip() for line in bare.splitlines()] == PLAIN.splitlines()


@pytest.mark.parametrize(("name", "value"), [("NO_COLOR", "1"), ("NO_COLOR", "0"), ("TERM", "dumb")])
def test_no_colour_where_nobody_wants_it(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv(name, value)
    assert on_a_terminal(monkeypatch, show) == PLAIN


def test_an_empty_no_color_counts_as_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("NO_COLOR", "")
    assert "\x1b[" in on_a_terminal(monkeypatch, show)


def test_no_colour_elsewhere(capsys: pytest.CaptureFixture[str]) -> None:
    show()
    said = capsys.readouterr()
    assert said.out + said.err == PLAIN


def steps() -> None:
    progress = Progress()
    for seconds in range(3):
        progress.show("web: starting", f"{seconds} s")
    progress.show("web: ready")
    progress.done()
    progress.done()


def test_progress_is_one_line_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = on_a_terminal(monkeypatch, steps)
    assert shown.count("\n") == 1
    assert shown.split("\r\x1b[K") == [
        "",
        "web: starting 0 s",
        "web: starting 1 s",
        "web: starting 2 s",
        "web: ready\n",
    ]


def test_progress_is_a_line_per_change_elsewhere(capsys: pytest.CaptureFixture[str]) -> None:
    steps()
    assert capsys.readouterr() == ("", "web: starting\nweb: ready\n")


def test_a_table_of_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    output.table(["APP", "STATE"], [])
    assert capsys.readouterr().out == "APP  STATE\n"


def test_json_is_unicode_and_ends_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    output.print_json({"a": "ä₿"})
    assert capsys.readouterr().out == '{\n  "a": "ä₿"\n}\n'


@pytest.mark.parametrize(
    "code",
    [
        operations_progress.OK,
        operations_progress.FAILED,
        operations_progress.USAGE,
        operations_progress.REFUSED,
        operations_progress.NO_SUCH_APP,
        operations_progress.NOT_PERMITTED,
    ],
)
def test_exit_codes_are_told_in_the_help(code: int) -> None:
    assert f"  {code}  " in cli_main._EXITS


@pytest.mark.programs
def test_a_reader_that_goes_away_is_no_error_to_speak_of() -> None:
    """As in `archy --help | head -0`, with more than a pipe holds."""
    program = """import sys
from archy.apps import catalogue
from archy.cli import main as cli
catalogue.entries = lambda root: [print("x" * 200_000)] and []
sys.exit(cli.main(["app", "list"]))"""
    env: dict[str, Any] = {"PYTHONPATH": str(REPO / "generator"), "PATH": os.defpath}
    with subprocess.Popen(
        [sys.executable, "-c", program], env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        said = process.stderr.read()
    assert (process.returncode, said) == (1, "")
