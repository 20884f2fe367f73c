# SPDX-License-Identifier: MIT
"""Checks of many apps at once: TCP, HTTP and DNS over sockets, and commands, in one loop of one thread.

A socket belongs to the network namespace in which it was made, so a single process talks to all containers. Each check
has its own time. Fast path: no heavy imports.
"""

import errno
import os
import select
import socket
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import Any

# Why a check failed. Only a `TIMEOUT` may be because the machine is busy.
REFUSED, BAD_ANSWER, TIMEOUT = "refused", "bad answer", "timeout"
_MOST = 65536  # bytes of an answer's beginning
_LOOPBACK = "127.0.0.1"  # as the container sees it
_LATE = 1.0  # seconds


class Check:
    """One check; it begins when it is made. `timeout` is in seconds.

    `ok` is None until there is a result; if that is False, `kind` and `message` are why.
    """

    def __init__(self, timeout: float) -> None:
        self.began = time.monotonic()
        self.deadline = self.began + timeout
        self.timeout = timeout
        self.events = select.POLLIN  # to wait for
        self.ok: bool | None = None
        self.kind = ""
        self.message = ""

    def fileno(self) -> int:
        """The file descriptor to wait for; -1 if there is none."""
        return -1

    def on_event(self) -> None:
        """One of them has come."""

    def close(self) -> None:
        """Free its resources."""

    def passed(self) -> None:
        """The check has passed."""
        self.ok = True

    def failed(self, kind: str, message: str) -> None:
        """The check has failed."""
        self.ok, self.kind, self.message = False, kind, message


class Tcp(Check):
    """Whether a program listens on a port. Begun in the network namespace of the container."""

    def __init__(self, port: int, timeout: float) -> None:
        super().__init__(timeout)
        self.port = port
        self.events = select.POLLOUT  # until it is connected
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        self._refuse(self.socket.connect_ex((_LOOPBACK, port)))

    def fileno(self) -> int:
        return self.socket.fileno()

    def on_event(self) -> None:
        if self.events == select.POLLIN:
            self.on_readable()
            return
        self._refuse(self.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR))
        if self.ok is None:
            self.events = select.POLLIN
            self.on_connected()

    def on_connected(self) -> None:
        """It is connected."""
        self.passed()

    def on_readable(self) -> None:
        """The answer, or a part of it, can be read."""

    def close(self) -> None:
        self.socket.close()

    def _refuse(self, error: int) -> None:
        if error not in (0, errno.EINPROGRESS):
            self.failed(REFUSED, f"port {self.port}: {os.strerror(error)}")


class Http(Tcp):
    """Whether a path answers with a status below 400."""

    def __init__(self, port: int, path: str, timeout: float) -> None:
        self.path = path
        self.answer = b""
        super().__init__(port, timeout)

    def on_event(self) -> None:
        try:
            super().on_event()
        except OSError as error:
            self.failed(BAD_ANSWER, f"port {self.port}: {error.strerror}")

    def on_connected(self) -> None:
        host = f"{_LOOPBACK}:{self.port}"
        request = f"GET {self.path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: archy\r\nConnection: close\r\n\r\n"
        self.socket.send(request.encode())

    def on_readable(self) -> None:
        part = self.socket.recv(_MOST)
        self.answer += part
        line, end, _ = self.answer.partition(b"\n")
        if not end and part and len(self.answer) < _MOST:
            return
        words = line.split()
        if len(words) < 2 or not words[0].startswith(b"HTTP/") or not words[1].isdigit():
            self.failed(BAD_ANSWER, f"port {self.port}: no answer in HTTP")
        elif int(words[1][:4]) < 400:
            self.passed()
        else:
            self.failed(BAD_ANSWER, f"http://{_LOOPBACK}:{self.port}{self.path}: status {int(words[1][:4])}")


class Command(Check):
    """Whether a command ends with 0. Its output is dropped: it may contain anything."""

    def __init__(self, command: "Sequence[str]", timeout: float) -> None:
        super().__init__(timeout)
        import subprocess  # expensive

        quiet = subprocess.DEVNULL
        try:
            self.process = subprocess.Popen(command, stdin=quiet, stdout=quiet, stderr=quiet, cwd="/")
            self.descriptor = os.pidfd_open(self.process.pid)
        except (OSError, ValueError) as error:  # an argument may be too long, or have a NUL
            self.failed(BAD_ANSWER, f"{command[0]}: {getattr(error, 'strerror', error)}")

    def fileno(self) -> int:
        return self.descriptor

    def on_event(self) -> None:
        code = self.process.wait()
        if code == 0:
            self.passed()
        elif time.monotonic() - self.began > self.timeout / 2:  # it had a timeout of its own
            self.failed(TIMEOUT, f"the check ended with status {code} after {time.monotonic() - self.began:.0f} s")
        else:
            self.failed(BAD_ANSWER, f"the check ended with status {code}")

    def close(self) -> None:
        os.close(self.descriptor)
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()


def run(checks: "Iterable[Check]") -> None:
    """Wait until each has its result, or its time is over."""
    todo = {check.fileno(): check for check in checks if check.ok is None}
    poll = select.poll()
    for number, check in todo.items():
        poll.register(number, check.events)
    while todo:
        left = min(check.deadline for check in todo.values()) - time.monotonic()
        for number, _ in poll.poll(max(0, left) * 1000):
            check = todo[number]
            check.on_event()
            if check.ok is None:
                poll.modify(number, check.events)
        now = time.monotonic()
        ready = {number for number, _ in poll.poll(0)}  # an answer that came while we had no time for it is not late
        for number, check in list(todo.items()):
            if check.ok is None and (check.deadline + _LATE < now or (check.deadline <= now and number not in ready)):
                check.failed(TIMEOUT, f"no answer within {check.timeout:g} s")
            if check.ok is not None:
                poll.unregister(number)
                check.close()
                del todo[number]


def result(check: Check) -> "dict[str, Any]":
    """The result of a check, as probe.json has it."""
    return {"ok": bool(check.ok), "kind": check.kind, "said": check.message}
