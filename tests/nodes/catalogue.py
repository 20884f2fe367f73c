# SPDX-License-Identifier: MIT
"""The catalogue as tests need it: what its manifests say, and nothing that is checked. archy itself is not asked.

A manifest that cannot be read has no app here; that it is bad is said by tests of manifests.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from typing import Any

from nodes.common import REPO, Problem

App = dict[str, Any]
FROM = re.compile(r"^\s*FROM\s+(?:--\S+\s+)*(\S+)(?:\s+AS\s+(\S+))?", re.MULTILINE | re.IGNORECASE)


@cache
def apps() -> dict[str, App]:
    """All apps of the catalogue. Every value that is neither a list nor a mapping is text."""
    import yaml  # which nodectl may have to install first

    result = {}
    for path in sorted((REPO / "apps").glob("*/manifest.yml")):
        try:
            found = yaml.load(path.read_text(), Loader=yaml.BaseLoader)
        except yaml.YAMLError:
            continue
        if isinstance(found, dict) and isinstance(found.get("app"), dict):
            result[path.parent.name] = found["app"]
    return result


def part(app: App, *keys: str) -> Any:
    """What is at a place in a manifest, or an empty mapping."""
    found: Any = app
    for key in keys:
        found = found.get(key) if isinstance(found, dict) else None
    return {} if found is None else found


def items(app: App, *keys: str) -> list[Any]:
    """What is at a place in a manifest if that is a list, or nothing."""
    found = part(app, *keys)
    return found if isinstance(found, list) else []


def references(name: str) -> list[str]:
    """The references of the images that an app needs: its own, or those that its own is built from."""
    app = apps().get(name, {})
    if image := part(app, "container", "image"):
        return [str(image)]
    build = part(app, "container", "build")
    if not build:
        raise Problem(f"apps/{name}/manifest.yml: names no image under container:")
    folder = REPO / "apps" / name / str(part(build, "context") or ".")
    told = str(part(build, "dockerfile"))
    names = [told] if isinstance(build, dict) and "dockerfile" in build else ["Containerfile", "Dockerfile"]
    text = next((path.read_text() for each in names if (path := folder / each).exists()), "")
    found = FROM.findall(text)
    stages = {stage for _, stage in found}
    return sorted({image for image, _ in found if image not in {*stages, "scratch"} and "$" not in image})


def numbers(value: str) -> list[int]:
    """A port, or a range of them."""
    first, _, last = str(value).partition("-")
    return list(range(int(first), int(last or first) + 1))


def health_port(app: App) -> int | None:
    """The port that an app's health check asks."""
    check = part(app, "health_check")
    endpoint = str(part(check, "endpoint")) if isinstance(check, dict) and check.get("type") in ("http", "tcp") else ""
    found = re.search(r":(\d+)(?:/|$)", endpoint)
    return int(found[1]) if found else 80 if endpoint else None


def hook_commands(app: App) -> Iterator[list[str]]:
    """The command lines of an app's hooks."""
    for moment in ("pre_start", "post_install"):
        for step in items(app, "hooks", moment):
            if isinstance(step, dict) and isinstance(step.get("exec"), list):
                yield list(map(str, step["exec"]))


def check_command(app: App) -> list[str]:
    """The command line of an app's health check, if it is one."""
    check = part(app, "health_check")
    told = check.get("command") or check.get("test") if isinstance(check, dict) else None
    if isinstance(told, str):
        return ["/bin/sh", "-c", told]
    words = list(map(str, told or []))
    if words[:1] == ["CMD-SHELL"]:
        return ["/bin/sh", "-c", *words[1:]]
    return words[1:] if words[:1] == ["CMD"] else words
