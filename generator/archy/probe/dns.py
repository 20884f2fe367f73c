# SPDX-License-Identifier: MIT
"""Whether names resolve on a container's network: the query to its name server, and the answer (RFC 1035).

Fast path: no heavy imports.
"""

import socket
import struct

from archy.probe.checks import BAD_ANSWER, REFUSED, Check

_PORT = 53
_TRANSACTION = 0x6172
_MOST = 65536


class Name(Check):
    """Whether a name resolves to the address of the container that asks.

    `others` are more addresses. An alias may belong to several containers; but if a container was lost and its network
    does not know, its address stays behind, and nothing answers there (see podman.stale_addresses).
    """

    def __init__(self, server: str, name: str, timeout: float) -> None:
        super().__init__(timeout)
        self.name = name
        self.others: set[str] = set()
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        question = struct.pack(">HHHHHH", _TRANSACTION, 0x100, 1, 0, 0, 0)  # recursion desired, one question
        question += b"".join(bytes([len(label)]) + label.encode() for label in name.split("."))
        try:
            self.socket.connect((server, _PORT))
            self.own = self.socket.getsockname()[0]
            self.socket.send(question + b"\0\0\1\0\1")  # a host address, IN
        except OSError as error:
            self.failed(REFUSED, f"no way to the name server {server}: {error.strerror}")

    def fileno(self) -> int:
        return self.socket.fileno()

    def on_event(self) -> None:
        try:
            resolved = addresses(self.socket.recv(_MOST))
        except OSError as error:
            self.failed(REFUSED, f"no name server: {error.strerror}")
            return
        self.others = resolved - {self.own}
        if self.own in resolved:
            self.passed()
        else:
            shown = ", ".join(sorted(resolved)) or "nothing"
            self.failed(BAD_ANSWER, f"the name {self.name} resolves to {shown} instead of {self.own}")

    def close(self) -> None:
        self.socket.close()


def addresses(answer: bytes) -> set[str]:
    """The host addresses in a name server's answer (RFC 1035); a malformed one has none."""
    try:
        _, _, questions, answers, _, _ = struct.unpack_from(">HHHHHH", answer)
        at = 12
        for _ in range(questions):
            at = _after_name(answer, at) + 4
        result = set()
        for _ in range(answers):
            at = _after_name(answer, at)
            kind, _, _, length = struct.unpack_from(">HHIH", answer, at)
            at += 10
            if kind == 1 and length == 4:
                result.add(socket.inet_ntoa(answer[at : at + 4]))
            at += length
        return result
    except (struct.error, IndexError, OSError):
        return set()


def _after_name(answer: bytes, at: int) -> int:
    while answer[at]:
        if answer[at] >= 0xC0:  # the rest of the name is elsewhere
            return at + 2
        at += 1 + answer[at]
    return at + 1
