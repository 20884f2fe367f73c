# SPDX-License-Identifier: MIT
"""The one place where values are quoted for unit files.

A value passes two readers: Quadlet, which copies it into a command line, and systemd, which expands `%` specifiers
everywhere and `$` variables in command lines. Quadlet escapes neither (podman, pkg/systemd/parser), so both are
doubled here. Sources: systemd.syntax(7), systemd.service(5) "COMMAND LINES", podman-systemd.unit(5).
"""

from __future__ import annotations

import enum


class Form(enum.Enum):
    """Where a value goes, and so who will read it."""

    SETTING = "setting"  # the rest of a line that systemd reads by itself, such as Description=
    ARGUMENT = "argument"  # the whole value of a Quadlet key that becomes one argument, such as Image=
    WORD = "word"  # one of several words of a Quadlet key, such as Exec= or Environment=


_ESCAPES = {"\\": "\\\\", '"': '\\"', "\n": "\\n", "\t": "\\t", "\r": "\\r"}


def quote(value: str, form: Form) -> str:
    """`value` written such that systemd, after Quadlet, arrives at exactly `value` again.

    Raises ValueError for what a form has no way to write; manifests are checked so that it does not come to that.
    """
    if form is Form.WORD:
        value = '"' + "".join(_ESCAPES.get(char, char) for char in value) + '"'
    elif value != value.strip() or value.endswith("\\") or not value:
        raise ValueError(f"cannot be written as one line of a unit file: {value!r}")
    if any(ord(char) < 0x20 or ord(char) == 0x7F for char in value):
        raise ValueError(f"holds a control character: {value!r}")
    value = value.replace("%", "%%")
    return value if form is Form.SETTING else value.replace("$", "$$")


def prose(text: str) -> str:
    """A text for people as a setting, whatever is in it: on one line, and never refused."""
    line = " ".join("".join(char if char.isprintable() else " " for char in text).split())
    return quote(line.rstrip("\\ ") or "?", Form.SETTING)
