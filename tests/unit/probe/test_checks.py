# SPDX-License-Identifier: MIT
"""Asking apps whether they serve, over real sockets and with real commands: every way in which that can end."""

from __future__ import annotations

import errno
import os
import select
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress

import pytest

from archy.probe.checks import BAD_ANSWER, REFUSED, TIMEOUT, Check, Command, Http, Tcp, result, run

Serve = Callable[[socket.socket], None]
LONG, SHORT = 20.0, 0.3  # seconds: of a check that must have its answer before, and of one that gets none


class Server:
    """Listens on a port of its own, and lets `serve` speak to each who comes. A process: other tests count memory."""

    def __init__(self, serve: Serve) -> None:
        self.serve = serve
        self.open: list[socket.socket] = []  # a connection that nobody holds is closed
        with socket.create_server(("127.0.0.1", 0), backlog=500) as listener:
            self.port: int = listener.getsockname()[1]
            self.process = os.fork()
            if self.process == 0:
                try:
                    self.accept(listener)
                finally:
                    os._exit(0)

    def accept(self, listener: socket.socket) -> None:
        while True:
            self.open.append(listener.accept()[0])
            threading.Thread(target=self.one, args=(self.open[-1],), daemon=True).start()

    def one(self, connection: socket.socket) -> None:
        with suppress(OSError):
            self.serve(connection)

    def close(self) -> None:
        os.kill(self.process, signal.SIGKILL)
        os.waitpid(self.process, 0)


@pytest.fixture
def server() -> Iterator[Callable[[Serve], int]]:
    """Make servers: their ports."""
    made: list[Server] = []

    def make(serve: Serve) -> int:
        made.append(Server(serve))
        return made[-1].port

    yield make
    for one in made:
        one.close()


def closed_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def silent(connection: socket.socket) -> None:
    connection.recv(4096)


def says(*parts: bytes, pause: float = 0, close: bool = True) -> Serve:
    """Hears the request out, and answers in parts."""

    def serve(connection: socket.socket) -> None:
        connection.recv(4096)
        for number, part in enumerate(parts):
            time.sleep(pause if number else 0)
            connection.sendall(part)
        if close:
            connection.shutdown(socket.SHUT_RDWR)

    return serve


def asked(check: Check) -> tuple[bool | None, str, str]:
    run([check])
    return check.ok, check.kind, check.message


def test_somebody_listens(server: Callable[[Serve], int]) -> None:
    assert asked(Tcp(server(silent), LONG)) == (True, "", "")


@pytest.mark.parametrize("make", [lambda port: Tcp(port, LONG), lambda port: Http(port, "/", LONG)])
def test_nobody_listens(make: Callable[[int], Check]) -> None:
    port = closed_port()
    assert asked(make(port)) == (False, REFUSED, f"port {port}: Connection refused")


@pytest.mark.parametrize(
    ("answer", "wanted"),
    [
        (b"HTTP/1.1 200 OK\r\n\r\n", (True, "", "")),
        (b"HTTP/1.0 204\r\n", (True, "", "")),
        (b"HTTP/1.1 301 Moved\r\n\r\n", (True, "", "")),
        (b"HTTP/1.1 399 x\n", (True, "", "")),
        (b"HTTP/1.1 200", (True, "", "")),  # closed before the line's end
        (b"HTTP/1.1 400 Bad\r\n", (False, BAD_ANSWER, "http://127.0.0.1:PORT/live: status 400")),
        (b"HTTP/1.1 404 Not Found\r\n\r\nno", (False, BAD_ANSWER, "http://127.0.0.1:PORT/live: status 404")),
        (b"HTTP/1.1 500 Oh\r\n\r\n", (False, BAD_ANSWER, "http://127.0.0.1:PORT/live: status 500")),
        (b"HTTP/1.1 503\r\n", (False, BAD_ANSWER, "http://127.0.0.1:PORT/live: status 503")),
        (b"", (False, BAD_ANSWER, "port PORT: no answer in HTTP")),
        (b"\n", (False, BAD_ANSWER, "port PORT: no answer in HTTP")),
        (b"HTTP/1.1\r\n", (False, BAD_ANSWER, "port PORT: no answer in HTTP")),
        (b"HTTP/1.1 OK 200\r\n", (False, BAD_ANSWER, "port PORT: no answer in HTTP")),
        (b"HTTP/1.1 -200 OK\r\n", (False, BAD_ANSWER, "port PORT: no answer in HTTP")),
        (b"HTTP/1.1 2\xc2\xb200\r\n", (False, BAD_ANSWER, "port PORT: no answer in HTTP")),
        (b"SSH-2.0-OpenSSH_9\r\n", (False, BAD_ANSWER, "port PORT: no answer in HTTP")),
        (b"\x15\x03\x01\x00\x02\x02\x46", (False, BAD_ANSWER, "port PORT: no answer in HTTP")),  # TLS
        (b"\0" * 70_000, (False, BAD_ANSWER, "port PORT: no answer in HTTP")),
        (b"HTTP/1.1 " + b"9" * 60_000 + b"\r\n", (False, BAD_ANSWER, "http://127.0.0.1:PORT/live: status 9999")),
    ],
    ids=lambda value: repr(value)[:40],
)
def test_what_answers_to_http(server: Callable[[Serve], int], answer: bytes, wanted: tuple[bool, str, str]) -> None:
    port = server(says(answer))
    ok, kind, said = wanted
    assert asked(Http(port, "/live", LONG)) == (ok, kind, said.replace("PORT", str(port)))


def test_an_answer_without_an_end_is_cut(server: Callable[[Serve], int]) -> None:
    """Whoever sends for ever does not fill the memory."""
    port = server(says(*[b"x" * 10_000] * 100, close=False))
    check = Http(port, "/", LONG)
    assert asked(check) == (False, BAD_ANSWER, f"port {port}: no answer in HTTP")
    assert len(check.answer) <= 2 * 65536


def test_the_status_line_is_enough(server: Callable[[Serve], int]) -> None:
    """No need to wait for the rest of a page."""
    assert asked(Http(server(says(b"HTTP/1.1 200 OK\r\n", close=False)), "/", LONG))[0] is True


def test_an_answer_may_come_in_parts(server: Callable[[Serve], int]) -> None:
    port = server(says(*[bytes([byte]) for byte in b"HTTP/1.1 404 x\r\n"], pause=0.005))
    assert asked(Http(port, "/", LONG)) == (False, BAD_ANSWER, f"http://127.0.0.1:{port}/: status 404")


def test_what_is_asked(server: Callable[[Serve], int]) -> None:
    reading, writing = os.pipe()

    def serve(connection: socket.socket) -> None:
        os.write(writing, connection.recv(4096))
        connection.sendall(b"HTTP/1.1 200\r\n")

    port = server(serve)
    assert asked(Http(port, "/a?b=c", LONG))[0] is True
    heard = os.read(reading, 4096)
    line, *headers = heard.decode().split("\r\n")
    assert line == "GET /a?b=c HTTP/1.1"
    assert {f"Host: 127.0.0.1:{port}", "Connection: close"} <= {*headers}
    assert headers[-2:] == ["", ""]


def test_a_connection_that_is_reset(server: Callable[[Serve], int]) -> None:
    def serve(connection: socket.socket) -> None:
        connection.recv(1)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        connection.close()

    port = server(serve)
    assert asked(Http(port, "/", LONG)) == (False, BAD_ANSWER, f"port {port}: Connection reset by peer")


def trickling(connection: socket.socket) -> None:
    for _ in range(1000):
        connection.sendall(b"x")
        time.sleep(0.02)


@pytest.mark.parametrize("serve", [silent, trickling, says(b"HTTP/1.1 2", close=False)])
def test_who_accepts_and_says_nothing_of_use(server: Callable[[Serve], int], serve: Serve) -> None:
    assert asked(Http(server(serve), "/", SHORT)) == (False, TIMEOUT, "no answer within 0.3 s")


def test_who_does_not_even_accept() -> None:
    """As a process that is stopped: the kernel accepts for it, until its queue is full."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as listener:
        port = listener.getsockname()[1]
        assert asked(Tcp(port, SHORT))[0] is True
        assert asked(Http(port, "/", SHORT))[1] == TIMEOUT


def test_no_way_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket.socket, "connect_ex", lambda *_: errno.ENETUNREACH)
    assert asked(Tcp(80, LONG)) == (False, REFUSED, "port 80: Network is unreachable")


@pytest.mark.programs
@pytest.mark.parametrize(
    ("command", "wanted"),
    [
        (["true"], (True, "", "")),
        (["false"], (False, BAD_ANSWER, "the check ended with status 1")),
        (["sh", "-c", "echo secret; echo secret >&2; exit 7"], (False, BAD_ANSWER, "the check ended with status 7")),
        (["sh", "-c", "kill -KILL $$"], (False, BAD_ANSWER, "the check ended with status -9")),
        (["sh", "-c", "read line || exit 3"], (False, BAD_ANSWER, "the check ended with status 3")),  # no input
    ],
)
def test_a_command(capfd: pytest.CaptureFixture[str], command: list[str], wanted: tuple[bool, str, str]) -> None:
    assert asked(Command(command, LONG)) == wanted
    assert capfd.readouterr() == ("", "")


@pytest.mark.programs
def test_a_command_that_does_not_end_is_killed() -> None:
    check = Command(["sleep", "1000"], SHORT)
    assert asked(check) == (False, TIMEOUT, "no answer within 0.3 s")
    assert check.process.returncode == -9


@pytest.mark.programs
def test_a_command_that_has_waited_itself_was_not_answered() -> None:
    """As curl --max-time: it gives up a little before we would."""
    ok, kind, said = asked(Command(["sh", "-c", "sleep 0.4; exit 28"], 0.6))
    assert (ok, kind) == (False, TIMEOUT)
    assert said.startswith("the check ended with status 28 after ")


@pytest.mark.programs
def test_a_command_that_is_not_there_is_no_end_of_the_others() -> None:
    with suppress(OSError):  # the caller's to catch
        assert asked(Command(["/nowhere"], LONG))[0] is False
    assert asked(Command(["sh", "a\0b"], LONG))[:2] == (False, BAD_ANSWER)


def test_many_at_once_take_the_time_of_one(server: Callable[[Serve], int]) -> None:
    """Two hundred that answer in every way, and none waits for another."""
    good, bad, mute, gone = server(says(b"HTTP/1.1 200\r\n")), server(says(b"HTTP/1.1 500\r\n")), server(silent), 1
    gone = closed_port()
    began = time.monotonic()
    checks: list[tuple[Check, tuple[bool, str]]] = []
    for number in range(200):
        checks += [
            (Http(good, f"/{number}", LONG), (True, "")),
            (Http(bad, "/", LONG), (False, BAD_ANSWER)),
            (Tcp(gone, LONG), (False, REFUSED)),
        ]
    checks += [(Http(mute, "/", 1), (False, TIMEOUT)) for _ in range(50)]
    run(check for check, _ in checks)
    assert [(check.ok, check.kind) for check, _ in checks] == [wanted for _, wanted in checks]
    assert time.monotonic() - began < LONG  # one after the other, the mute alone would take 50 s


class Mute(Http):
    """Notes when it has ended."""

    ended = 0.0

    def close(self) -> None:
        self.ended = time.monotonic() - self.began
        super().close()


def test_each_has_its_own_time(server: Callable[[Serve], int]) -> None:
    port = server(silent)
    checks = [Mute(port, "/", seconds) for seconds in (0.1, 0.9, 0.3)]
    run(checks)
    assert [check.message for check in checks] == [f"no answer within {s:g} s" for s in (0.1, 0.9, 0.3)]
    assert all(check.ended >= check.timeout for check in checks)
    assert checks[0].ended <= checks[2].ended <= checks[1].ended


class Slow(Check):
    """Takes its time when something comes."""

    def __init__(self) -> None:
        super().__init__(LONG)
        self.reading, self.writing = os.pipe()

    def fileno(self) -> int:
        return self.reading

    def on_event(self) -> None:
        time.sleep(1)
        self.passed()


def test_who_answered_while_we_had_no_time_is_not_late(server: Callable[[Serve], int]) -> None:
    """The machine is busy, and this process stood still: the answer has come meanwhile."""
    slow = Slow()

    def serve(connection: socket.socket) -> None:
        connection.recv(4096)
        os.write(slow.writing, b"x")
        time.sleep(0.3)
        connection.sendall(b"HTTP/1.1 200\r\n")

    check = Http(server(serve), "/", 0.6)
    run([check, slow])
    assert (check.ok, slow.ok) == (True, True)


def test_nothing_is_left_open(server: Callable[[Serve], int]) -> None:
    port = server(says(b"HTTP/1.1 200\r\n"))
    checks: list[Check] = [Http(port, "/", LONG), Tcp(port, LONG), Http(server(silent), "/", 0.1)]
    run(checks)
    assert [check.fileno() for check in checks] == [-1, -1, -1]


def test_nothing_to_ask() -> None:
    run([])
    lost = Check(0)
    lost.failed(REFUSED, "gone")
    run([lost])
    assert result(lost) == {"ok": False, "kind": REFUSED, "said": "gone"}


def test_a_result() -> None:
    check = Check(1)
    assert (check.fileno(), check.events, result(check)["ok"]) == (-1, select.POLLIN, False)
    check.passed()
    assert result(check) == {"ok": True, "kind": "", "said": ""}
