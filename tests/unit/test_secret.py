# SPDX-License-Identifier: MIT
"""Secrets: how they are made, read, and what bitcoind and HTTP take of them."""

from __future__ import annotations

import base64
import hashlib
import hmac
import importlib.util
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from archy import secret


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
    assert secret.generate("name", kind, counting) == {"name": content}


@pytest.mark.skipif(importlib.util.find_spec("bcrypt") is None, reason="python3-bcrypt is not installed")
def test_bcrypt() -> None:
    import bcrypt

    made = secret.generate("name", "bcrypt", counting)
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
    assert secret.value(content) == value


@pytest.mark.parametrize(
    "content", [b"", b"\n", b"\r\n", b"a\nb\n", b"a\tb", b"a\0", b"\x1b[31m", b"\xff", "a\u2028b".encode()]
)
def test_no_value(content: bytes) -> None:
    with pytest.raises(ValueError, match=r"is empty, or is not one line of text|codec can't decode"):
        secret.value(content)


def reference_hmac(salt: str, password: str) -> str:
    """share/rpcauth/rpcauth.py of Bitcoin, as described: the salt's text is the key, the password the message.

    Written out (RFC 2104), so that it shares nothing with the code under test but SHA-256.
    """
    key = salt.encode("ascii").ljust(64, b"\0")
    inner = hashlib.sha256(bytes(byte ^ 0x36 for byte in key) + password.encode("utf-8")).digest()
    return hashlib.sha256(bytes(byte ^ 0x5C for byte in key) + inner).hexdigest()


def test_the_reference_is_right() -> None:
    """RFC 4231, test case 2."""
    assert reference_hmac("Jefe", "what do ya want for nothing?") == (
        "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
    )


@given(
    user=st.from_regex(r"[a-z]{1,12}", fullmatch=True),
    password=st.text(st.characters(exclude_categories=["Cs"]), min_size=1),
)
def test_rpcauth(user: str, password: str) -> None:
    line = secret.rpcauth(user, password)
    match = re.fullmatch(r"([a-z]+):([0-9a-f]{32})\$([0-9a-f]{64})", line)
    assert match is not None
    assert match[1] == user
    assert match[3] == reference_hmac(match[2], password)
    assert secret.rpcauth(user, password) == line


def test_salts_differ() -> None:
    salts = {
        secret.rpcauth(user, password).split(":")[1].split("$")[0] for user in ("a", "b") for password in ("x", "y")
    }
    assert len(salts) == 4


def test_the_salt_tells_nothing_that_is_not_keyed() -> None:
    """The salt is public: it must be no plain hash of the password."""
    salt = secret.rpcauth("user", "password").split(":")[1].split("$")[0]
    plain = {hashlib.new(kind, b"password").hexdigest()[:32] for kind in ("md5", "sha1", "sha256", "sha512")}
    assert salt not in plain
    assert salt == hmac.new(b"password", b"archy rpcauth salt user", hashlib.sha256).hexdigest()[:32]


@given(user=st.from_regex(r"[a-z]{1,12}", fullmatch=True), password=st.text(st.characters(exclude_categories=["Cs"])))
def test_basic_auth(user: str, password: str) -> None:
    """RFC 7617: what is before the first colon is the user."""
    found, _, rest = base64.b64decode(secret.basic_auth(user, password)).decode().partition(":")
    assert (found, rest) == (user, password)
