# SPDX-License-Identifier: MIT
"""Apps that can be installed and apps that are: one view over the catalogue and /etc/archy/apps."""

from __future__ import annotations

import os
from dataclasses import dataclass

from archy import paths
from archy.apps import admission
from archy.apps import installed as apps_installed
from archy.apps.installed import Source
from archy.errors import Problem
from archy.host import read
from archy.manifest.model import App


@dataclass(frozen=True)
class Entry:
    """One app. `origin` is `catalogue` or `own`; `app` is None when its manifest is not usable, `problems` say why."""

    id: str
    folder: str
    origin: str
    installed: bool
    app: App | None
    problems: tuple[Problem, ...]
    companion_of: str = ""
    part_of: str = ""
    provides: str = ""

    @property
    def names(self) -> tuple[str, ...]:
        """The names by which other apps may need it, or belong to it."""
        return (self.id, self.provides) if self.provides else (self.id,)

    @property
    def parent(self) -> str:
        """The app that this one belongs to, by its ID or by what it provides; or empty."""
        return self.companion_of or self.part_of

    @property
    def needed(self) -> list[str]:
        """The apps without which this one does not work: its needs, and its parent."""
        return [*(self.app.need_ids if self.app else ()), *([self.parent] if self.parent else [])]


def entry(root: str, app_id: str) -> Entry | None:
    """The app of that ID: the installed one, else the catalogue's; None if there is neither."""
    own = paths.under(root, f"{paths.APPS}/{app_id}")
    shipped = paths.under(root, f"{paths.CATALOGUE}/{app_id}")
    if not paths.is_label(app_id) or not (os.path.lexists(own) or os.path.isdir(shipped)):
        return None
    if os.path.lexists(own):
        source = apps_installed.source(root, app_id)
        app, problems = admission.model(root, source)
        folder = apps_installed.folder(root, app_id)
        origin = "catalogue" if os.path.realpath(folder) == os.path.realpath(shipped) else "own"
        known = app or admission.last_good(root, source)
        return Entry(app_id, folder, origin, True, app, problems, *_place(known))
    app, problems = admission.model(root, source_at(shipped, f"{paths.CATALOGUE}/{app_id}"))
    return Entry(app_id, shipped, "catalogue", False, app, problems, *_place(app))


def _place(app: App | None) -> tuple[str, str, str]:
    return (app.companion_of, app.part_of, app.provides) if app else ("", "", "")


def source_at(folder: str, name: str) -> Source:
    """An app in any folder, installed or not. Its ID is the folder's name; `name` is the folder in messages."""
    content = read.read(os.path.join(folder, paths.MANIFEST))
    app_id = os.path.basename(folder)
    return Source(app_id, os.path.join(name, paths.MANIFEST), content, frozenset(read.tree(folder)), None)


def entries(root: str) -> list[Entry]:
    """All apps, installed or not, sorted by ID."""
    names = sorted({*apps_installed.catalogue_ids(root), *apps_installed.ids(root)[0]})
    return [found for name in names if (found := entry(root, name)) is not None]


def members(all_entries: list[Entry], app_id: str) -> list[str]:
    """The parts and the companions of `app_id`: installed with it, removed before it."""
    names = _names(all_entries, app_id)
    return [entry.id for entry in all_entries if entry.parent in names]


def stopped_in_order(all_entries: list[Entry], app_id: str) -> list[str]:
    """An app, its companions and its parts, in the order in which they stop: clients before servers."""
    companions = {entry.id for entry in all_entries if entry.companion_of}
    mine = members(all_entries, app_id)
    return [*(name for name in mine if name in companions), app_id, *(name for name in mine if name not in companions)]


def dependents(all_entries: list[Entry], app_id: str) -> list[Entry]:
    """The installed apps that need `app_id`, by its ID or by what it provides."""
    names = _names(all_entries, app_id)
    return [entry for entry in all_entries if entry.installed and entry.app and names & {*entry.app.need_ids}]


def _names(all_entries: list[Entry], app_id: str) -> set[str]:
    return next(({*entry.names} for entry in all_entries if entry.id == app_id), {app_id})


def providers(all_entries: list[Entry], name: str) -> list[Entry]:
    """The apps that a need for `name` may mean: the one of that ID, or all that provide it."""
    return [entry for entry in all_entries if name in entry.names]
