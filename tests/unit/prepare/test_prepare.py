# SPDX-License-Identifier: MIT
"""Passes: what one app says of itself changes the files of another, what fails is not tried in vain, dry runs."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable
from typing import Any

import pytest
from support import Node, app_text, tree

from archy.apps import accepted, facts
from archy.bitcoin import logins
from archy.prepare import prepare, stamps
from archy.units import build

pytestmark = [
    pytest.mark.programs,
    pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files to the service user"),
]

D = "/var/lib/archipelago"
SECRET = "generated_secrets: [{name: p, kind: hex16}]"


def filed(app_id: str, content: str) -> str:
    return f"generated_files: [{{path: {D}/{app_id}/f, overwrite: true, {content}}}]"


PROVIDER = app_text(
    "btc",
    f"""\
generated_secrets: [{{name: bitcoin-rpc-password, kind: hex32, rotatable: true}}]
{filed("bitcoin", "template: t.j2")}""",
    "provides: bitcoin",
)
LOGINS = """\
{% for login in rpc_logins() %}
{{ login.name }}={{ login.rpcauth | join(',') }}/{{ (login.rpcwhitelist or ['*']) | join(',') }}
{% endfor %}"""
CONSUMER = app_text(
    "user",
    "secret_env: [{key: URL, template: '{{ rpc.user }}:{{ rpc.password }}@{{ BITCOIN_HOST }}'}]",
    "bitcoin_rpc: {rpcwhitelist: [uptime]}\ndependencies: [{app_id: btc}]",
)
URL = "/run/archipelago/secret-env/user/URL"


@pytest.fixture
def provider(node: Node) -> Node:
    """A node with an app that others log in to."""
    node.app("btc", PROVIDER, **{"t.j2": LOGINS})
    assert node.prepare() == 0
    return node


def users(node: Node) -> list[str]:
    return re.findall(r"(?m)^(\w+)=", node.path(f"{D}/bitcoin/f").read_text())


def canonical(node: Node) -> str:
    return node.path(f"{D}/secrets/bitcoin-rpc-password").read_text().strip()


def test_a_consumer_changes_its_provider_s_file_in_the_same_call(provider: Node) -> None:
    assert users(provider) == ["archipelago"]
    provider.app("user", CONSUMER)
    assert provider.prepare() == 0
    assert provider.path(f"{D}/bitcoin/f").read_text().splitlines() == [
        f"archipelago={logins.rpcauth('archipelago', canonical(provider))}/*",
        f"user={logins.rpcauth('user', logins.password(canonical(provider), 'user'))}/uptime",
    ]
    assert provider.path(URL).read_text() == f"user:{logins.password(canonical(provider), 'user')}@btc"
    assert all(provider.is_fresh(name) for name in ("btc", "user", "@node"))


@pytest.mark.parametrize("names", [("user",), ("user", "btc"), ("btc", "user")])
def test_the_order_does_not_matter(provider: Node, names: tuple[str, ...]) -> None:
    """The consumer starts before anybody has looked at its provider: the next pass over that sees what has changed."""
    provider.app("user", CONSUMER)
    assert provider.prepare(*names) == 0
    assert users(provider) == (["archipelago", "user"] if "btc" in names else ["archipelago"])
    assert provider.is_fresh("btc") == ("btc" in names)
    assert provider.prepare("btc") == 0
    assert users(provider) == ["archipelago", "user"]


def test_a_consumer_that_goes_or_calls_more(provider: Node) -> None:
    manifest = provider.app("user", CONSUMER)
    provider.prepare()
    manifest.write_text(CONSUMER.replace("[uptime]", "[getblock, uptime]"))
    provider.prepare()
    assert provider.path(f"{D}/bitcoin/f").read_text().endswith("/getblock,uptime\n")
    manifest.unlink()
    manifest.parent.rmdir()
    provider.prepare()
    assert users(provider) == ["archipelago"]


def test_a_consumer_that_turns_bad_keeps_its_login(provider: Node) -> None:
    provider.app("user", CONSUMER)
    provider.prepare()
    provider.app("user", "app: 1")
    assert provider.prepare() == 0
    assert users(provider) == ["archipelago", "user"]


def test_another_implementation_of_the_provider(provider: Node) -> None:
    """BITCOIN_HOST is whichever is installed."""
    provider.app("user", CONSUMER)
    provider.prepare()
    provider.path("/etc/archy/apps/btc").rename(provider.path("/etc/archy/apps/core"))
    provider.app("core", PROVIDER.replace("id: btc", "id: core"))
    assert provider.prepare() == 0
    assert provider.path(URL).read_text().endswith("@core")


def test_a_consumer_without_a_provider_is_told(node: Node) -> None:
    node.app("user", CONSUMER)
    (said,) = node.failures().values()
    assert said == "secret_env URL: 'BITCOIN_HOST' is undefined"
    node.app("btc", PROVIDER, **{"t.j2": LOGINS})
    assert node.failures() == {}


def test_both_are_let_in_while_a_rotation_lasts(provider: Node) -> None:
    provider.app("user", CONSUMER)
    provider.prepare()
    old, new = canonical(provider), "f" * 64
    provider.write(f"{D}/secrets/bitcoin-rpc-password.previous", f"{old}\n").chmod(0o600)
    provider.path(f"{D}/secrets/bitcoin-rpc-password").write_text(f"{new}\n")
    assert provider.prepare() == 0
    assert provider.path(f"{D}/bitcoin/f").read_text().splitlines()[1] == (
        f"user={','.join(logins.rpcauth('user', logins.password(value, 'user')) for value in (new, old))}/uptime"
    )
    assert logins.password(new, "user") in provider.path(URL).read_text()
    provider.path(f"{D}/secrets/bitcoin-rpc-password.previous").unlink()
    assert provider.prepare() == 0
    assert "," not in provider.path(f"{D}/bitcoin/f").read_text()


def later(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    now = time.time() + seconds
    monkeypatch.setattr(time, "time", lambda: now)


class Counted:
    """Counts the apps that are built."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.apps: list[str] = []
        real = build.build

        def counting(root: str, sources: Any, *rest: Any) -> Any:
            todo = list(sources)
            self.apps += [source.id for source in todo]
            return real(root, todo, *rest)

        monkeypatch.setattr(build, "build", counting)


BAD = {
    "manifest": ("app: 1", {}),
    "template": (app_text("web", filed("web", "template: t.j2")), {"t.j2": "{{ no }}"}),
    "no-ids": (app_text("web", filed("web", "content: x, owner: 70000")), {}),
}


@pytest.mark.parametrize("bad", BAD)
def test_what_fails_is_not_tried_in_vain(
    node: Node, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], bad: str
) -> None:
    text, beside = BAD[bad]
    node.app("web", text, **beside)
    node.app("good", app_text("good"))
    first = node.failures()
    assert list(first) == ["web"]
    assert stamps.fresh(node.name, "good") is not None
    counted = Counted(monkeypatch)
    capsys.readouterr()
    assert node.failures() == node.failures("web") == first
    assert (counted.apps, capsys.readouterr().err) == ([], "")
    assert node.failures("web", retry_failed=True) == first
    assert counted.apps == ["web"]
    assert "web: not prepared: " in capsys.readouterr().err
    later(monkeypatch, 301)
    assert node.failures() == first
    assert counted.apps == ["web", "web"]


@pytest.mark.parametrize("bad", BAD)
def test_what_is_mended_is_tried_at_once(node: Node, bad: str) -> None:
    text, beside = BAD[bad]
    node.app("web", text, **beside)
    assert node.prepare() == 1
    if bad == "template":
        node.write("/etc/archy/apps/web/t.j2", "x")
    elif bad == "no-ids":
        for name in ("subuid", "subgid"):
            node.write(f"/etc/{name}", "archipelago:100000:100000\n")
    else:
        node.app("web")
    assert node.prepare() == 0
    assert node.is_fresh("web")


def test_a_disk_that_is_full_is_tried_every_time(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    """What may be well again without a trace is not remembered."""
    node.app("web", app_text("web", filed("web", "content: x")))

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("archy.prepare.apply.apply", full)
        assert "No space left on device" in node.failures()["web"]
    assert not node.is_fresh("web")
    assert node.failures() == {}
    assert node.path(f"{D}/web/f").exists()


def prepared(node: Node) -> None:
    node.prepare()


def tampered(node: Node) -> None:
    node.prepare()
    node.write(f"{D}/web/f", "tampered")
    node.path(f"{D}/secrets/p").chmod(0o644)
    node.write("/etc/archy/node.yml", "bitcoin: {network: regtest}")
    node.app("web", app_text("web", f"{SECRET}\n{filed('web', 'template: t.j2')}", "stop_grace_secs: 5"))


@pytest.mark.parametrize("before", [lambda _: None, prepared, tampered], ids=["first", "nothing", "tampered"])
def test_a_dry_run_says_the_same_and_writes_nothing(
    node: Node, capsys: pytest.CaptureFixture[str], before: Callable[[Node], None]
) -> None:
    node.app("web", app_text("web", f"{SECRET}\n{filed('web', 'template: t.j2')}"), **{"t.j2": "{{ secret('p') }}"})
    node.app("other", app_text("other", f"{SECRET}\n{filed('other', 'content: x')}"))
    node.app("bad", "app: 1")
    before(node)
    capsys.readouterr()
    node.path("/run/archy").mkdir(exist_ok=True)
    node.write("/run/archy/lock", "")

    def everything() -> dict[str, Any]:
        found = [path for path in node.root.rglob("*") if path.name != "lock"]
        return {str(path): (path.lstat().st_mode, path.lstat().st_mtime_ns) for path in found} | tree(node.root)

    was = everything()
    planned: prepare.Planned = {}
    said = prepare.prepare(node.name, ["bad", "other", "web"], planned=planned)
    dry = capsys.readouterr()
    assert everything() == was
    assert dry.err == ""
    assert prepare.prepare(node.name, ["bad", "other", "web"]) == said
    real = capsys.readouterr()
    assert real.out == ""
    # The mode of a secret is put right once, by whoever comes first; in a dry run, nobody is the first.
    once = [line for line in dry.out.splitlines() if not re.fullmatch(r"(other|web): set owner and mode of .*", line)]
    assert once == real.err.splitlines()


def test_what_it_would_be_started_with_is_known_in_a_dry_run(provider: Node) -> None:
    provider.write("/etc/archy/apps/btc/t.j2", "other")
    planned: prepare.Planned = {}
    prepare.prepare(provider.name, ["btc"], planned=planned)
    kept = stamps.fresh(provider.name, "btc")
    assert kept is None
    provider.prepare()
    kept = stamps.fresh(provider.name, "btc")
    assert kept is not None
    assert planned == {"btc": kept["started"]}


def test_a_secret_is_on_the_disk_before_anybody_is_given_it(node: Node) -> None:
    """Two apps share a secret that is not there yet, and the first of them cannot be prepared."""
    node.app("a-bad", app_text("a-bad", f"{SECRET}\n{filed('a-bad', 'template: t.j2')}"), **{"t.j2": "{{ no }}"})
    node.app("web", app_text("web", f"{SECRET}\n{filed('web', "content: '{{secret:p}}'")}"))
    assert list(node.failures()) == ["a-bad"]
    assert node.path(f"{D}/web/f").read_text() == node.path(f"{D}/secrets/p").read_text().strip()


def test_a_secret_that_is_lost_while_a_template_is_bad(node: Node) -> None:
    secret = SECRET.replace("}", ", rotatable: true}")
    node.app("web", app_text("web", f"{secret}\n{filed('web', 'template: t.j2')}"), **{"t.j2": "{{ secret('p') }}"})
    node.prepare()
    node.write("/etc/archy/apps/web/t.j2", "{{ no }}")
    node.path(f"{D}/secrets/p").unlink()
    assert node.prepare() == 0
    assert node.path(f"{D}/web/f").read_text() == node.path(f"{D}/secrets/p").read_text().strip()


def test_last_good_versions_survive_a_folder_that_cannot_be_read(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    for app_id in ("web", "other"):
        node.app(app_id, app_text(app_id))
    node.prepare()
    before = tree(node.path("/etc/archy/accepted"))
    node.app("web", app_text("web") + "\n")
    real = accepted.digest

    def failing(directory: str, names: list[str]) -> str:
        if directory.endswith("apps/web"):
            raise OSError(5, "Input/output error")
        return real(directory, names)

    monkeypatch.setattr(accepted, "digest", failing)
    assert node.prepare() == 0
    after = tree(node.path("/etc/archy/accepted"))
    assert {name: after.get(name) for name in before if ".units" not in name} == {
        name: text for name, text in before.items() if ".units" not in name
    }


def test_units_of_what_has_changed_meanwhile_are_not_kept(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    node.app("web")
    real = build.build

    def meanwhile(*arguments: Any) -> Any:
        outcome = real(*arguments)
        node.app("web", app_text("web", app="stop_grace_secs: 77"))
        return outcome

    with monkeypatch.context() as patch:
        patch.setattr(prepare, "_ROUNDS", 1)
        patch.setattr(build, "build", meanwhile)
        assert node.prepare() == 0
    assert "archy-stop 77 " in node.generate()[0]["archy-web.service"]


def test_files_of_the_same_name_in_two_places_are_both_the_operator_s(node: Node) -> None:
    files = [f"{{path: {D}/web/{place}/own.conf, content: first}}" for place in ("a", "b", "c")]
    node.app("web", app_text("web", f"generated_files: [{', '.join(files)}]"))
    node.prepare()
    for place in ("a", "b", "c"):
        node.path(f"{D}/web/{place}/own.conf").write_text(f"edited {place}")
    node.app("web", app_text("web", f"generated_files: [{', '.join(files)}]") + "\n")
    assert node.prepare() == 0
    texts = [node.path(f"{D}/web/{place}/own.conf").read_text() for place in ("a", "b", "c")]
    assert texts == ["edited a", "edited b", "edited c"]


CERTIFIED = app_text(
    "web", f"generated_certs: [{{crt: {D}/web/tls.crt, key: {D}/web/tls.key, sans: ['{{{{HOST_MDNS}}}}']}}]\nuser: 5"
)


def test_certificates(node: Node, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    node.app("web", CERTIFIED)
    assert node.prepare() == 0
    found = {name: node.path(f"{D}/web/{name}").stat() for name in ("tls.crt", "tls.key")}
    assert [(one.st_uid, one.st_gid, one.st_mode & 0o777) for one in found.values()] == [
        (231076, 331076, 0o444),
        (231076, 331076, 0o400),
    ]
    key, crt = (node.path(f"{D}/web/{name}") for name in ("tls.key", "tls.crt"))
    before = key.read_bytes(), crt.read_bytes()
    capsys.readouterr()
    # A day later it is looked at again, and is right.
    later(monkeypatch, 86401)
    assert not node.is_fresh("web")
    assert node.prepare() == 0
    assert (key.read_bytes(), crt.read_bytes(), capsys.readouterr().err) == (*before, "")
    # Another name of the host is another certificate for the same key.
    real = facts.host
    monkeypatch.setattr(facts, "host", lambda root: {**real(root), "HOST_MDNS": "other.local"})
    assert node.prepare() == 0
    assert key.read_bytes() == before[0]
    assert crt.read_bytes() != before[1]
    assert f"web: write {D}/web/tls.crt (content differs)" in capsys.readouterr().err
    # A key that is lost is nobody's to make again: somebody may trust the certificate.
    key.unlink()
    assert node.failures() == {
        "web": f"{D}/web/tls.key: is missing; restore it, or remove {D}/web/tls.crt to have both made again"
    }
    crt.unlink()
    assert node.failures() == {}


@pytest.mark.parametrize(
    ("san", "message"),
    [("a b", "neither a DNS name nor an IP address"), ("{{BITCOIN_HOST}}", "generated_certs: BITCOIN_HOST: no app ")],
)
def test_certificates_that_nobody_can_make(node: Node, san: str, message: str) -> None:
    node.app("web", CERTIFIED.replace("{{HOST_MDNS}}", san))
    (said,) = node.failures().values()
    assert message in said
    assert not node.path(f"{D}/web/tls.key").exists()
