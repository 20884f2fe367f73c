# SPDX-License-Identifier: MIT
"""The service user on a node: its numeric IDs, and what an ID inside its containers is outside."""

from __future__ import annotations

from dataclasses import dataclass

from archy import paths
from archy.host import read, subid


@dataclass(frozen=True)
class Owner:
    """The service user: UID and GID, and its subordinate ranges in the order of the files."""

    uid: int
    gid: int
    subuids: tuple[range, ...]
    subgids: tuple[range, ...]

    def host_uid(self, inside: int) -> int:
        """The UID on the node of a UID in a container; raises LookupError if the user has no ID for it."""
        return _outside(inside, self.uid, self.subuids, "/etc/subuid")

    def host_gid(self, inside: int) -> int:
        """The GID on the node of a GID in a container; raises LookupError if the user has no ID for it."""
        return _outside(inside, self.gid, self.subgids, "/etc/subgid")


def _outside(inside: int, own: int, ranges: tuple[range, ...], file: str) -> int:
    """0 is the service user itself, the rest are taken from its ranges one after the other (user_namespaces(7))."""
    if inside == 0:
        return own
    left = inside - 1
    for ids in ranges:
        if left < len(ids):
            return ids[left]
        left -= len(ids)
    hint = "run `python3 -m archy.host.subid /` as root"
    raise LookupError(f"{file}: {paths.USER} has no subordinate ID for {inside} in a container; {hint}")


def owner_of(root: str) -> Owner:
    """The service user, from passwd and the subordinate ID files; raises LookupError when there is no such user.

    Read from the files, not through NSS: that may ask services that wait for systemd, which waits for the generator.
    """
    uid, gid = read.user_ids(root)
    if not gid:
        raise LookupError(f"/etc/passwd has no user {paths.USER}: install the package again, or run systemd-sysusers")
    texts = (subid.read_text(root, file) for file in ("/etc/subuid", "/etc/subgid"))
    ranges = (tuple(entry.ids for entry in subid.parse(text) if entry.owner in (paths.USER, uid)) for text in texts)
    return Owner(int(uid), int(gid), *ranges)
