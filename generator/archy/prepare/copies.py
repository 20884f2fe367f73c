# SPDX-License-Identifier: MIT
"""What an app's container gets from folders of the node: the copies of its hooks, and the context of its build."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from dataclasses import dataclass

from archy import paths
from archy.errors import CannotDerive
from archy.host import read
from archy.host.stat import MAX_FILE
from archy.host.steps import Directory, File, Remove, Step
from archy.manifest.model import App
from archy.paths import copy_path
from archy.prepare import starts
from archy.prepare.reader import Reader


@dataclass(frozen=True)
class Copied:
    """A file that a hook copies: its path among the copies of that hook, empty where it is the copy; its content."""

    number: int
    path: str
    content: bytes
    executable: bool

    @property
    def mode(self) -> int:
        """The mode of the copy: anybody in the container may read it."""
        return 0o555 if self.executable else 0o444


def look(reader: Reader, app: App, folder: str) -> list[Copied]:
    """What the app's hooks copy, from its own `folder` or from the one for all; raises CannotDerive.

    The path that counts is the one with all links followed: none leads out.
    """
    result = []
    for number, copy in enumerate(app.hooks.copies):
        allowed = paths.under(reader.root, paths.FILES) if os.path.isabs(copy.src) else folder
        source = paths.under(reader.root, copy.src) if os.path.isabs(copy.src) else os.path.join(folder, copy.src)
        real = os.path.realpath(reader.note(source))
        if os.path.commonpath([real, os.path.realpath(allowed)]) != os.path.realpath(allowed):
            raise CannotDerive(f"{source}: leads out of {allowed}")
        names = [""] if os.path.isfile(reader.note(real)) else reader.tree(real)
        if not names:
            raise CannotDerive(f"{source}: is not there, or is empty; hooks copy it to {copy.dest}")
        for name in names:
            path = os.path.join(real, name).rstrip("/")
            content = reader.content(path)
            if content is None or len(content) == MAX_FILE:
                raise CannotDerive(f"{path}: cannot be read, or holds {MAX_FILE // 1024**2} MiB or more")
            result.append(Copied(number, name, content, bool(os.stat(path).st_mode & 0o111)))
    return result


def copies(app: App, copied: Iterable[Copied]) -> list[File]:
    """What the app's hooks copy from the node, where its container gets it from: anybody in it may read it."""
    return [
        File(os.path.join(copy_path(app.id, one.number), one.path).rstrip("/"), one.content, 0, 0, one.mode)
        for one in copied
    ]


def gone(root: str, app: App, copies: Iterable[File]) -> list[Step]:
    """Steps that remove what was copied before, and is not any more; raises CannotDerive for a folder in the way."""
    base = f"{paths.COPIES}/{app.id}"
    wanted = {file.path for file in copies}
    for path in sorted(wanted):
        if os.path.isdir(paths.under(root, path)):
            raise CannotDerive(f"{path}: was a folder and is to be a file; stop the app, and remove that")
    there = (f"{base}/{name}" for name in read.tree(paths.under(root, base)))
    return [Remove(path, "its source is gone") for path in there if path not in wanted]


def directories(copies: Iterable[File]) -> list[Directory]:
    """The directories that copies are in, which anybody in the container may enter."""
    return [Directory(path, 0, 0, 0o755) for path in sorted({os.path.dirname(file.path) for file in copies})]


def context(reader: Reader, folder: str, app: App) -> dict[str, str]:
    """What the image of an app is built from, as a name and a digest; empty if it is not built."""
    if app.build is None:
        return {}
    total = hashlib.sha256()
    base = os.path.join(folder, app.build.context)
    for name in reader.tree(base):
        total.update(f"{name}\0".encode("utf-8", "surrogateescape"))
        total.update(hashlib.sha256(reader.content(os.path.join(base, name)) or b"").digest())
    return {starts.CONTEXT: total.hexdigest()}
