# SPDX-License-Identifier: MIT
"""What bears the name of another app: whose it is, and what an app may do with it only if the operator says so."""

from __future__ import annotations

import pytest
from support import Node, app_of, app_text

from archy import paths
from archy.manifest import grants, load, ownership

HOME = "/var/lib/archipelago"
KNOWN = frozenset({"web", "shop", "shop-db", "vault"})
FILE = f"path: {HOME}/%s/f, content: x"


def volume(source: str, options: str = "[rw]") -> str:
    return f"volumes: [{{type: volume, source: {source}, target: /t, options: {options}}}]"


def bind(source: str, options: str = "[rw]") -> str:
    return f"volumes: [{{type: bind, source: {HOME}/{source}, target: /t, options: {options}}}]"


@pytest.mark.parametrize(
    ("container", "app", "owners"),
    [
        ("", "", []),
        ("network: web-net", volume("web-data"), []),
        ("network: some-net", volume("pictures"), []),
        ("", volume("vault"), ["vault"]),
        ("", volume("vault-data"), ["vault"]),
        ("", volume("vault_data"), ["vault"]),
        ("", volume("vault.data"), ["vault"]),
        ("", volume("vaulted"), []),
        ("", volume("shop-db-data"), ["shop-db"]),
        ("", volume("shop-data"), ["shop"]),
        ("", f"part_of: shop\n{volume('shop-data')}", []),
        ("", f"companion_of: shop\n{bind('shop/x')}", []),
        ("", f"part_of: shop\n{volume('shop-db-data')}", ["shop-db"]),
        ("", f"dependencies: [{{app_id: shop-db}}]\n{volume('shop-db-data')}", ["shop-db"]),
        ("", f"dependencies: [{{app_id: shop-db}}]\n{volume('shop-db-data', '[ro]')}", []),
        ("", f"dependencies: [{{app_id: shop}}]\n{bind('shop-db', '[ro]')}", ["shop-db"]),
        ("network: shop-net", "", ["shop"]),
        ("network: shop-net", "part_of: shop", []),
        ("networks: [{name: shop-net}, {name: web-net}]", "", ["shop"]),
        ("network: pasta", "", []),
        ("network_aliases: [vault]", "", ["vault"]),
        ("network_aliases: [vault-2, db]", "", []),
        ("network: own-net\nnetwork_aliases: [vault]", "", []),
        ("network_aliases: [bitcoin]", "", ["bitcoin"]),
        ("network_aliases: [bitcoin]", "provides: bitcoin", []),
        ("", bind("bitcoin"), ["bitcoin"]),
        ("", f"provides: bitcoin\n{bind('bitcoin')}", []),
        (f"generated_files: [{{{FILE % 'web'}}}]", "", []),
        (f"env_file: [{HOME}/web-x/a]", "", []),
    ],
)
def test_whose_it_is(container: str, app: str, owners: list[str]) -> None:
    assert [owner for _, owner in ownership.of_others(app_of(container, app), KNOWN)] == owners


def test_longer_and_shorter_names_are_own_only_while_they_are_nobody_else_s() -> None:
    """An ID is chosen freely: `shop-x` is not the shop."""
    text = app_text("shop-x", f"env_file: [{HOME}/shop/e]\ngenerated_files: [{{{FILE % 'shop'}}}]", bind("shop/wallet"))
    app = load.check(text.encode(), "manifest.yml", "shop-x", frozenset())
    assert ownership.of_others(app, {"shop-x"}) == []
    assert [(".".join(map(str, claim.at)), owner) for claim, owner in ownership.of_others(app, KNOWN)] == [
        ("app.volumes.0.source", "shop"),
        ("app.container.generated_files.0.path", "shop"),
        ("app.container.env_file.0", "shop"),
    ]
    assert {str(wish) for wish in grants.required(app, KNOWN)} == {
        f"paths: {HOME}/shop/wallet",
        f"paths: {HOME}/shop/f",
        f"paths: {HOME}/shop/e",
    }
    assert grants.missing(app, grants.parse(f"shop-x: {{paths: [{HOME}/shop]}}".encode()), KNOWN) == []


def test_what_is_told_to_be_written_is_what_grants_it() -> None:
    app = app_of("network: shop-net\nnetworks: [{name: archy-net, aliases: [vault]}]", volume("shop-data"))
    found = grants.missing(app, {}, KNOWN)
    assert [reason.partition("; ")[0] for _, reason in found] == [
        "needs a grant of the node's operator (shop-data: the data of shop, another app)",
        "needs a grant of the node's operator (shop-net: the network of shop, another app)",
        "needs a grant of the node's operator (vault: the name of vault, another app, and all that is sent to it)",
    ]
    for wish in grants.required(app, KNOWN):
        granted = grants.parse(f"web: {wish.grant}".encode())
        assert wish.at not in {at for at, _ in grants.missing(app, granted, KNOWN)}, wish.grant


@pytest.mark.programs
def test_on_a_node_the_apps_are_those_of_the_catalogue_and_those_installed(node: Node) -> None:
    node.write("/usr/share/archy/apps/shop/manifest.yml", app_text("shop"))
    node.app("evil", app_text("evil", "network: shop-net", volume("vault-data")))
    units, warnings = node.generate()
    assert "podman run" not in units["archy-evil.service"]
    assert "shop-net: the network of shop, another app" in " ".join(warnings)
    assert "vault-data" not in " ".join(warnings)
    node.app("vault", app_text("vault"))
    assert "vault-data: the data of vault, another app" in " ".join(node.generate()[1])
    node.write(paths.GRANTS, "evil: {networks: [shop-net], volumes: [vault-data]}")
    units, warnings = node.generate()
    assert warnings == []
    assert "--network shop-net" in units["archy-evil.service"]
