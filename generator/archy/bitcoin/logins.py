# SPDX-License-Identifier: MIT
"""Logins to bitcoind's RPC: one for the platform, and one for each app that declares its calls. Pure.

All passwords come from one canonical secret. An app's own is derived from it, so that no app learns that of another,
and nothing has to be stored when an app is installed or removed.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

USER = "archipelago"
KIND = "hex32"


@dataclass(frozen=True)
class Login:
    """A user as bitcoin.conf has it: more than one `rpcauth` while a rotation overlaps; no whitelist, no limit."""

    name: str
    rpcauth: tuple[str, ...]
    rpcwhitelist: tuple[str, ...] | None


def password(canonical: str, user: str) -> str:
    """The password of a user, from the canonical secret's value. The platform's user has that value itself."""
    if user == USER:
        return canonical
    return hmac.new(canonical.encode(), f"archy rpc password {user}".encode(), hashlib.sha256).hexdigest()


def rpcauth(user: str, secret: str) -> str:
    """The value of bitcoind's `rpcauth=` (bitcoin, share/rpcauth/rpcauth.py): `user:salt$hmac`.

    The salt is derived and not drawn: the same secret must give the same file, at every pass.
    """
    salt = hmac.new(secret.encode(), f"archy rpcauth salt {user}".encode(), hashlib.sha256).hexdigest()[:32]
    return f"{user}:{salt}${hmac.new(salt.encode(), secret.encode(), hashlib.sha256).hexdigest()}"


def logins(canonicals: Sequence[str], whitelists: Mapping[str, Sequence[str]]) -> list[Login]:
    """All users of bitcoind. `canonicals` are the valid values of the secret: the new one first, then the previous one.

    `whitelists` are the calls that each app makes, by its ID, which is the name of its user.
    """
    users: dict[str, Sequence[str] | None] = {USER: None, **{name: whitelists[name] for name in sorted(whitelists)}}
    return [
        Login(
            name,
            tuple(dict.fromkeys(rpcauth(name, password(canonical, name)) for canonical in canonicals)),
            None if calls is None else tuple(calls),
        )
        for name, calls in users.items()
    ]
