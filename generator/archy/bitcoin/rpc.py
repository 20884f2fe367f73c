# SPDX-License-Identifier: MIT
"""A client of the RPC of the node's Bitcoin, whichever implementation it is."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any
from urllib import error, request

from archy.bitcoin import logins
from archy.host import read
from archy.host import secrets as host_secrets
from archy.manifest.model import RPC_SECRET
from archy.paths import secret_path, under

URL = "http://127.0.0.1:8332/"
_TIMEOUT = 10.0  # seconds

# Never through a proxy of the environment: the login is in what is sent.
OPENER = request.build_opener(request.ProxyHandler({}))


def call(root: str, method: str, timeout: float = _TIMEOUT) -> Any:
    """The result of an RPC call without arguments, with the platform's own login; raises OSError with the reason."""
    content = read.read(under(root, secret_path(RPC_SECRET)))
    if not content:
        raise OSError(f"{secret_path(RPC_SECRET)} does not exist")
    question = request_of(URL, logins.USER, host_secrets.value(content), method)
    try:
        with OPENER.open(question, timeout=timeout) as answer:
            return json.load(answer)["result"]
    except error.HTTPError as refusal:  # bitcoind has the reason in the body, as -28 while it starts
        try:
            reason = json.load(refusal)["error"]["message"]
        except (ValueError, KeyError, TypeError, OSError):
            reason = refusal.reason
        raise OSError(str(reason)) from None
    except (ValueError, KeyError, TypeError) as wrong:
        raise OSError(f"unexpected answer: {wrong}") from None


def request_of(url: str, user: str, password: str, method: str) -> request.Request:
    """The HTTP request of an RPC call without arguments."""
    headers = {"Authorization": f"Basic {host_secrets.basic_auth(user, password)}", "Content-Type": "application/json"}
    return request.Request(url, json.dumps({"id": "archy", "method": method, "params": []}).encode(), headers)


def ask(root: str, timeout: float = _TIMEOUT) -> dict[str, Any]:
    """Whether the node is `pruned`, has a `txindex`, and is in `initialblockdownload`; `progress` is from 0 to 1."""
    chain, indexes = (call(root, method, timeout) for method in ("getblockchaininfo", "getindexinfo"))
    try:
        return {
            "pruned": bool(chain["pruned"]),
            "txindex": "txindex" in indexes,
            "initialblockdownload": bool(chain["initialblockdownload"]),
            "progress": float(chain["verificationprogress"]),
        }
    except (KeyError, TypeError, ValueError) as wrong:
        raise OSError(f"unexpected answer: {wrong}") from None


def lacks(state: Mapping[str, Any]) -> list[str]:
    """What this node lacks to be an archival one, in words that follow its name."""
    return [
        *(["is pruned"] if state["pruned"] else []),
        *(["has no txindex"] if not state["txindex"] else []),
    ]
