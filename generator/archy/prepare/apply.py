# SPDX-License-Identifier: MIT
"""A pass over the node and over apps of which something changed: build, plan, execute, remember.

A pass over one app fails alone: it is said, and that app must not start; the others are prepared.
"""

from __future__ import annotations

import functools
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from archy import paths
from archy.apps import accepted, admission, facts, installed
from archy.apps.installed import Source
from archy.errors import CannotDerive, Refused
from archy.host import write
from archy.host.idmap import owner_of
from archy.host.stat import FileState
from archy.host.steps import Directory, File, Ownership, Remove, Step, apply
from archy.manifest.model import App
from archy.prepare import app as prepare_app
from archy.prepare import node, stamps
from archy.prepare import secrets as prepare_secrets
from archy.prepare.render import Context
from archy.units import build
from archy.units.build import Built

TYPE_CHECKING = False
if TYPE_CHECKING:
    from archy.apps.facts import Summary

_EXPECTED = (Refused, CannotDerive, LookupError)  # what another pass over the same things would say again
_LOOK_AGAIN = 300  # seconds


@dataclass(frozen=True)
class Plan:
    """What is to be done for one app, and what to remember of it."""

    source: Source
    built: Built
    app: App
    steps: list[Step]
    said: list[str]
    before: dict[str, str]
    started: dict[str, dict[str, str]]
    version: str = ""  # to be kept as the last good one; empty if it is


@dataclass
class Preparation:
    """One pass. Of `names` (apps, and `node.NAME`) it makes steps; with `dry`, it only says them."""

    root: str
    names: list[str]
    dry: bool = False
    failures: dict[str, str] = field(default_factory=dict)
    made: dict[str, FileState] = field(
        default_factory=dict
    )  # in a dry pass, what would be there: secrets for other apps
    started: dict[str, dict[str, dict[str, str]]] = field(default_factory=dict)  # see derive.started, by app

    def run(self) -> dict[str, str]:
        """Carry it out. Returns why apps must not be started, by app, and what is wrong with the node, by its name."""
        for directory, mode in ((paths.ACCEPTED, 0o755), (paths.PREPARED, 0o700)):
            with self._best_effort("archy", "will have to do more the next time"):
                if not self.dry:
                    write.make_directory(self.root, directory, os.geteuid(), os.getegid(), mode)
        apps = [name for name in self.names if name != node.NAME]
        before = {app_id: stamps.prints(prepare_app.inputs(self.root, app_id)) for app_id in apps}
        versions = {app_id: _version(self.root, app_id) for app_id in apps}
        outcome = self._build(apps)
        known = self._facts({app_id: built.app for app_id, (_, built) in outcome.items()})
        self._isolated(node.NAME, self._node, known)
        for app_id, (source, built) in outcome.items():
            self._isolated(app_id, self._app, source, built, known, versions[app_id], before[app_id])
        return self.failures

    def _isolated(self, name: str, action: Callable[..., None], *arguments: Any) -> None:
        try:
            action(*arguments)
        except Exception as error:  # whatever it is, it must not keep the other apps from being prepared
            expected = isinstance(error, _EXPECTED) and not isinstance(error, KeyError | IndexError)
            text = str(error) if expected or isinstance(error, OSError) else f"{type(error).__name__}: {error}"
            self.failures[name] = text
            for line in text.splitlines():
                self._say(f"{name.lstrip('@')}: not prepared: {line}")
            if expected and name != node.NAME and not self.dry:
                until = time.time() + _LOOK_AGAIN
                self._remember(name, stamps.content(self.root, arguments[-1], [], failure=text, until=until))

    def _build(self, apps: list[str]) -> dict[str, tuple[Source, Built]]:
        sources = [installed.source(self.root, app_id) for app_id in apps]
        with tempfile.TemporaryDirectory(prefix="archy-") as work:
            outcome = build.build(self.root, sources, work)
        return {source.id: (source, outcome[source.id]) for source in sources}

    def _facts(self, built: dict[str, App | None]) -> Callable[[], Context]:
        """The node's facts, with what the apps of this pass say now; raises what is wrong with them for each user."""
        ids = installed.ids(self.root)[0]
        apps: dict[str, Summary] = {}
        before = facts.load(self.root)
        for app_id in ids:
            app = built.get(app_id) or (None if app_id in built or app_id in before["apps"] else self._good(app_id))
            if app is not None:
                apps[app_id] = facts.summary(app)
            elif app_id in before["apps"]:
                apps[app_id] = before["apps"][app_id]
        everything: facts.All = {"by": before["by"], "host": facts.host_or_kept(self.root), "apps": apps}
        if everything != before and not self.dry:
            with self._best_effort("archy", "facts not kept"):
                content = facts.pack(everything)
                write.replace_file(self.root, paths.FACTS, content, os.geteuid(), os.getegid(), 0o644)

        @functools.cache
        def known() -> Context:
            values = node.settings_of(self.root, os.geteuid(), os.getegid()).values
            return Context(owner_of(self.root), values, everything["host"], frozenset(ids), apps)

        return known

    def _good(self, app_id: str) -> App | None:
        return admission.last_good(self.root, installed.source(self.root, app_id))

    def _node(self, known: Callable[[], Context]) -> None:
        if node.NAME not in self.names:
            return
        try:
            prepare_secrets.check_secrets_directory(self.root)
        except CannotDerive as error:
            self.failures["@secrets"] = str(error)
            raise
        before = stamps.prints(node.inputs(self.root))
        chosen = [of(self.root, os.geteuid(), os.getegid()) for of in (node.settings_of, node.grants_of)]
        said = [line for one in chosen for line in one.said]
        for line in said:
            self._say(line)
        kept = [step for one in chosen for step in one.steps]
        values = chosen[0].values
        plan = [*kept, *node.plan(self.root, owner_of(self.root), values, os.geteuid(), os.getegid())]
        self._execute("node", plan)
        written = {step.path for step in plan if isinstance(step, File | Ownership | Remove)}
        after = stamps.prints([paths.under(self.root, path) for path in written])
        self._remember(node.NAME, stamps.content(self.root, before | after, [], said=said))

    def _app(
        self, source: Source, built: Built, known: Callable[[], Context], version: str, before: dict[str, str]
    ) -> None:
        plan = self._plan(source, built, known, version, before)
        for line in plan.said:
            self._say(f"{source.id}: {line}")
        if plan.said:
            self._say(f"{source.id}: the last good version stays in force")
        self.started[source.id] = plan.started
        self._accept(source, built, plan.version)
        self._execute(source.id, plan.steps)
        kept = prepare_app.stamp_of(self.root, plan.app, plan.steps, plan.before, plan.started, plan.said)
        self._remember(source.id, kept)

    def _plan(
        self, source: Source, built: Built, known: Callable[[], Context], version: str, before: dict[str, str]
    ) -> Plan:
        """The steps that make what the app needs; of the last good version, where the present one is no good."""
        if built.app is None:
            raise Refused(built.problems)
        app, said = built.app, [str(problem) for problem in built.problems]
        before |= stamps.prints([paths.under(self.root, path) for path in prepare_app.read(self.root, app)])
        if not said:
            try:
                steps, started = prepare_app.steps(
                    self.root, app, installed.folder(self.root, source.id), known, self.made
                )
                new = "" if accepted.is_kept(self.root, source.id, version) else version
                return Plan(source, built, app, steps, [], before, started, new)
            except CannotDerive as error:
                # The units are made from the manifest alone: only with the same one can the last good files serve.
                if source.content != source.accepted:
                    raise
                said = [str(error)]
        steps, started = prepare_app.steps(
            self.root, app, installed.accepted_folder(self.root, source.id), known, self.made
        )
        return Plan(source, built, app, steps, said, before, started)

    def _execute(self, name: str, steps: list[Step]) -> None:
        for step in steps:
            self._say(f"{name}: {step}")
        if self.dry:
            files = [step for step in steps if isinstance(step, File)]
            self.made |= {file.path: FileState(file.content, file.uid, file.gid, file.mode) for file in files}
        elif steps:
            apply(self.root, [Directory(paths.SECRETS, 0, 0, 0o700), *steps])

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

    def _remember(self, name: str, content: bytes) -> None:
        if not self.dry:
            with self._best_effort(name, "will be looked at again the next time"):
                path = f"{paths.PREPARED}/{name}.json"
                write.replace_file(self.root, path, content, os.geteuid(), os.getegid(), 0o600)

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
