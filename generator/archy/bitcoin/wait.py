# SPDX-License-Identifier: MIT
"""archy-wait: whether what an app waits for before its start is so; as root, from archy-wait@.service.

systemd asks again as long as it is not, and the app's start waits in its queue meanwhile.
"""

from __future__ import annotations

import sys

from systemd import daemon

from archy.apps import facts
from archy.bitcoin import rpc

EX_NOT_YET, EX_USAGE = 1, 2


def main(argv: list[str]) -> int:
    """The entry point. Exit codes: 0 nothing to wait for, 1 not yet, 2 usage."""
    if len(argv) != 2:
        print("usage: archy-wait APP", file=sys.stderr)
        return EX_USAGE
    text = reason("/", argv[1])
    # `systemctl status` shows it, and a pass reads it from there.
    daemon.notify(f"STATUS={text}")
    if text:
        print(text, file=sys.stderr)
    return EX_NOT_YET if text else 0


def reason(root: str, app_id: str) -> str:
    """What the app has to wait for; empty if for nothing."""
    summary = facts.load(root)["apps"].get(app_id)
    if summary is None or "synced" not in summary["bitcoin"]:
        return ""
    try:
        state = rpc.ask(root)
    except OSError as error:
        return f"Bitcoin does not answer: {error}"
    return f"Bitcoin is syncing: {state['progress']:.1%}" if state["initialblockdownload"] else ""
