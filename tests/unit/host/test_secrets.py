# SPDX-License-Identifier: MIT
"""Secrets: how they are made, read, and what HTTP takes of them."""

from __future__ import annotations

import base64
import importlib.util

import pytest
from hypothesis import given
from hypothesis import strategies as st

from archy.host import secrets as host_secrets


def counting(length: int) -> bytes:
    """Bytes that are known in advance."""
    return bytes(range(length))


@pytest.mark.parametrize(
    ("kind", "content"),
    [
        ("hex16", b"000102030405060708090a0b0c0d0e0f\n"),
        ("hex32", b"000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f\n"),
        ("base64", b"AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=\n"),
    ],
)
def test_kinds(kind: str, content: bytes) -> None:
    assert host_secrets.generate("name", kind, counting) == {"name": content}


@pytest.mark.skipif(importlib.util.find_spec("bcrypt") is None, reason="python3-bcrypt is not installed")
def test_bcrypt() -> None:
    import bcrypt

    made = host_secrets.generate("name", "bcrypt", counting)
    assert sorted(made) == ["name", "name.pw"]
    plain = made["name.pw"]
    assert plain == base64.urlsafe_b64encode(bytes(range(18))) + b"\n"
    assert bcrypt.checkpw(plain.strip(), made["name"].strip())


@pytest.mark.parametrize(
    ("content", "value"),
    [
        (b"abc", "abc"),
        (b"abc\n", "abc"),
        (b"abc\r\n", "abc"),
        (b"a b \n", "a b "),
        ("ä₿\n".encode(), "ä₿"),
        (b"\n\nabc\n\n", "abc"),
    ],
)
def test_value(content: bytes, value: str) -> None:
    assert host_secrets.value(content) == value


@pytest.mark.parametrize(
    "content", [b"", b"\n", b"\r\n", b"a\nb\n", b"a\tb", b"a\0", b"\x1b[31m", b"\xff", "a\u2028b".encode()]
)
def test_no_value(content: bytes) -> None:
    with pytest.raises(ValueError, match=r"is empty, or is not one line of text|codec can't decode"):
        host_secrets.value(content)


@given(user=st.from_regex(r"[a-z]{1,12}", fullmatch=True), password=st.text(st.characters(exclude_categories=["Cs"])))
def test_basic_auth(user: str, password: str) -> None:
    """RFC 7617: what is before the first colon is the user."""
    found, _, rest = base64.b64decode(host_secrets.basic_auth(user, password)).decode().partition(":")
    assert (found, rest) == (user, password)
