# SPDX-License-Identifier: MIT
"""The secrets of an app, and marks for those that its data were made with. Pure but for one check of a directory."""

from __future__ import annotations

import os
import stat
from collections.abc import Collection, Mapping

from archy import paths
from archy.bitcoin import logins
from archy.errors import CannotDerive
from archy.host import secrets as host_secrets
from archy.host.stat import FileState
from archy.host.steps import Directory, File, Ownership, Step
from archy.manifest.model import RPC_SECRET, App, Secret
from archy.paths import secret_path


def made_secrets(app: App) -> tuple[Secret, ...]:
    """The secrets that are made for the app when they are missing."""
    if app.rpcwhitelist is not None and all(declared.name != RPC_SECRET for declared in app.secrets):
        return (*app.secrets, Secret(RPC_SECRET, logins.KIND))
    return app.secrets


def secret_names(app: App) -> list[str]:
    """All secrets that the app's texts may be made of, also those that are only read where they exist."""
    return [*app.secret_names, *(name + paths.PREVIOUS for declared in made_secrets(app) for name in declared.names)]


def secrets(
    app: App, found: Mapping[str, FileState], entropy: host_secrets.Entropy
) -> tuple[list[Step], dict[str, str]]:
    """Steps that make the app's missing secrets and put modes right, and the value of each.

    An existing value is never changed: if it cannot be used, that is an error, which a person must solve.
    """
    steps: list[Step] = []
    values: dict[str, str] = {}
    missing: list[str] = []
    for declared in made_secrets(app):
        absent = [path for path in map(secret_path, declared.names) if path not in found]
        if len(absent) < len(declared.names):
            missing += absent
            continue
        for name, content in host_secrets.generate(declared.name, declared.kind, entropy).items():
            steps.append(File(secret_path(name), content, 0, 0, 0o600, "missing"))
            values[name] = host_secrets.value(content)
    for path in missing:
        raise CannotDerive(f"{path}: is not a file; the secret cannot be read")
    for name in secret_names(app):
        path = secret_path(name)
        if (now := found.get(path)) is None:
            continue
        if now.content is None:
            raise CannotDerive(f"{path}: is not a file; the secret cannot be read")
        try:
            values[name] = host_secrets.value(now.content)
        except ValueError as error:
            raise CannotDerive(f"{path}: {error}; restore it, or remove it to have a new one made") from None
        if (now.uid, now.gid, now.mode) != (0, 0, 0o600):
            steps.append(Ownership(path, 0, 0, 0o600))
    return steps, values


def check_secrets_directory(root: str) -> None:
    """Raise CannotDerive if it is not root's: the directory above belongs to the service user, who can put another one
    in this place. A wrong mode is put right by the pass over the node."""
    try:
        status = os.lstat(paths.under(root, paths.SECRETS))
    except FileNotFoundError:
        return
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != 0:
        hint = "look at what is in it, then: systemd-tmpfiles --create archy.conf"
        raise CannotDerive(f"{paths.SECRETS}: is not a directory of root's; {hint}")


def lasting_secrets(app: App, rotatable: Collection[str]) -> list[Secret]:
    """The secrets of an app that must not change; `rotatable` are names of those that may, by any app's manifest."""
    return [declared for declared in app.secrets if not (declared.rotatable or declared.name in rotatable)]


def secret_marks(lasting: list[Secret], there: Mapping[str, FileState], marks: Mapping[str, FileState]) -> list[Step]:
    """Steps that record that these secrets exist; raises CannotDerive if one existed before and is lost."""
    new = [declared.name for declared in lasting if paths.made_secret_path(declared.name) not in marks]
    for declared in lasting:
        where = secret_path(declared.name)
        if declared.name not in new and all(secret_path(name) not in there for name in declared.names):
            mark = paths.made_secret_path(declared.name)
            hint = f"restore it, or, if the data are gone too, remove {mark} to have a new one made"
            raise CannotDerive(f"{where}: is lost, and the data were made with it; {hint}")
    if not new:
        return []
    return [
        Directory(paths.MADE_SECRETS, 0, 0, 0o755),
        *(File(paths.made_secret_path(name), b"", 0, 0, 0o644, "missing") for name in new),
    ]
