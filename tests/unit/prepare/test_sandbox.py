# SPDX-License-Identifier: MIT
"""Files from templates and placeholders: what they may know, and that they can do nothing else."""

from __future__ import annotations

import pytest
from support import app_of, material

from archy.bitcoin import logins
from archy.errors import CannotDerive
from archy.host import secrets as host_secrets
from archy.manifest.model import App
from archy.prepare import files, sandbox
from archy.prepare import render as prepare_render

HOME = "/var/lib/archipelago"


def filed(**fields: str) -> App:
    """An app with one generated file."""
    fields = {"path": f"{HOME}/web/file", **fields}
    entry = ", ".join(f"{key}: {value}" for key, value in fields.items())
    secrets = "generated_secrets: [{name: password, kind: hex32}]"
    return app_of(f"generated_files: [{{{entry}}}]\n{secrets}", beside=frozenset({"t.j2", "t"}))


def render(text: str, template: str = "t.j2", **values: str) -> str:
    app = filed(template=template)
    return prepare_render.content(material(app, templates={template: text}, values=values), app.files[0])


@pytest.mark.parametrize(
    ("text", "made"),
    [
        ("{{ secret('password') }}\n", "s3cret\n"),
        ("{{ rpcauth('u', 'password') }}", logins.rpcauth("u", "s3cret")),
        ("{{ basic_auth('u', 'password') }}", host_secrets.basic_auth("u", "s3cret")),
        ("{{ node.bitcoin.network }}", "main"),
        ("{{ network.subnet }} {{ network.gateway }}", "10.89.0.0/24 10.89.0.1"),
        ("{{ app.id }} {{ app.name }} {{ app.version }}", "web Web 1.0.0"),
        ("{% if 'bitcoin-knots' in installed %}yes{% endif %}", "yes"),
        ("{% for x in [1, 2] %}\n{{ x }}\n{% endfor %}", "1\n2\n"),
        ("<&>\"'", "<&>\"'"),
    ],
)
def test_templates(text: str, made: str) -> None:
    assert render(text, password="s3cret") == made


def test_a_file_that_is_no_template_is_copied() -> None:
    assert render("{{ not.a.template }} ${x}", "t") == "{{ not.a.template }} ${x}"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{{ ().__class__ }}", "t.j2: access to attribute '__class__' of 'tuple' object is unsafe."),
        (
            "{{ ().__class__.__mro__[1].__subclasses__() }}",
            "t.j2: access to attribute '__class__' of 'tuple' object is unsafe.",
        ),
        ("{{ secret.__globals__ }}", "t.j2: access to attribute '__globals__' of 'function' object is unsafe."),
        ("{{ ''['__class__'] }}", "unsafe"),
        ("{{ '{0.__class__}'.format(1) }}", "unsafe"),
        ("{{ node.bitcoin.update({'network': 'x'}) }}", "unsafe"),
        ("{{ ''|attr('__class__') }}", "t.j2: "),
        ("{% include '/etc/shadow' %}", "no loader for this environment specified"),
        ("{{ cycler() }}", "t.j2: 'cycler' is undefined"),
        ("{{ nothing }}", "t.j2: 'nothing' is undefined"),
        ("{{ node.nothing }}", "has no attribute 'nothing'"),
        ("a\n{% if %}", "t.j2:2: Expected an expression, got 'end of statement block'"),
        ("{{ secret('other') }}", "t.j2: secret other is not declared in the app's generated_secrets"),
        ("{{ 1 / 0 }}", "t.j2: ZeroDivisionError: division by zero"),
        ("{{ range(1000000) }}", "t.j2: 'range' is undefined"),
        ("{{ secret() }}", "t.j2: "),
        ("{{ [1][5] }}", "t.j2: "),
    ],
)
def test_templates_that_are_refused(text: str, message: str) -> None:
    with pytest.raises(CannotDerive) as error:
        render(text, password="s3cret")
    assert message in str(error.value)
    assert "s3cret" not in str(error.value)


@pytest.mark.parametrize(
    "text",
    [
        "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
        "{{ " + "(" * 3000 + "1" + ")" * 3000 + " }}",
        "{{ 'a' * 9999999999999 }}",
    ],
)
def test_templates_that_exhaust_something_are_refused(text: str) -> None:
    with pytest.raises(CannotDerive):
        render(text)


def test_a_template_that_takes_for_ever_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox, "_SECONDS", 1)
    loops = "{% for a in 'x' * 100000 %}" * 3 + "{% endfor %}" * 3
    with pytest.raises(CannotDerive, match=r"^t\.j2: takes longer than 1 s, or too much memory \(ended by SIGXCPU\)$"):
        render(loops)


def test_a_template_that_makes_too_much_is_refused() -> None:
    with pytest.raises(CannotDerive, match=r"^t\.j2: makes more than 16 MiB$"):
        render("{{ 'a' * 17000000 }}")


def test_templates_that_make_no_text_are_refused() -> None:
    app = filed(template="t.j2")
    with pytest.raises(CannotDerive):
        files.files(material(app, templates={"t.j2": '{{ "\\ud800" }}'}))


@pytest.mark.parametrize(
    ("text", "made"),
    [
        ("'a={{secret:password}}'", "a=s3cret"),
        ("'{{NETWORK_GATEWAY}}'", "10.89.0.1"),
        ("'{{ NETWORK_GATEWAY }}'", "10.89.0.1"),
        ("'{% raw %} {x} }}'", "{% raw %} {x} }}"),
        ("''", ""),
    ],
)
def test_placeholders(text: str, made: str) -> None:
    app = filed(content=text)
    assert prepare_render.content(material(app, values={"password": "s3cret"}), app.files[0]) == made


@pytest.mark.parametrize("text", ["{{HOST}}", "{{}}", "{{ secret }}", "{{node.bitcoin.network}}"])
def test_unknown_placeholders(text: str) -> None:
    """The rules refuse them in a manifest; an accepted one of an older archy may have them all the same."""
    with pytest.raises(CannotDerive) as error:
        prepare_render.substitute(material(app_of(), values={"password": "s3cret"}), f"{HOME}/web/file", text)
    assert str(error.value) == f"{HOME}/web/file: unknown placeholder {{{{{text.strip('{ }')}}}}}"


@pytest.mark.parametrize(("kind", "text"), [("hex32", "{{ secret:password }}"), ("bcrypt", "{{secret:password.pw}}")])
def test_declared_secrets_are_accepted(kind: str, text: str) -> None:
    secrets = f"generated_secrets: [{{name: password, kind: {kind}}}]"
    app_of(f"{secrets}\ngenerated_files: [{{path: {HOME}/web/f, content: '{text}'}}]")
