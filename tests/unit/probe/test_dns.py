# SPDX-License-Identifier: MIT
# ruff: noqa: E501 - a case is a line
"""Whether names resolve: what a name server is asked, and what is made of its answer, whatever that is."""

from __future__ import annotations

import _socket
import socket
import struct
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from archy.probe import checks, dns

LONG, SHORT = 20.0, 0.3
OWN = "127.0.0.1"


def name(text: str) -> bytes:
    return b"".join(bytes([len(label)]) + label.encode() for label in text.split(".")) + b"\0"


def record(address: str, owner: bytes = b"\xc0\x0c", kind: int = 1, data: bytes | None = None) -> bytes:
    content = socket.inet_aton(address) if data is None else data
    return owner + struct.pack(">HHIH", kind, 1, 86400, len(content)) + content


def reply(*records: bytes, questions: int = 1, answers: int | None = None, code: int = 0) -> bytes:
    count = len(records) if answers is None else answers
    head = struct.pack(">HHHHHH", 0x6172, 0x8180 | code, questions, count, 0, 0)
    return head + (name("web") + b"\0\1\0\1") * questions + b"".join(records)


@pytest.mark.parametrize(
    ("answer", "found"),
    [
        pytest.param(reply(record("10.89.0.2")), {"10.89.0.2"}, id="compressed"),
        pytest.param(reply(record("10.89.0.2", name("web"))), {"10.89.0.2"}, id="written-out"),
        pytest.param(reply(record("10.89.0.2", b"\3web\xc0\x0c")), {"10.89.0.2"}, id="half-compressed"),
        pytest.param(reply(record("10.89.0.2", b"\xc0\x0c"), record("10.89.0.3")), {"10.89.0.2", "10.89.0.3"}, id="two"),
        pytest.param(reply(record("10.89.0.2"), record("10.89.0.2")), {"10.89.0.2"}, id="twice-the-same"),
        pytest.param(reply(record("0.0.0.0", kind=5, data=name("x.y")), record("10.89.0.2")), {"10.89.0.2"}, id="cname"),
        pytest.param(reply(record("", kind=28, data=b"\0" * 16)), set(), id="ipv6"),
        pytest.param(reply(record("", kind=1, data=b"\0" * 5)), set(), id="no-address"),
        pytest.param(reply(record("10.89.0.2", kind=16)), set(), id="a-text-of-four-bytes"),
        pytest.param(reply(record("10.89.0.2"), questions=0), {"10.89.0.2"}, id="no-question"),
        pytest.param(reply(record("10.89.0.2"), questions=2), {"10.89.0.2"}, id="two-questions"),
        pytest.param(reply(code=3), set(), id="nxdomain"),
        pytest.param(reply(), set(), id="nothing"),
        pytest.param(reply(record("10.89.0.2"), answers=2), set(), id="less-than-it-says"),
        pytest.param(reply(record("10.89.0.2"), answers=65535), set(), id="far-less-than-it-says"),
        pytest.param(reply(record("10.89.0.2"))[:-1], set(), id="cut"),
        pytest.param(b"\0" * 4 + b"\xff\xff" + reply(record("10.89.0.2"))[6:], set(), id="questions-without-end"),
        pytest.param(reply(record("10.89.0.2", b"\x3f")), set(), id="a-label-beyond-the-end"),
        pytest.param(b"", set(), id="empty"),
        pytest.param(b"\0" * 11, set(), id="short"),
        pytest.param(b"\xff" * 65536, set(), id="all-ones"),
    ],
)  # fmt: skip
def test_the_addresses_in_an_answer(answer: bytes, found: set[str]) -> None:
    assert dns.addresses(answer) == found


def test_a_pointer_to_itself_is_not_followed() -> None:
    assert dns.addresses(reply(record("10.89.0.2", b"\xc0\x1d"))) == {"10.89.0.2"}


@given(st.binary(max_size=600))
def test_whatever_comes_ends(answer: bytes) -> None:
    """Nobody knows who answers there."""
    found = dns.addresses(answer)
    assert all(socket.inet_aton(address) for address in found)


@given(st.binary(max_size=300), st.integers(0, 65535), st.integers(0, 65535))
def test_whatever_comes_after_a_good_head_ends(rest: bytes, questions: int, answers: int) -> None:
    dns.addresses(struct.pack(">HHHHHH", 0x6172, 0x8180, questions, answers, 0, 0) + rest)


@given(st.lists(st.ip_addresses(v=4).map(str), max_size=8))
def test_what_was_packed_is_read(addresses: list[str]) -> None:
    assert dns.addresses(reply(*map(record, addresses))) == {*addresses}


class NameServer(checks.Check):
    """Answers a question with the same bytes, or with nothing, in the loop in which it is asked."""

    def __init__(self, answer: bytes | None) -> None:
        super().__init__(LONG)
        self.answer = answer
        self.heard = b""
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind((OWN, 0))

    def fileno(self) -> int:
        return self.socket.fileno()

    def on_event(self) -> None:
        self.heard, sender = self.socket.recvfrom(65536)
        if self.answer is not None:
            self.socket.sendto(self.answer, sender)
        self.passed()

    def close(self) -> None:
        self.socket.close()


Make = Callable[[bytes | None], NameServer]


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Make:
    """Make a name server on the port that names are asked on, and allow to ask it."""
    monkeypatch.setattr(socket.socket, "connect", _socket.socket.connect)

    def make(answer: bytes | None) -> NameServer:
        one = NameServer(answer)
        monkeypatch.setattr(dns, "_PORT", one.socket.getsockname()[1])
        return one

    return make


def asked(*servers: NameServer, timeout: float = LONG, about: str = "web") -> tuple[bool | None, str, str]:
    check = dns.Name(OWN, about, timeout)
    checks.run([check, *servers])
    return check.ok, check.kind, check.message


def test_the_question(server: Make) -> None:
    one = server(reply(record(OWN)))
    assert asked(one, about="web.dns.podman") == (True, "", "")
    head = struct.unpack(">HHHHHH", one.heard[:12])
    assert head[1:] == (0x100, 1, 0, 0, 0)
    assert one.heard[12:] == b"\3web\3dns\6podman\0" + struct.pack(">HH", 1, 1)


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (reply(record("10.89.0.9")), "the name web resolves to 10.89.0.9 instead of 127.0.0.1"),
        (
            reply(record("10.89.0.9"), record("10.89.0.8")),
            "the name web resolves to 10.89.0.8, 10.89.0.9 instead of 127.0.0.1",
        ),
        (reply(code=3), "the name web resolves to nothing instead of 127.0.0.1"),
        (b"garbage", "the name web resolves to nothing instead of 127.0.0.1"),
        (b"", "the name web resolves to nothing instead of 127.0.0.1"),
    ],
)
def test_a_name_must_be_that_of_the_container_that_asks(server: Make, answer: bytes, said: str) -> None:
    assert asked(server(answer)) == (False, checks.BAD_ANSWER, said)


@pytest.mark.parametrize(
    ("answer", "others"),
    [
        (reply(record(OWN)), set()),
        (reply(record(OWN), record(OWN)), set()),
        (reply(record("10.89.0.9"), record(OWN)), {"10.89.0.9"}),
        (reply(record(OWN), record("10.89.0.9"), record("10.89.0.8")), {"10.89.0.8", "10.89.0.9"}),
    ],
)
def test_other_addresses_beside_it_are_told(server: Make, answer: bytes, others: set[str]) -> None:
    """An alias may be somebody else's, too. Whether anybody is there is not for it to know."""
    one = server(answer)
    check = dns.Name(OWN, "web", LONG)
    assert check.others == set()
    checks.run([check, one])
    assert (check.ok, check.message, check.others) == (True, "", others)


def test_a_name_server_that_is_silent(server: Make) -> None:
    assert asked(server(None), timeout=SHORT) == (False, checks.TIMEOUT, "no answer within 0.3 s")


def test_no_name_server(server: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    server(None).close()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as free:
        free.bind((OWN, 0))
        monkeypatch.setattr(dns, "_PORT", free.getsockname()[1])
    assert asked() == (False, checks.REFUSED, "no name server: Connection refused")


def test_no_way_to_the_name_server() -> None:
    """The tests' own guard has no route for datagrams."""
    said = f"no way to the name server {OWN}: Network is unreachable"
    assert asked() == (False, checks.REFUSED, said)
