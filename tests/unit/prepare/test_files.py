# SPDX-License-Identifier: MIT
"""What an app needs on the disk: owners, secrets, files from templates, and the steps from what is there."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from support import FACTS, OWNER, app_of, material

from archy.errors import CannotDerive
from archy.host.idmap import Owner
from archy.host.stat import FileState
from archy.host.steps import Directory, File, Ownership, Step
from archy.manifest.model import App
from archy.prepare import files as prepare_files
from archy.prepare import secrets as prepare_secrets

HOME = "/var/lib/archipelago"
PASSWORD = "/var/lib/archipelago/secrets/password"
RIGHT = FileState(b"s3cret\n", 0, 0, 0o600)


def secretive(kind: str = "hex16") -> App:
    return app_of(f"generated_secrets: [{{name: password, kind: {kind}}}]")


def filed(**fields: str) -> App:
    """An app with one generated file."""
    fields = {"path": f"{HOME}/web/file", **fields}
    entry = ", ".join(f"{key}: {value}" for key, value in fields.items())
    secrets = "generated_secrets: [{name: password, kind: hex32}]"
    return app_of(f"generated_files: [{{{entry}}}]\n{secrets}", beside=frozenset({"t.j2", "t"}))


@pytest.mark.parametrize(
    ("data_uid", "user", "owner"),
    [
        (None, None, (990, 989)),
        (None, "0", (990, 989)),
        (None, "1000", (232071, 332071)),
        (None, "1:2000", (231072, 333071)),
        (None, "0:5", (990, 331076)),
        (100000, None, (231072, 331072)),  # UID 1 in the container
        (100998, None, (232070, 332070)),  # UID 999
        (100998, "5", (232070, 332070)),
        (1000, None, (1000, 1000)),
        (0, None, (0, 0)),
    ],
)
def test_the_owner_of_data(data_uid: int | None, user: str | None, owner: tuple[int, int]) -> None:
    lines = [f"data_uid: {data_uid}"] * (data_uid is not None) + [f"user: {user}"] * (user is not None)
    assert prepare_files.data_owner(app_of("\n".join(lines)), OWNER) == owner


@pytest.mark.parametrize(("inside", "outside"), [(0, 990), (1, 231072), (999, 232070), (65536, 296607)])
def test_ids_inside_and_outside(inside: int, outside: int) -> None:
    assert OWNER.host_uid(inside) == outside
    assert OWNER.host_gid(inside) == (outside + 100_000 if inside else 989)


def test_several_ranges_are_one_after_the_other() -> None:
    owner = Owner(990, 989, (range(1000, 1002), range(500, 501)), (range(7, 8),))
    assert [owner.host_uid(inside) for inside in range(4)] == [990, 1000, 1001, 500]
    assert [owner.host_gid(inside) for inside in range(2)] == [989, 7]


@pytest.mark.parametrize("inside", [65537, 100_000, 2**32])
def test_an_id_without_a_subordinate_one(inside: int) -> None:
    for find, file in ((OWNER.host_uid, "/etc/subuid"), (OWNER.host_gid, "/etc/subgid")):
        with pytest.raises(LookupError) as error:
            find(inside)
        assert str(error.value) == (
            f"{file}: archipelago has no subordinate ID for {inside} in a container; "
            "run `python3 -m archy.host.subid /` as root"
        )


def test_no_subordinate_ids_at_all() -> None:
    """Never the user's of the node that happens to have the number."""
    nobody = Owner(990, 989, (), ())
    assert prepare_files.data_owner(app_of(), nobody) == (990, 989)
    for text in ("user: 5", "user: 0:5", "data_uid: 100000"):
        with pytest.raises(LookupError, match="has no subordinate ID for"):
            prepare_files.data_owner(app_of(text), nobody)
    app = filed(content="x", owner="5")
    with pytest.raises(LookupError, match="has no subordinate ID for 5 "):
        prepare_files.files(material(app, replace(FACTS, owner=nobody)))


def test_the_classic_range_maps_to_itself() -> None:
    """A manifest of the platform says 100998 for UID 999; on a node with that very range nothing may move."""
    classic = (range(100000, 165536),)
    assert prepare_files.data_owner(app_of("data_uid: 100998"), Owner(990, 989, classic, classic)) == (100998, 100998)


def test_directories() -> None:
    volumes = [
        ("bind", f"{HOME}/web"),
        ("bind", f"{HOME}/web/conf/a.conf"),
        ("bind", f"{HOME}/web-else"),
        ("volume", "named"),
        # What needs a grant is the operator's, and may be a socket.
        ("bind", f"{HOME}/else"),
        ("bind", "/srv/media"),
        ("bind", "/run/user/990/podman/podman.sock"),
    ]
    lines = [f"- {{type: {kind}, source: {source}, target: /t{n}}}" for n, (kind, source) in enumerate(volumes)]
    files = [f"- {{path: {HOME}/web/{name}, content: x}}" for name in ("conf/a.conf", "b/c")]
    app = app_of("\n".join(["user: 1:1", "generated_files:", *files]), "\n".join(["volumes:", *lines]))
    made = prepare_files.directories(app, OWNER)
    assert made == [
        Directory(f"{HOME}/{name}", 231072, 331072, 0o750) for name in ("web", "web-else", "web/b", "web/conf")
    ]


@pytest.mark.parametrize(
    ("found", "steps", "values"),
    [
        ({PASSWORD: RIGHT}, [], {"password": "s3cret"}),
        ({PASSWORD: FileState(b"s3cret", 0, 0, 0o600)}, [], {"password": "s3cret"}),
        ({PASSWORD: FileState(b"x\n", 0, 0, 0o644)}, [Ownership(PASSWORD, 0, 0, 0o600)], {"password": "x"}),
        ({PASSWORD: FileState(b"x\n", 990, 989, 0o600)}, [Ownership(PASSWORD, 0, 0, 0o600)], {"password": "x"}),
        ({PASSWORD: FileState(b"x\n", 0, 989, 0o600)}, [Ownership(PASSWORD, 0, 0, 0o600)], {"password": "x"}),
        ({}, [File(PASSWORD, b"00" * 16 + b"\n", 0, 0, 0o600, "missing")], {"password": "00" * 16}),
    ],
)
def test_secrets(found: dict[str, FileState], steps: list[Step], values: dict[str, str]) -> None:
    """One that exists is never written, whatever its kind."""
    for kind in ("hex16",) if not found else ("hex16", "hex32", "base64"):
        assert prepare_secrets.secrets(secretive(kind), found, bytes) == (steps, values)


@pytest.mark.parametrize(
    ("found", "message"),
    [
        (FileState(None, 0, 0, 0o755), f"{PASSWORD}: is not a file; the secret cannot be read"),
        (
            FileState(b"", 0, 0, 0o600),
            f"{PASSWORD}: is empty, or is not one line of text; restore it, or remove it to have a new one made",
        ),
        (
            FileState(b"a\nb", 0, 0, 0o600),
            f"{PASSWORD}: is empty, or is not one line of text; restore it, or remove it to have a new one made",
        ),
    ],
)
def test_an_unusable_secret_is_an_error_and_is_not_replaced(found: FileState, message: str) -> None:
    with pytest.raises(CannotDerive) as error:
        prepare_secrets.secrets(secretive(), {PASSWORD: found}, bytes)
    assert str(error.value) == message


def test_one_half_of_a_bcrypt_secret_is_an_error() -> None:
    with pytest.raises(CannotDerive, match=r"password.pw: is not a file"):
        prepare_secrets.secrets(secretive("bcrypt"), {PASSWORD: RIGHT}, bytes)
    whole = {PASSWORD: RIGHT, f"{PASSWORD}.pw": FileState(b"plain\n", 0, 0, 0o600)}
    assert prepare_secrets.secrets(secretive("bcrypt"), whole, bytes) == (
        [],
        {"password": "s3cret", "password.pw": "plain"},
    )


def test_no_secret_in_what_is_said() -> None:
    steps, values = prepare_secrets.secrets(secretive(), {}, bytes)
    assert values["password"] not in f"{steps} {[str(step) for step in steps]}"
    assert str(steps[0]) == f"write {PASSWORD} (missing)"


WANTED = File(f"{HOME}/web/file", b"new", 990, 989, 0o640, "wanted")


@pytest.mark.parametrize(
    ("overwrite", "now", "steps"),
    [
        (True, None, ["write /var/lib/archipelago/web/file (missing)"]),
        (False, None, ["write /var/lib/archipelago/web/file (missing)"]),
        (True, FileState(b"new", 990, 989, 0o640), []),
        (True, FileState(b"old", 990, 989, 0o640), ["write /var/lib/archipelago/web/file (content differs)"]),
        (True, FileState(None, 990, 989, 0o640), ["write /var/lib/archipelago/web/file (content differs)"]),
        (
            True,
            FileState(b"new", 990, 989, 0o644),
            ["set owner and mode of /var/lib/archipelago/web/file to 990:989 0640"],
        ),
        (
            True,
            FileState(b"new", 0, 989, 0o640),
            ["set owner and mode of /var/lib/archipelago/web/file to 990:989 0640"],
        ),
        (False, FileState(b"edited", 5, 5, 0o777), []),
    ],
)
def test_drift(overwrite: bool, now: FileState | None, steps: list[str]) -> None:
    app = filed(content="new", overwrite=str(overwrite).lower())
    wanted = prepare_files.files(material(app))
    assert wanted == [WANTED]
    found = {} if now is None else {WANTED.path: now}
    assert [str(step) for step in prepare_files.drift(app, wanted, found)] == steps


def test_the_owner_of_a_file() -> None:
    def owner(**fields: Any) -> tuple[int, int, int]:
        (file,) = prepare_files.files(material(filed(content="x", **fields)))
        return file.uid, file.gid, file.mode

    assert owner() == (990, 989, 0o640)
    assert owner(owner="5", mode="'0400'") == (231076, 331076, 0o400)
    assert owner(owner="0:5", mode="755") == (990, 331076, 0o755)
