# SPDX-License-Identifier: MIT
"""Values arrive byte for byte: through our quoting, the real Quadlet, our rewriting, and systemd."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support import Node, app_text, exec_start, options, setting, systemd_words

from archy.units.quoting import Form, quote

pytestmark = pytest.mark.programs

NASTY = [
    "a b",
    " lead and trail ",
    '"quoted"',
    "'single'",
    "it's",
    "\\",
    "\\\\",
    "ends in \\",
    "\\n",
    "\\x41",
    "%",
    "%%",
    "%n %t %i",
    "100%",
    "$",
    "$$",
    "$HOME",
    "${HOME}",
    "$(id)",
    "`id`",
    "{}",
    "{{ x }}",
    "a\tb",
    "ünïcödé ₿ 🟠",
    "#no comment",
    ";",
    "a;b && c | d > e",
    "[Service]",
    "--privileged",
    "-",
    "key=value=more",
    "*?[a-z]",
    "!x",
    "~",
    "@x",
    "a\u200bb\u0301",
]


def yaml_text(text: str) -> str:
    """Text as YAML writes it in double quotes, all but plain ASCII escaped."""
    return '"' + "".join(char if char.isalnum() and char.isascii() else f"\\U{ord(char):08x}" for char in text) + '"'


def yaml_list(words: list[str]) -> str:
    return f"[{', '.join(map(yaml_text, words))}]"


def unit_of(node: Node, container: str = "", app: str = "", name: str = "Web") -> str:
    """The finished unit of an app that is good."""
    node.app("web", app_text("web", container, app).replace("name: Web", f"name: {yaml_text(name)}"))
    found, warnings = node.generate()
    assert warnings == []
    return found["archy-web.service"]


def check(node: Node, words: list[str]) -> None:
    """Words arrive as arguments, values of variables, entry point and health check."""
    variables = [f"K{index}={word}" for index, word in enumerate(words)]
    unit = unit_of(
        node,
        f"entrypoint: {yaml_list(['run', *words])}\ncustom_args: {yaml_list(words)}",
        f"environment: {yaml_list(variables)}\nhealth_check: {{type: exec, command: {yaml_list(['check', *words])}}}",
    )
    command = exec_start(unit)
    image = command.index("docker.io/library/nginx:1.26")
    assert command[image + 1 :] == words
    assert sorted(options(command[:image], "--env")) == sorted(variables)
    assert [json.loads(text) for text in options(command[:image], "--entrypoint")] == [["run", *words]]
    assert [json.loads(text) for text in options(command[:image], "--health-cmd")] == [["check", *words]]
    assert [json.loads(text) for text in options(command[:image], "--health-startup-cmd")] == [["check", *words]]


def test_nasty_words_arrive(node: Node) -> None:
    check(node, NASTY)


def test_empty_words_arrive_where_they_may(node: Node) -> None:
    """Not in custom_args: Quadlet's Exec= ends at an empty word, and what follows it would be lost."""
    words = ["-a", "", "-b"]
    unit = unit_of(
        node, f"entrypoint: {yaml_list(words)}", f"health_check: {{type: exec, command: {yaml_list(words)}}}"
    )
    command = exec_start(unit)
    assert [json.loads(text) for text in options(command, "--entrypoint") + options(command, "--health-cmd")] == [
        words
    ] * 2


def test_empty_values_arrive(node: Node) -> None:
    assert options(exec_start(unit_of(node, app="environment: [A=, B=2]")), "--env") == ["A=", "B=2"]


@pytest.mark.parametrize("char", ["\u00a0", "\u3000", "\u2003", "\u205f"])
def test_unicode_spaces_arrive(node: Node, char: str) -> None:
    check(node, [f"a{char}b"])


@pytest.mark.parametrize("char", ["\x85", "\u2028", "\u2029"])
def test_unicode_line_ends_arrive(node: Node, char: str) -> None:
    check(node, [f"a{char}b"])


# What a manifest may hold in a word: no control characters but the tab, and nothing that the tests above await.
TEXT = st.text(
    st.characters(exclude_categories=["Cs", "Cc", "Zs", "Zl", "Zp"], include_characters="\t \"'\\%$"),
    min_size=1,
    max_size=30,
)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(words=st.lists(TEXT, min_size=1, max_size=20))
def test_any_words_arrive(node: Node, words: list[str]) -> None:
    check(node, words)


def _unescaped(match: re.Match[str]) -> str:
    return {"t": "\t", "n": "\n"}.get(match[1], match[1])


def shown_words(text: str) -> list[str]:
    """The words of a command line as systemd shows it: quoted for a shell, `$$` not yet expanded."""
    words = re.findall(r'"(?:[^"\\]|\\.)*"|\S+', text)
    plain = [re.sub(r"\\(.)", _unescaped, word) for word in words]
    bare = [word[1:-1] if shown.startswith('"') else word for word, shown in zip(plain, words, strict=True)]
    return [word.replace("$$", "$") for word in bare]


def test_our_reader_is_systemd(tmp_path: Path) -> None:
    """The reader that these tests trust reads what systemd reads, as systemd itself tells."""
    lines = [
        " ".join(quote(word, Form.WORD) for word in [*NASTY, ""]),
        r"a%%b $$x \"x\\y\s 'single \' quote' x\x41\u00e4\t",
        "a''b",
    ]
    text = "".join(f"ExecStart=/bin/echo {line}\n" for line in lines)
    (tmp_path / "a.service").write_text(f"[Service]\nType=oneshot\n{text}")
    # systemd refuses to test as root, and nobody else may read our directory.
    command = ["setpriv", "--reuid=65534", "--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search"]
    command += ["/usr/lib/systemd/systemd", "--test", "--user", "--no-pager"]
    env = {**os.environ, "XDG_RUNTIME_DIR": "/tmp", "HOME": "/tmp", "SYSTEMD_UNIT_PATH": f"{tmp_path}:"}
    done = subprocess.run(
        [*command, "--unit=a.service"], env=env, capture_output=True, text=True, timeout=60, check=False
    )
    told = [
        part.partition("\n\t\t\t")[0].partition("\n\t\t→")[0]
        for part in done.stdout.split("Command Line: /bin/echo ")[1:]
    ]
    told = [part.partition("\n\t\tCPUAcc")[0] for part in told]
    assert [shown_words(part) for part in told] == [systemd_words(line) for line in lines]
    assert systemd_words(lines[0]) == [*NASTY, ""]


@pytest.mark.parametrize("text", ["$x", "%n", "a $ b", "'open", "%%%"])
def test_our_reader_refuses_what_systemd_would_expand(text: str) -> None:
    with pytest.raises(ValueError, match=r"single|open"):
        systemd_words(text)


@pytest.mark.parametrize(
    ("value", "form", "written"),
    [
        ("50 % of $x", Form.SETTING, "50 %% of $x"),
        ("50 % of $x", Form.ARGUMENT, "50 %% of $$x"),
        ("50 % of $x", Form.WORD, '"50 %% of $$x"'),
        ('a"b\\c', Form.SETTING, 'a"b\\c'),
        ('a"b\\c\nd\te\r', Form.WORD, '"a\\"b\\\\c\\nd\\te\\r"'),
        ("", Form.WORD, '""'),
    ],
)
def test_written(value: str, form: Form, written: str) -> None:
    assert quote(value, form) == written


@pytest.mark.parametrize("form", [Form.SETTING, Form.ARGUMENT])
@pytest.mark.parametrize("value", ["", " ", " a", "a ", "a\\", "a\nb", "a\tb", "\x7f", "a\n"])
def test_what_cannot_be_written_is_refused(value: str, form: Form) -> None:
    with pytest.raises(ValueError, match=r"control character|one line"):
        quote(value, form)


@pytest.mark.parametrize("value", ["\0", "\x1b", "\x7f"])
def test_control_characters_are_refused_in_words(value: str) -> None:
    with pytest.raises(ValueError, match="control character"):
        quote(value, Form.WORD)


@pytest.mark.parametrize(
    "name", ["50 % off", "a $HOME ${x}", "\\x41 \\ b", '"a"', "it's", "ä ₿", "; x", "# x", "a = b", "[Service]"]
)
def test_the_name_is_the_description(node: Node, name: str) -> None:
    unit = unit_of(node, name=name)
    assert setting(unit, "Description") == [name.replace("%", "%%")]


@pytest.mark.parametrize("name", ["100%", "a$b", "ä", "#a", "[a]"])
def test_volumes_arrive(node: Node, name: str) -> None:
    source = f"/var/lib/archipelago/web/{name}"
    volume = f"{{type: bind, source: {yaml_text(source)}, target: {yaml_text(f'/{name}')}}}"
    assert options(exec_start(unit_of(node, app=f"volumes: [{volume}]")), "-v") == [f"{source}:/{name}"]
