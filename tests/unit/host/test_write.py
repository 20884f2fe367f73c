# SPDX-License-Identifier: MIT
"""Writes that a power cut, another user's link or an error cannot spoil."""

from __future__ import annotations

import os
import re
import stat
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from support import REPO

from archy.host import volatile
from archy.host import write as host_write
from archy.host.steps import Directory, File, Ownership, apply

ME = (os.geteuid(), os.getegid())
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files to others")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    path = tmp_path / "root"
    (path / "d").mkdir(parents=True)
    return path


def put(root: Path, path: str = "/d/f", content: bytes = b"new", mode: int = 0o640) -> None:
    host_write.replace_file(str(root), path, content, *ME, mode)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


@pytest.mark.parametrize("before", [None, b"", b"old", b"longer than the new content"])
def test_a_file_is_replaced_whole(root: Path, before: bytes | None) -> None:
    target = root / "d/f"
    if before is not None:
        target.write_bytes(before)
        target.chmod(0o777)
        other = root / "hardlink"
        os.link(target, other)
    put(root)
    assert (target.read_bytes(), mode(target), os.listdir(root / "d")) == (b"new", 0o640, ["f"])
    if before is not None:
        assert other.read_bytes() == before


@pytest.mark.parametrize("content", [b"", b"\0" * 3_000_000], ids=["empty", "large"])
def test_all_is_written(root: Path, content: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    write = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, view: write(descriptor, view[:70_001]))
    put(root, content=content)
    assert (root / "d/f").read_bytes() == content


class Cut(BaseException):
    """The power goes."""


CALLS = ["open", "write", "fchmod", "fsync", "rename", "unlink", "fstat", "close"]


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), Cut()], ids=["error", "cut"])
@pytest.mark.parametrize("fail_after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("number", range(4))
def test_the_old_or_the_new_content(
    root: Path, monkeypatch: pytest.MonkeyPatch, call: str, error: BaseException, fail_after: bool, number: int
) -> None:
    """Interrupted at any system call, before or after it was carried out."""
    target = root / "d/f"
    target.write_bytes(b"old")
    (root / "d/.archy-new-f").write_bytes(b"half of an earlier attempt")
    real: Callable[..., Any] = getattr(os, call)
    seen = 0

    def failing(*args: Any, **options: Any) -> Any:
        nonlocal seen
        seen += 1
        if seen == number + 1 and not fail_after:
            raise error
        result = real(*args, **options)
        if seen == number + 1:
            raise error
        return result

    with monkeypatch.context() as patch:
        patch.setattr(os, call, failing)
        with suppress(OSError, Cut):
            put(root)
    assert target.read_bytes() in (b"old", b"new")
    put(root)
    assert (target.read_bytes(), os.listdir(root / "d")) == (b"new", ["f"])


@pytest.mark.parametrize("existing", [True, False])
def test_synced_before_it_is_renamed(root: Path, monkeypatch: pytest.MonkeyPatch, existing: bool) -> None:
    done: list[str] = []
    for name in ("write", "fchmod", "fsync", "rename"):
        real = getattr(os, name)

        def record(*args: Any, _name: str = name, _real: Any = real, **options: Any) -> Any:
            kind = "" if _name == "rename" else " directory" if stat.S_ISDIR(os.fstat(args[0]).st_mode) else " file"
            done.append(f"{_name}{kind}")
            return _real(*args, **options)

        monkeypatch.setattr(os, name, record)
    if existing:
        (root / "d/f").touch()
    put(root)
    assert done == ["write file", "fchmod file", "fsync file", "rename", "fsync directory"]


@pytest.mark.programs
def test_synced_before_it_is_renamed_as_the_kernel_sees_it(root: Path) -> None:
    call = f"write.replace_file({str(root)!r}, '/d/f', b'new', {ME[0]}, {ME[1]}, 0o600)"
    program = f"from archy.host import write; {call}"
    strace = ["strace", "-e", "trace=/^(fsync|rename.*|fchmod|write|mkdir.*)$", "-y", sys.executable, "-c", program]
    done = subprocess.run(
        strace,
        env={"PYTHONPATH": str(REPO / "generator"), "PATH": os.defpath},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    calls = [re.match(r"(\w+)\(\d+<([^>]*)>", line) for line in done.stderr.splitlines() if str(root) in line]
    assert [(call[1], call[2].removeprefix(str(root))) for call in calls if call] == [
        ("write", "/d/.archy-new-f"),
        ("fchmod", "/d/.archy-new-f"),
        ("fsync", "/d/.archy-new-f"),
        ("renameat", "/d"),
        ("fsync", "/d"),
    ]


def test_no_one_else_reads_it_half_written(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    modes: list[int] = []
    write = os.write

    def record(descriptor: int, view: memoryview) -> int:
        modes.append(stat.S_IMODE(os.fstat(descriptor).st_mode))
        return write(descriptor, view)

    monkeypatch.setattr(os, "write", record)
    put(root, mode=0o644)
    assert modes == [0o600]
    assert mode(root / "d/f") == 0o644


def test_directories_are_made_and_left(root: Path) -> None:
    (root / "d").chmod(0o700)
    host_write.make_directory(str(root), "/d/a/b", *ME, 0o755)
    host_write.make_directory(str(root), "/d/a", *ME, 0o711)
    assert [mode(root / name) for name in ("d", "d/a", "d/a/b")] == [0o700, 0o755, 0o755]


@needs_root
def test_owners(root: Path) -> None:
    apply(
        str(root),
        [
            Directory("/new/dir", 5, 6, 0o750),
            File("/new/dir/f", b"x", 7, 8, 0o640, "missing"),
            File("/new/dir/g", b"x", 0, 0, 0o600, "missing"),
            Ownership("/new/dir/g", 9, 10, 0o604),
        ],
    )
    found = {name: (root / name).lstat() for name in ("new", "new/dir", "new/dir/f", "new/dir/g")}
    assert {name: (s.st_uid, s.st_gid, stat.S_IMODE(s.st_mode)) for name, s in found.items()} == {
        "new": (5, 6, 0o750),
        "new/dir": (5, 6, 0o750),
        "new/dir/f": (7, 8, 0o640),
        "new/dir/g": (9, 10, 0o604),
    }
    assert sorted(os.listdir(root / "new/dir")) == ["f", "g"]


def test_links_are_replaced_and_removed(root: Path) -> None:
    for target in ("dir/f", "dir/g"):
        host_write.replace_link(str(root), "/d/link", target)
        assert os.readlink(root / "d/link") == target
    for path in ("/d/link", "/d/link", "/d/nothing", "/nowhere/nothing"):
        host_write.remove(str(root), path)
    assert os.listdir(root / "d") == []


@pytest.mark.parametrize("call", ["mkdir", "fchmod", "rename", "fsync"])
@pytest.mark.parametrize("fail_after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("number", range(2))
def test_a_directory_is_there_as_it_must_be_or_not_at_all(
    root: Path, monkeypatch: pytest.MonkeyPatch, call: str, fail_after: bool, number: int
) -> None:
    """Interrupted at any system call: what exists is left as it is, so it must never be there half made."""
    real: Callable[..., Any] = getattr(os, call)
    seen = 0

    def failing(*args: Any, **options: Any) -> Any:
        nonlocal seen
        seen += 1
        if seen == number + 1 and not fail_after:
            raise Cut
        result = real(*args, **options)
        if seen == number + 1:
            raise Cut
        return result

    with monkeypatch.context() as patch:
        patch.setattr(os, call, failing)
        with pytest.raises(Cut):
            host_write.make_directory(str(root), "/d/a/b", *ME, 0o751)
    assert [mode(path) for path in (root / "d/a", root / "d/a/b") if path.exists()] in ([], [0o751], [0o751] * 2)
    host_write.make_directory(str(root), "/d/a/b", *ME, 0o751)
    assert [mode(root / name) for name in ("d/a", "d/a/b")] == [0o751, 0o751]
    assert (os.listdir(root / "d"), os.listdir(root / "d/a")) == (["a"], ["b"])


def test_no_descriptor_is_left_open(root: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    for path in ("/d/f", "/missing/f", "/d/f/g", "/d/x/../f"):
        try:
            put(root, path)
        except OSError:
            continue
    (root / "d/loop").symlink_to("loop")
    with pytest.raises(OSError, match="Too many"):
        put(root, "/d/loop/f")
    assert len(os.listdir("/proc/self/fd")) == before


def test_generated_output(tmp_path: Path) -> None:
    volatile.write(str(tmp_path / "u"), "longer text\n")
    volatile.write(str(tmp_path / "u"), "ä\n")
    volatile.link("../u", str(tmp_path / "l"))
    volatile.link("../other", str(tmp_path / "l"))
    assert ((tmp_path / "u").read_bytes(), os.readlink(tmp_path / "l")) == ("ä\n".encode(), "../u")
