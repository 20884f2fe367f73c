# SPDX-License-Identifier: MIT
"""The service user: its systemd manager, and the environment of its processes. Fast path: no heavy imports."""

from archy import paths
from archy.host import read


def manager(root: str) -> str:
    """The unit of its own systemd manager."""
    return f"user@{read.user_ids(root)[0]}.service"


def environment(uid: int) -> dict[str, str]:
    """What Podman needs in the environment of the service user's processes."""
    runtime = runtime_directory(uid)
    return {"XDG_RUNTIME_DIR": runtime, "DBUS_SESSION_BUS_ADDRESS": f"unix:path={runtime}/bus", "HOME": paths.HOME}


def runtime_directory(uid: int) -> str:
    """Where the service user's manager, and Podman, keep what does not outlive a boot."""
    return f"/run/user/{uid}"
