# SPDX-License-Identifier: MIT
"""Subordinate UIDs and GIDs for the service user, which overlap no other user's.

Entries that exist are kept, whatever they are: the owner of data on the disk depends on them. Run by the package's
installation as `python3 -m archy.host.subid ROOT`; planning is pure, and usermod, which locks the files, writes.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from archy import paths

START, COUNT = 100_000, 65_536
LAST = 600_100_000  # the default of SUB_UID_MAX and SUB_GID_MAX in login.defs(5)
EX_FAILED, EX_USAGE = 1, 2


@dataclass(frozen=True)
class Entry:
    """A line of subuid(5) or subgid(5); `owner` is a user's name or UID."""

    owner: str
    ids: range


@dataclass(frozen=True)
class Plan:
    """The ranges to add, None where nothing is missing; and what a person should know about those kept."""

    uids: range | None
    gids: range | None
    warnings: tuple[str, ...] = ()


class NoGap(Exception):
    """No free range is left between the limits."""


def plan(subuid: str, subgid: str, passwd: str, group: str, login_defs: str, user: str = paths.USER) -> Plan:
    """What is missing for `user`, from the texts of the files in /etc; raises LookupError if there is no such user."""
    uid = next((fields[2] for fields in _fields(passwd) if fields[0] == user and len(fields) > 2), None)
    if uid is None:
        raise LookupError(f"{user}: /etc/passwd: no such user")
    own_uids, other_uids = _split(parse(subuid), {user, uid})
    own_gids, other_gids = _split(parse(subgid), {user, uid})
    busy_uids = [*other_uids, *_taken(passwd)]
    busy_gids = [*other_gids, *_taken(group)]
    uid_limits, gid_limits = _limits(login_defs, "SUB_UID"), _limits(login_defs, "SUB_GID")
    warnings = (*_check("/etc/subuid", user, own_uids, other_uids), *_check("/etc/subgid", user, own_gids, other_gids))
    uids = gids = None
    if not own_uids and not own_gids:
        # One number for both, so that `ls -n` reads the same for users and groups.
        both = (max(uid_limits[0], gid_limits[0]), min(uid_limits[1], gid_limits[1]))
        uids = gids = _gap([*busy_uids, *busy_gids], both)
        if uids is None:
            uids, gids = _gap(busy_uids, uid_limits), _gap(busy_gids, gid_limits)
    elif not own_uids:
        uids = _same(own_gids, busy_uids, uid_limits) or _gap(busy_uids, uid_limits)
    elif not own_gids:
        gids = _same(own_uids, busy_gids, gid_limits) or _gap(busy_gids, gid_limits)
    if (not own_uids and uids is None) or (not own_gids and gids is None):
        raise NoGap(f"{user}: /etc/subuid, /etc/subgid: no {COUNT} consecutive IDs are free within login.defs' limits")
    return Plan(uids, gids, warnings)


def parse(text: str) -> list[Entry]:
    """The entries of a subuid or subgid file; a malformed line is no entry, as for newuidmap itself."""
    entries = []
    for fields in _fields(text):
        if len(fields) == 3 and fields[0] and _is_number(fields[1]) and _is_number(fields[2]) and int(fields[2]) > 0:
            start = int(fields[1])
            entries.append(Entry(fields[0], range(start, start + int(fields[2]))))
    return entries


def _fields(text: str) -> Iterable[list[str]]:
    return (line.strip().split(":") for line in text.splitlines() if line.strip() and not line.startswith("#"))


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit()


def _split(entries: list[Entry], owners: set[str]) -> tuple[list[range], list[range]]:
    own = [entry.ids for entry in entries if entry.owner in owners]
    return own, [entry.ids for entry in entries if entry.owner not in owners]


def _taken(text: str) -> list[range]:
    """The IDs of real users or groups (third field of passwd and of group), each a range of one."""
    found = [int(fields[2]) for fields in _fields(text) if len(fields) > 2 and _is_number(fields[2])]
    return [range(number, number + 1) for number in found]


def _limits(login_defs: str, prefix: str) -> tuple[int, int]:
    """The first and the last ID that may be given away. An operator may narrow it, not widen it."""
    found = {}
    for line in login_defs.splitlines():
        words = line.split()
        if len(words) >= 2 and _is_number(words[1]):
            found[words[0]] = int(words[1])
    return max(START, found.get(f"{prefix}_MIN", START)), min(LAST, found.get(f"{prefix}_MAX", LAST))


def _overlap(one: range, other: range) -> bool:
    return one.start < other.stop and other.start < one.stop


def _gap(busy: Sequence[range], limits: tuple[int, int]) -> range | None:
    """The lowest free range: it starts at the limit, or right behind something that is taken."""
    low, last = limits
    for start in sorted({low, *(ids.stop for ids in busy if ids.stop > low)}):
        wanted = range(start, start + COUNT)
        if wanted.stop - 1 <= last and not any(_overlap(wanted, ids) for ids in busy):
            return wanted
    return None


def _same(other_file: list[range], busy: Sequence[range], limits: tuple[int, int]) -> range | None:
    """The range that the user has in the other file, if it is free in this one."""
    first = other_file[0]
    fits = len(first) >= COUNT and first.stop - 1 <= limits[1]
    return first if fits and not any(_overlap(first, ids) for ids in busy) else None


def _check(path: str, user: str, own: list[range], others: list[range]) -> Iterable[str]:
    if own and sum(len(ids) for ids in own) < COUNT:
        yield f"{user}: {path}: holds fewer than {COUNT} IDs; kept, but some images will not unpack"
    for ids in own:
        if any(_overlap(ids, other) for other in others):
            yield f"{user}: {path}: {ids.start}-{ids.stop - 1} overlaps another user's; kept, as data may depend on it"


def _run(command: list[str]) -> None:
    subprocess.run(command, check=True)


def main(argv: list[str], run: Callable[[list[str]], None] = _run) -> int:
    """The entry point; exit code 0 when the ranges are there, 1 when they could not be made, 2 for wrong usage."""
    if len(argv) != 2:
        print("usage: python3 -m archy.host.subid ROOT", file=sys.stderr)
        return EX_USAGE
    root = argv[1]
    texts = [read_text(root, f"/etc/{name}") for name in ("subuid", "subgid", "passwd", "group", "login.defs")]
    try:
        wanted = plan(*texts)
        for warning in wanted.warnings:
            print(f"warning: {warning}", file=sys.stderr)
        for option, ids in (("--add-subuids", wanted.uids), ("--add-subgids", wanted.gids)):
            if ids is not None:
                prefix = [] if root == "/" else ["--prefix", root]
                run(["usermod", *prefix, option, f"{ids.start}-{ids.stop - 1}", paths.USER])
    except (LookupError, NoGap, OSError, subprocess.CalledProcessError) as error:
        print(error, file=sys.stderr)
        return EX_FAILED
    return 0


def read_text(root: str, path: str) -> str:
    """The text of a file of the node; empty if it is not there."""
    try:
        # What is not ASCII is a name at most, and names are only compared.
        return Path(paths.under(root, path)).read_text(encoding="utf-8", errors="surrogateescape")
    except FileNotFoundError:
        return ""


if __name__ == "__main__":
    sys.exit(main(sys.argv))
