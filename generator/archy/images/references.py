# SPDX-License-Identifier: MIT
"""Names of images, and where they are to be had. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Registry:
    """A registry as registries.conf has it. `mirrors` are asked before it, in this order: location, and insecure."""

    prefix: str
    insecure: bool
    mirrors: tuple[tuple[str, bool], ...]


def registries(settings: Mapping[str, Any]) -> list[Registry]:
    """The registries of which the node's settings say something; the one itself is always asked last."""
    mirrors: Mapping[str, list[str]] = settings["mirrors"]
    insecure: list[str] = settings["insecure"]
    return [
        Registry(
            prefix,
            _covers(insecure, prefix),
            tuple((mirror, _covers(insecure, mirror)) for mirror in mirrors.get(prefix, ())),
        )
        for prefix in sorted({*mirrors, *insecure})
    ]


def _covers(insecure: Iterable[str], location: str) -> bool:
    """Whether the allow-list has a location, or what it is in."""
    return any(f"{location}/".startswith(f"{entry}/") for entry in insecure)


def full(reference: str) -> str:
    """A reference as Podman lists it: with a tag, or by its digest alone."""
    name, at, digest = reference.partition("@")
    base, slash, last = name.rpartition("/")
    if at:
        return f"{base}{slash}{last.partition(':')[0]}@{digest}"
    return name if ":" in last else f"{name}:latest"
