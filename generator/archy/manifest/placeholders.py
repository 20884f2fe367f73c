# SPDX-License-Identifier: MIT
"""Placeholders such as {{HOST_IP}} in values of a manifest. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable

FACTS = ("HOST_IP", "HOST_MDNS", "DISK_GB", "BITCOIN_HOST")
GATEWAY = "NETWORK_GATEWAY"
SECRET = "secret:"
_PLACEHOLDER = re.compile(r"\{\{\s*([^{}]*?)\s*\}\}")


def names(text: str, nested: bool = False) -> list[str]:
    """The names between double braces, in order; raises ValueError when the braces are not balanced.

    With `nested`, `}}` alone is text: JSON ends so.
    """
    rest = _PLACEHOLDER.sub("", text)
    if "{{" in rest or ("}}" in rest and not nested):
        raise ValueError("has double braces that are not balanced")
    return _PLACEHOLDER.findall(text)


def substitute(text: str, value: Callable[[str], str]) -> str:
    """The text with the `value` of each name in its place."""
    return _PLACEHOLDER.sub(lambda match: value(match[1]), text)
