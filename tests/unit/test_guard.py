# SPDX-License-Identifier: MIT
"""The guard around every unit test does what it says (conftest.py)."""

from __future__ import annotations

import os
import socket
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.mark.parametrize(
    "act",
    [
        pytest.param(lambda: subprocess.run(["true"], check=True), id="program"),
        pytest.param(lambda: os.system("true"), id="shell"),
        pytest.param(lambda: socket.create_connection(("127.0.0.1", 9)), id="network"),
        pytest.param(lambda: Path("/tmp/outside").write_text("x"), id="file"),
        pytest.param(lambda: Path("/tmp/outside").mkdir(), id="directory"),
        pytest.param(lambda: os.symlink("x", "/tmp/outside"), id="link"),
        pytest.param(lambda: Path("/tmp/outside").unlink(), id="removal"),
        pytest.param(lambda: Path("/etc/passwd").chmod(0o644), id="mode"),
    ],
)
def test_what_no_unit_test_may_do(act: Callable[[], object]) -> None:
    with pytest.raises(BaseException, match=r"without pytest.mark.programs|outside tmp_path") as refused:
        act()
    assert not isinstance(refused.value, Exception)
    assert not os.path.lexists("/tmp/outside")


@pytest.mark.programs
def test_what_a_marked_test_may_do(tmp_path: Path) -> None:
    subprocess.run(["true"], check=True)
    with tempfile.TemporaryDirectory() as directory:
        assert Path(directory).parent == tmp_path


def test_the_language_is_fixed() -> None:
    assert {name: value for name, value in os.environ.items() if name in ("LC_ALL", "LANG", "LANGUAGE")} == {
        "LC_ALL": "C.UTF-8"
    }
