# SPDX-License-Identifier: MIT
"""Canonical secrets and what is made from them. Pure but for `generate`, which takes its randomness as an argument."""

from __future__ import annotations

import base64
from collections.abc import Callable

_LONGEST = 4096

Entropy = Callable[[int], bytes]


def generate(name: str, kind: str, entropy: Entropy) -> dict[str, bytes]:
    """New secret files by name, as the manifest's `kind` wants them: 16 or 32 bytes in hex, 32 in base64, or bcrypt.

    bcrypt makes two: the hash under `name`, and its plain text, for a person to log in with, under `name`.pw.
    """
    if kind == "bcrypt":
        import bcrypt

        plain = base64.urlsafe_b64encode(entropy(18))
        # bcrypt.gensalt takes no source of randomness, and its own is as good.
        return {name: bcrypt.hashpw(plain, bcrypt.gensalt()) + b"\n", f"{name}.pw": plain + b"\n"}
    if kind == "base64":
        return {name: base64.b64encode(entropy(32)) + b"\n"}
    return {name: entropy(int(kind.removeprefix("hex"))).hex().encode() + b"\n"}


def value(content: bytes) -> str:
    """The value that a secret's file holds: its text without the line end. Raises ValueError if that is none."""
    text = content.decode("utf-8").strip("\r\n")
    if len(content) > _LONGEST:
        raise ValueError(f"is longer than {_LONGEST} bytes")
    if not text or not text.isprintable():
        raise ValueError("is empty, or is not one line of text")
    return text


def basic_auth(user: str, password: str) -> str:
    """The credentials of an HTTP `Authorization: Basic` header (RFC 7617)."""
    return base64.b64encode(f"{user}:{password}".encode()).decode()
