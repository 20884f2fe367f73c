# SPDX-License-Identifier: MIT
"""What one app needs on the node, planned: looks at what is there, and has the pure modules say what is missing."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from archy import paths
from archy.apps import accepted, installed
from archy.errors import CannotDerive
from archy.host import read as host_read
from archy.host import stat
from archy.host.idmap import owner_of
from archy.host.stat import FileState
from archy.host.steps import Directory, File, Ownership, Step
from archy.manifest.model import App
from archy.prepare import copies as prepare_copies
from archy.prepare import files, render, stamps
from archy.prepare import secrets as prepare_secrets
from archy.prepare.render import Context, Inputs


def steps(
    root: str, app: App, folder: str, known: Callable[[], Context], made: Mapping[str, FileState]
) -> tuple[list[Step], dict[str, dict[str, str]]]:
    """The steps from what is there to what an app needs, and what it is started with then (see `derive.started`).

    `folder` has its files, `made` is what steps before these would have made. Raises CannotDerive.
    """
    if accepted.too_large(folder, host_read.tree(folder)):
        raise CannotDerive(f"{folder}: holds more than {accepted.MAX_BYTES // 1024**2} MiB")
    secret_names = prepare_secrets.secret_names(app)
    if secret_names:
        prepare_secrets.check_secrets_directory(root)
    found = _files(root, map(paths.secret_path, secret_names), made)
    todo, values = prepare_secrets.secrets(app, found, os.urandom)
    if not all(declared.rotatable for declared in app.secrets):
        kept = prepare_secrets.lasting_secrets(
            app, {name for summary in known().apps.values() for name in summary["rotatable"]}
        )
        marks = _files(root, (paths.made_secret_path(declared.name) for declared in kept), made)
        todo += prepare_secrets.secret_marks(kept, found, marks)
    owner = owner_of(root)
    copies = prepare_copies.copies(app, prepare_copies.look(root, app, folder))
    todo += prepare_copies.gone(root, app, copies)
    directories = [*files.directories(app, owner), *prepare_copies.directories(copies)]
    todo += [made for made in directories if not stat.is_directory(root, made.path)]
    todo += version_mark(app, stat.files(root, [paths.data_version_path(app.id)]))
    for path, now in stat.files(root, set(app.env_files).difference(files.file_paths(app))).items():
        if now.content is None:  # as a link, it would have Podman read what is another app's
            raise CannotDerive(f"{path}: is not a file; remove it")
    names = [*files.file_paths(app), *(file.path for file in copies)]
    context = prepare_copies.context(folder, app)
    if not names:
        return todo, {"files": context, "own": {}}
    there = stat.files(root, names)
    own = {name: there[path].content for name, path in render.own_names(app).items() if path in there}
    bare = Inputs(app, templates(app, folder), values, {}, known())
    texts = {name: (content or b"").decode(errors="replace") for name, content in own.items()}
    for file in app.files:
        if not file.overwrite and (name := os.path.basename(file.path)) not in texts:
            texts[name] = render.content(bare, file)
    material = replace(bare, own=texts)
    wanted = files.files(material) + copies + files.certificates(material, there, datetime.now(UTC))
    started = files.started(app, wanted, there)
    started["files"] |= context
    return todo + files.drift(app, wanted, there), started


def _files(root: str, names: Iterable[str], made: Mapping[str, FileState]) -> dict[str, FileState]:
    names = list(names)
    return stat.files(root, names) | {name: made[name] for name in names if name in made}


def read(root: str, app: App) -> list[str]:
    """What is read for an app, besides its folder: secrets, facts, its operator's files, certificates."""
    texts = bool(files.file_paths(app))
    own = sorted(render.own_paths(app)) + [path for pair in app.certificates for path in (pair.key, pair.crt)]
    secrets = map(paths.secret_path, prepare_secrets.secret_names(app))
    return [
        *secrets,
        *(paths.made_secret_path(declared.name) for declared in app.secrets),
        *([paths.FACTS] if texts else []),
        *own,
        *app.env_files,
        paths.data_version_path(app.id),
        *prepare_copies.shared(root, app),
    ]


_RENEWAL = 24 * 3600  # seconds; certificates run out, though nothing changes


def stamp_of(
    root: str,
    prepared: App,
    steps: list[Step],
    before: dict[str, str],
    started: dict[str, dict[str, str]],
    said: list[str],
) -> bytes:
    """The stamp of an app over all that its pass read (`before`, with fingerprints from then), and all that it made."""
    kept = [f"{paths.ACCEPTED}/{prepared.id}", paths.units_path(prepared.id)]
    secrets = {paths.under(root, path) for path in map(paths.secret_path, prepare_secrets.secret_names(prepared))}
    written = {paths.under(root, path) for path in (*kept, *files.file_paths(prepared))}
    written |= {paths.under(root, path) for path in started["files"] if os.path.isabs(path)}
    written |= {paths.under(root, step.path) for step in steps if isinstance(step, File)}
    for step in steps:  # of a secret whose mode was put right, the content is still the one that was read before
        if isinstance(step, Ownership) and (path := paths.under(root, step.path)) in secrets:
            before[path] = stamps.owned(before[path], step.uid, step.gid, step.mode)
    made = [paths.under(root, step.path) for step in files.directories(prepared, owner_of(root))]
    more: dict[str, Any] = {"until": time.time() + _RENEWAL} if prepared.certificates else {}
    return stamps.content(root, before | stamps.prints(sorted(written)), made, started=started, said=said, **more)


def templates(app: App, folder: str) -> dict[str, str]:
    """The texts of an app's templates, which lie in `folder`; raises CannotDerive."""
    result = {}
    for name in {file.template for file in app.files if file.template}:
        try:
            with open(os.path.join(folder, name), encoding="utf-8") as file:
                result[name] = file.read()
        except (OSError, UnicodeDecodeError) as error:
            raise CannotDerive(f"{folder}/{name}: cannot be read: {error}") from None
    return result


def inputs(root: str, app_id: str) -> list[str]:
    """What a pass reads for any app, besides its secrets: paths as seen from outside of `root`."""
    read = [paths.APPS, f"{paths.APPS}/{app_id}", paths.NODE, "/etc/passwd", "/etc/subuid", "/etc/subgid"]
    folder = installed.folder(root, app_id)
    names = installed.source(root, app_id).files
    return [*(paths.under(root, path) for path in read), folder, *(f"{folder}/{name}" for name in sorted(names))]


def version_mark(app: App, found: Mapping[str, FileState]) -> list[Step]:
    """Steps that keep the version of an app's data; raises CannotDerive if there is data of another one."""
    if paths.data_version_path(app.id) not in found:
        if not app.data_version:
            return []
        content = f"{app.data_version}\n".encode()
        return [
            Directory(paths.DATA_VERSIONS, 0, 0, 0o755),
            File(paths.data_version_path(app.id), content, 0, 0, 0o644, "missing"),
        ]
    path = paths.data_version_path(app.id)
    there = (found[path].content or b"").decode(errors="replace").strip()
    if not app.data_version:
        hint = f"say data_version: {there} in the manifest, or remove that file if the data are gone"
        raise CannotDerive(f"{path}: the data has version {there}, the manifest says none; {hint}")
    if there != app.data_version:
        hint = f"install version {there} again, or convert the data and then write {app.data_version} into that file"
        raise CannotDerive(f"{path}: the data has version {there}, the manifest wants {app.data_version}; {hint}")
    return []
