# SPDX-License-Identifier: MIT
"""What a manifest takes away of that which confines a container: `security_opt` and `devices`, as in Compose. Pure."""

from __future__ import annotations

from typing import Any

from archy.provisions import Found, container_of, is_normal, items

_PRIVILEGES = "no-new-privileges"


def no_new_privileges(container: dict[str, Any]) -> bool | None:
    """What it says of set-user-ID programs and the like, if anything; the last word counts."""
    said = [entry for entry in container.get("security_opt") or () if entry and entry.startswith(_PRIVILEGES)]
    return not said[-1].endswith("false") if said else None


def unconfined(container: dict[str, Any]) -> tuple[str, ...]:
    """What the container is without of that which confines every other, in Podman's spelling."""
    given = container.get("security_opt", ())
    return tuple(entry.replace(":", "=") for entry in given if not entry.startswith(_PRIVILEGES))


def broken(app: dict[str, Any]) -> Found:
    """Every place that breaks a rule, and why."""
    told = no_new_privileges(container_of(app))
    if told is not None and told != (app.get("security") or {}).get("no_new_privileges", told):
        yield ("app", "container", "security_opt"), "says another no-new-privileges than security.no_new_privileges"
    for index, device in items(container_of(app), "devices"):
        # A grant for a directory is one for what is below it.
        if not all(is_normal(path) for path in device.split(":") if path.startswith("/")):
            yield ("app", "container", "devices", index), "must be plain paths, without . or .."
