# SPDX-License-Identifier: MIT
"""Placeholders: which names a text holds, and what comes in their place."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from archy.manifest import placeholders


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
    assert placeholders.names(text) == names
    assert placeholders.substitute(text, lambda name: f"<{name}>") == made


@pytest.mark.parametrize("text", ["{{", "}}", "{{A", "A}}", "{{A}", "{{A}}}}", "{{A}} {{", "{{{{A}}", "}}{{"])
def test_unbalanced(text: str) -> None:
    with pytest.raises(ValueError, match="has double braces that are not balanced"):
        placeholders.names(text)


@pytest.mark.parametrize(
    ("text", "names"), [('{"a": {"b": {{A}}}}', ["A"]), ('{"a": {"b": "{{A}}"}}', ["A"]), ("}}", [])]
)
def test_the_ends_of_nested_mappings(text: str, names: list[str]) -> None:
    assert placeholders.names(text, nested=True) == names
    with pytest.raises(ValueError, match="has double braces"):
        placeholders.names('{"a": {{', nested=True)


def test_a_value_is_not_looked_into() -> None:
    assert placeholders.substitute("{{A}}{{B}}", {"A": "{{B}}", "B": "\\1"}.__getitem__) == "{{B}}\\1"


@given(st.text("{} Ax", max_size=12))
def test_what_is_accepted_leaves_no_double_braces(text: str) -> None:
    try:
        placeholders.names(text)
    except ValueError:
        return
    made = placeholders.substitute(text, lambda _: "")
    assert "{{" not in made
    assert "}}" not in made
