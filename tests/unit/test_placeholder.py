# SPDX-License-Identifier: MIT
"""Placeholders: which names a text holds, and what comes in their place."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from archy import placeholder


@pytest.mark.parametrize(
    ("text", "names", "made"),
    [
        ("", [], ""),
        ("plain { } {x} text", [], "plain { } {x} text"),
        ("{{A}}", ["A"], "<A>"),
        ("http://{{ HOST_IP }}:80/{{ A }}{{A}}", ["HOST_IP", "A", "A"], "http://<HOST_IP>:80/<A><A>"),
        ("{{ secret:a-b.pw }}", ["secret:a-b.pw"], "<secret:a-b.pw>"),
        ("{{}} {{ }}", ["", ""], "<> <>"),
        ("{{{A}}}", ["A"], "{<A>}"),
        ("{{a b}}", ["a b"], "<a b>"),
        ("{{\nA\n}}", ["A"], "<A>"),
    ],
)
def test_names_and_values(text: str, names: list[str], made: str) -> None:
    assert placeholder.names(text) == names
    assert placeholder.substitute(text, lambda name: f"<{name}>") == made


@pytest.mark.parametrize("text", ["{{", "}}", "{{A", "A}}", "{{A}", "{{A}}}}", "{{A}} {{", "{{{{A}}", "}}{{"])
def test_unbalanced(text: str) -> None:
    with pytest.raises(ValueError, match="has double braces that are not balanced"):
        placeholder.names(text)


@pytest.mark.parametrize(
    ("text", "names"), [('{"a": {"b": {{A}}}}', ["A"]), ('{"a": {"b": "{{A}}"}}', ["A"]), ("}}", [])]
)
def test_the_ends_of_nested_mappings(text: str, names: list[str]) -> None:
    assert placeholder.names(text, nested=True) == names
    with pytest.raises(ValueError, match="has double braces"):
        placeholder.names('{"a": {{', nested=True)


def test_a_value_is_not_looked_into() -> None:
    assert placeholder.substitute("{{A}}{{B}}", {"A": "{{B}}", "B": "\\1"}.__getitem__) == "{{B}}\\1"


@given(st.text("{} Ax", max_size=12))
def test_what_is_accepted_leaves_no_double_braces(text: str) -> None:
    try:
        placeholder.names(text)
    except ValueError:
        return
    made = placeholder.substitute(text, lambda _: "")
    assert "{{" not in made
    assert "}}" not in made
