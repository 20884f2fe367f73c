# SPDX-License-Identifier: MIT
"""What an app's container gets from folders of the node: from its own, and from the one for all, and nothing else."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from support import Node, app_of, app_text

from archy.errors import CannotDerive
from archy.host import stat
from archy.host.steps import Directory, File, Remove
from archy.manifest.model import App
from archy.prepare import copies
from archy.prepare.copies import Copied
from archy.prepare.reader import Reader

FILES = "/usr/share/archy/files"
COPIES = "/run/archipelago/files/web"
BESIDE = frozenset({"manifest.yml", "a.conf", "sub/b", "sub/deep/c"})


def copying(*sources: str) -> App:
    """An app whose hooks copy these, checked when they were still beside the manifest."""
    steps = ", ".join(f"{{copy_from_host: {{src: {src}, dest: /dest/{number}}}}}" for number, src in enumerate(sources))
    return app_of(app=f"hooks: {{pre_start: [{steps}]}}", beside=BESIDE)


@pytest.fixture
def folder(node: Node) -> Path:
    """The folder of the app, with all that its hooks copy."""
    above = node.app("web", **{"a.conf": "A", "sub/b": "B", "sub/deep/c": "C"}).parent
    (above / "sub/deep/c").chmod(0o755)
    node.write(f"{FILES}/ca/root.pem", "PEM")
    return above


def found(node: Node, folder: Path, *sources: str) -> list[Copied]:
    return copies.look(Reader(node.name), copying(*sources), str(folder))


def test_files_and_folders(node: Node, folder: Path) -> None:
    assert found(node, folder, "a.conf", "sub", f"{FILES}/ca", f"{FILES}/ca/root.pem", "sub/deep") == [
        Copied(0, "", b"A", False),
        Copied(1, "b", b"B", False),
        Copied(1, "deep/c", b"C", True),
        Copied(2, "root.pem", b"PEM", False),
        Copied(3, "", b"PEM", False),
        Copied(4, "c", b"C", True),
    ]
    assert found(node, folder) == []


def test_where_the_copies_are(node: Node, folder: Path) -> None:
    """Anybody in the container may read them, whoever that is on the node, and nobody may write."""
    app = copying("a.conf", "sub")
    files = copies.copies(app, copies.look(Reader(node.name), app, str(folder)))
    assert files == [
        File(f"{COPIES}/0", b"A", 0, 0, 0o444, "wanted"),
        File(f"{COPIES}/1/b", b"B", 0, 0, 0o444, "wanted"),
        File(f"{COPIES}/1/deep/c", b"C", 0, 0, 0o555, "wanted"),
    ]
    assert copies.directories(files) == [
        Directory(COPIES, 0, 0, 0o755),
        Directory(f"{COPIES}/1", 0, 0, 0o755),
        Directory(f"{COPIES}/1/deep", 0, 0, 0o755),
    ]
    assert copies.directories([]) == []


def test_what_is_no_copy_any_more_goes(node: Node, folder: Path) -> None:
    app = copying("a.conf", "sub")
    files = copies.copies(app, copies.look(Reader(node.name), app, str(folder)))
    for file in files:
        node.write(file.path, "x")
    node.write(f"{COPIES}/1/old/d", "D")
    node.write(f"{COPIES}/2", "a file that was a folder's place")
    assert copies.gone(node.name, app, files) == [
        Remove(f"{COPIES}/1/old/d", "its source is gone"),
        Remove(f"{COPIES}/2", "its source is gone"),
    ]
    assert copies.gone(node.name, copying(), []) == [
        Remove(f"{COPIES}/{name}", "its source is gone") for name in ("0", "1/b", "1/deep/c", "1/old/d", "2")
    ]


def test_a_folder_in_the_place_of_a_file_is_said(node: Node, folder: Path) -> None:
    app = copying("a.conf")
    node.write(f"{COPIES}/0/b", "B")
    with pytest.raises(CannotDerive) as error:
        copies.gone(node.name, app, copies.copies(app, copies.look(Reader(node.name), app, str(folder))))
    assert str(error.value) == f"{COPIES}/0: was a folder and is to be a file; stop the app, and remove that"


@pytest.mark.parametrize(
    ("link", "source"),
    [("a.conf", "/etc/passwd"), ("a.conf", "../other/manifest.yml"), ("sub", "/etc"), ("sub", ".."), ("sub", "../..")],
)
def test_links_that_lead_out(node: Node, folder: Path, link: str, source: str) -> None:
    node.app("other", app_text("other"))
    path = folder / link
    path.rename(folder / "kept")
    path.symlink_to(source)
    with pytest.raises(CannotDerive) as error:
        found(node, folder, link)
    assert str(error.value) == f"{folder}/{link}: leads out of {folder}"


def test_links_in_a_path_that_lead_out(node: Node, folder: Path) -> None:
    (folder / "sub/deep").rename(folder / "kept")
    node.write("/srv/secret/c", "secret")
    (folder / "sub/deep").symlink_to(node.path("/srv/secret"))
    with pytest.raises(CannotDerive, match=r"/sub/deep/c: leads out of "):
        found(node, folder, "sub/deep/c")
    # Within a folder that is copied they are left out.
    assert found(node, folder, "sub") == [Copied(0, "b", b"B", False)]


@pytest.mark.parametrize("target", ["/etc/shadow", "/usr/share/archy/apps", "../files2"])
def test_links_that_lead_out_of_the_folder_for_all(node: Node, folder: Path, target: str) -> None:
    node.write("/usr/share/archy/files2/x", "x")
    node.path(f"{FILES}/ca/root.pem").unlink()
    node.path(f"{FILES}/ca").rmdir()
    node.path(f"{FILES}/ca").symlink_to(target)
    with pytest.raises(CannotDerive) as error:
        found(node, folder, f"{FILES}/ca")
    assert str(error.value) == f"{node.path(FILES)}/ca: leads out of {node.path(FILES)}"


def test_links_that_stay_within(node: Node, folder: Path) -> None:
    (folder / "a.conf").unlink()
    (folder / "a.conf").symlink_to("sub/b")
    assert found(node, folder, "a.conf") == [Copied(0, "", b"B", False)]


@pytest.mark.parametrize("source", ["a.conf", "sub"])
def test_what_is_missing(node: Node, folder: Path, source: str) -> None:
    (folder / source).rename(folder / "kept")
    with pytest.raises(CannotDerive) as error:
        found(node, folder, source)
    assert str(error.value) == f"{folder}/{source}: is not there, or is empty; hooks copy it to /dest/0"
    (folder / source).mkdir()
    with pytest.raises(CannotDerive, match=r"is not there, or is empty"):
        found(node, folder, source)


def test_what_is_no_file(node: Node, folder: Path) -> None:
    (folder / "a.conf").unlink()
    os.mkfifo(folder / "a.conf")
    with pytest.raises(CannotDerive, match=r"a\.conf: is not there, or is empty; hooks copy it to /dest/0"):
        found(node, folder, "a.conf")


def test_what_is_too_large(node: Node, folder: Path) -> None:
    os.truncate(folder / "sub/b", stat.MAX_FILE)
    with pytest.raises(CannotDerive) as error:
        found(node, folder, "sub")
    assert str(error.value) == f"{folder}/sub/b: cannot be read, or holds 16 MiB or more"


def test_what_a_pass_must_look_at_again(node: Node, folder: Path) -> None:
    """Whatever was read: a folder with what is in it, and a place where nothing is yet."""
    reader = Reader(node.name)
    copies.look(reader, copying("a.conf", f"{FILES}/ca"), str(folder))
    noted = [str(folder / "a.conf"), *(str(node.path(f"{FILES}/{name}")) for name in ("ca", "ca/root.pem"))]
    assert list(reader.seen) == noted
    reader = Reader(node.name)
    with pytest.raises(CannotDerive):
        copies.look(reader, copying(f"{FILES}/gone"), str(folder))
    assert reader.seen == {str(node.path(f"{FILES}/gone")): "error 2"}


def test_the_context_of_a_build(node: Node, folder: Path) -> None:
    """Its digest is another when a name or a content is, and not when what is outside of it changes."""

    def digest(context: str = "sub") -> str:
        text = app_text().replace("image: docker.io/library/nginx:1.26", f"build: {{context: {context}}}")
        from archy.manifest import load

        app = load.check(text.encode(), "f", "web", BESIDE)
        return copies.context(Reader(node.name), str(folder), app)["the context of its build"]

    before = digest()
    assert digest() == before
    (folder / "a.conf").write_text("other")
    assert digest() == before
    assert digest(".") != before
    (folder / "sub/b").write_text("other")
    changed = digest()
    assert changed != before
    (folder / "sub/b").rename(folder / "sub/bb")
    assert digest() not in (before, changed)
    assert copies.context(Reader(node.name), str(folder), app_of()) == {}


HOOKED = """\
hooks:
  pre_start:
  - copy_from_host: {src: sub, dest: /opt/sub}
  post_install:
  - copy_from_host: {src: /usr/share/archy/files/ca, dest: /opt/ca}
"""


@pytest.mark.programs
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files to the service user")
def test_a_pass_copies_them(node: Node, folder: Path) -> None:
    node.app("web", app_text("web", app=HOOKED))
    assert node.prepare() == 0
    copied = {path: node.path(f"{COPIES}/{path}") for path in ("0/b", "0/deep/c", "1/root.pem")}
    assert {path: file.read_text() for path, file in copied.items()} == {
        "0/b": "B",
        "0/deep/c": "C",
        "1/root.pem": "PEM",
    }
    assert {oct(file.stat().st_mode & 0o777) for file in copied.values()} == {"0o444", "0o555"}
    assert node.is_fresh("web")
    # A change of either source, or of a copy, is one that the next pass sees.
    for change in (f"{FILES}/ca/root.pem", "/etc/archy/apps/web/sub/b", f"{COPIES}/0/deep/c"):
        node.write(change, "changed")
        assert not node.is_fresh("web"), change
        assert node.prepare() == 0
        assert node.is_fresh("web")
    assert {path: file.read_text() for path, file in copied.items()} == {
        "0/b": "changed",
        "0/deep/c": "C",
        "1/root.pem": "changed",
    }


@pytest.mark.programs
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files to the service user")
def test_a_link_that_leads_out_keeps_the_app_down(node: Node, folder: Path) -> None:
    node.app("web", app_text("web", app=HOOKED))
    node.path(f"{FILES}/ca/root.pem").unlink()
    node.path(f"{FILES}/ca").rmdir()
    node.path(f"{FILES}/ca").symlink_to("/etc")
    assert node.failures() == {"web": f"{node.path(FILES)}/ca: leads out of {node.path(FILES)}"}
    assert not node.path(f"{COPIES}").exists()
