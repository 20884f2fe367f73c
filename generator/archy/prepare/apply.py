# SPDX-License-Identifier: MIT
"""A pass over the node and over apps of which something changed: build, plan, apply the steps, keep a stamp.

A pass over one app fails alone: the problem is printed, and that app must not start; the others are prepared.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from archy import paths
from archy.apps import accepted, admission, facts, installed
from archy.apps.installed import Source
from archy.errors import CannotDerive, Refused
from archy.host import records, write
from archy.host.stat import FileState
from archy.host.steps import Directory, File, Step, apply
from archy.manifest.model import App
from archy.prepare import app as prepare_app
from archy.prepare import node, stamps
from archy.prepare import secrets as prepare_secrets
from archy.prepare.app import Known
from archy.prepare.reader import Reader
from archy.units import build
from archy.units.build import Built

TYPE_CHECKING = False
if TYPE_CHECKING:
    from archy.apps.facts import Summary

_EXPECTED = (Refused, CannotDerive, LookupError)  # another pass over the same files would fail in the same way
_RETRY = 300  # seconds
_RENEWAL = 24 * 3600  # seconds; certificates run out, though nothing changes


@dataclass(frozen=True)
class Plan:
    """The steps for one app; `problems` of its present version, where these are for the last good one.

    `started` is what it is started with then (see `files.started`), `version` what to keep as the last good version;
    empty if it is kept already.
    """

    app: App
    steps: list[Step]
    problems: list[str]
    started: dict[str, dict[str, str]]
    version: str = ""


@dataclass
class Preparation:
    """One pass over `names` (apps, and `paths.NODE_KEY`). With `dry`, its steps are printed and not applied.

    `made` is what a dry pass would have made: secrets that other apps need, too. `started` is by app.
    """

    root: str
    names: list[str]
    dry: bool = False
    failures: dict[str, str] = field(default_factory=dict)
    made: dict[str, FileState] = field(default_factory=dict)
    started: dict[str, dict[str, dict[str, str]]] = field(default_factory=dict)

    def run(self) -> dict[str, str]:
        """Carry it out. Returns why apps must not be started, by app, and what is wrong with the node, by its name."""
        for directory, mode in ((paths.ACCEPTED, 0o755), (paths.PREPARED, 0o700)):
            with self._best_effort("archy", "will have to do more the next time"):
                if not self.dry:
                    write.make_directory(self.root, directory, os.geteuid(), os.getegid(), mode)
        readers = {name: Reader(self.root) for name in self.names if name != paths.NODE_KEY}
        # All is noted before versions are computed and anything is built: a later change makes the stamp stale.
        sources = [prepare_app.source(reader, app_id) for app_id, reader in readers.items()]
        versions = {app_id: _version(self.root, app_id) for app_id in readers}
        outcome = self._build(sources)
        facts_reader = Reader(self.root)
        everything = self._facts(facts_reader, {app_id: built.app for app_id, built in outcome.items()})
        if paths.NODE_KEY in self.names:
            with self._isolated(paths.NODE_KEY):
                self._node(Reader(self.root))
        known = prepare_app.known(facts_reader, everything)
        for source in sources:
            with self._isolated(source.id, reader := readers[source.id]):
                self._app(reader, source, outcome[source.id], known, versions[source.id])
        return self.failures

    @contextmanager
    def _isolated(self, name: str, reader: Reader | None = None) -> Iterator[None]:
        """Keep a failure to itself. That of an app, from what `reader` has read, is not tried again in vain."""
        try:
            yield
        except Exception as error:  # whatever it is, it must not keep the other apps from being prepared
            expected = isinstance(error, _EXPECTED) and not isinstance(error, KeyError | IndexError)
            text = str(error) if expected or isinstance(error, OSError) else f"{type(error).__name__}: {error}"
            self.failures[name] = text
            for line in text.splitlines():
                self._say(f"{name.lstrip('@')}: not prepared: {line}")
            if expected and reader:
                self._keep_stamp(
                    name, stamps.content(self.root, reader.seen, [], failure=text, until=time.time() + _RETRY)
                )

    def _build(self, sources: list[Source]) -> dict[str, Built]:
        with tempfile.TemporaryDirectory(prefix="archy-") as work:
            return build.build(self.root, sources, work)

    def _facts(self, reader: Reader, built: dict[str, App | None]) -> facts.All:
        """The facts of the host and of each app, with what the manifests of this pass say now."""
        reader.note(paths.under(self.root, paths.FACTS))
        ids = installed.ids(self.root)[0]
        apps: dict[str, Summary] = {}
        before = facts.load(self.root)
        for app_id in ids:
            app = built.get(app_id)
            if app is None and app_id not in built and app_id not in before["apps"]:
                app = admission.last_good(self.root, installed.source(self.root, app_id))
            if app is not None:
                apps[app_id] = facts.summary(app)
            elif app_id in before["apps"]:
                apps[app_id] = before["apps"][app_id]
        everything: facts.All = {"by": before["by"], "host": facts.host_or_kept(self.root), "apps": apps}
        if everything != before and not self.dry:
            with self._best_effort("archy", "facts not kept"):
                records.store_bytes(self.root, paths.FACTS, facts.pack(everything), 0o644)
                reader.note_anew(paths.FACTS)
        return everything

    def _node(self, reader: Reader) -> None:
        try:
            prepare_secrets.check_secrets_directory(self.root)
        except CannotDerive as error:
            self.failures[paths.SECRETS_KEY] = str(error)
            raise
        chosen, granted = node.settings_of(reader), node.grants_of(reader)
        warnings = [*chosen.warnings, *granted.warnings]
        for line in warnings:
            self._say(line)
        plan = node.plan(reader, reader.owner(), chosen.values)
        self._apply("node", reader, [*chosen.steps, *granted.steps, *plan])
        self._keep_stamp(paths.NODE_KEY, stamps.content(self.root, reader.seen, [], said=warnings))

    def _app(self, reader: Reader, source: Source, built: Built, known: Known, version: str) -> None:
        plan = self._plan(reader, source, built, known, version)
        for line in plan.problems:
            self._say(f"{source.id}: {line}")
        if plan.problems:
            self._say(f"{source.id}: the last good version stays in force")
        self.started[source.id] = plan.started
        self._accept(source, built, plan.version)
        reader.note_anew(f"{paths.ACCEPTED}/{source.id}", paths.units_path(source.id))
        self._apply(source.id, reader, plan.steps)
        more: dict[str, Any] = {"until": time.time() + _RENEWAL} if plan.app.certificates else {}
        more |= {"started": plan.started, "said": plan.problems}
        self._keep_stamp(source.id, stamps.content(self.root, reader.seen, reader.directories, **more))

    def _plan(self, reader: Reader, source: Source, built: Built, known: Known, version: str) -> Plan:
        """The steps that make what the app needs; of the last good version, where the present one is no good."""
        if built.app is None:
            raise Refused(built.problems)
        app, problems = built.app, [str(problem) for problem in built.problems]
        if not problems:
            try:
                folder = installed.folder(self.root, source.id)
                steps, started = prepare_app.steps(reader, app, folder, known, self.made)
                new = "" if accepted.is_kept(self.root, source.id, version) else version
                return Plan(app, steps, [], started, new)
            except CannotDerive as error:
                # The units are made from the manifest alone: only with the same one can the last good files serve.
                if source.content != source.accepted:
                    raise
                problems = [str(error)]
        folder = installed.accepted_folder(self.root, source.id)
        steps, started = prepare_app.steps(reader, app, folder, known, self.made)
        return Plan(app, steps, problems, started)

    def _apply(self, name: str, reader: Reader, steps: list[Step]) -> None:
        """Print steps; apply them, and note what they write. A dry pass keeps what they would have made."""
        for step in steps:
            self._say(f"{name}: {step}")
        if self.dry:
            files = [step for step in steps if isinstance(step, File)]
            self.made |= {file.path: FileState(file.content, file.uid, file.gid, file.mode) for file in files}
        elif steps:
            apply(self.root, [Directory(paths.SECRETS, 0, 0, 0o700), *steps])
            reader.written(steps)

    def _accept(self, source: Source, built: Built, version: str) -> None:
        """Keep a new version as the last good one, and then the units: the key of these holds what is accepted."""
        if version and built.app:
            self._say(f"{source.id}: accept version {built.app.version}")
        if not self.dry:
            with self._best_effort(source.id, "not kept as the last good version"):
                if version:
                    accepted.store(self.root, source.id, version)
            with self._best_effort(source.id, "units not kept for the next reload"):
                build.keep(self.root, source, built)

    def _keep_stamp(self, name: str, content: bytes) -> None:
        if not self.dry:
            with self._best_effort(name, "will be looked at again the next time"):
                records.store_bytes(self.root, f"{paths.PREPARED}/{name}.json", content)

    @contextmanager
    def _best_effort(self, name: str, what: str) -> Iterator[None]:
        """Go on after an error in what only saves work, or serves another day: no reason not to start an app."""
        try:
            yield
        except OSError as error:
            self._say(f"{name}: {what}: {error}")

    def _say(self, line: str) -> None:
        print(line, file=sys.stdout if self.dry else sys.stderr, flush=True)


def _version(root: str, app_id: str) -> str:
    try:
        return accepted.version(root, app_id)
    except OSError:
        return installed.version_prefix(app_id) + "unknown"  # the version of nothing: never accepted
