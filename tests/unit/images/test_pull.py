# SPDX-License-Identifier: MIT
"""archy-image: when Podman is asked to fetch, what is told meanwhile, and what comes of it. A script plays Podman."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from support import Node, app_text

from archy.images import pull as images_pull

pytestmark = pytest.mark.programs

IMAGE = "docker.io/library/nginx:1.26"
EXISTS = f"image exists -- {IMAGE}"
PULL = f"pull --retry=0 -- {IMAGE}"


class World:
    """A Podman that has an image or not, and can fetch it or not; what it was asked, and what systemd was told."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.failures = directory / "runtime/failures"
        for name in ("bin", "runtime"):
            (directory / name).mkdir()
        self.podman()
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(str(directory / "notify"))
        self.socket.setblocking(False)

    def podman(self, exists: int = 1, pull: int = 0, said: str = "", before: str = "") -> None:
        here = self.directory
        (here / "said").write_text(said)
        (here / "exists").write_text(str(exists))
        script = f"""#!/bin/sh
echo "$@" >>{here}/asked
case $1 in
image) exit $(cat {here}/exists) ;;
pull) {before or ":"}; cat {here}/said >&2; [ {pull} != 0 ] || echo 0 >{here}/exists; exit {pull} ;;
esac
"""
        (here / "bin/podman").write_text(script)
        (here / "bin/podman").chmod(0o755)

    @property
    def asked(self) -> list[str]:
        path = self.directory / "asked"
        return path.read_text().splitlines() if path.exists() else []

    @property
    def told(self) -> list[str]:
        result = []
        try:
            while True:
                result += self.socket.recv(4096).decode().splitlines()
        except BlockingIOError:
            return result


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    result = World(tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"), prepend=":")
    monkeypatch.setenv("RUNTIME_DIRECTORY", str(tmp_path / "runtime"))
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
    monkeypatch.setattr(images_pull, "_LOCKS", str(tmp_path / "locks"))
    yield result
    result.socket.close()


@pytest.mark.parametrize("policy", ["missing", "never"])
def test_what_is_there_costs_one_question(world: World, policy: str) -> None:
    world.podman(exists=0)
    assert images_pull.fetch(IMAGE, policy) == 0
    assert (world.asked, world.told) == ([EXISTS], [])


def test_what_is_missing_is_fetched(world: World, capfd: pytest.CaptureFixture[str]) -> None:
    world.podman(said="Trying to pull...\n")
    assert images_pull.fetch(IMAGE, "missing") == 0
    assert world.asked == [EXISTS, EXISTS, PULL]
    assert world.told == [f"STATUS=fetching {IMAGE}"]
    assert "Trying to pull..." in capfd.readouterr().err
    assert not world.failures.exists()


@pytest.mark.parametrize(("policy", "command"), [("always", PULL), ("newer", PULL), ("missing", ""), ("never", "")])
@pytest.mark.parametrize("pull", [0, 125])
def test_what_is_there_is_used_whatever_comes_of_fetching_it_again(
    world: World, capfd: pytest.CaptureFixture[str], policy: str, command: str, pull: int
) -> None:
    world.podman(exists=0, pull=pull, said="Error: connection refused\n")
    assert images_pull.fetch(IMAGE, policy) == 0
    assert world.asked == [EXISTS, *([command] if command else [])]
    said = f"{IMAGE}: could not be fetched again: connection refused; the existing one is used"
    assert (said in capfd.readouterr().err) == bool(command and pull)
    assert not world.failures.exists()


def test_what_cannot_be_had_is_said_and_counted(world: World, capfd: pytest.CaptureFixture[str]) -> None:
    world.podman(pull=125, said="Trying...\nError: initializing source:\n  no route to host\n")
    why = "initializing source: no route to host"
    for attempt in (1, 2, 3):
        assert images_pull.fetch(IMAGE, "missing") == 1
        now = [f"STATUS=cannot be had: {why}; attempt {attempt}", "ERRNO=5"]
        first = [f"STATUS=fetching {IMAGE}"] if attempt == 1 else now
        assert world.told == [*first, *now]
        assert json.loads(world.failures.read_text()) == {"count": attempt, "why": why}
        assert f"cannot be had: {why}; attempt {attempt}\n" in capfd.readouterr().err
    world.podman()
    assert images_pull.fetch(IMAGE, "missing") == 0


@pytest.mark.parametrize("image", ["localhost/archy-web:1", "docker.io/library/nginx:local"])
@pytest.mark.parametrize("policy", ["missing", "always", "newer", "never"])
def test_what_was_made_here_is_never_fetched(world: World, image: str, policy: str) -> None:
    assert images_pull.fetch(image, policy) == 1
    why = f"{image} is not on this node, and is never fetched; load it: archy image load FILE"
    assert world.told == [f"STATUS=cannot be had: {why}; attempt 1", "ERRNO=5"]
    world.podman(exists=0)
    assert images_pull.fetch(image, policy) == 0
    assert {line.partition(" ")[0] for line in world.asked} == {"image"}


def test_what_is_never_to_be_fetched_is_not(world: World) -> None:
    assert images_pull.fetch(IMAGE, "never") == 1
    assert "archy image load FILE" in world.told[0]
    assert world.asked == [EXISTS]


@pytest.mark.parametrize("code", [125, 127])
def test_where_podman_fails_the_app_s_own_start_is_to_tell(world: World, code: int) -> None:
    world.podman(exists=code)
    assert images_pull.fetch(IMAGE, "missing") == 0
    assert world.asked == [EXISTS]


def test_where_podman_does_not_answer_neither(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images_pull, "_PRESENCE", 0.2)
    (world.directory / "bin/podman").write_text("#!/bin/sh\nexec sleep 60\n")
    assert images_pull.fetch(IMAGE, "missing") == 0


@pytest.mark.parametrize(("there", "code"), [(0, 0), (1, 1)])
def test_what_hangs_is_given_up(world: World, monkeypatch: pytest.MonkeyPatch, there: int, code: int) -> None:
    monkeypatch.setattr(images_pull, "_LOOK", 0.05)
    monkeypatch.setattr(images_pull, "_PATIENCE", 0.3)
    monkeypatch.setattr(images_pull, "_LITTLE_PATIENCE", 0.2)
    world.podman(exists=there, before="exec sleep 60")
    began = time.monotonic()
    assert images_pull.fetch(IMAGE, "always") == code
    assert time.monotonic() - began < 20
    if code:
        assert world.told[-2].startswith(f"STATUS=cannot be had: {IMAGE}: nothing came for ")


def test_as_long_as_bytes_come_it_may_take_its_time(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images_pull, "_LOOK", 0.05)
    monkeypatch.setattr(images_pull, "_PATIENCE", 0.15)
    read = iter(range(10**6, 10**9, 10**6))
    monkeypatch.setattr(images_pull, "_read", lambda: next(read))
    monkeypatch.setenv("TMPDIR", str(world.directory / "tmp"))
    (world.directory / "tmp").mkdir()
    (world.directory / "tmp/1").write_bytes(bytes(1_500_000))
    world.podman(before="sleep 0.4")
    assert images_pull.fetch(IMAGE, "missing") == 0
    told = world.told
    fetching = f"STATUS=fetching {IMAGE}"
    assert told[:3] == [fetching, f"{fetching}: 1 MB so far", "EXTEND_TIMEOUT_USEC=900000000"]
    assert len(told) > 8


def test_what_has_come(tmp_path: Path) -> None:
    """Counted once, also when it is gone again, or is not there yet."""
    (tmp_path / "a").mkdir()
    sizes: dict[str, int] = {}
    images_pull._measure("", sizes)
    images_pull._measure(str(tmp_path / "none"), sizes)
    assert sizes == {}
    for name, size in (("1", 10), ("2", 20), ("1", 15)):
        (tmp_path / "a" / name).write_bytes(bytes(size))
        images_pull._measure(str(tmp_path), sizes)
    (tmp_path / "a/1").unlink()
    images_pull._measure(str(tmp_path), sizes)
    assert sum(sizes.values()) == 35


def test_podman_stays_in_the_unit(world: World) -> None:
    here = world.directory
    world.podman(before=f'echo "$DBUS_SESSION_BUS_ADDRESS,$NOTIFY_SOCKET" >{here}/environment')
    assert images_pull.fetch(IMAGE, "missing") == 0
    assert (here / "environment").read_text() == "unix:path=/dev/null,\n"


def test_two_apps_with_one_image_fetch_it_once(world: World) -> None:
    lock = world.directory / f"locks/image-{hashlib.sha256(IMAGE.encode()).hexdigest()[:16]}.lock"
    lock.parent.mkdir()
    with open(lock, "w") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        codes: list[int] = []
        mine = threading.Thread(target=lambda: codes.append(images_pull.fetch(IMAGE, "missing")))
        mine.start()
        told: list[str] = []
        while len(told) < 3:
            told += world.told
            time.sleep(0.02)
        (world.directory / "exists").write_text("0")
    mine.join()
    assert codes == [0]
    assert told[1] == f"STATUS=fetching {IMAGE}, as another app does already"
    assert world.asked == [EXISTS, EXISTS]


@pytest.mark.parametrize(
    ("said", "error"),
    [
        ("", ""),
        ("Trying\nError: a: b\n", "a: b"),
        ("Error: 2 errors:\n * one\n * two\n", "2 errors: * one * two"),
        ('level=warning msg="x. Error: no"\nplain words\n', "plain words"),
        ("Error: old\nError: new \x1b[1m\x00\n", "new [1m"),
        ("Error: " + "a" * 200 + "b" * 200, "a" * 90 + " ... " + "b" * 200 + "b" * 5),
    ],
)
def test_why_podman_failed(said: str, error: str) -> None:
    found = images_pull.error_of(said)
    assert len(found) <= 300
    assert found == error if len(said) < 300 else found.startswith("a" * 90 + " ... ") and found.endswith("b" * 200)


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"count": "x", "why": ""}', '{"count": null, "why": ""}'])
def test_a_damaged_count_is_none(world: World, content: str) -> None:
    world.failures.write_text(content)
    assert images_pull._failures() == (0, "")


def test_which_image_an_app_wants(node: Node) -> None:
    node.app("web", app_text("web", "pull_policy: newer"))
    found, _ = node.generate()
    node.write("/run/systemd/generator/archy-web.service", found["archy-web.service"])
    assert images_pull.image_of(node.name, "web") == (IMAGE, "newer")
    assert images_pull.image_of(node.name, "other") == ("", "")
    node.write("/run/systemd/generator/archy-bad.service", "[Service]\nExecStart=/bin/false\n")
    assert images_pull.image_of(node.name, "bad") == ("", "")


@pytest.mark.parametrize("words", [[], ["a", "b"], ["../a"], ["-x"], [""]])
def test_usage(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert images_pull.main(["archy-image", *words]) == 2
    assert capsys.readouterr().err.startswith("usage: ")


def test_main(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("XDG_RUNTIME_DIR", "DBUS_SESSION_BUS_ADDRESS", "HOME"):
        monkeypatch.setenv(name, "")
    assert images_pull.main(["archy-image", "nobody-has-this"]) == 0
    assert world.asked == []
    monkeypatch.setattr(images_pull, "image_of", lambda root, app_id: (IMAGE, "missing"))
    assert images_pull.main(["archy-image", "web"]) == 0
    assert world.asked == [EXISTS, EXISTS, PULL]
    assert os.environ["XDG_RUNTIME_DIR"] == f"/run/user/{os.getuid()}"


def test_without_systemd_it_is_silent(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET")
    monkeypatch.delenv("RUNTIME_DIRECTORY")
    world.podman(pull=1)
    assert images_pull.fetch(IMAGE, "missing") == 1
    assert world.told == []
