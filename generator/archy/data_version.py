# SPDX-License-Identifier: MIT
"""The version of an app's data, as a database's major version: kept with them, and never changed under them. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from archy import paths
from archy.derive import Found
from archy.model import App
from archy.rendering import CannotDerive
from archy.steps import Directory, File, Step


def path(app_id: str) -> str:
    """Where it is kept which version the data of an app has: with the data, since it outlives the app's removal."""
    return f"{paths.DATA_VERSIONS}/{app_id}"


def steps(app: App, found: Mapping[str, Found]) -> list[Step]:
    """Steps that keep the version of an app's data; raises CannotDerive if there is data of another one."""
    if path(app.id) not in found:
        if not app.data_version:
            return []
        content = f"{app.data_version}\n".encode()
        return [Directory(paths.DATA_VERSIONS, 0, 0, 0o755), File(path(app.id), content, 0, 0, 0o644, "missing")]
    there = (found[path(app.id)].content or b"").decode(errors="replace").strip()
    if not app.data_version:
        hint = f"say data_version: {there} in the manifest, or remove that file if the data are gone"
        raise CannotDerive(f"{path(app.id)}: the data has version {there}, the manifest says none; {hint}")
    if there != app.data_version:
        hint = f"install version {there} again, or convert the data and then write {app.data_version} into that file"
        raise CannotDerive(
            f"{path(app.id)}: the data has version {there}, the manifest wants {app.data_version}; {hint}"
        )
    return []
