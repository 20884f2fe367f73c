# SPDX-License-Identifier: MIT
"""Values of an app's environment, what templates know of host and apps, and an operator's own files in them."""

from __future__ import annotations

from dataclasses import replace

import pytest
from support import FACTS, app_of, material

from archy.apps import facts
from archy.errors import CannotDerive
from archy.host.steps import Directory
from archy.manifest.model import App, SecretEnv
from archy.prepare import files, render

HOST = {"HOST_IP": "192.168.1.7", "HOST_MDNS": "home.local", "DISK_GB": "2000"}
PROVIDER = app_of(app="provides: bitcoin\ncompanion_of: parent")
KNOWN = replace(FACTS, host=HOST, apps={"other": facts.summary(app_of()), "knots": facts.summary(PROVIDER)})
ALL = "{{HOST_IP}} {{ HOST_MDNS }} {{DISK_GB}} {{BITCOIN_HOST}}"


def derived(template: str) -> App:
    return app_of(f"derived_env: [{{key: A, template: '{template}'}}, {{key: B, template: x}}]")


def variable(template: str) -> App:
    return app_of(f"secret_env: [{{key: A, template: '{template}'}}]\ngenerated_secrets: [{{name: p, kind: hex32}}]")


def test_derived_environment() -> None:
    made = {"A": "192.168.1.7 home.local 2000 archy-web", "B": "x"}
    assert render.environment(material(derived(ALL), KNOWN)) == made
    (file,) = files.files(material(derived(ALL), KNOWN))
    assert (file.path, file.content) == (
        "/run/archipelago/env/web.env",
        b"A=192.168.1.7 home.local 2000 archy-web\nB=x\n",
    )
    assert (file.uid, file.gid, file.mode) == (0, 0, 0o644)


@pytest.mark.parametrize("value", ["1.2.3.4\nB=evil", "\x1b[31m", "a\tb", "a\0", "a\u2028b", "a\r"])
def test_a_value_is_one_line(value: str) -> None:
    """A second line would be another variable."""
    odd = replace(KNOWN, host={**HOST, "HOST_IP": value})
    with pytest.raises(CannotDerive, match=r"^A: the value is not one line of text$"):
        render.environment(material(derived("{{HOST_IP}}"), odd))
    app = app_of("secret_env: [{key: A, secret_file: p}]")
    with pytest.raises(CannotDerive, match=r"^A: the value is not one line of text$"):
        render.secret_environment(material(app, values={"p": value}))


@pytest.mark.parametrize("template", ["a\nb", "{{ secret('p') }}\n", "{{ 'a' ~ '\\t' }}", "{{ '\\x00' }}"])
def test_a_secret_variable_is_one_line(template: str) -> None:
    app = replace(variable("x"), secret_env=(SecretEnv("A", template=template),))
    with pytest.raises(CannotDerive) as error:
        render.secret_environment(material(app, values={"p": "s3cret"}))
    assert str(error.value) == "A: the value is not one line of text"


@pytest.mark.parametrize(
    ("template", "made"),
    [
        ('{{ secret("p") }}', "s3cret"),
        ('{{ app.id }}:{{ secret("p") }}@{{ BITCOIN_HOST }}', "web:s3cret@archy-web"),
        ("{{ HOST_IP }} {{ NETWORK_GATEWAY }} {{ node.bitcoin.network }}", "192.168.1.7 10.89.0.1 main"),
        ('$ % " {} \\ ₿', '$ % " {} \\ ₿'),
    ],
)
def test_secret_environment(template: str, made: str) -> None:
    one = material(variable(template), KNOWN, values={"p": "s3cret"})
    assert render.secret_environment(one) == {"A": made}
    (file,) = files.files(one)
    assert (file.path, file.content) == ("/run/archipelago/secret-env/web/A", made.encode())
    assert (file.uid, file.gid, file.mode) == (990, 989, 0o400)
    assert "s3cret" not in f"{file} {file!r}"


def test_the_file_of_another_app_as_a_variable() -> None:
    """`secret_file` may name what another app, or a person, has put among the secrets."""
    app = app_of("secret_env: [{key: A, secret_file: theirs}]")
    assert render.secret_environment(material(app, values={"theirs": "x"})) == {"A": "x"}
    with pytest.raises(CannotDerive) as error:
        render.secret_environment(material(app))
    assert str(error.value) == "secret_env A: /var/lib/archipelago/secrets/theirs is not there"


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ('{{ secret("q") }}', "secret_env A: secret q is not declared in the app's generated_secrets"),
        ("{{ rpc.password }}", "secret_env A: 'rpc' is undefined"),
        ("{{ BITCOIN_HOST }}", "secret_env A: 'BITCOIN_HOST' is undefined"),
        ("{% if", "secret_env A:1: "),
    ],
)
def test_secret_variables_that_are_refused(template: str, message: str) -> None:
    with pytest.raises(CannotDerive) as error:
        render.secret_environment(material(variable(template), values={"p": "s3cret"}))
    assert str(error.value).startswith(message)
    assert "s3cret" not in str(error.value)


def test_without_bitcoin() -> None:
    with pytest.raises(CannotDerive) as error:
        render.environment(material(derived(ALL), replace(KNOWN, apps={"other": facts.summary(app_of())})))
    assert str(error.value) == "A: BITCOIN_HOST: no app that provides bitcoin is installed"


def test_a_network_of_its_own_has_no_gateway_that_we_know() -> None:
    app = app_of(
        "network: pasta\ngenerated_files: [{path: /var/lib/archipelago/web/f, content: '{{NETWORK_GATEWAY}}'}]"
    )
    with pytest.raises(CannotDerive, match=r"unknown placeholder \{\{NETWORK_GATEWAY\}\}"):
        render.content(material(app), app.files[0])


def test_where_the_environment_is() -> None:
    app = app_of("derived_env: [{key: A, template: x}]\nsecret_env: [{key: B, template: y}]")
    assert files.directories(app, FACTS.owner) == [
        Directory("/run/archipelago/env", 0, 0, 0o755),
        Directory("/run/archipelago/secret-env/web", 990, 989, 0o700),
    ]
    assert files.file_paths(app) == ["/run/archipelago/env/web.env", "/run/archipelago/secret-env/web/B"]


OWN = app_of(
    """\
generated_files:
- {path: /var/lib/archipelago/web/main.conf, template: t.j2, overwrite: true}
- {path: /var/lib/archipelago/web/user.conf, content: "# yours\\n"}""",
    beside=frozenset({"t.j2"}),
)


def test_the_operator_s_own_file_in_a_template() -> None:
    made = render.content(
        material(OWN, templates={"t.j2": "{{ own('user.conf') }}[end]"}, own={"user.conf": "a=1\n"}), OWN.files[0]
    )
    assert made == "a=1\n[end]"


@pytest.mark.parametrize("name", ["main.conf", "other.conf", "../web/user.conf", "/etc/shadow"])
def test_no_other_file_in_a_template(name: str) -> None:
    with pytest.raises(CannotDerive, match="is not one of the app's generated_files without overwrite"):
        render.content(
            material(OWN, templates={"t.j2": f"{{{{ own('{name}') }}}}"}, own={"user.conf": ""}), OWN.files[0]
        )
