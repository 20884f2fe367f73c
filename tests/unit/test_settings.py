# SPDX-License-Identifier: MIT
"""The node's settings: defaults, and everything that can be wrong with them."""

from __future__ import annotations

from typing import Any

import pytest

from archy import settings
from archy.problem import Refused

DEFAULTS: dict[str, Any] = {"bitcoin": {"network": "main", "prune": 0}}
NETWORKS = "main, test, testnet4, signet, regtest"


@pytest.mark.parametrize(
    ("content", "wanted"),
    [
        (None, DEFAULTS),
        (b"", DEFAULTS),
        (b" \n\n", DEFAULTS),
        (b"{}", DEFAULTS),
        (b"# only a comment\n", DEFAULTS),
        (b"bitcoin: {}\n", DEFAULTS),
        (b"bitcoin:\n  network: regtest\n", {"bitcoin": {"network": "regtest", "prune": 0}}),
        (b'bitcoin: {"network": "signet"}', {"bitcoin": {"network": "signet", "prune": 0}}),
        (b"bitcoin: {prune: 550}", {"bitcoin": {"network": "main", "prune": 550}}),
        (b"bitcoin: {prune: 0}", DEFAULTS),
        ("\ufeffbitcoin: {network: test}".encode(), {"bitcoin": {"network": "test", "prune": 0}}),
    ],
)
def test_settings(content: bytes | None, wanted: dict[str, Any]) -> None:
    assert settings.parse(content) == wanted


@pytest.mark.parametrize(
    ("content", "messages"),
    [
        (b"bitcoin: {network: mainnet}", [f'1:11: bitcoin.network: must be one of {NETWORKS}; is "mainnet"']),
        (b"bitcoin: {network: Main}", [f'1:11: bitcoin.network: must be one of {NETWORKS}; is "Main"']),
        (b"bitcoin: {network: yes}", [f'1:11: bitcoin.network: must be one of {NETWORKS}; is "yes"']),
        (b"bitcoin: {network: [main]}", [f"1:11: bitcoin.network: must be one of {NETWORKS}; is a list"]),
        (b"bitcoin: {network: }", [f"1:11: bitcoin.network: must be one of {NETWORKS}; is empty"]),
        (b"bitcoin: {prune: -1}", ["1:11: bitcoin.prune: must be at least 0, is -1"]),
        (b"bitcoin: {prune: 10000001}", ["1:11: bitcoin.prune: must be at most 10000000, is 10000001"]),
        (b"bitcoin: {prune: 549}", ["1:11: bitcoin.prune: must be 0 or at least 550 (MiB), is 549"]),
        (
            b"bitcoin: {prune: 1, network: x}",
            [
                "1:11: bitcoin.prune: must be 0 or at least 550 (MiB), is 1",
                f'1:21: bitcoin.network: must be one of {NETWORKS}; is "x"',
            ],
        ),
        (b"bitcoin: {prune: 1G}", ['1:11: bitcoin.prune: must be a whole number, is "1G"']),
        (b"bitcoin:\n", ["1:1: bitcoin: must be a mapping, is empty"]),
        (b"bitcoin: main", ['1:1: bitcoin: must be a mapping, is "main"']),
        (b"bitcoins: {}\n", ["1:1: bitcoins: is not a known key; did you mean bitcoin?"]),
        (b"lightning: {}\n", ["1:1: lightning: is not a known key; known here: bitcoin"]),
        (
            b"a: 1\nbitcoin:\n  netwrk: x\n  network: y\n",
            [
                "1:1: a: is not a known key; known here: bitcoin",
                "3:3: bitcoin.netwrk: is not a known key; did you mean network?",
                f'4:3: bitcoin.network: must be one of {NETWORKS}; is "y"',
            ],
        ),
        (b"---\n", ["2:1: must be a mapping, is empty"]),
        (b"- bitcoin\n", ["1:1: must be a mapping, is a list"]),
        (b"just text", ['1:1: must be a mapping, is "just text"']),
        (b"bitcoin: {}\nbitcoin: {}\n", ["2:1: bitcoin: is given twice, first in line 1"]),
        (b"bitcoin: {network: \xff}", ["1:20: is not UTF-8 text"]),
        (b"bitcoin: [", ["2:1: is not valid YAML: while parsing a flow node did not find expected node content"]),
        (
            b"\tbitcoin: {}",
            ["1:1: is not valid YAML: while scanning for the next token found character that cannot start any token"],
        ),
        (
            b"bitcoin: !!python/name:os.system {}",
            ["1:10: bitcoin: the tag tag:yaml.org,2002:python/name:os.system is not allowed here"],
        ),
    ],
)
def test_refused(content: bytes, messages: list[str]) -> None:
    with pytest.raises(Refused) as refused:
        settings.parse(content)
    assert [str(problem) for problem in refused.value.problems] == [
        f"/etc/archy/node.yml:{message}" for message in messages
    ]


def test_the_defaults_are_not_shared() -> None:
    first = settings.parse(None)
    first["bitcoin"]["network"] = "changed"
    assert settings.parse(None) == DEFAULTS


def test_another_file_s_name() -> None:
    with pytest.raises(Refused, match=r"^/x/y.yml:1:1: a: "):
        settings.parse(b"a: 1", "/x/y.yml")
