# SPDX-License-Identifier: MIT
"""Subordinate IDs for the service user: what is planned, and what is asked of usermod."""

from pathlib import Path

import pytest

from archy.host import subid

PASSWD = "root:x:0:0:root:/root:/bin/bash\narchipelago:x:1234:1234::/var/lib/archipelago:/usr/sbin/nologin\n"
GROUP = "root:x:0:\narchipelago:x:1234:\n"


def at(start: int) -> range:
    return range(start, start + 65_536)


DEFAULT, SECOND = at(100_000), at(165_536)


def plan(subuid: str = "", subgid: str = "", passwd: str = "", group: str = "", login_defs: str = "") -> subid.Plan:
    return subid.plan(subuid, subgid, PASSWD + passwd, GROUP + group, login_defs)


@pytest.mark.parametrize(
    ("subuid", "subgid", "uids", "gids"),
    [
        pytest.param("", "", DEFAULT, DEFAULT, id="nobody-has-any"),
        pytest.param("bob:100000:65536\n", "bob:100000:65536\n", SECOND, SECOND, id="first-is-taken"),
        pytest.param("bob:100000:65536\n", "", SECOND, SECOND, id="taken-in-one-file-only"),
        pytest.param("bob:100000:65537\n", "", at(165_537), at(165_537), id="right-behind"),
        pytest.param("bob:100001:1\n", "", at(100_002), at(100_002), id="one-id-in-the-way"),
        pytest.param("bob:165536:65536\n", "", DEFAULT, DEFAULT, id="next-door"),
        pytest.param("bob:165535:10\n", "", at(165_545), at(165_545), id="overlap-at-the-end"),
        pytest.param("bob:90000:20000\n", "", at(110_000), at(110_000), id="reaches-in-from-below"),
        pytest.param("a:100000:65536\nb:300000:65536\n", "", SECOND, SECOND, id="a-gap-that-fits"),
        pytest.param("a:100000:65536\nb:200000:10\n", "", at(200_010), at(200_010), id="gap-too-small"),
        pytest.param("b:165536:65536\na:100000:65536\n", "", at(231_072), at(231_072), id="not-sorted"),
        pytest.param("77:100000:65536\n", "", SECOND, SECOND, id="owner-as-a-number"),
        pytest.param("archipelago:500000:65536\n", "archipelago:500000:65536\n", None, None, id="kept-by-name"),
        pytest.param("1234:500000:65536\n", "1234:600000:65536\n", None, None, id="kept-by-uid"),
        pytest.param("archipelago:5:9\n", "1234:5:9\n", None, None, id="kept-even-if-small"),
        pytest.param("archipelago:500000:65536\n", "", None, at(500_000), id="the-same-for-groups"),
        pytest.param("", "1234:500000:65536\n", at(500_000), None, id="the-same-for-users"),
        pytest.param("archipelago:500000:65536\n", "bob:500000:1\n", None, DEFAULT, id="the-same-is-taken"),
        pytest.param("archipelago:500000:10\n", "", None, DEFAULT, id="the-same-is-too-small"),
        pytest.param("archipelago:600100000:65536\n", "", None, DEFAULT, id="the-same-is-beyond-the-limit"),
    ],
)
def test_ranges(subuid: str, subgid: str, uids: range | None, gids: range | None) -> None:
    found = plan(subuid, subgid)
    assert (found.uids, found.gids) == (uids, gids)


@pytest.mark.parametrize(
    "line",
    [
        "",
        "#bob:100000:65536",
        "bob",
        "bob:100000",
        "bob:100000:",
        "bob:100000:0",
        "bob:x:65536",
        "bob:-1:65536",
        "bob:\N{SUPERSCRIPT TWO}:65536",
        "bob:100000:6 5536",
        "bob:100000:65536:9",
        ":100000:65536",
    ],
)
def test_malformed_lines_are_no_entries(line: str) -> None:
    assert subid.parse(f"{line}\nann:7:8\n") == [subid.Entry("ann", range(7, 15))]


def test_own_malformed_entry_does_not_count() -> None:
    assert plan("archipelago:100000:\n").uids == DEFAULT


def test_real_users_and_groups_are_not_covered() -> None:
    assert plan(passwd="ldap:x:100500:100::/:/bin/sh\n").uids == at(100_501)
    found = plan(group="lab:x:120000:\n")
    assert found.uids == found.gids == at(120_001)


def test_limits_of_login_defs() -> None:
    assert plan(login_defs="# SUB_UID_MIN 9\nSUB_UID_MIN\t\t200000\nSUB_GID_MIN 200000 \n").uids == at(200_000)
    assert plan(login_defs="SUB_UID_MIN 1000\nSUB_GID_MIN 1000\nSUB_UID_MAX x\n").uids == DEFAULT


def test_the_last_range_below_the_limit() -> None:
    last = 600_100_000 - 65_535
    found = plan(f"bob:100000:{last - 100_000}\n")
    assert found.uids == range(last, 600_100_001)
    with pytest.raises(subid.NoGap, match="no 65536 consecutive IDs are free"):
        plan(f"bob:100000:{last - 100_000 + 1}\n")


def test_two_ranges_when_no_common_one_is_free() -> None:
    limits = "SUB_UID_MAX 231071\nSUB_GID_MAX 231071\n"
    found = plan("bob:100000:65536\n", "bob:165536:65536\n", login_defs=limits)
    assert (found.uids, found.gids) == (SECOND, DEFAULT)


def test_no_such_user() -> None:
    with pytest.raises(LookupError, match="no such user"):
        subid.plan("", "", "root:x:0:0::/:\narchipelago\n", "", "")


def test_warnings_about_entries_that_are_kept() -> None:
    assert plan("archipelago:100000:65536\nbob:165535:1\n", "archipelago:100000:9\n").warnings == (
        "archipelago: /etc/subuid: 100000-165535 overlaps another user's; kept, as data may depend on it",
        "archipelago: /etc/subgid: holds fewer than 65536 IDs; kept, but some images will not unpack",
    )


@pytest.fixture
def root(tmp_path: Path) -> Path:
    etc = tmp_path / "etc"
    etc.mkdir()
    (etc / "passwd").write_text(PASSWD)
    (etc / "group").write_text(GROUP)
    return tmp_path


def test_usermod_is_asked_once_for_each_file(root: Path) -> None:
    ran: list[list[str]] = []
    assert subid.main(["subid", str(root)], ran.append) == 0
    assert ran == [
        ["usermod", "--prefix", str(root), "--add-subuids", "100000-165535", "archipelago"],
        ["usermod", "--prefix", str(root), "--add-subgids", "100000-165535", "archipelago"],
    ]


def test_nothing_is_run_when_nothing_is_missing(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("subuid", "subgid"):
        (root / "etc" / name).write_bytes(b"b\xf6b:1:1\narchipelago:100000:65536\n")
    ran: list[list[str]] = []
    assert subid.main(["subid", str(root)], ran.append) == 0
    assert ran == []
    assert capsys.readouterr() == ("", "")


def test_failures_are_said(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (root / "etc" / "passwd").write_text("")
    assert subid.main(["subid", str(root)], lambda command: None) == 1
    assert subid.main(["subid"], lambda command: None) == 2
    assert "archipelago: /etc/passwd: no such user" in capsys.readouterr().err
