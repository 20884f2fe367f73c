# SPDX-License-Identifier: MIT
"""A secret that the data of an app were made with: lost, it is not made anew, and the app says so until it is back."""

from __future__ import annotations

import os

import pytest
from support import Node, app_of, app_text

from archy.errors import CannotDerive
from archy.host.stat import FileState
from archy.host.steps import Directory, File
from archy.manifest.model import Secret
from archy.prepare import secrets as prepare_secrets

D = "/var/lib/archipelago"
MARK = f"{D}/.made-secrets/p"
PATH = f"{D}/secrets/p"
SECRET = "generated_secrets: [{name: p, kind: hex16}]"
USE = f"generated_files: [{{path: {D}/web/f, overwrite: true, content: '{{{{secret:p}}}}'}}]"
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files to the service user")


def there(*names: str) -> dict[str, FileState]:
    return {name: FileState(b"x\n", 0, 0, 0o600) for name in names}


@pytest.mark.parametrize(
    ("declared", "rotatable", "names"),
    [
        ("{name: p, kind: hex16}", (), ["p"]),
        ("{name: p, kind: hex16}", ("q",), ["p"]),
        ("{name: p, kind: hex16}", ("p",), []),
        ("{name: p, kind: hex16, rotatable: true}", (), []),
        ("{name: p, kind: hex16}, {name: q, kind: hex16, rotatable: true}", (), ["p"]),
    ],
)
def test_which_ones_last(declared: str, rotatable: tuple[str, ...], names: list[str]) -> None:
    app = app_of(f"generated_secrets: [{declared}]")
    assert [one.name for one in prepare_secrets.lasting_secrets(app, rotatable)] == names


def test_the_login_of_a_consumer_of_bitcoin_is_not_its_own_to_keep() -> None:
    app = app_of(app="bitcoin_rpc: {rpcwhitelist: [uptime]}")
    assert "bitcoin-rpc-password" in app.secret_names
    assert prepare_secrets.lasting_secrets(app, ()) == []


def test_one_that_is_new_is_marked_once() -> None:
    secret = Secret("p", "hex16")
    made = [Directory(f"{D}/.made-secrets", 0, 0, 0o755), File(MARK, b"", 0, 0, 0o644, "missing")]
    assert prepare_secrets.secret_marks([secret], {}, {}) == made
    assert prepare_secrets.secret_marks([secret], there(PATH), {}) == made
    assert prepare_secrets.secret_marks([secret], there(PATH), there(MARK)) == []


@pytest.mark.parametrize("kind", ["hex16", "bcrypt"])
def test_one_that_is_lost_is_said(kind: str) -> None:
    with pytest.raises(CannotDerive) as error:
        prepare_secrets.secret_marks([Secret("p", kind)], {}, there(MARK))
    assert str(error.value) == (
        f"{PATH}: is lost, and the data were made with it; restore it, or, if the data are gone too, remove {MARK} to "
        "have a new one made"
    )


@needs_root
@pytest.mark.programs
@pytest.mark.parametrize("again", ["restored", "new"])
def test_it_is_not_made_anew_until_somebody_says_that_it_may_be(node: Node, again: str) -> None:
    node.app("web", app_text("web", f"{SECRET}\n{USE}"))
    node.app("other", app_text("other"))
    assert node.prepare() == 0
    assert node.is_fresh("web")
    before = node.path(PATH).read_text()
    node.path(PATH).unlink()
    for _ in range(2):
        ((app, said),) = node.failures().items()
        assert (app, said.partition(": is lost")[0]) == ("web", PATH)
        assert not node.path(PATH).exists()
        assert node.path(f"{D}/web/f").read_text() == before.strip()
    if again == "restored":
        node.write(PATH, before)
        assert node.failures() == {}
        assert node.path(f"{D}/web/f").read_text() == before.strip()
    else:
        node.path(MARK).unlink()
        assert node.failures() == {}
        assert node.path(f"{D}/web/f").read_text() == node.path(PATH).read_text().strip() != before.strip()


@needs_root
@pytest.mark.programs
def test_what_another_app_says_may_change_is_made_anew(node: Node) -> None:
    node.app("web", app_text("web", f"{SECRET}\n{USE}"))
    assert node.prepare() == 0
    node.app("other", app_text("other", "generated_secrets: [{name: p, kind: hex16, rotatable: true}]"))
    assert node.prepare() == 0
    node.path(PATH).unlink()
    assert node.failures() == {}
    assert node.path(f"{D}/web/f").read_text() == node.path(PATH).read_text().strip()


@needs_root
@pytest.mark.programs
def test_one_that_is_there_before_archy_is_marked_as_well(node: Node) -> None:
    node.write(PATH, "old\n").chmod(0o600)
    node.app("web", app_text("web", f"{SECRET}\n{USE}"))
    assert node.prepare() == 0
    assert node.path(f"{D}/web/f").read_text() == "old"
    node.path(PATH).unlink()
    assert list(node.failures()) == ["web"]
