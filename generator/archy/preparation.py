# SPDX-License-Identifier: MIT
"""The pass of archy-prepare over apps of which something changed: build, accept, derive, remember.

A pass over one app fails alone: it is said, and that app must not start; the others are prepared.
"""

from __future__ import annotations

import functools
import os
import stat
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from archy import accept, build, cache, derive, disk, installed, paths, settings, stamp
from archy.build import Built
from archy.derive import CannotDerive, Facts, Found
from archy.installed import Source
from archy.model import App
from archy.owner import owner_of
from archy.problem import Refused
from archy.steps import Directory, File, Ownership, Step, execute

_ACCEPTED_NODE = f"{paths.ACCEPTED}/node.yml"
_MAX_FILE = 16 * 1024 * 1024  # nothing we derive is larger


def run(root: str, app_ids: list[str]) -> list[str]:
    """Prepare apps; returns the IDs of those that must not be started. Says what it did, and what is wrong."""
    for directory, mode in ((paths.ACCEPTED, 0o755), (paths.UNIT_CACHE, 0o755), (paths.PREPARED, 0o700)):
        with _harmless("archy-prepare", "will have to do more the next time"):
            disk.make_directory(root, directory, os.geteuid(), os.getegid(), mode)
    before = {app_id: stamp.prints(_inputs(root, app_id)) for app_id in app_ids}
    versions = {app_id: _version(root, app_id) for app_id in app_ids}
    sources = [installed.source(root, app_id) for app_id in app_ids]
    with tempfile.TemporaryDirectory(prefix="archy-") as work:
        outcome = build.build(root, sources, work)
    failed = []
    facts = _facts(root)
    for source in sources:
        try:
            _prepare(root, source, outcome[source.id], facts, versions[source.id], before[source.id])
        except Exception as error:  # whatever it is, it must not keep the other apps from being prepared
            expected = isinstance(error, Refused | CannotDerive | LookupError | OSError)
            said = str(error) if expected else f"{type(error).__name__}: {error}"
            failed.append(source.id)
            _say(f"{source.id}: not prepared: {line}" for line in said.splitlines())
    return failed


def _version(root: str, app_id: str) -> str:
    try:
        return accept.version(root, app_id)
    except OSError:
        return ""  # the version of nothing: never accepted


def _facts(root: str) -> Callable[[], Facts]:
    """The node's facts, looked up when the first app needs them; raises what is wrong with them for each that does."""

    @functools.cache
    def facts() -> Facts:
        return Facts(owner_of(root), _settings(root), frozenset(installed.ids(root)[0]))

    return facts


def _inputs(root: str, app_id: str) -> list[str]:
    """What a pass reads for any app, besides its secrets."""
    read = [paths.APPS, f"{paths.APPS}/{app_id}", paths.NODE, "/etc/passwd", "/etc/subuid", "/etc/subgid"]
    folder = installed.folder(root, app_id)
    names = installed.source(root, app_id).beside
    return [*(paths.under(root, path) for path in read), folder, *(f"{folder}/{name}" for name in sorted(names))]


def _say(lines: Iterable[str]) -> None:
    for line in lines:
        print(line, file=sys.stderr, flush=True)


def _remember(root: str, source: Source, built: Built) -> None:
    """Keep the Quadlet text and the units for the generator, under the keys that it will look for.

    A refusal is not kept: the generator then says again, at every reload, what is wrong.
    """
    now = installed.source(root, source.id)
    if now.content != source.content or now.beside != source.beside or built.app is None:
        return
    bundles = {cache.units_path(source.id): cache.pack(cache.units_key(cache.toolchain(root), now), built.units)}
    if not built.problems:
        bundles[cache.text_path(source.id)] = cache.pack(cache.text_key(cache.renderer(root), now), built.quadlet)
    for path, content in bundles.items():
        if _content(paths.under(root, path)) != content:
            disk.replace_file(root, path, content, os.geteuid(), os.getegid(), 0o644)


def _settings(root: str) -> dict[str, Any]:
    """The node's settings; the last good ones, and a warning, when the file has turned bad."""
    now, before = (_content(paths.under(root, path)) for path in (paths.NODE, _ACCEPTED_NODE))
    try:
        result = settings.parse(now)
    except Refused as refused:
        _say(f"node settings refused: {problem}" for problem in refused.problems)
        if before is None:
            raise
        _say(["node settings: the last good version stays in force"])
        return settings.parse(before, _ACCEPTED_NODE)
    if now is None:
        disk.remove(root, _ACCEPTED_NODE)
    elif now != before:
        disk.replace_file(root, _ACCEPTED_NODE, now, os.geteuid(), os.getegid(), 0o644)
    return result


def _content(path: str) -> bytes | None:
    """The bytes of a file of root's; None if it is not there, and nothing that parses if it is no regular file."""
    return (installed.read(path) or b"\0") if os.path.lexists(path) else None


def _prepare(
    root: str, source: Source, built: Built, facts: Callable[[], Facts], version: str, before: dict[str, str]
) -> None:
    """Plan, accept the version that the plan is for, execute, and leave a stamp over all that this depended on."""
    if built.app is None:
        raise Refused(built.problems)
    app, problems = built.app, [str(problem) for problem in built.problems]
    secrets = [paths.under(root, path) for path in _secret_paths(app)]
    before |= stamp.prints(secrets)
    if not problems:
        try:
            plan = _plan(root, app, installed.folder(root, source.id), facts)
        except CannotDerive as error:
            # The units are made from the manifest alone: only with the same one can the last good files serve.
            if source.content != source.accepted:
                raise
            problems = [str(error)]
    if problems:
        plan = _plan(root, app, installed.accepted_folder(root, source.id), facts)
        _say(f"{source.id}: {problem}" for problem in problems)
        _say([f"{source.id}: the last good version stays in force"])
    else:
        with _harmless(source.id, "not kept as the last good version"):
            if accept.store(root, source.id, version):
                _say([f"{source.id}: accepted version {app.version}"])
    with _harmless(source.id, "units not kept for the next reload"):
        _remember(root, source, built)
    _say(f"{source.id}: {step}" for step in plan)
    execute(root, [Directory(paths.SECRETS, 0, 0, 0o700), *plan])
    kept = [f"{paths.ACCEPTED}/{source.id}", cache.units_path(source.id), cache.text_path(source.id)]
    written = {paths.under(root, path) for path in (*kept, *(file.path for file in app.files))}
    written |= {paths.under(root, step.path) for step in plan if isinstance(step, File)} & set(secrets)
    for step in plan:  # of a secret whose mode was put right, the content is still the one that was read before
        if isinstance(step, Ownership) and (path := paths.under(root, step.path)) in secrets:
            before[path] = stamp.owned(before[path], step.uid, step.gid, step.mode)
    made = [paths.under(root, step.path) for step in derive.directories(app, owner_of(root))]
    content = stamp.content(root, before | stamp.prints(sorted(written)), made)
    with _harmless(source.id, "will be looked at again at the next start"):
        disk.replace_file(root, f"{paths.PREPARED}/{source.id}.json", content, os.geteuid(), os.getegid(), 0o600)


@contextmanager
def _harmless(app_id: str, what: str) -> Iterator[None]:
    """Go on after an error in what only saves work, or serves another day: no reason to keep an app from starting."""
    try:
        yield
    except OSError as error:
        _say([f"{app_id}: {what}: {error}"])


def _plan(root: str, app: App, folder: str, facts: Callable[[], Facts]) -> list[Step]:
    """The steps that make what the app needs; none when all is there and right. Templates are taken from `folder`."""
    if accept.too_large(folder, installed.tree(folder)):
        raise CannotDerive(f"{folder}: holds more than {accept.MAX_BYTES // 1024**2} MiB")
    if app.secrets:
        _check_secrets_directory(root)
    steps, values = derive.secrets(app, _look(root, _secret_paths(app)), os.urandom)
    wanted = derive.files(app, _templates(app, folder), values, facts()) if app.files else []
    steps += [step for step in derive.directories(app, owner_of(root)) if not _is_directory(root, step.path)]
    return steps + derive.drift(app, wanted, _look(root, [file.path for file in wanted]))


def _check_secrets_directory(root: str) -> None:
    """The directory above belongs to the service user, who can put another one in this place."""
    try:
        status = os.lstat(paths.under(root, paths.SECRETS))
    except FileNotFoundError:
        return
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != 0 or status.st_mode & 0o077:
        hint = "look at what is in it, then: systemd-tmpfiles --create archy.conf"
        raise CannotDerive(f"{paths.SECRETS}: is not a directory that only root can read; {hint}")


def _secret_paths(app: App) -> list[str]:
    return [derive.secret_path(name) for secret in app.secrets for name in secret.names]


def _templates(app: App, folder: str) -> dict[str, str]:
    result = {}
    for name in {file.template for file in app.files if file.template}:
        try:
            with open(os.path.join(folder, name), encoding="utf-8") as file:
                result[name] = file.read()
        except (OSError, UnicodeDecodeError) as error:
            raise CannotDerive(f"{folder}/{name}: cannot be read: {error}") from None
    return result


def _is_directory(root: str, path: str) -> bool:
    try:
        with disk.directory(root, path):
            return True
    except OSError:
        return False


def _look(root: str, wanted: Iterable[str]) -> dict[str, Found]:
    """The files that are there, each as it is now; missing ones are left out."""
    found = {}
    for path in wanted:
        above, name = os.path.split(path)
        try:
            with disk.directory(root, above) as parent:
                found[path] = _found(parent, name)
        except FileNotFoundError:
            continue
    return found


def _found(parent: int, name: str) -> Found:
    status = os.stat(name, dir_fd=parent, follow_symlinks=False)
    content = None
    if stat.S_ISREG(status.st_mode) and status.st_size <= _MAX_FILE:
        descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=parent)
        with open(descriptor, "rb") as file:
            content = file.read(_MAX_FILE)
    return Found(content, status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode))
