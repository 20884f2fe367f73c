# SPDX-License-Identifier: MIT
"""When Podman is asked, and what is made of its answer: a script in its place says what it says."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest
from support import Node

from archy import paths
from archy.host import read, user
from archy.probe import podman
from archy.probe.containers import Container

pytestmark = pytest.mark.programs

A, B = "a" * 64, "b" * 64
LISTED = f"{A}\trunning\tweb\tarchy-web.service\n{B}\texited\tx\t\n"
ENTRIES = [[A, "running", "web", "archy-web.service"], [B, "exited", "x", ""]]


class Fake:
    """A Podman that counts how often it is asked."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.says()

    def says(self, out: str = LISTED, errors: str = "", code: int = 0, before: str = "") -> None:
        (self.directory / "out").write_text(out)
        (self.directory / "errors").write_text(errors)
        here = self.directory
        script = f'#!/bin/sh\necho "$@" >>{here}/asked\n{before}\ncat {here}/out\ncat {here}/errors >&2\nexit {code}\n'
        (here / "podman").write_text(script)
        (here / "podman").chmod(0o755)

    @property
    def asked(self) -> int:
        path = self.directory / "asked"
        return len(path.read_text().splitlines()) if path.exists() else 0


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Fake:
    directory = tmp_path / "bin"
    directory.mkdir()
    monkeypatch.setenv("PATH", str(directory), prepend=":")
    monkeypatch.setattr(paths, "STORAGE", str(tmp_path / "storage"))
    return Fake(directory)


@pytest.fixture
def runtime(tmp_path: Path) -> Path:
    path = tmp_path / "runtime"
    path.mkdir()
    return path


def containers(*ids: str) -> list[Container]:
    return [Container(f"app{number}", identity, 1, 2) for number, identity in enumerate(ids)]


def ask(runtime: Path, *ids: str, last: dict[str, Any] | None = None) -> dict[str, Any]:
    return podman.ContainerList(str(runtime), containers(*ids), last).answer()


def test_what_podman_knows(fake: Fake, runtime: Path) -> None:
    before = time.monotonic()
    found = ask(runtime, A)
    assert (found["containers"], found["error"]) == (ENTRIES, "")
    assert before <= found["at"] <= time.monotonic()
    words = (fake.directory / "asked").read_text()
    assert words.startswith("ps --all --no-trunc --format ")
    assert "PODMAN_SYSTEMD_UNIT" in words


def test_no_containers(fake: Fake, runtime: Path) -> None:
    fake.says("")
    assert ask(runtime)["containers"] == []


def test_lines_that_are_none_of_the_list(fake: Fake, runtime: Path) -> None:
    fake.says(f"WARN something\n\n{LISTED}a\tb\tc\td\te\n")
    assert ask(runtime)["containers"] == ENTRIES


def test_a_warning_is_no_error(fake: Fake, runtime: Path) -> None:
    fake.says(errors='time="x" level=warning msg="y"\n')
    assert ask(runtime)["error"] == ""


@pytest.mark.parametrize(
    ("errors", "code", "said"),
    [
        ("Error: locks in /libpod\n", 125, "locks in /libpod"),
        ('time="x" level=warning msg="y"\nError: database is locked\n\n', 125, "database is locked"),
        ("Segmentation fault", 139, "Segmentation fault"),
        ("", 139, "podman ps ended with status 139"),
        ("Error: " + "x" * 5000, 1, "x" * 1000),
    ],
)
def test_why_it_did_not_answer(fake: Fake, runtime: Path, errors: str, code: int, said: str) -> None:
    fake.says(LISTED, errors, code)
    found = ask(runtime, A)
    assert (found["error"], found["containers"], found["seen"]) == (said, [], None)


def test_bytes_that_are_no_text(fake: Fake, runtime: Path) -> None:
    fake.says()
    (fake.directory / "out").write_bytes(LISTED.encode() + b"\xff\tx\ty\tz\n")
    assert ask(runtime, A)["containers"] == [*ENTRIES, ["\ufffd", "x", "y", "z"]]


def test_much_that_it_says_does_not_block_it(fake: Fake, runtime: Path) -> None:
    """Nobody reads while the apps are asked: more than a pipe holds."""
    fake.says(LISTED * 5000, "warning\n" * 100_000)
    assert len(ask(runtime, A)["containers"]) == 10_000


def test_it_hangs(fake: Fake, runtime: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(podman, "_TIME", 0.3)
    fake.says(before="exec sleep 1000")
    question = podman.ContainerList(str(runtime), containers(A), None)
    found = question.answer()
    assert (found["error"], found["containers"], found["seen"]) == ("no answer within 0.3 s", [], None)
    assert question.process is not None
    assert question.process.wait(20) == -9


LOST = "unknown to its storage"


@pytest.mark.parametrize(
    ("stores", "state"),
    [
        ({}, "running"),
        ({"containers": ""}, "running"),  # nothing is known
        ({"containers": "", "volatile-containers": ""}, "running"),
        ({"containers": f'[{{"id":"{A}"}}]'}, "running"),
        ({"volatile-containers": f'[{{"id":"{A}"}}]'}, "running"),
        ({"containers": "[]", "volatile-containers": f'[{{"id":"{A}"}}]'}, "running"),
        ({"containers": f'[{{"id":"{A}"}}]', "volatile-containers": "[]"}, "running"),
        ({"containers": "[]"}, LOST),
        ({"volatile-containers": "[]"}, LOST),
        ({"containers": "[]", "volatile-containers": "[]"}, LOST),
        ({"containers": f'[{{"id":"{B}"}}]'}, LOST),
        ({"containers": f'[{{"id":"{A[:12]}"}}]'}, LOST),
        ({"containers": "\xff"}, LOST),
    ],
)
def test_one_that_its_storage_has_forgotten_does_not_really_run(
    fake: Fake, runtime: Path, stores: dict[str, str], state: str
) -> None:
    """Nobody could enter or remove it. Of one that does not run anyway that is not said."""
    directory = runtime.parent / "storage/overlay-containers"
    directory.mkdir(parents=True)
    for name, content in stores.items():
        (directory / f"{name}.json").write_bytes(content.encode("latin-1"))
    found = ask(runtime, A)
    assert found["containers"] == [[A, state, *ENTRIES[0][2:]], ENTRIES[1]]
    assert found["error"] == ""
    assert asked_again(fake, runtime, found, A) == (state == LOST)


# What it said last.


def asked_again(fake: Fake, runtime: Path, last: dict[str, Any], *ids: str) -> bool:
    before = fake.asked
    ask(runtime, *ids, last=last)
    return fake.asked > before


def test_as_long_as_nothing_has_changed_it_is_not_asked_again(fake: Fake, runtime: Path) -> None:
    last = ask(runtime, A)
    fake.says("")
    for _ in range(3):
        found = ask(runtime, A, last=last)
        assert found == last
    assert fake.asked == 1


WATCHED = [
    "storage/db.sql",
    "storage/overlay-containers/containers.json",
    "storage/overlay-containers/volatile-containers.json",
    "storage/overlay-layers/layers.json",
    "storage/overlay-layers/volatile-layers.json",
    "storage/overlay-images/images.json",
    "storage/networks",
    "storage/volumes",
    "runtime/libpod/tmp/alive",
    "runtime/libpod/tmp/pause.pid",
    "runtime/containers/overlay",
]


@pytest.mark.parametrize("path", WATCHED)
def test_what_makes_it_be_asked_again(fake: Fake, runtime: Path, path: str) -> None:
    file = runtime.parent / path
    file.parent.mkdir(parents=True, exist_ok=True)
    last = ask(runtime, A)
    file.write_text(f"x {A}")
    assert asked_again(fake, runtime, last, A)
    last = ask(runtime, A)
    assert not asked_again(fake, runtime, last, A)
    other = file.with_name("other")  # another file with the same size and time, as somebody who restores one makes it
    other.write_text(f"y {A}")
    times = file.stat()
    os.utime(other, ns=(times.st_atime_ns, times.st_mtime_ns))
    other.rename(file)
    assert asked_again(fake, runtime, last, A)
    last = ask(runtime, A)
    file.unlink()
    assert asked_again(fake, runtime, last, A)


def test_another_container_runs(fake: Fake, runtime: Path) -> None:
    last = ask(runtime, A)
    assert asked_again(fake, runtime, last)
    fake.says(LISTED.replace("exited", "running"))
    both = ask(runtime, A, B)
    assert asked_again(fake, runtime, both, A)


@pytest.mark.parametrize("identity", [B, "c" * 64])
def test_one_that_it_does_not_call_running_is_asked_for_each_time(fake: Fake, runtime: Path, identity: str) -> None:
    """A second answer must be another one."""
    last = ask(runtime, identity)
    assert asked_again(fake, runtime, last, identity)


def test_an_error_is_no_answer_to_keep(fake: Fake, runtime: Path) -> None:
    fake.says("", "Error: x", 125)
    last = ask(runtime, A)
    fake.says()
    assert ask(runtime, A, last=last)["containers"] == ENTRIES


def test_it_is_asked_after_a_while_whatever_we_think(fake: Fake, runtime: Path) -> None:
    last = ask(runtime, A)
    assert not asked_again(fake, runtime, {**last, "at": time.monotonic() - podman._OLD + 30}, A)
    assert asked_again(fake, runtime, {**last, "at": time.monotonic() - podman._OLD - 1}, A)


@pytest.mark.parametrize("last", [{}, {"at": 1}, {"error": ""}, {"containers": []}])
def test_whatever_was_kept(fake: Fake, runtime: Path, last: dict[str, Any]) -> None:
    assert ask(runtime, A, last=last)["containers"] == ENTRIES


# What it leaves in the runtime directory.


def test_no_network_needs_no_pasta(runtime: Path) -> None:
    assert podman.pasta(str(runtime)) is None


@pytest.mark.parametrize("pid", [None, "", "x", "0", "-1", "999999999", "1\n2", "9" * 5000])
def test_no_pasta(runtime: Path, pid: str | None) -> None:
    base = runtime / "containers/networks/rootless-netns"
    (base / "rootless-netns").mkdir(parents=True)
    if pid is not None:
        (base / "rootless-netns-conn.pid").write_text(pid)
    assert podman.pasta(str(runtime)) is False


@pytest.mark.parametrize(
    ("name", "lives"), [("pasta", True), ("pasta.avx2", True), ("slirp4netns", True), ("sh", False)]
)
def test_the_process_must_be_pasta(runtime: Path, monkeypatch: pytest.MonkeyPatch, name: str, lives: bool) -> None:
    """Its number may be another's by now."""
    base = runtime / "containers/networks/rootless-netns"
    (base / "rootless-netns").mkdir(parents=True)
    (base / "rootless-netns-conn.pid").write_text("77\n")
    real = read.read
    files = {"/proc/77/comm": f"{name}\n".encode()}
    monkeypatch.setattr(read, "read", lambda path: files.get(path) or real(path))
    assert podman.pasta(str(runtime)) is lives


# The addresses of those that are gone: a file for each network (aardvark-dns(1)), and one with a process ID.

C = "c" * 64
FILE = f"10.89.0.1\n{A} 10.89.0.2  web,aaaaaaaaaaaa\n{B} 10.89.0.3 fd00::3 db,bbbbbbbbbbbb 10.89.0.1\n"


@pytest.fixture
def aardvark(runtime: Path) -> Path:
    directory = runtime / "containers/networks/aardvark-dns"
    directory.mkdir(parents=True)
    (directory / "aardvark.pid").write_text("77")
    (directory / "archy-net").write_text(FILE)
    return directory


@pytest.mark.parametrize(
    ("known", "dead"),
    [({A, B}, set()), ({A, C}, {"10.89.0.3"}), ({B}, {"10.89.0.2"}), (set(), {"10.89.0.2", "10.89.0.3"})],
)
def test_addresses_of_containers_that_podman_does_not_know(
    runtime: Path, aardvark: Path, known: set[str], dead: set[str]
) -> None:
    assert podman.stale_addresses(str(runtime), known) == dead


def test_where_no_container_has_a_network_nobody_has_an_address(runtime: Path) -> None:
    assert podman.stale_addresses(str(runtime), set()) == set()
    (runtime / "containers/networks").mkdir(parents=True)
    (runtime / "containers/networks/aardvark-dns").write_text(FILE)
    assert podman.stale_addresses(str(runtime), set()) == set()


def test_each_network_has_a_file(runtime: Path, aardvark: Path) -> None:
    """And one container may have several addresses, in one or in several."""
    (aardvark / "podman1").write_text(f"10.90.0.1 9.9.9.9\n{B} 10.90.0.3,10.90.0.4  db\n{C} 10.90.0.5  x\n")
    assert podman.stale_addresses(str(runtime), {A, C}) == {"10.89.0.3", "10.90.0.3", "10.90.0.4"}


@pytest.mark.parametrize(
    "content",
    [
        "",
        "\n\n \n",
        "10.89.0.1",
        "10.89.0.1 9.9.9.9 8.8.8.8 1.1.1.1",
        C,
        f"{C} 10.89.0.9",
        f"{C[:12]} 10.89.0.9  x",
        f"x{C} 10.89.0.9  x",
        "\0" * 4096,
        "\xff\xfe" * 70,
        "x " * 5000,
    ],
    ids=range(11),
)
def test_what_is_no_line_of_a_container_says_nothing(runtime: Path, aardvark: Path, content: str) -> None:
    """The files of the others do all the same."""
    (aardvark / "odd").write_bytes(content.encode("latin-1"))
    assert podman.stale_addresses(str(runtime), {A}) == {"10.89.0.3"}


def test_lines_between_odd_ones_are_read(runtime: Path, aardvark: Path) -> None:
    (aardvark / "odd").write_bytes(b"\xff\n\0\n" + f"\r\n{C}\t10.89.0.9\tx\n{C}".encode())
    assert podman.stale_addresses(str(runtime), {A, B}) == {"10.89.0.9"}


def test_what_is_no_file_is_not_waited_for(runtime: Path, aardvark: Path) -> None:
    os.mkfifo(aardvark / "fifo")
    (aardvark / "directory").mkdir()
    (aardvark / "nowhere").symlink_to("gone")
    (aardvark / "itself").symlink_to("itself")
    (aardvark / "endless").symlink_to("/dev/zero")
    assert podman.stale_addresses(str(runtime), {A}) == {"10.89.0.3"}


def test_health_timers(runtime: Path) -> None:
    directory = runtime / "systemd/transient"
    assert podman.health_timers(str(runtime)) == []
    directory.mkdir(parents=True)
    for name in (f"{A}-1.timer", f"{A}-1.service", f"{B}-2.timer", f"{B}-1.timer", "x.timer", f"{B[:12]}-1.timer"):
        (directory / name).write_text("")
    assert podman.health_timers(str(runtime)) == [f"{A}-1.timer", f"{B}-1.timer", f"{B}-2.timer"]


def test_the_environment() -> None:
    """Without its user's manager Podman would keep its state elsewhere."""
    assert user.environment(990) == {
        "XDG_RUNTIME_DIR": "/run/user/990",
        "DBUS_SESSION_BUS_ADDRESS": "unix:path=/run/user/990/bus",
        "HOME": "/var/lib/archipelago",
    }


def test_the_storage_is_where_podman_keeps_it(node: Node) -> None:
    assert paths.STORAGE == "/var/lib/archipelago/.local/share/containers/storage"
