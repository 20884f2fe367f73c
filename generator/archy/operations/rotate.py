# SPDX-License-Identifier: MIT
"""`archy secret rotate`: a secret gets a new value, and no app is locked out meanwhile.

While a rotation lasts, the previous value is beside the secret, in a file whose name ends in `.previous`, and servers
that check logins accept both. It is complete when every running app was started with the new value; then a pass removes
the file. So nothing is lost if the power fails or the command is interrupted: the passes go on.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from urllib import error

from archy.apps import catalogue
from archy.bitcoin import logins, rpc
from archy.health import current
from archy.host import read, systemd, write
from archy.host import secrets as host_secrets
from archy.manifest import model
from archy.manifest.model import BITCOIN, RPC_SECRET
from archy.operations.progress import NO_SUCH_APP, REFUSED, CannotDo, Progress, progress
from archy.paths import PREVIOUS, secret_path
from archy.prepare.prepare import locked
from archy.reconcile import plan
from archy.reconcile import status as reconcile_status

_TIMEOUT = 10  # seconds for one call
_POLL = 2.0  # seconds
_TRIES = 15
_HARMLESS = "uptime"


def rotate(name: str) -> None:
    """Give a secret a new value, wait until all apps that use it have it, and prove it where that is possible."""
    what = f"rotate {name}"
    declared = _declared(what, name)
    # After an interruption before the new value was written, both are the same: then there is nothing to continue.
    if _value(name + PREVIOUS) not in ("", _value(name)):
        progress(f"{name}: continues an earlier rotation, which is not complete yet")
    else:
        with locked("/"):
            _begin(declared)
        progress(f"{name}: has a new value; the apps that use it get it now")
    before = _value(name + PREVIOUS)
    _finish(what, name)
    if name == RPC_SECRET and before:
        _prove(what, before, _value(name))


def _declared(what: str, name: str) -> model.Secret:
    apps = [entry.app for entry in catalogue.entries("/") if entry.installed and entry.app]
    found = [declared for app in apps for declared in app.secrets if declared.name == name]
    if not found:
        raise CannotDo(what, secret_path(name), "no installed app declares it", "archy secret list", NO_SUCH_APP)
    if not any(declared.rotatable for declared in found):
        reason = "its app may keep it in its data, where archy cannot change it"
        raise CannotDo(what, secret_path(name), reason, "change it in the app itself", REFUSED)
    return found[0]


def _begin(declared: model.Secret) -> None:
    """Keep the previous value first: after an interruption then, the old value is still the only one."""
    for name in declared.names:
        content = read.read(secret_path(name))
        if content is not None:
            write.replace_file("/", secret_path(name + PREVIOUS), content, 0, 0, 0o600)
    for name, content in host_secrets.generate(declared.name, declared.kind, os.urandom).items():
        write.replace_file("/", secret_path(name), content, 0, 0, 0o600)


def _value(name: str) -> str:
    content = read.read(secret_path(name))
    return host_secrets.value(content) if content else ""


def _finish(what: str, name: str) -> None:
    """Start passes until no app runs with another value than the new one, and the previous value is removed."""
    line, since = Progress(), time.monotonic()
    try:
        while True:
            systemd.systemctl("start", "archy-reconcile.service")
            waiting = plan.outdated_users(current.observe("/", reconcile_status.load("/")), name)
            if not waiting and not os.path.lexists(secret_path(name + PREVIOUS)):
                line.show(f"{name}: all apps have the new value")
                return
            text = f"waiting for {', '.join(waiting)}" if waiting else "waiting until the previous value is removed"
            line.show(f"{name}: {text}", f"{time.monotonic() - since:.0f} s")
            time.sleep(_POLL)
    finally:
        line.done()


def _prove(what: str, old: str, new: str) -> None:
    """Call bitcoind with every login: the new one must be accepted, the previous one refused."""
    url = rpc.URL
    line = Progress()
    while True:
        state = current.observe("/", reconcile_status.load("/"))
        provider = next((app for app in state.apps if app.summary and app.summary["provides"] == BITCOIN), None)
        if provider is None or not plan.runs(provider):
            progress("bitcoind does not run, so no call proves the new value; it starts with that only")
            return
        if provider.unit.is_up and not provider.unit.has_job:
            break
        line.show(f"waiting for {provider.id}, to test the logins")
        time.sleep(_POLL)
    line.done()
    calls: Mapping[str, list[str] | None] = {
        logins.USER: None,
        **{app.id: app.summary["rpcwhitelist"] for app in state.apps if app.summary and app.summary["rpcwhitelist"]},
    }
    for user, listed in calls.items():
        call = next((one for one in listed or () if one.startswith("get")), _HARMLESS)
        try:
            new_works, old_works = (is_let_in(url, user, logins.password(value, user), call) for value in (new, old))
        except OSError as error_:
            raise CannotDo(what, url, f"does not answer: {error_}", "archy status") from None
        if not new_works:
            raise CannotDo(what, url, f"the new login of {user} is not accepted", "archy status")
        if old_works:
            raise CannotDo(what, url, f"the previous login of {user} is still accepted", "archy status")
        progress(f"{user}: the new login works ({call}), the previous one does not")


def is_let_in(url: str, user: str, password: str, call: str) -> bool:
    """Whether an RPC server accepts a login. A call that it does not allow, or that fails, proves that as well."""
    for left in reversed(range(_TRIES)):
        try:
            rpc.OPENER.open(rpc.request_of(url, user, password, call), timeout=_TIMEOUT).close()
        except error.HTTPError as answer:
            return answer.code != 401
        except OSError:  # it may be starting just now
            if not left:
                raise
            time.sleep(_POLL)
            continue
        return True
    return False
