# SPDX-License-Identifier: MIT
"""`archy secret list`, which never shows values, and `archy app credentials`, which shows those for people."""

from __future__ import annotations

import os
from typing import Any

from archy import paths
from archy.apps import catalogue, facts
from archy.cli.output import print_json, table
from archy.errors import Refused
from archy.host import read
from archy.host import secrets as host_secrets
from archy.manifest.model import App, Credential
from archy.operations import preflight
from archy.operations.progress import CannotDo, progress
from archy.paths import secret_path


def credentials(app_id: str, as_json: bool) -> None:
    """archy app credentials."""
    what = f"credentials {app_id}"
    entry = preflight.find(what, app_id, installed=True)
    if entry.app is None:
        raise Refused(entry.problems)
    rows = []
    for login in _logins(entry.app):
        content = read.read(secret_path(login.secret))
        if content is None:
            reason = "does not exist yet; it is made before the app's first start"
            raise CannotDo(what, secret_path(login.secret), reason, f"systemctl start {paths.unit(entry.id)}")
        rows.append({"name": login.name, "user": login.user, "password": host_secrets.value(content)})
    if as_json:
        print_json({"app": entry.id, "credentials": rows})
    elif rows:
        table(["FOR", "USER", "PASSWORD"], [[row["name"], row["user"] or "-", row["password"]] for row in rows])
    else:
        progress(f"{entry.id}: a person needs none")


def _logins(app: App) -> tuple[Credential, ...]:
    """The credentials of the manifest; if it has none, the plain texts of the secrets that are stored as a hash."""
    plain = (Credential(one.name, "", f"{one.name}.pw") for one in app.secrets if one.kind == "bcrypt")
    return app.credentials or tuple(plain)


def list_(as_json: bool) -> None:
    """archy secret list."""
    users: dict[str, list[str]] = {}
    for app_id, summary in facts.load("/")["apps"].items():
        for name in summary["secrets"]:
            users.setdefault(name, []).append(app_id)
    apps = [entry.app for entry in catalogue.entries("/") if entry.installed and entry.app]
    declared = {one.name: one for app in apps for one in app.secrets}
    rows: list[dict[str, Any]] = []
    for name in sorted({*read.secret_names("/"), *users} - {""}):
        base = name.removesuffix(paths.PREVIOUS)
        one = declared.get(name)
        rows.append(
            {
                "name": name,
                "kind": one.kind if one else "",
                "rotatable": bool(one and one.rotatable),
                "apps": users.get(base, []),
                "there": os.path.lexists(secret_path(name)),
                "rotating": base != name,
            }
        )
    if as_json:
        print_json({"secrets": rows})
    else:
        cells = [[row["name"], row["kind"] or "-", ", ".join(row["apps"]) or "-", _note(row)] for row in rows]
        table(["SECRET", "KIND", "APPS", "NOTE"], cells)


def _note(row: dict[str, Any]) -> str:
    if not row["there"]:
        return "missing"
    if row["rotating"]:
        return "the previous value, while a rotation lasts"
    return "can be rotated" if row["rotatable"] else ""
