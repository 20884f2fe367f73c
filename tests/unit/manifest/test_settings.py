# SPDX-License-Identifier: MIT
"""The node's settings: defaults, and everything that can be wrong with them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from archy.errors import Refused
from archy.manifest import settings

IMAGES: dict[str, Any] = {"images": {"mirrors": {}, "insecure": []}}
DEFAULTS: dict[str, Any] = {"bitcoin": {"network": "main", "prune": 0}, **IMAGES}
LOCATION = "must be a registry such as docker.io, mirror.example:5000 or mirror.example/hub, without a scheme"
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
        (b"bitcoin:\n  network: regtest\n", {"bitcoin": {"network": "regtest", "prune": 0}, **IMAGES}),
        (b'bitcoin: {"network": "signet"}', {"bitcoin": {"network": "signet", "prune": 0}, **IMAGES}),
        (b"bitcoin: {prune: 550}", {"bitcoin": {"network": "main", "prune": 550}, **IMAGES}),
        (b"bitcoin: {prune: 0}", DEFAULTS),
        ("\ufeffbitcoin: {network: test}".encode(), {"bitcoin": {"network": "test", "prune": 0}, **IMAGES}),
        (b"images: {}", DEFAULTS),
        (
            b"images: {mirrors: {docker.io: [m.lan, 'm:5000/a/b_c'], localhost: [x.y]}, insecure: ['127.0.0.1:5000']}",
            {
                **DEFAULTS,
                "images": {
                    "mirrors": {"docker.io": ["m.lan", "m:5000/a/b_c"], "localhost": ["x.y"]},
                    "insecure": ["127.0.0.1:5000"],
                },
            },
        ),
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
        (b"lightning: {}\n", ["1:1: lightning: is not a known key; known here: bitcoin, images"]),
        (
            b"a: 1\nbitcoin:\n  netwrk: x\n  network: y\n",
            [
                "1:1: a: is not a known key; known here: bitcoin, images",
                "3:3: bitcoin.netwrk: is not a known key; did you mean network?",
                f'4:3: bitcoin.network: must be one of {NETWORKS}; is "y"',
            ],
        ),
        (b"images: {insecure: m.lan}", ['1:10: images.insecure: must be a list, is "m.lan"']),
        (b"images: {insecure: [m.lan, m.lan]}", ["1:10: images.insecure: holds the same value twice"]),
        (b"images: {mirrors: {docker.io: m.lan}}", ['1:20: images.mirrors.docker.io: must be a list, is "m.lan"']),
        (b"images: {mirrors: {docker.io: []}}", ["1:20: images.mirrors.docker.io: must not be empty"]),
        (b"images: {mirrors: {docker: [m.lan]}}", [f'1:10: images.mirrors: {LOCATION}; is "docker"']),
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


@pytest.mark.parametrize(
    "location",
    ["m", "http://m.lan", "m.lan/", "m.lan:", "m.lan:0", "m.lan:123456", "M.lan", "m.lan/A", "-m.lan", "m-.lan",
     "m..lan", "m.lan//a", "m.lan/a b", "m.lan/../x", 'm.lan"', "m.lan\n", "m.lan\n[[x]]", "*.lan", "u@m.lan", "",
     "m.lan" * 100],
)  # fmt: skip
def test_what_is_no_registry(location: str) -> None:
    """It goes into registries.conf between quotes."""
    with pytest.raises(Refused):
        settings.parse(json.dumps({"images": {"insecure": [location]}}).encode())
    with pytest.raises(Refused):
        settings.parse(json.dumps({"images": {"mirrors": {location: ["m.lan"]}}}).encode())
