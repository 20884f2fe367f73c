# SPDX-License-Identifier: MIT
"""Unit tests have no network, run no program unless they say so, and write below their temporary directory only."""

from __future__ import annotations

import atexit
import errno
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

import hypothesis
import hypothesis.configuration
import pytest
from progress import Progress
from support import Node

sys.dont_write_bytecode = True
_STORAGE = tempfile.mkdtemp(prefix="hypothesis-")
hypothesis.configuration.set_hypothesis_home_dir(_STORAGE)
atexit.register(shutil.rmtree, _STORAGE)
hypothesis.settings.register_profile("archy", database=None, deadline=None, derandomize=True)
hypothesis.settings.load_profile("archy")


class Forbidden(BaseException):
    """A test did what no unit test may do. Not an Exception, so that no code under test can swallow it."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option that rewrites golden trees."""
    parser.addoption("--update-golden", action="store_true", help="rewrite tests/golden/*/expected from what comes out")


def pytest_configure(config: pytest.Config) -> None:
    """Register the marks of these tests, and what says how far they are."""
    config.pluginmanager.register(Progress(config, "unit"))
    config.addinivalue_line("markers", "programs: this unit test starts programs (Quadlet, systemd-analyze, ...)")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let the tests of the documentation run what reads it: man and bash."""
    for item in items:
        if item.path.name == "test_docs.py":
            item.add_marker("programs")


_allowed: Path | None = None  # the directory that the running test may write to; None between tests
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
_CHANGES = {"os.mkdir": 0, "os.rename": 1, "os.remove": 0, "os.rmdir": 0, "os.symlink": 1, "os.chmod": 0, "os.chown": 0}


def _audit(event: str, args: tuple[Any, ...]) -> None:
    if _allowed is None or (event != "open" and event not in _CHANGES):
        return
    if event == "open" and not (isinstance(args[2], int) and args[2] & _WRITING):
        return
    path = args[_CHANGES.get(event, 0)]
    name = os.fsdecode(path) if isinstance(path, str | bytes | os.PathLike) else ""
    # Descriptors, and paths relative to one, were opened under the same rule.
    if os.path.isabs(name) and not f"{name}/".startswith((f"{_allowed}/", f"{_STORAGE}/", "/dev/", "/proc/self/")):
        raise Forbidden(f"writes outside tmp_path: {event} {name}")


sys.addaudithook(_audit)


def _refuse(what: str) -> Any:
    def refusal(*args: object, **_options: object) -> NoReturn:
        raise Forbidden(f"{what} without pytest.mark.programs: {args[1:2]}")

    return refusal


_refuse_connection = _refuse("a network connection")


def _connect(self: socket.socket, address: object) -> None:
    """A host without a network: no route for a datagram, which is how archy asks for its address."""
    if self.type == socket.SOCK_DGRAM:
        raise OSError(errno.ENETUNREACH, "Network is unreachable")
    _refuse_connection(self, address)


@pytest.fixture(autouse=True)
def guard(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """Keep a test from the network, from other programs, and from the rest of the disk."""
    global _allowed
    monkeypatch.setattr(socket.socket, "connect", _connect)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    for name in ("LC_ALL", "LANG", "LANGUAGE", "NO_COLOR", "SYSTEMD_UNIT_PATH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("LC_ALL", "C.UTF-8")
    if request.node.get_closest_marker("programs") is None:
        monkeypatch.setattr(subprocess.Popen, "__init__", _refuse("a program"))
        monkeypatch.setattr(os, "system", _refuse("a program"))
    _allowed = None if request.config.getoption("--update-golden") else tmp_path
    yield
    _allowed = None


@pytest.fixture
def node(tmp_path: Path) -> Node:
    """A node's root directory with the catalogue, the service user and the real Quadlet, and no app installed."""
    root = tmp_path / "node"
    root.mkdir()
    return Node(root)
