# SPDX-License-Identifier: MIT
"""The catalogue and the examples: each manifest is good, in one order of keys, and in nobody's way."""

from __future__ import annotations

import re
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import yaml
from support import REPO, SHIPPED

from archy import paths
from archy.host import read
from archy.manifest import grants, load
from archy.manifest import schema as manifest_schema
from archy.manifest.model import App

EXAMPLES = sorted(path.name for path in (REPO / "docs/examples").iterdir())
FOLDERS = [*(REPO / "apps" / name for name in SHIPPED), *(REPO / "docs/examples" / name for name in EXAMPLES)]
# In these files stands what all apps have in common: none of them names one.
COMMON = [
    path
    for pattern in ("generator/**/*", "units/*", "templates/*")
    for path in REPO.glob(pattern)
    if path.is_file() and path.suffix != ".pyc"
]
ORDER = {
    "app": [
        "id",
        "name",
        "version",
        "description",
        "category",
        "upstream",
        "provides",
        "companion_of",
        "part_of",
        "restart_when_changed",
        "container",
        "dependencies",
        "bitcoin_rpc",
        "start_timeout_secs",
        "stop_grace_secs",
        "resources",
        "security",
        "ports",
        "volumes",
        "environment",
        "health_check",
        "hooks",
        "interfaces",
        "credentials",
        "metadata",
    ],
    "container": [
        "image",
        "build",
        "pull_policy",
        "network",
        "network_aliases",
        "networks",
        "hostname",
        "extra_hosts",
        "ipv4_address",
        "dns",
        "user",
        "group_add",
        "working_dir",
        "entrypoint",
        "custom_args",
        "restart",
        "init",
        "tty",
        "stdin_open",
        "stop_signal",
        "derived_env",
        "env_file",
        "secret_env",
        "generated_secrets",
        "generated_certs",
        "generated_files",
        "data_uid",
        "data_version",
        "tmpfs",
        "shm_size",
        "sysctls",
        "ulimits",
        "pids_limit",
        "devices",
        "security_opt",
        "logging",
        "labels",
    ],
}


def app_in(folder: Path) -> App:
    content = (folder / paths.MANIFEST).read_bytes()
    return load.check(content, str(folder / paths.MANIFEST), folder.name, frozenset(read.tree(str(folder))))


def data_in(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((folder / paths.MANIFEST).read_text())["app"]
    return found


CATALOGUE = {name: app_in(REPO / "apps" / name) for name in SHIPPED}


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_a_manifest_is_good(folder: Path) -> None:
    assert app_in(folder).id == folder.name


def test_the_order_has_every_key() -> None:
    schema = manifest_schema.schema("manifest")
    assert sorted(ORDER["app"]) == sorted(schema["properties"]["app"]["properties"])
    assert sorted(ORDER["container"]) == sorted(schema["$defs"]["container"]["properties"])


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_keys_are_in_one_order(folder: Path) -> None:
    data = data_in(folder)
    for keys, order in ((list(data), ORDER["app"]), (list(data["container"]), ORDER["container"])):
        assert keys == sorted(keys, key=order.index)


@pytest.mark.parametrize("name", SHIPPED)
def test_the_catalogue_asks_for_no_grant(name: str) -> None:
    assert grants.required(CATALOGUE[name], frozenset(CATALOGUE)) == []


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_asks_for_what_it_says(name: str) -> None:
    """And nothing is left to ask for when it is granted."""
    wanted = {
        "sensor": ["devices: /dev/serial/by-id/usb-0658_0200-if00", "paths: /srv/zwave-backups"],
    }
    app = app_in(REPO / "docs/examples" / name)
    assert [str(wish) for wish in grants.required(app)] == wanted.get(name, [])
    granted = grants.parse(f"{name}: {{devices: [/dev/serial], paths: [/srv/zwave-backups]}}".encode())
    assert grants.missing(app, granted) == []


def test_no_app_is_named_in_what_all_have_in_common() -> None:
    """What an app needs is in its folder. Words of the code that are nobody's ID, as `bitcoin`, may stand there."""
    assert len(COMMON) > 100
    pattern = re.compile(rf"(?<![\w-])(?:{'|'.join(map(re.escape, SHIPPED))})(?![\w-])")
    found = [
        f"{path.relative_to(REPO)}:{number}: {line.strip()}"
        for path in COMMON
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if pattern.search(line)
    ]
    assert found == []


def test_ports_do_not_clash() -> None:
    """But for alternatives, of which one is there at a time."""
    clashes = [
        (one.id, other.id, port.host)
        for one, other in combinations(CATALOGUE.values(), 2)
        for port in one.ports
        if any(port.clashes(taken) for taken in other.ports) and not (one.provides and one.provides == other.provides)
    ]
    assert clashes == []


def test_what_the_catalogue_s_apps_need_is_in_it() -> None:
    known = {name for app in CATALOGUE.values() for name in (app.id, app.provides)}
    for app in CATALOGUE.values():
        wanted = {*app.need_ids, app.companion_of, app.part_of} - {""}
        assert wanted <= known, app.id


def test_what_is_provided_is_no_app_s_name() -> None:
    assert {app.provides for app in CATALOGUE.values()} & set(SHIPPED) == set()


def test_alternatives_keep_the_same_data_as_the_same_user() -> None:
    """`archy app switch` refuses anything else."""
    for one, other in combinations(CATALOGUE.values(), 2):
        if one.provides and one.provides == other.provides:
            data = [{v.source for v in app.volumes if "ro" not in v.options} for app in (one, other)]
            assert data[0] == data[1]
            assert (one.data_uid, one.user) == (other.data_uid, other.user)


def test_a_secret_that_two_apps_declare_is_of_one_kind() -> None:
    """Whoever comes first makes it."""
    kinds: dict[str, set[tuple[str, bool]]] = {}
    for app in CATALOGUE.values():
        for secret in app.secrets:
            kinds.setdefault(secret.name, set()).add((secret.kind, secret.rotatable))
    assert {name: found for name, found in kinds.items() if len(found) > 1} == {}


def test_a_part_reaches_its_app() -> None:
    """They have a network in common."""
    for app in CATALOGUE.values():
        if app.part_of:
            whole = [other for other in CATALOGUE.values() if app.part_of in (other.id, other.provides)]
            mine = {app.network, *(network.name for network in app.networks)}
            assert all(mine & {one.network, *(network.name for network in one.networks)} for one in whole), app.id
