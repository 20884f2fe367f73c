# SPDX-License-Identifier: MIT
"""Links and other things that the service user may put where root writes."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from archy.host import write as host_write

ME = (os.geteuid(), os.getegid())
NOBODY = 65534
PLANTED: dict[str, Callable[[Path], None]] = {
    "link": lambda path: path.symlink_to("../precious"),
    "fifo": lambda path: os.mkfifo(path, 0o644),
    "directory": lambda path: path.mkdir(0o755),
}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    path = tmp_path / "root"
    (path / "d").mkdir(parents=True)
    return path


def put(root: Path, path: str = "/d/f") -> None:
    host_write.replace_file(str(root), path, b"new", *ME, 0o640)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files to others")
@pytest.mark.parametrize("write", ["replace_file", "replace_link", "make_directory", "set_ownership", "remove"])
def test_a_link_of_another_user_is_refused(root: Path, write: str) -> None:
    outside = root / "outside"
    (outside / "e").mkdir(parents=True)
    (outside / "f").write_bytes(b"precious")
    (root / "d/link").symlink_to("/outside")
    os.lchown(root / "d/link", NOBODY, NOBODY)
    arguments: dict[str, tuple[Any, ...]] = {
        "replace_file": (b"new", 0, 0, 0o600),
        "replace_link": ("/x",),
        "make_directory": (0, 0, 0o755),
        "set_ownership": (1, 1, 0o600),
        "remove": (),
    }
    path = "/d/link/new" if write == "make_directory" else "/d/link/f"
    with pytest.raises(OSError, match=r"Not a directory|Too many levels"):
        getattr(host_write, write)(str(root), path, *arguments[write])
    assert sorted(os.listdir(outside)) == ["e", "f"]
    assert (outside / "f").read_bytes() == b"precious"
    assert (outside / "f").stat().st_uid == 0


@pytest.mark.parametrize("target", ["/outside", "../outside", "../d/../outside"])
def test_a_link_of_root_is_followed_within_the_root(root: Path, target: str) -> None:
    (root / "outside").mkdir()
    (root / "d/link").symlink_to(target)
    put(root, "/d/link/f")
    assert (root / "outside/f").read_bytes() == b"new"


def test_links_in_a_circle(root: Path) -> None:
    (root / "d/a").symlink_to("b")
    (root / "d/b").symlink_to("a")
    with pytest.raises(OSError, match="Too many levels of symbolic links"):
        put(root, "/d/a/f")


@pytest.mark.parametrize("kind", ["link", "fifo", "directory"])
def test_what_is_there_in_the_file_s_place(root: Path, kind: str) -> None:
    target = root / "d/f"
    (root / "precious").write_bytes(b"precious")
    PLANTED[kind](target)
    if kind == "directory":
        with pytest.raises(IsADirectoryError):
            put(root)
        return
    put(root)
    assert stat.S_ISREG(target.lstat().st_mode)
    assert (root / "precious").read_bytes() == b"precious"


@pytest.mark.parametrize("kind", ["link", "fifo"])
def test_the_owner_of_what_is_no_file_is_not_changed(root: Path, kind: str) -> None:
    target = root / "d/f"
    (root / "precious").write_bytes(b"precious")
    (root / "precious").chmod(0o644)
    PLANTED[kind](target)
    before = mode(target)
    with pytest.raises(OSError, match=r"neither a regular file nor a directory|Too many levels"):
        host_write.set_ownership(str(root), "/d/f", *ME, 0o600)
    assert (mode(target), mode(root / "precious")) == (before, 0o644)


def test_the_mode_of_a_directory_is_its_own(root: Path) -> None:
    target = root / "d/f"
    target.mkdir(mode=0o755)
    (target / "inside").write_bytes(b"")
    (target / "inside").chmod(0o644)
    host_write.set_ownership(str(root), "/d/f", *ME, 0o700)
    assert (target.stat().st_mode & 0o777, (target / "inside").stat().st_mode & 0o777) == (0o700, 0o644)
