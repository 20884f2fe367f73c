# SPDX-License-Identifier: MIT
"""What a pass leaves for later: units for the generator, and a stamp by which the next pass knows that it may rest."""

from __future__ import annotations

import os
import time
from typing import Any

from archy import cache, derive, disk, installed, look, paths, stamp
from archy.build import Built
from archy.installed import Source
from archy.model import App
from archy.owner import owner_of
from archy.steps import File, Ownership, Step

_RENEWAL = 24 * 3600  # seconds; certificates run out, though nothing changes


def units(root: str, source: Source, built: Built) -> None:
    """Keep the Quadlet text and the units for the generator, under the keys that it will look for.

    A refusal is not kept: the generator then says again, at every reload, what is wrong.
    """
    now = installed.source(root, source.id)
    if now.content != source.content or now.beside != source.beside or built.app is None:
        return
    bundles = {}
    if not built.problems:
        bundles[cache.text_path(source.id)] = cache.pack(cache.text_key(cache.renderer(root), now), built.quadlet)
    bundles[cache.units_path(source.id)] = cache.pack(cache.units_key(cache.toolchain(root), now), built.units)
    for path, content in bundles.items():
        if look.content(root, path) != content:
            disk.replace_file(root, path, content, os.geteuid(), os.getegid(), 0o644)


def app(
    root: str,
    prepared: App,
    steps: list[Step],
    before: dict[str, str],
    started: dict[str, dict[str, str]],
    said: list[str],
) -> bytes:
    """The stamp of an app over all that its pass read (`before`, with fingerprints from then), and all that it made."""
    kept = [f"{paths.ACCEPTED}/{prepared.id}", cache.units_path(prepared.id), cache.text_path(prepared.id)]
    secrets = {paths.under(root, path) for path in map(derive.secret_path, derive.secret_names(prepared))}
    written = {paths.under(root, path) for path in (*kept, *derive.file_paths(prepared))}
    written |= {paths.under(root, path) for path in started["files"] if os.path.isabs(path)}
    written |= {paths.under(root, step.path) for step in steps if isinstance(step, File)}
    for step in steps:  # of a secret whose mode was put right, the content is still the one that was read before
        if isinstance(step, Ownership) and (path := paths.under(root, step.path)) in secrets:
            before[path] = stamp.owned(before[path], step.uid, step.gid, step.mode)
    made = [paths.under(root, step.path) for step in derive.directories(prepared, owner_of(root))]
    more: dict[str, Any] = {"until": time.time() + _RENEWAL} if prepared.certificates else {}
    return stamp.content(root, before | stamp.prints(sorted(written)), made, started=started, said=said, **more)
