# SPDX-License-Identifier: MIT
"""`archy app show`: what an app is, what it needs, and what it may do; before it is installed, and after."""

from __future__ import annotations

import argparse
import os
from dataclasses import asdict
from typing import Any

from archy import paths
from archy.apps import admission, catalogue
from archy.apps.catalogue import Entry
from archy.cli.output import print_json, table
from archy.cli.status import COLOURS
from archy.errors import Problem, Refused
from archy.health import current
from archy.manifest import grants, load
from archy.manifest.model import App, Port
from archy.operations.progress import NO_SUCH_APP, OK, CannotDo, progress


def list_(options: argparse.Namespace) -> int:
    """archy app list."""
    entries = catalogue.entries("/")
    states = current.apps("/", [entry.id for entry in entries if entry.installed])
    rows: list[dict[str, Any]] = []
    for entry in entries:
        app = states.get(entry.id)
        rows.append(
            {
                "id": entry.id,
                "name": entry.app.name if entry.app else "",
                "version": entry.app.version if entry.app else "",
                "origin": entry.origin,
                "installed": entry.installed,
                "state": app.state if app else "not installed",
                "restarts": app.unit.restarts if app else 0,
                "companion_of": entry.companion_of,
                "part_of": entry.part_of,
                "provides": entry.provides,
                "problems": [_as_data(problem) for problem in entry.problems],
            }
        )
    if options.json:
        print_json({"apps": rows})
        return OK
    shown = [[row["id"], row["state"], row["version"], row["name"] or row["problems"][0]["text"]] for row in rows]
    table(["APP", "STATE", "VERSION", "NAME"], shown, COLOURS | {"not installed": "dim"})
    return OK


def _as_data(problem: Problem) -> dict[str, Any]:
    return {**asdict(problem), "text": str(problem)}


_GIB = 1024**3
_JOINED = ("needs", "brings", "known as", "capabilities", "RPC calls", "secrets")


def show(options: argparse.Namespace) -> int:
    """archy app show."""
    what = f"show {options.app}"
    entry = catalogue.entry("/", options.app)
    if entry is None:
        where = f"{paths.APPS}, {paths.CATALOGUE}"
        raise CannotDo(what, where, f"there is no app {options.app}", "archy app list shows all", NO_SUCH_APP)
    app, data = _read(entry)
    if app is None:
        raise Refused(entry.problems)
    granted = admission.granted("/")
    known = admission.named("/", app)
    lacking = grants.missing(app, granted, known)
    missing = {at for at, _ in lacking}
    found = _facts(entry, app, data)
    found["grants"] = [
        {"grant": str(wish), "risk": wish.risk, "granted": wish.at not in missing, "write": f"{app.id}: {wish.grant}"}
        for wish in grants.required(app, known)
    ]
    found["belonging"] = catalogue.members(catalogue.entries("/"), app.id)
    reasons = {reason for _, reason in lacking}
    found["problems"] = [str(problem) for problem in entry.problems if problem.reason not in reasons]
    if options.json:
        print_json(found)
    else:
        for line in _lines(found):
            print("".join(filter(str.isprintable, line)))  # a manifest's words are not a terminal's orders
        for problem in found["problems"]:
            progress(problem)
    return OK


def _read(entry: Entry) -> tuple[App | None, dict[str, Any]]:
    """The app, also one that only lacks grants, and what its manifest says for people."""
    source = catalogue.source_at(entry.folder, f"{paths.APPS}/{entry.id}")
    if source.content is None:
        return None, {}
    try:
        app = load.check(source.content, source.path, entry.id, source.files)
    except Refused:
        return entry.app, {}
    data: dict[str, Any] = load.data(source.content, source.path)["app"]
    return app, data


def _facts(entry: Entry, app: App, data: dict[str, Any]) -> dict[str, Any]:
    main = (data.get("interfaces") or {}).get("main") or {}
    return {
        "id": app.id,
        "name": app.name,
        "version": app.version,
        "description": " ".join(data.get("description", "").split()),
        "category": data.get("category", ""),
        "installed": entry.installed,
        "origin": entry.origin,
        "upstream": (data.get("upstream") or {}).get("repo", ""),
        "website": str((data.get("metadata") or {}).get("website", "")),
        "license": str((data.get("metadata") or {}).get("license", "")),
        "interface": f"{main.get('protocol', 'http')}://HOST:{main['port']}{main.get('path', '/')}"
        if "port" in main
        else "",
        "image": app.image,
        "built": app.build is not None,
        "provides": app.provides,
        "companion_of": app.companion_of,
        "part_of": app.part_of,
        "needs": [*app.need_ids, *(f"bitcoin: {level}" for level in app.bitcoin)],
        "storage": app.storage,
        "network": [app.network, *(network.name for network in app.networks)],
        "network_aliases": sorted({*app.aliases, *(name for network in app.networks for name in network.aliases)}),
        "ports": [_port(port) for port in app.ports],
        "volumes": [f"{volume.source} on {volume.target} ({_access(volume.options)})" for volume in app.volumes],
        "user": app.user,
        "capabilities": list(app.capabilities),
        "readonly_root": app.read_only,
        "no_new_privileges": app.no_new_privileges,
        "memory_limit": app.memory,
        "stop_grace_secs": app.stop_grace,
        "one_shot": app.one_shot,
        "secrets": app.secret_names,
        "rpcwhitelist": list(app.rpcwhitelist or ()),
        "hooks": [
            *(f"copy {copy.src} to {copy.dest}" for copy in app.hooks.copies),
            *(f"before each start: {' '.join(command)}" for command in app.hooks.pre_start),
            *(f"after each start: {' '.join(command)}" for command in app.hooks.post_install),
        ],
    }


def _access(options: tuple[str, ...]) -> str:
    return "read only" if "ro" in options else "read and write"


def _port(port: Port) -> str:
    last = f"-{port.host + port.more}" if port.more else ""
    return f"{port.bind}:{port.host}{last}/{port.protocol}"


def _lines(found: dict[str, Any]) -> list[str]:
    """What a person reads: what is not said of an app is left out."""
    head = (
        f"{found['name']} {found['version']} ({found['id']}, {'installed' if found['installed'] else 'not installed'})"
    )
    whole = found["companion_of"] or found["part_of"]
    rows: list[tuple[str, Any]] = [
        ("interface", found["interface"].replace("HOST", os.uname().nodename.partition(".")[0] + ".local")),
        ("image", f"{found['image']}{' (built here)' if found['built'] else ''}"),
        ("provides", found["provides"]),
        ("belongs to", whole),
        ("brings", found["belonging"]),
        ("needs", found["needs"]),
        ("disk", f"{found['storage'] / _GIB:.0f} GiB" if found["storage"] else ""),
        ("networks", found["network"]),
        ("known as", found["network_aliases"]),
        ("ports", found["ports"]),
        ("volumes", found["volumes"]),
        ("user", found["user"]),
        ("capabilities", found["capabilities"] or ["none"]),
        ("root", "read only" if found["readonly_root"] else "can be written"),
        ("privileges", "no new ones" if found["no_new_privileges"] else "can gain some (set-user-ID programs)"),
        ("secrets", found["secrets"]),
        ("RPC calls", found["rpcwhitelist"]),
        ("hooks", found["hooks"]),
        ("runs", "to its end, then it is done" if found["one_shot"] else ""),
        ("stop", f"within {found['stop_grace_secs']} s"),
    ]
    lines = [head, *([found["description"]] if found["description"] else []), ""]
    for name, value in rows:
        values = value if isinstance(value, list) else [value] if value else []
        joined = [", ".join(values)] if name in _JOINED else values
        for index, text in enumerate(one for one in joined if one):
            lines.append(f"{'' if index else name:<13} {text}")
    for one in found["grants"]:
        state = "granted" if one["granted"] else f"NOT granted; to allow it, write into {paths.GRANTS}: {one['write']}"
        lines.append(f"{'grant':<13} {one['grant']} ({one['risk']}): {state}")
    return lines
