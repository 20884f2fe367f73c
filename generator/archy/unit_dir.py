# SPDX-License-Identifier: MIT
"""The directory that a generator writes to. Fast path: no heavy imports."""

import os

from archy import cache, disk

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping


class UnitDir:
    """Units and links in a directory, and what was written of them. Several apps bring the same unit of a network.

    `own` are the names of the units of installed apps: no link takes one of them. `running` are those of apps that run.
    """

    __slots__ = ("own", "path", "running", "written")

    def __init__(self, path: str, own: set[str], running: set[str]) -> None:
        self.path = path
        self.own = own
        self.running = running
        self.written: dict[str, str] = {}

    def add(self, units: "Mapping[str, str]") -> None:
        """Write units by their names, which may be in a directory of their own; a text may be a link (see `cache`)."""
        for name, text in units.items():
            is_link = text.startswith(cache.LINK)
            if is_link and name in self.own:
                continue
            before = self.written.get(name)
            if is_link and before is not None:
                text = min(before, text, key=self._rank)
            if text != before:
                self._write(name, text)
                self.written[name] = text

    def _rank(self, link: str) -> tuple[bool, str]:
        """Two links of one name differ only where alternatives were both installed by hand.

        The name is that of the one that runs, which systemd knows by it; else of the first one.
        """
        return _target(link) not in self.running, link

    def _write(self, name: str, text: str) -> None:
        above, _, _ = name.rpartition("/")
        if above:
            disk.make_flat(f"{self.path}/{above}")
        path = f"{self.path}/{name}"
        if name in self.written:  # as a link, maybe
            os.unlink(path)
        if text.startswith(cache.LINK):
            disk.link(_target(text), path)
        else:
            disk.write(path, text)


def _target(link: str) -> str:
    return link.removeprefix(cache.LINK).rstrip()
