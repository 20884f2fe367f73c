# SPDX-License-Identifier: MIT
"""Secrets that the data of an app were made with, as a database's password: one that is lost is not made anew. Pure.

With another one the app would be locked out of its data, and nobody would know why.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from archy import paths
from archy.derive import Found, secret_path
from archy.model import App, Secret
from archy.rendering import CannotDerive
from archy.steps import Directory, File, Step


def path(name: str) -> str:
    """Where it is kept that there was such a secret: with the data, so that it goes where they go."""
    return f"{paths.MADE_SECRETS}/{name}"


def secrets(app: App, rotatable: Collection[str]) -> list[Secret]:
    """Those of an app that nobody says may change; `rotatable` are the names that some app says it of."""
    return [declared for declared in app.secrets if not (declared.rotatable or declared.name in rotatable)]


def steps(lasting: list[Secret], there: Mapping[str, Found], marks: Mapping[str, Found]) -> list[Step]:
    """Steps that keep that there are these secrets; raises CannotDerive if one was there and is not."""
    new = [declared.name for declared in lasting if path(declared.name) not in marks]
    for declared in lasting:
        where = secret_path(declared.name)
        if declared.name not in new and all(secret_path(name) not in there for name in declared.names):
            hint = f"restore it, or, if the data are gone too, remove {path(declared.name)} to have a new one made"
            raise CannotDerive(f"{where}: is lost, and the data were made with it; {hint}")
    if not new:
        return []
    return [
        Directory(paths.MADE_SECRETS, 0, 0, 0o755),
        *(File(path(name), b"", 0, 0, 0o644, "missing") for name in new),
    ]
