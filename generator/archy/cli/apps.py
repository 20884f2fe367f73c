# SPDX-License-Identifier: MIT
"""`archy app list`, and `archy app show`: what an app is, what it needs, and what it may do, installed or not."""

from __future__ import annotations

import os
from dataclasses import asdict
from typing import Any

from archy import paths
from archy.apps import admission, catalogue
from archy.apps.catalogue import Entry
from archy.cli.output import COLOURS, print_json, table
from archy.errors import Problem, Refused
from archy.health import current
from archy.manifest import grants, load
from archy.manifest.model import App, Port
from archy.operations import preflight
from archy.operations.progress import progress


def list_(as_json: bool) -> None:
    """archy app list."""
    entries = catalogue.entries("/")
    states = current.apps("/", [entry.id for entry in entries if entry.installed])
    rows: list[dict[str, Any]] = [
        {
            "id": entry.id,
            "name": entry.app.name if entry.app else "",
            "version": entry.app.version if entry.app else "",
            "origin": entry.origin,
            "installed": entry.installed,
            "state": states[entry.id].state if entry.id in states else "not installed",
            "restarts": states[entry.id].unit.restarts if entry.id in states else 0,
            "companion_of": entry.companion_of,
            "part_of": entry.part_of,
            "provides": entry.provides,
            "problems": list(map(as_data, entry.problems)),
        }
        for entry in entries
    ]
    if as_json:
        print_json({"apps": rows})
    else:
        cells = [[row["id"], row["state"], row["version"], row["name"] or row["problems"][0]["text"]] for row in rows]
        table(["APP", "STATE", "VERSION", "NAME"], cells, COLOURS)


def as_data(problem: Problem) -> dict[str, Any]:
    """A problem for a program."""
    return {**asdict(problem), "text": str(problem)}


_GIB = 1024**3
_JOINED = ("needs", "brings", "known as", "capabilities", "RPC calls", "secrets")


def show(app_id: str, as_json: bool) -> None:
    """archy app show."""
    entry = preflight.find(f"show {app_id}", app_id)
    app, data = _read(entry)
    if app is None:
        raise Refused(entry.problems)
    named = admission.apps_named_by("/", app)
    missing = dict(grants.missing(app, admission.granted("/"), named))
    data = _facts(entry, app, data) | {
        "grants": [
            {"grant": str(one), "risk": one.risk, "granted": one.at not in missing, "write": f"{app.id}: {one.grant}"}
            for one in grants.required(app, named)
        ],
        "belonging": catalogue.members(catalogue.entries("/"), app.id),
        "problems": [str(problem) for problem in entry.problems if problem.reason not in missing.values()],
    }
    if as_json:
        print_json(data)
        return
    for line in _lines(data):
        print("".join(filter(str.isprintable, line)))  # a manifest must not control the terminal
    for problem in data["problems"]:
        progress(problem)


def _read(entry: Entry) -> tuple[App | None, dict[str, Any]]:
    """The app, also one that only lacks grants, and the data of its manifest, also those that are for people only."""
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
    address = f"{main.get('protocol', 'http')}://HOST:{main['port']}{main.get('path', '/')}" if "port" in main else ""
    metadata = data.get("metadata") or {}
    same = ("id", "name", "version", "image", "storage", "one_shot")
    return {
        **{key: getattr(app, key) for key in same},
        "description": " ".join(data.get("description", "").split()),
        "category": data.get("category", ""),
        "installed": entry.installed,
        "origin": entry.origin,
        "upstream": (data.get("upstream") or {}).get("repo", ""),
        "website": str(metadata.get("website", "")),
        "license": str(metadata.get("license", "")),
        "interface": address,
        "built": app.build is not None,
        "provides": app.provides,
        "companion_of": app.companion_of,
        "part_of": app.part_of,
        "needs": [*app.need_ids, *(f"bitcoin: {level}" for level in app.bitcoin)],
        "network": [app.network, *(network.name for network in app.networks)],
        "network_aliases": sorted({*app.aliases, *(name for network in app.networks for name in network.aliases)}),
        "ports": list(map(_port, app.ports)),
        "volumes": [f"{volume.source} on {volume.target} ({_access(volume.options)})" for volume in app.volumes],
        "user": app.user,
        "capabilities": list(app.capabilities),
        "readonly_root": app.read_only,
        "no_new_privileges": app.no_new_privileges,
        "memory_limit": app.memory,
        "stop_grace_secs": app.stop_grace,
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


def _lines(data: dict[str, Any]) -> list[str]:
    """The lines that a person reads; empty values are left out."""
    installed = "installed" if data["installed"] else "not installed"
    rows: list[tuple[str, Any]] = [
        ("interface", data["interface"].replace("HOST", os.uname().nodename.partition(".")[0] + ".local")),
        ("image", f"{data['image']}{' (built here)' if data['built'] else ''}"),
        ("provides", data["provides"]),
        ("belongs to", data["companion_of"] or data["part_of"]),
        ("brings", data["belonging"]),
        ("needs", data["needs"]),
        ("disk", f"{data['storage'] / _GIB:.0f} GiB" if data["storage"] else ""),
        ("networks", data["network"]),
        ("known as", data["network_aliases"]),
        ("ports", data["ports"]),
        ("volumes", data["volumes"]),
        ("user", data["user"]),
        ("capabilities", data["capabilities"] or ["none"]),
        ("root", "read only" if data["readonly_root"] else "can be written"),
        ("privileges", "no new ones" if data["no_new_privileges"] else "can gain some (set-user-ID programs)"),
        ("secrets", data["secrets"]),
        ("RPC calls", data["rpcwhitelist"]),
        ("hooks", data["hooks"]),
        ("runs", "to its end, then it is done" if data["one_shot"] else ""),
        ("stop", f"within {data['stop_grace_secs']} s"),
    ]
    for one in data["grants"]:
        state = "granted" if one["granted"] else f"NOT granted; to allow it, write into {paths.GRANTS}: {one['write']}"
        rows.append(("grant", f"{one['grant']} ({one['risk']}): {state}"))
    lines = [f"{data['name']} {data['version']} ({data['id']}, {installed})", *filter(None, [data["description"]]), ""]
    for name, value in rows:
        values = value if isinstance(value, list) else [value]
        for index, text in enumerate(filter(None, [", ".join(values)] if name in _JOINED else values)):
            lines.append(f"{'' if index else name:<13} {text}")
    return lines
