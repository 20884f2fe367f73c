# SPDX-License-Identifier: MIT
# ruff: noqa: E501 - a case is a line
"""The version of an app's data: kept with them, and no manifest of another one is put in force over them."""

from __future__ import annotations

import os

import pytest
from support import Node, app_of, app_text

from archy import paths
from archy.apps import admission, installed
from archy.errors import CannotDerive
from archy.host.stat import FileState
from archy.host.steps import Directory, File
from archy.prepare import app as prepare_app

KEPT = "/var/lib/archipelago/.data-versions/web"
FILE = "/etc/archy/apps/web/manifest.yml"
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files to the service user")


def versioned(version: str) -> str:
    return app_text("web", f'data_version: "{version}"')


def found(content: bytes | None) -> dict[str, FileState]:
    return {KEPT: FileState(content, 0, 0, 0o644)}


def test_it_is_kept_when_there_is_none_yet() -> None:
    assert prepare_app.version_mark(app_of('data_version: "17"'), {}) == [
        Directory("/var/lib/archipelago/.data-versions", 0, 0, 0o755),
        File(KEPT, b"17\n", 0, 0, 0o644, "missing"),
    ]
    assert paths.data_version_path("web") == KEPT


@pytest.mark.parametrize("content", [b"17\n", b"17", b" 17 \n\n"])
def test_the_same_one_is_left_alone(content: bytes) -> None:
    assert prepare_app.version_mark(app_of('data_version: "17"'), found(content)) == []


def test_an_app_that_never_said_one_needs_none() -> None:
    assert prepare_app.version_mark(app_of(), {}) == []


def test_one_that_says_none_any_more_is_refused() -> None:
    """Or any version could be put in force over the data, by leaving the key out first."""
    with pytest.raises(CannotDerive) as error:
        prepare_app.version_mark(app_of(), found(b"18\n"))
    assert str(error.value) == (
        f"{KEPT}: the data has version 18, the manifest says none; say data_version: 18 in the manifest, or remove that "
        "file if the data are gone"
    )


@pytest.mark.parametrize(
    ("content", "there"), [(b"16\n", "16"), (b"17.1", "17.1"), (b"", ""), (None, ""), (b"1\xff", "1\ufffd")]
)
def test_another_one_is_refused(content: bytes | None, there: str) -> None:
    with pytest.raises(CannotDerive) as error:
        prepare_app.version_mark(app_of('data_version: "17"'), found(content))
    assert str(error.value) == (
        f"{KEPT}: the data has version {there}, the manifest wants 17; install version {there} again, or convert the "
        "data and then write 17 into that file"
    )


def test_the_version_of_the_data_is_text() -> None:
    """Unquoted as well: 1.10 is not 1.1."""
    assert app_of("data_version: 1.10").data_version == "1.10"


@needs_root
@pytest.mark.programs
def test_a_pass_keeps_it_and_a_removal_leaves_it(node: Node) -> None:
    node.app("web", versioned("17"))
    assert node.prepare() == 0
    assert node.path(KEPT).read_text() == "17\n"
    assert node.is_fresh("web")
    # Removed and installed again, as of another version: what was accepted is gone, the data are not.
    for path in ("/etc/archy/accepted/web", "/etc/archy/accepted/web.units"):
        node.path(path).unlink()
    node.app("web", versioned("18"))
    (said,) = node.failures().values()
    assert said.startswith(f"{KEPT}: the data has version 17, the manifest wants 18; install version 17 again, or ")
    assert node.path(KEPT).read_text() == "17\n"
    # The operator has converted the data, and says so.
    node.path(KEPT).write_text("18\n")
    assert node.failures() == {}


@needs_root
@pytest.mark.programs
def test_an_update_to_another_one_is_refused_and_the_last_good_version_goes_on(node: Node) -> None:
    node.app("web", versioned("17"))
    node.prepare()
    before, _ = node.generate()
    node.app("web", versioned("18").replace("1.26", "1.27"))
    after, warnings = node.generate()
    reason = (
        "must stay 17, of which there is data; to go on with another, convert the data first, then archy app remove web "
        "and install it again"
    )
    assert warnings == [f"{FILE}:7:5: app.container.data_version: {reason}"]
    assert "nginx:1.26" in after["archy-web.service"]
    said = f"Description=Web (last good version: {warnings[0]})"
    assert after["archy-web.service"].replace(said, "Description=Web") == before["archy-web.service"]
    assert node.prepare() == 0
    assert node.path(KEPT).read_text() == "17\n"
    node.app("web", versioned("17").replace("1.26", "1.27"))
    found, warnings = node.generate()
    assert (warnings, "nginx:1.27" in found["archy-web.service"]) == ([], True)


@pytest.mark.parametrize(
    ("before", "now", "refused"),
    [("17", "18", True), ("17", "17", False), ("", "17", False), ("17", "", True), ("", "", False)],
)
def test_what_counts_as_another_one(node: Node, before: str, now: str, refused: bool) -> None:
    """One that was never given may be added; one that was may not be left out, as another could be given then."""
    node.write("/etc/archy/accepted/web/manifest.yml", versioned(before) if before else app_text())
    node.app("web", (versioned(now) if now else app_text()) + "\n")
    app, problems = admission.model(node.name, installed.source(node.name, "web"))
    assert (app is None, bool(problems)) == (refused, refused)
    if refused and not now:
        assert [problem.line for problem in problems] == [5]
