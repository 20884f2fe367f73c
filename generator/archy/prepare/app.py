# SPDX-License-Identifier: MIT
"""What one app needs on the node, planned: reads the current state, and asks the pure modules for the steps."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from archy import paths
from archy.apps import accepted, facts, installed
from archy.errors import CannotDerive, Refused
from archy.host.stat import FileState
from archy.host.steps import Directory, File, Step
from archy.manifest.model import App
from archy.prepare import copies as prepare_copies
from archy.prepare import files, node, render
from archy.prepare import secrets as prepare_secrets
from archy.prepare.reader import Reader
from archy.prepare.render import Context, Inputs


@dataclass(frozen=True)
class Known:
    """The facts of the node for all its apps, or what is wrong with them; `seen` is what they were read from."""

    context: Context | Exception
    seen: dict[str, str]

    def of(self, reader: Reader) -> Context:
        """The facts, noted as read; raises what is wrong with them."""
        reader.seen = self.seen | reader.seen
        if isinstance(self.context, Exception):
            raise self.context
        return self.context


def known(reader: Reader, everything: facts.All) -> Known:
    """The facts for all apps, with the settings that are in force."""
    reader.note(paths.under(reader.root, paths.APPS))
    ids = frozenset(installed.ids(reader.root)[0])
    try:
        values = node.settings_of(reader).values
        context: Context | Exception = Context(reader.owner(), values, everything["host"], ids, everything["apps"])
    except (Refused, LookupError, OSError) as error:
        context = error
    return Known(context, reader.seen)


def steps(
    reader: Reader, app: App, folder: str, known: Known, made: Mapping[str, FileState]
) -> tuple[list[Step], dict[str, dict[str, str]]]:
    """The steps from the current state to what an app needs, and what it is started with then (see `files.started`).

    `folder` has its files; `made` are files that earlier steps of a dry pass would have made. Raises CannotDerive.
    """
    if accepted.too_large(folder, reader.tree(folder)):
        raise CannotDerive(f"{folder}: holds more than {accepted.MAX_BYTES // 1024**2} MiB")
    secret_names = prepare_secrets.secret_names(app)
    if secret_names:
        prepare_secrets.check_secrets_directory(reader.root)
    found = _files(reader, map(paths.secret_path, secret_names), made)
    todo, values = prepare_secrets.secrets(app, found, os.urandom)
    if not all(declared.rotatable for declared in app.secrets):
        kept = prepare_secrets.lasting_secrets(
            app, {name for summary in known.of(reader).apps.values() for name in summary["rotatable"]}
        )
        marks = _files(reader, (paths.made_secret_path(declared.name) for declared in kept), made)
        todo += prepare_secrets.secret_marks(kept, found, marks)
    owner = reader.owner()
    copies = prepare_copies.copies(app, prepare_copies.look(reader, app, folder))
    todo += prepare_copies.gone(reader.root, app, copies)
    directories = [*files.directories(app, owner), *prepare_copies.directories(copies)]
    todo += [made for made in directories if not reader.is_directory(made.path)]
    todo += version_mark(app, reader.files([paths.data_version_path(app.id)]))
    for path, now in reader.files(set(app.env_files).difference(files.file_paths(app))).items():
        if now.content is None:  # as a link, it would have Podman read what is another app's
            raise CannotDerive(f"{path}: is not a file; remove it")
    names = [*files.file_paths(app), *(file.path for file in copies)]
    context = prepare_copies.context(reader, folder, app)
    if not names:
        return todo, {"files": context, "own": {}}
    there = reader.files(names)
    own = {name: there[path].content for name, path in render.own_names(app).items() if path in there}
    bare = Inputs(app, templates(reader, app, folder), values, {}, known.of(reader))
    texts = {name: (content or b"").decode(errors="replace") for name, content in own.items()}
    for file in app.files:
        if not file.overwrite and (name := os.path.basename(file.path)) not in texts:
            texts[name] = render.content(bare, file)
    material = replace(bare, own=texts)
    wanted = files.files(material) + copies + files.certificates(material, there, datetime.now(UTC))
    started = files.started(app, wanted, there)
    started["files"] |= context
    return todo + files.drift(app, wanted, there), started


def _files(reader: Reader, names: Iterable[str], made: Mapping[str, FileState]) -> dict[str, FileState]:
    names = list(names)
    return reader.files(names) | {name: made[name] for name in names if name in made}


def templates(reader: Reader, app: App, folder: str) -> dict[str, str]:
    """The texts of an app's templates, which lie in `folder`; raises CannotDerive."""
    result = {}
    for name in {file.template for file in app.files if file.template}:
        try:
            with open(reader.note(os.path.join(folder, name)), encoding="utf-8") as file:
                result[name] = file.read()
        except (OSError, UnicodeDecodeError) as error:
            raise CannotDerive(f"{folder}/{name}: cannot be read: {error}") from None
    return result


def source(reader: Reader, app_id: str) -> installed.Source:
    """Read an installed app: its manifest, and the names of its files; the contents of all are noted."""
    for path in (paths.APPS, f"{paths.APPS}/{app_id}"):
        reader.note(paths.under(reader.root, path))
    with suppress(OSError):  # too much for an app: the manifest is refused
        reader.tree(installed.folder(reader.root, app_id))
    return installed.source(reader.root, app_id)


def version_mark(app: App, found: Mapping[str, FileState]) -> list[Step]:
    """Steps that keep the version of an app's data; raises CannotDerive if there is data of another one."""
    path = paths.data_version_path(app.id)
    if path not in found:
        file = File(path, f"{app.data_version}\n".encode(), 0, 0, 0o644, "missing")
        return [Directory(paths.DATA_VERSIONS, 0, 0, 0o755), file] if app.data_version else []
    there = (found[path].content or b"").decode(errors="replace").strip()
    if not app.data_version:
        hint = f"say data_version: {there} in the manifest, or remove that file if the data are gone"
        raise CannotDerive(f"{path}: the data has version {there}, the manifest says none; {hint}")
    if there != app.data_version:
        hint = f"install version {there} again, or convert the data and then write {app.data_version} into that file"
        raise CannotDerive(f"{path}: the data has version {there}, the manifest wants {app.data_version}; {hint}")
    return []
