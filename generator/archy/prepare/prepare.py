# SPDX-License-Identifier: MIT
"""archy-prepare: makes everything right that an app needs before it starts, as root.

Accepts the manifest as the last good version, makes secrets, directories and derived files, and keeps finished units
for the generator. It runs for all apps at boot and in every pass of archy-reconcile, and for one app before each of its
starts. It may be killed at any moment: the next run finishes. When nothing has changed, nothing heavy is imported and
nothing is written.
"""

import os
import sys
from contextlib import AbstractContextManager, nullcontext

from archy import paths
from archy.apps import facts, installed
from archy.host import locks
from archy.prepare import stamps, starts

TYPE_CHECKING = False
if TYPE_CHECKING:
    Planned = dict[str, dict[str, dict[str, str]]]  # by app, see files.started

EX_FAILED, EX_USAGE, EX_NOT_INSTALLED = 1, 2, 4
_ROUNDS = 4  # facts of one app may change the files of another, whose facts may then change, too
_USAGE = "usage: archy-prepare [APP...], or archy-prepare --starting APP from its unit"


def main(argv: list[str]) -> int:
    """The entry point. Exit codes: 0 all prepared, 1 an app could not be, 2 usage, 4 no such app installed."""
    starting = argv[1:2] == ["--starting"]
    names = argv[2:] if starting else argv[1:]
    if any(name.startswith("-") for name in names) or (starting and len(names) != 1):
        print(_USAGE, file=sys.stderr)
        return EX_USAGE
    app_ids, _ = installed.ids("/")
    for name in names:
        if name not in app_ids:
            print(f"{name}: {paths.APPS}/{name}: is not installed", file=sys.stderr)
            return EX_NOT_INSTALLED
    os.umask(0o022)
    if not names:
        forget_gone("/", app_ids)
    failures = prepare("/", names or app_ids, retry_failed=starting)
    if starting and (other := running_alternative("/", names[0])):
        print(f"{names[0]}: {other} runs: they are alternatives, of which one at a time runs", file=sys.stderr)
        print(f"archy app switch {other} {names[0]} changes from that to this one", file=sys.stderr)
        return EX_FAILED
    if starting and not failures.keys() & set(names):
        starts.record("/", names[0], os.environ.get("INVOCATION_ID", ""))
    # A problem of the node is printed, but does not keep an app from starting that could be prepared.
    return EX_FAILED if any(name in failures for name in names or app_ids) else 0


def running_alternative(root: str, app_id: str) -> str:
    """Another app that runs and provides the same as this one, as both may work on the same data; or nothing."""
    apps = facts.load(root)["apps"]
    mine = apps[app_id]["provides"] if app_id in apps else ""
    others = [name for name, summary in apps.items() if mine and summary["provides"] == mine and name != app_id]
    return next(iter(sorted(set(others) & installed.running(root))), "") if others else ""


def forget_gone(root: str, app_ids: list[str]) -> None:
    """Remove the last good versions of apps whose entry was removed by hand, and that do not run any more."""
    known = {*app_ids, *installed.running(root)}
    gone = [app_id for app_id in installed.accepted_ids(root) if app_id not in known]
    if gone:
        from archy.apps import accepted

        with locked(root):
            for app_id in gone:
                accepted.forget(root, app_id)


def prepare(
    root: str, app_ids: list[str], retry_failed: bool = False, planned: "Planned | None" = None
) -> dict[str, str]:
    """Put right what apps, and the node, need. Returns why apps cannot be started, and what is wrong with the node.

    The others are not harmed. What failed for reasons that still hold is tried again only with `retry_failed`. With
    `planned`, the steps are printed and not applied, and what apps would be started with is put there.
    """
    failures: dict[str, str] = {}
    if not stale(root, app_ids, failures, retry_failed):
        return failures
    with locked(root) if planned is None else nullcontext():
        for _ in range(_ROUNDS if planned is None else 1):
            todo = [name for name in stale(root, app_ids, failures, retry_failed) if name not in failures]
            if not todo:
                break
            from archy.prepare.apply import Preparation

            one = Preparation(root, todo, planned is not None)
            failures |= one.run()
            if planned is not None:
                planned |= one.started
    return failures


def stale(root: str, app_ids: list[str], failures: dict[str, str], retry_failed: bool) -> list[str]:
    """The apps, and the key of the node, of which something changed. Adds to `failures` the apps that still fail."""
    result = []
    host = facts.load(root)["host"]
    seen: dict[str, str] = {}
    if stamps.fresh(root, paths.NODE_KEY, seen) is None or host != facts.host_or_kept(root):
        result.append(paths.NODE_KEY)
    for app_id in app_ids:
        found = stamps.fresh(root, app_id, seen)
        if found is None or ("failure" in found and retry_failed):
            result.append(app_id)
        elif "failure" in found:
            failures[app_id] = found["failure"]
    return result


def locked(root: str) -> AbstractContextManager[None]:
    """The lock under which archy writes to the node."""
    return locks.hold(
        root, paths.LOCK, lambda: print("waiting for another archy to finish", file=sys.stderr, flush=True)
    )
