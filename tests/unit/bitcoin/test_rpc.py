# SPDX-License-Identifier: MIT
# ruff: noqa: E501 - a case is a line
"""What the node's Bitcoin says of itself, over real HTTP, and what an app waits for before its start."""

from __future__ import annotations

import base64
import json
import os
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any, ClassVar

import pytest
from support import Node, app_of

from archy import paths
from archy.apps import facts
from archy.bitcoin import rpc, wait

SECRET = "/var/lib/archipelago/secrets/bitcoin-rpc-password"
CHAIN = {"pruned": False, "initialblockdownload": False, "verificationprogress": 0.999987, "blocks": 900_000}
INDEXES: dict[str, Any] = {"txindex": {"synced": True, "best_block_height": 900_000}}
ARCHIVAL = {"pruned": False, "txindex": True, "initialblockdownload": False, "progress": 0.999987}
Answers = dict[str, tuple[int, bytes]]
_connect = socket.socket.connect  # the guard around tests puts another one in its place


def result(value: Any) -> tuple[int, bytes]:
    return 200, json.dumps({"result": value, "error": None, "id": "archy"}).encode()


GOOD: Answers = {"getblockchaininfo": result(CHAIN), "getindexinfo": result(INDEXES)}


class Bitcoind(BaseHTTPRequestHandler):
    """Answers a call if the login is right, as bitcoind does."""

    answers: ClassVar[Answers] = {}

    def do_POST(self) -> None:
        """Answer a call."""
        call = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        login = base64.b64encode(b"archipelago:s3cret").decode()
        right = self.headers["Authorization"] == f"Basic {login}" and self.headers["Content-Type"] == "application/json"
        code, body = self.answers[call["method"]] if right and call["params"] == [] else (401, b"")
        self.send_response(code)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@pytest.fixture
def serve(node: Node, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Answers], None]]:
    """Let a bitcoind answer so, in a process of its own; and let there be a password for it."""
    made: list[int] = []

    def serving(answers: Answers) -> None:
        Bitcoind.answers = answers
        server = HTTPServer(("127.0.0.1", 0), Bitcoind)
        process = os.fork()
        if process == 0:
            try:
                server.serve_forever()
            finally:
                os._exit(0)
        made.append(process)
        monkeypatch.setattr(rpc, "URL", f"http://127.0.0.1:{server.server_address[1]}/")
        server.server_close()

    node.write(SECRET, "s3cret\n")
    monkeypatch.setattr(socket.socket, "connect", _connect)
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    yield serving
    for process in made:
        with suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)
        os.waitpid(process, 0)


@pytest.mark.parametrize(
    ("chain", "indexes", "state"),
    [
        (CHAIN, INDEXES, ARCHIVAL),
        ({**CHAIN, "pruned": True}, INDEXES, {**ARCHIVAL, "pruned": True}),
        (CHAIN, {}, {**ARCHIVAL, "txindex": False}),
        (CHAIN, {"coinstatsindex": {}}, {**ARCHIVAL, "txindex": False}),
        ({**CHAIN, "initialblockdownload": True, "verificationprogress": 0}, {}, {"pruned": False, "txindex": False, "initialblockdownload": True, "progress": 0.0}),
    ],
)  # fmt: skip
def test_what_it_says(
    node: Node, serve: Callable[[Answers], None], chain: object, indexes: object, state: dict[str, object]
) -> None:
    serve({"getblockchaininfo": result(chain), "getindexinfo": result(indexes)})
    assert rpc.ask(node.name) == state


STARTING = (500, json.dumps({"result": None, "error": {"code": -28, "message": "Loading block index…"}}).encode())


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (STARTING, "Loading block index…"),
        ((401, b""), "Unauthorized"),
        ((403, b"<html>"), "Forbidden"),
        ((500, b'{"error": null}'), "Internal Server Error"),
        ((500, b'{"error": "plain"}'), "Internal Server Error"),
        ((500, b"[]"), "Internal Server Error"),
        ((200, b""), "unexpected answer: Expecting value: line 1 column 1 (char 0)"),
        ((200, b"{}"), "unexpected answer: 'result'"),
        ((200, b"[]"), "unexpected answer: list indices must be integers or slices, not str"),
        (result(None), "unexpected answer: 'NoneType' object is not subscriptable"),
        (result({}), "unexpected answer: 'pruned'"),
        (
            result({**CHAIN, "verificationprogress": "much"}),
            "unexpected answer: could not convert string to float: 'much'",
        ),
    ],
)
def test_answers_that_say_nothing(
    node: Node, serve: Callable[[Answers], None], answer: tuple[int, bytes], message: str
) -> None:
    serve({**GOOD, "getblockchaininfo": answer})
    with pytest.raises(OSError) as error:  # noqa: PT011
        rpc.ask(node.name)
    assert str(error.value) == message


def test_without_a_login(node: Node, serve: Callable[[Answers], None]) -> None:
    serve(GOOD)
    node.write(SECRET, "other\n")
    with pytest.raises(OSError, match=r"^Unauthorized$"):
        rpc.ask(node.name)
    node.path(SECRET).unlink()
    with pytest.raises(OSError) as error:  # noqa: PT011
        rpc.ask(node.name)
    assert str(error.value) == f"{SECRET} does not exist"


def test_nobody_there(node: Node, serve: Callable[[Answers], None], monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    monkeypatch.setattr(rpc, "URL", f"http://127.0.0.1:{port}/")
    with pytest.raises(OSError, match="Connection refused"):
        rpc.ask(node.name)


@pytest.mark.parametrize(
    ("change", "lacking"),
    [
        ({}, []),
        ({"initialblockdownload": True, "progress": 0.1}, []),
        ({"pruned": True}, ["is pruned"]),
        ({"txindex": False}, ["has no txindex"]),
        ({"pruned": True, "txindex": False}, ["is pruned", "has no txindex"]),
    ],
)
def test_what_an_archival_node_has(change: dict[str, object], lacking: list[str]) -> None:
    assert rpc.lacks({**ARCHIVAL, **change}) == lacking


# archy-wait


def know(node: Node, *levels: str) -> None:
    """Let there be an app `web` that needs Bitcoin so."""
    entries = ", ".join(f"{{bitcoin: {level}}}" for level in levels)
    apps = {"web": facts.summary(app_of(app=f"dependencies: [{entries}]"))}
    node.write(paths.FACTS, facts.pack({"by": facts.load(node.name)["by"], "host": {}, "apps": apps}))


@pytest.mark.parametrize(
    ("progress", "syncing", "said"),
    [
        (0.999987, False, ""),
        (0.5, False, ""),  # it says so itself, of a chain without new blocks
        (0.123456, True, "Bitcoin is syncing: 12.3%"),
        (0.9999, True, "Bitcoin is syncing: 100.0%"),
        (0, True, "Bitcoin is syncing: 0.0%"),
    ],
)
def test_what_is_waited_for(
    node: Node, serve: Callable[[Answers], None], progress: float, syncing: bool, said: str
) -> None:
    know(node, "archival", "synced")
    chain = {**CHAIN, "verificationprogress": progress, "initialblockdownload": syncing}
    serve({**GOOD, "getblockchaininfo": result(chain)})
    assert wait.reason(node.name, "web") == said


def test_one_that_does_not_answer_is_waited_for(node: Node, serve: Callable[[Answers], None]) -> None:
    know(node, "synced")
    serve({**GOOD, "getblockchaininfo": STARTING})
    assert wait.reason(node.name, "web") == "Bitcoin does not answer: Loading block index…"
    node.path(SECRET).unlink()
    assert wait.reason(node.name, "web") == f"Bitcoin does not answer: {SECRET} does not exist"


@pytest.mark.parametrize("levels", [(), ("any",), ("archival",), ("any", "archival")])
def test_who_does_not_wait(node: Node, levels: tuple[str, ...]) -> None:
    """Nobody is asked: there is no password, and no network."""
    know(node, *levels)
    assert wait.reason(node.name, "web") == ""
    assert wait.reason(node.name, "unknown") == ""


@pytest.mark.parametrize(("said", "code"), [("", 0), ("Bitcoin is syncing: 1.0%", 1)])
def test_the_program(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], said: str, code: int) -> None:
    asked: list[tuple[str, str]] = []
    ran: list[str] = []

    def reason(root: str, app_id: str) -> str:
        asked.append((root, app_id))
        return said

    monkeypatch.setattr(wait, "reason", reason)
    monkeypatch.setattr("systemd.daemon.notify", ran.append)
    assert wait.main(["archy-wait", "web"]) == code
    assert asked == [("/", "web")]
    assert ran == [f"STATUS={said}"]
    assert capsys.readouterr().err == (f"{said}\n" if said else "")


@pytest.mark.parametrize("argv", [["archy-wait"], ["archy-wait", "a", "b"]])
def test_usage(capsys: pytest.CaptureFixture[str], argv: list[str]) -> None:
    assert wait.main(argv) == 2
    assert capsys.readouterr().err == "usage: archy-wait APP\n"
