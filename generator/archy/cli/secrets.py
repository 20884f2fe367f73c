# SPDX-License-Identifier: MIT
"""The verbs of `archy app` that only look: list, validate, render, credentials."""

from __future__ import annotations

import argparse
import os
from typing import Any

from archy import paths
from archy.apps import catalogue, facts
from archy.cli.output import print_json, table
from archy.host import read
from archy.host import secrets as host_secrets
from archy.manifest.model import App, Credential
from archy.operations import rotate as operations_rotate
from archy.operations.progress import NO_SUCH_APP, OK, CannotDo, progress
from archy.paths import secret_path


def credentials(options: argparse.Namespace) -> int:
    """archy app credentials."""
    entry = catalogue.entry("/", options.app)
    what = f"credentials {options.app}"
    if entry is None or not entry.installed or entry.app is None:
        where = paths.APPS
        raise CannotDo(what, where, f"no such app is installed: {options.app}", "archy app list", NO_SUCH_APP)
    found = []
    for login in _logins(entry.app):
        content = read.read(paths.secret_path(login.secret))
        if content is None:
            why = "is not there yet; it is made before the app's first start"
            raise CannotDo(what, paths.secret_path(login.secret), why, f"systemctl start {paths.unit(entry.id)}")
        found.append({"name": login.name, "user": login.user, "password": host_secrets.value(content)})
    if options.json:
        print_json({"app": entry.id, "credentials": found})
    elif found:
        table(["FOR", "USER", "PASSWORD"], [[row["name"], row["user"] or "-", row["password"]] for row in found])
    else:
        progress(f"{entry.id}: a person needs none")
    return OK


def _logins(app: App) -> tuple[Credential, ...]:
    """What the manifest says; where it says nothing, the plain text of what is stored as a hash."""
    plain = (Credential(one.name, "", f"{one.name}.pw") for one in app.secrets if one.kind == "bcrypt")
    return app.credentials or tuple(plain)


def list_secrets(options: argparse.Namespace) -> int:
    """archy secret list: names, never values."""
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
    if options.json:
        print_json({"secrets": rows})
        return OK
    notes = {True: "the value before, while a rotation lasts"}
    shown = []
    for row in rows:
        note = notes.get(row["rotating"], "can be rotated" if row["rotatable"] else "")
        shown.append(
            [row["name"], row["kind"] or "-", ", ".join(row["apps"]) or "-", note if row["there"] else "missing"]
        )
    table(["SECRET", "KIND", "APPS", "NOTE"], shown)
    return OK


def rotate(options: argparse.Namespace) -> int:
    """archy secret rotate."""
    operations_rotate.rotate(options.name)
    return OK
