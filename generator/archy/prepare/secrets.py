# SPDX-License-Identifier: MIT
"""What must be on the disk before an app starts. Pure: the app, what is there and facts in, a plan out."""

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

    An existing value is never changed: what is there but unusable is an error for a person to look at.
    """
    steps: list[Step] = []
    values: dict[str, str] = {}
    missing: list[str] = []
    for declared in made_secrets(app):
        if any(paths.secret_path(name) in found for name in declared.names):
            missing += [paths.secret_path(name) for name in declared.names if paths.secret_path(name) not in found]
            continue
        for name, content in host_secrets.generate(declared.name, declared.kind, entropy).items():
            steps.append(File(paths.secret_path(name), content, 0, 0, 0o600, "missing"))
            values[name] = host_secrets.value(content)
    for path in missing:
        raise CannotDerive(f"{path}: is not a file; the secret cannot be read")
    for name in secret_names(app):
        if (now := found.get(paths.secret_path(name))) is None:
            continue
        path = paths.secret_path(name)
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
    """Those of an app that nobody says may change; `rotatable` are the names that some app says it of."""
    return [declared for declared in app.secrets if not (declared.rotatable or declared.name in rotatable)]


def secret_marks(lasting: list[Secret], there: Mapping[str, FileState], marks: Mapping[str, FileState]) -> list[Step]:
    """Steps that keep that there are these secrets; raises CannotDerive if one was there and is not."""
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
