# SPDX-License-Identifier: MIT
"""Logins to bitcoind's RPC: what bitcoind takes, a password for each app, and two of them while a rotation lasts."""

from __future__ import annotations

import hashlib
import hmac
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import FACTS, app_of, material

from archy.apps import facts
from archy.bitcoin import logins as bitcoin_logins
from archy.errors import CannotDerive
from archy.manifest.model import App
from archy.prepare import render
from archy.prepare.render import Context

OLD, NEW = "0" * 64, "f" * 64


def reference_hmac(salt: str, password: str) -> str:
    """share/rpcauth/rpcauth.py of Bitcoin, as described: the salt's text is the key, the password the message.

    Written out (RFC 2104), so that it shares nothing with the code under test but SHA-256.
    """
    key = salt.encode("ascii").ljust(64, b"\0")
    inner = hashlib.sha256(bytes(byte ^ 0x36 for byte in key) + password.encode("utf-8")).digest()
    return hashlib.sha256(bytes(byte ^ 0x5C for byte in key) + inner).hexdigest()


def test_the_reference_is_right() -> None:
    """RFC 4231, test case 2."""
    assert reference_hmac("Jefe", "what do ya want for nothing?") == (
        "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
    )


@given(
    user=st.from_regex(r"[a-z]{1,12}", fullmatch=True),
    password=st.text(st.characters(exclude_categories=["Cs"]), min_size=1),
)
def test_rpcauth(user: str, password: str) -> None:
    line = bitcoin_logins.rpcauth(user, password)
    match = re.fullmatch(r"([a-z]+):([0-9a-f]{32})\$([0-9a-f]{64})", line)
    assert match is not None
    assert match[1] == user
    assert match[3] == reference_hmac(match[2], password)
    assert bitcoin_logins.rpcauth(user, password) == line


def test_salts_differ() -> None:
    salts = {
        bitcoin_logins.rpcauth(user, password).split(":")[1].split("$")[0]
        for user in ("a", "b")
        for password in ("x", "y")
    }
    assert len(salts) == 4


def test_the_salt_tells_nothing_that_is_not_keyed() -> None:
    """The salt is public: it must be no plain hash of the password."""
    salt = bitcoin_logins.rpcauth("user", "password").split(":")[1].split("$")[0]
    plain = {hashlib.new(kind, b"password").hexdigest()[:32] for kind in ("md5", "sha1", "sha256", "sha512")}
    assert salt not in plain
    assert salt == hmac.new(b"password", b"archy rpcauth salt user", hashlib.sha256).hexdigest()[:32]


def test_who_is_let_in() -> None:
    """Each of the lines that bitcoind is given lets in the password that the user has, and no other."""
    logins = bitcoin_logins.logins([NEW, OLD], {"lnd": ["getblock", "uptime"], "electrumx": ["getblock"]})
    assert [(login.name, login.rpcwhitelist) for login in logins] == [
        ("archipelago", None),
        ("electrumx", ("getblock",)),
        ("lnd", ("getblock", "uptime")),
    ]
    for login in logins:
        found = [re.fullmatch(r"([a-z]+):([0-9a-f]{32})\$([0-9a-f]{64})", line) for line in login.rpcauth]
        passwords = [bitcoin_logins.password(value, login.name) for value in (NEW, OLD)]
        assert [match and (match[1], match[3]) for match in found] == [
            (login.name, reference_hmac(match[2], password))
            for match, password in zip(found, passwords, strict=True)
            if match
        ]


@pytest.mark.parametrize(("values", "lines"), [([NEW], 1), ([NEW, OLD], 2), ([NEW, NEW], 1)])
def test_a_rotation_overlaps(values: list[str], lines: int) -> None:
    logins = bitcoin_logins.logins(values, {"lnd": ["uptime"]})
    assert [len(login.rpcauth) for login in logins] == [lines, lines]
    assert [login.rpcauth[0] for login in logins] == [
        login.rpcauth[0] for login in bitcoin_logins.logins([NEW], {"lnd": ["x"]})
    ]


def test_the_order_is_that_of_the_names_whatever_was_installed_first() -> None:
    one = bitcoin_logins.logins([NEW], {"b": ["x"], "a": ["y"]})
    assert one == bitcoin_logins.logins([NEW], {"a": ["y"], "b": ["x"]})


def test_passwords() -> None:
    """The platform has the secret itself; no app has it, or that of another, or that of before."""
    found = {
        (value, user): bitcoin_logins.password(value, user)
        for value in (OLD, NEW)
        for user in (bitcoin_logins.USER, "lnd", "lnd-ui")
    }
    assert {value: found[value, bitcoin_logins.USER] for value in (OLD, NEW)} == {OLD: OLD, NEW: NEW}
    assert len(set(found.values())) == 6
    assert all(re.fullmatch("[0-9a-f]{64}", password) for password in found.values())
    # Fixed: else every app would be locked out by an upgrade of archy, until its next restart.
    assert bitcoin_logins.password(OLD, "lnd") == "33a5622b1c4ba8650e544531c4dcadc2bbd66fa2bb563d9d045a984bd47df360"


PROVIDER = app_of(
    """\
generated_secrets: [{name: bitcoin-rpc-password, kind: hex32}]
generated_files: [{path: /var/lib/archipelago/web/f, template: t.j2, overwrite: true}]""",
    "provides: bitcoin",
    beside=frozenset({"t.j2"}),
)
CONSUMER = app_of(
    'secret_env: [{key: URL, template: "{{ rpc.user }}:{{ rpc.password }}@{{ BITCOIN_HOST }}"}]',
    "bitcoin_rpc: {rpcwhitelist: [getblock, uptime]}",
)
TEMPLATE = """\
{% for login in rpc_logins() %}
{{ login.name }} {{ login.rpcauth | length }} {{ (login.rpcwhitelist or []) | join(",") }}
{% endfor %}
"""


def known(*apps: tuple[str, App]) -> Context:
    summaries = {app_id: facts.summary(app) for app_id, app in apps}
    return Context(FACTS.owner, FACTS.settings, {}, frozenset(summaries), summaries)


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({"bitcoin-rpc-password": NEW}, "archipelago 1 \nlnd 1 getblock,uptime\n"),
        (
            {"bitcoin-rpc-password": NEW, "bitcoin-rpc-password.previous": OLD},
            "archipelago 2 \nlnd 2 getblock,uptime\n",
        ),
    ],
)
def test_the_provider_s_template(values: dict[str, str], text: str) -> None:
    everything = known(("bitcoin", PROVIDER), ("lnd", CONSUMER), ("web", app_of()))
    one = material(PROVIDER, everything, templates={"t.j2": TEMPLATE}, values=values)
    assert render.content(one, PROVIDER.files[0]) == text


def test_who_does_not_declare_the_secret_sees_no_logins() -> None:
    app = app_of(
        "generated_files: [{path: /var/lib/archipelago/web/f, template: t.j2}]",
        "bitcoin_rpc: {rpcwhitelist: [uptime]}",
        beside=frozenset({"t.j2"}),
    )
    values = {"bitcoin-rpc-password": NEW}
    for template in (TEMPLATE, "{{ secret('bitcoin-rpc-password') }}", "{{ rpcauth('x', 'bitcoin-rpc-password') }}"):
        with pytest.raises(CannotDerive, match=r"secret bitcoin-rpc-password is not declared in the app's generated_s"):
            render.content(material(app, templates={"t.j2": template}, values=values), app.files[0])


def test_the_consumer_has_its_own_login() -> None:
    everything = known(("bitcoin", PROVIDER), ("web", CONSUMER))
    values = {"bitcoin-rpc-password": NEW, "bitcoin-rpc-password.previous": OLD}
    made = render.secret_environment(material(CONSUMER, everything, values=values))
    assert made == {"URL": f"web:{bitcoin_logins.password(NEW, 'web')}@web"}


def test_an_app_that_makes_no_calls_has_no_login() -> None:
    app = app_of('secret_env: [{key: URL, template: "{{ rpc.user }}"}]')
    with pytest.raises(CannotDerive, match="secret_env URL: 'rpc' is undefined"):
        render.secret_environment(material(app))
