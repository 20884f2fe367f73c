# SPDX-License-Identifier: MIT
"""What one app needs on the node, planned: looks at what is there, and has the pure modules say what is missing."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from datetime import UTC, datetime

from archy import accept, data_version, derive, hooks, installed, lasting, look, paths, rendering
from archy.derive import Found
from archy.model import App
from archy.owner import owner_of
from archy.rendering import CannotDerive, Facts, Material
from archy.steps import Step


def steps(
    root: str, app: App, folder: str, known: Callable[[], Facts], made: Mapping[str, Found]
) -> tuple[list[Step], dict[str, dict[str, str]]]:
    """The steps from what is there to what an app needs, and what it is started with then (see `derive.started`).

    `folder` has its files, `made` is what steps before these would have made. Raises CannotDerive.
    """
    if accept.too_large(folder, installed.tree(folder)):
        raise CannotDerive(f"{folder}: holds more than {accept.MAX_BYTES // 1024**2} MiB")
    secret_names = derive.secret_names(app)
    if secret_names:
        look.check_secrets_directory(root)
    found = _files(root, map(derive.secret_path, secret_names), made)
    todo, values = derive.secrets(app, found, os.urandom)
    if not all(declared.rotatable for declared in app.secrets):
        kept = lasting.secrets(app, {name for summary in known().apps.values() for name in summary["rotatable"]})
        marks = _files(root, (lasting.path(declared.name) for declared in kept), made)
        todo += lasting.steps(kept, found, marks)
    owner = owner_of(root)
    copies = hooks.copies(app, hooks.look(root, app, folder))
    todo += hooks.gone(root, app, copies)
    directories = [*derive.directories(app, owner), *hooks.directories(copies)]
    todo += [made for made in directories if not look.is_directory(root, made.path)]
    todo += data_version.steps(app, look.files(root, [data_version.path(app.id)]))
    for path, now in look.files(root, set(app.env_files).difference(derive.file_paths(app))).items():
        if now.content is None:  # as a link, it would have Podman read what is another app's
            raise CannotDerive(f"{path}: is not a file; remove it")
    names = [*derive.file_paths(app), *(file.path for file in copies)]
    context = hooks.context(folder, app)
    if not names:
        return todo, {"files": context, "own": {}}
    there = look.files(root, names)
    own = {name: there[path].content for name, path in rendering.own_names(app).items() if path in there}
    bare = Material(app, look.templates(app, folder), values, {}, known())
    texts = {name: (content or b"").decode(errors="replace") for name, content in own.items()}
    for file in app.files:
        if not file.overwrite and (name := os.path.basename(file.path)) not in texts:
            texts[name] = rendering.content(bare, file)
    material = replace(bare, own=texts)
    wanted = derive.files(material) + copies + derive.certificates(material, there, datetime.now(UTC))
    started = derive.started(app, wanted, there)
    started["files"] |= context
    return todo + derive.drift(app, wanted, there), started


def _files(root: str, names: Iterable[str], made: Mapping[str, Found]) -> dict[str, Found]:
    names = list(names)
    return look.files(root, names) | {name: made[name] for name in names if name in made}


def read(root: str, app: App) -> list[str]:
    """What is read for an app, besides its folder: secrets, facts, its operator's files, certificates."""
    texts = bool(derive.file_paths(app))
    own = sorted(rendering.own_paths(app)) + [path for pair in app.certificates for path in (pair.key, pair.crt)]
    secrets = map(derive.secret_path, derive.secret_names(app))
    return [
        *secrets,
        *(lasting.path(declared.name) for declared in app.secrets),
        *([paths.FACTS] if texts else []),
        *own,
        *app.env_files,
        data_version.path(app.id),
        *hooks.shared(root, app),
    ]
