# SPDX-License-Identifier: MIT
"""The node as a pass finds it: each app's unit, what it was started with, and what it should have been."""

from archy import paths
from archy.host import read


def _uid(root: str) -> str:
    fields = read.user_line(root).split(b":")
    return fields[2].decode() if len(fields) > 2 else ""


def environment(uid: int) -> dict[str, str]:
    """What Podman wants in the environment of the service user's processes."""
    runtime = runtime_directory(uid)
    return {"XDG_RUNTIME_DIR": runtime, "DBUS_SESSION_BUS_ADDRESS": f"unix:path={runtime}/bus", "HOME": paths.HOME}


def runtime_directory(uid: int) -> str:
    """Where the service user's manager, and Podman, keep what does not outlive a boot."""
    return f"/run/user/{uid}"
