# SPDX-License-Identifier: MIT
"""Our own templates, in /usr/share/archy/templates."""

from __future__ import annotations

import functools
from typing import Any

from archy import paths


@functools.cache
def _environment(directory: str) -> Any:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    return Environment(
        loader=FileSystemLoader(directory),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,  # unit files, not HTML; every value is quoted before it comes here
    )


def render(root: str, template: str, **values: Any) -> str:
    """The text of one of our own templates."""
    text: str = _environment(paths.under(root, paths.TEMPLATES)).get_template(template).render(**values)
    return text
