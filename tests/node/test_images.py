# SPDX-License-Identifier: MIT
"""Images: from mirrors and home registries, while these are away, slowly, from an archive; and those made here."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest
from conftest import AS_USER, Node, fresh_node, standin

IMAGE = "localhost/archy-standin:1"
HOME, MIRROR, SLOW = "localhost:5001", "localhost:5000", "localhost:5002"
SETTINGS = f"images: {{mirrors: {{'{HOME}': ['{MIRROR}/hub']}}, insecure: ['{MIRROR}', '{HOME}', '{SLOW}']}}\n"
REGISTRY = """\
version: 0.1
storage: {{filesystem: {{rootdirectory: /var/lib/registry-{port}}}}}
http: {{addr: "127.0.0.1:{port}"}}
"""
# Hands on what comes of the home registry, 1 MB a second, and after 8 MB no more until it may.
SLOWLY = """\
import asyncio, os

async def copy(reader, writer, pause):
    passed = 0
    while chunk := await reader.read(100_000):
        writer.write(chunk)
        await writer.drain()
        passed += len(chunk)
        await asyncio.sleep(pause * len(chunk) / 1e6)
        while pause and passed > 8e6 and not os.path.exists("/root/go-on"):
            await asyncio.sleep(0.2)
    writer.close()

async def serve(reader, writer):
    there, to = await asyncio.open_connection("127.0.0.1", 5001)
    await asyncio.gather(copy(reader, to, 0), copy(there, writer, 1), return_exceptions=True)

async def main():
    async with await asyncio.start_server(serve, "127.0.0.1", 5002) as server:
        await server.serve_forever()

asyncio.run(main())
"""


@pytest.fixture(scope="module")
def node() -> Iterator[Node]:
    """A node with two registries, of which one is a mirror of the other, and a slow way to one."""
    with fresh_node("images") as fresh:
        fresh.write("/root/slowly.py", SLOWLY)
        for port in (5000, 5001):
            fresh.write(f"/root/{port}.yml", REGISTRY.format(port=port))
            registry(fresh, port)
        fresh.out("systemd-run --quiet --unit=slowly python3 /root/slowly.py")
        fresh.write("/etc/archy/node.yml", SETTINGS)
        conf = "/etc/containers/registries.conf.d/50-archy.conf"
        fresh.wait("the mirrors are set", lambda: fresh.run(f"test -e {conf}").returncode == 0)
        yield fresh


def registry(node: Node, port: int, up: bool = True) -> None:
    """Start or stop a registry, and wait until it answers, or does not."""
    command = f"systemd-run --quiet --unit=registry-{port} docker-registry serve /root/{port}.yml"
    node.out(command if up else f"systemctl stop registry-{port}")
    node.wait(f"registry {port}", lambda: (node.run(f"curl -sf localhost:{port}/v2/").returncode == 0) == up, 20)


def push(node: Node, name: str, *, image: str = IMAGE) -> None:
    """Put an image into a registry; the node itself forgets that name."""
    node.podman(f"push --quiet --tls-verify=false {image} docker://{name}")


def app(app_id: str, image: str, policy: str = "missing", **values: object) -> str:
    text = standin(app_id, IMAGE, **values).replace("pull_policy: never", f"pull_policy: {policy}")
    return text.replace(IMAGE, image)


def has(node: Node, image: str) -> bool:
    return node.run(f"{AS_USER} podman image exists {image}").returncode == 0


def line(node: Node, app_id: str) -> dict[str, object]:
    found: dict[str, object] = node.status()[1]["apps"][app_id]
    return found


def waits(node: Node, app_id: str, says: str) -> bool:
    """Whether the app waits for its image, of which this is said."""
    found = line(node, app_id)
    return found["current"] == "waiting" and says in str(found["image"])


def test_a_mirror_is_asked_first_and_by_plain_http(node: Node) -> None:
    push(node, f"{MIRROR}/hub/standin-mirrored:1")
    node.drop("mirrored", app("mirrored", f"{HOME}/standin-mirrored:1"))
    node.out("systemctl start archy-mirrored")
    assert has(node, f"{HOME}/standin-mirrored:1")


def test_what_the_mirror_lacks_comes_from_home(node: Node) -> None:
    push(node, f"{HOME}/standin-home:1")
    node.drop("home", app("home", f"{HOME}/standin-home:1"))
    node.out("systemctl start archy-home")
    registry(node, 5000, up=False)
    push(node, f"{HOME}/standin-home:2")
    node.drop("home2", app("home2", f"{HOME}/standin-home:2"))
    node.out("systemctl start archy-home2")
    registry(node, 5000)


def test_without_the_allow_list_there_is_no_plain_http(node: Node) -> None:
    push(node, f"{HOME}/standin-plain:1")
    node.write("/etc/archy/node.yml", f"images: {{mirrors: {{'{HOME}': ['{MIRROR}/hub']}}}}\n")
    node.tick()
    node.drop("plain", app("plain", f"{HOME}/standin-plain:1"))
    node.out("systemctl start --no-block archy-plain")
    node.wait("it is refused", lambda: waits(node, "plain", "server gave HTTP response to HTTPS client"), 90)
    node.write("/etc/archy/node.yml", SETTINGS)
    node.wait_active("plain", seconds=180)


def test_settings_that_are_gone_leave_nothing(node: Node) -> None:
    conf = "/etc/containers/registries.conf.d/50-archy.conf"
    node.out("rm /etc/archy/node.yml")
    node.wait("no mirror is set", lambda: node.run(f"test -e {conf}").returncode == 1)
    node.write("/etc/archy/node.yml", SETTINGS)
    node.wait("the mirrors are set", lambda: node.run(f"test -e {conf}").returncode == 0)


def test_a_registry_that_is_away_is_said_and_waited_for(node: Node) -> None:
    push(node, f"{HOME}/standin-away:1")
    registry(node, 5001, up=False)
    node.write("/etc/archy/apps/away/manifest.yml", app("away", f"{HOME}/standin-away:1"))
    node.out("systemd-run --quiet --collect --unit=by-hand -p StandardError=file:/root/said archy app install away")

    def is_said() -> bool:
        said = node.run("cat /root/said").stdout
        return "away: waiting for its image: cannot be had: " in said and "connection refused" in said

    node.wait("the command says it", is_said, 120)
    seen: list[tuple[int, dict[str, Any]]] = []

    def is_shown() -> bool:
        code, found = node.status()
        seen.append((code, found["apps"]))
        return "away" in seen[-1][1] and "attempt " in (seen[-1][1]["away"]["image"] or "")

    node.wait("status says it", is_shown, 120)
    code, apps = seen[-1]
    assert (code, apps["away"]["level"]) == (1, "degraded")
    assert apps["away"]["problems"] == [f"waiting for its image: {apps['away']['image']}"]
    assert apps["home"]["current"] == "running"
    assert node.active("away") == "inactive"
    assert node.out("systemctl is-active by-hand") == "active"  # the command waits, too
    assert "archy-image@away.service" not in node.failed()
    node.wait("status tells people", lambda: "waiting for its image: cannot be had" in node.run("archy status").stdout)
    registry(node, 5001)
    node.wait_active("away", seconds=180)
    assert node.show("archy-away", "NRestarts") == "0"
    node.wait("all is well", lambda: line(node, "away")["level"] == "ok")


def test_one_that_is_stopped_meanwhile_stays_stopped(node: Node) -> None:
    push(node, f"{HOME}/standin-stopped:1")
    registry(node, 5001, up=False)
    node.drop("stopped", app("stopped", f"{HOME}/standin-stopped:1"))
    node.out("systemctl start --no-block archy-stopped")
    node.wait("it waits", lambda: waits(node, "stopped", "cannot be had"), 90)
    node.out("systemctl stop archy-stopped")
    node.wait("nobody fetches", lambda: node.show("archy-image@stopped", "ActiveState") == "inactive")
    node.out("systemctl start --no-block archy-stopped")
    node.wait("it waits again", lambda: waits(node, "stopped", "cannot be had"), 90)
    node.out("archy app stop stopped")
    registry(node, 5001)
    time.sleep(20)
    assert (node.active("stopped"), node.show("archy-image@stopped", "ActiveState")) == ("inactive", "inactive")
    assert line(node, "stopped")["current"] == "stopped"
    node.nothing_failed()
    node.out("archy app start stopped", timeout=60)
    node.out("archy app remove stopped")


def test_one_that_is_asked_for_again_is_tried_at_once(node: Node) -> None:
    push(node, f"{HOME}/standin-again:1")
    registry(node, 5001, up=False)
    node.drop("again", app("again", f"{HOME}/standin-again:1"))
    node.out("systemctl start --no-block archy-again")
    node.wait("the third attempt has failed", lambda: waits(node, "again", "attempt 3"), 120)
    registry(node, 5001)
    node.out("systemctl restart archy-image@again")
    assert node.show("archy-image@again", "NRestarts") == "0"  # it was the first attempt
    node.wait_active("again")


def test_what_comes_slowly_has_its_time(node: Node) -> None:
    """The start has 20 s, and the image takes longer."""
    node.write("/tmp/big/Containerfile", f"FROM {IMAGE}\nCOPY random /random\n")
    node.out("head -c 15000000 /dev/urandom >/tmp/big/random; chmod -R a+rX /tmp/big")
    node.podman("build --quiet --tag localhost/big:1 /tmp/big", timeout=120)
    push(node, f"{HOME}/standin-slow:1", image="localhost/big:1")
    node.podman("rmi localhost/big:1")
    node.drop("slow", app("slow", f"{SLOW}/standin-slow:1", extra=["start_timeout_secs: 20"]))
    began = time.monotonic()
    node.out("systemctl start --no-block archy-slow")
    listed = "archy image list --json | jq -r '.images[] | select(.apps[0] == \"slow\").says'"

    def tells() -> bool:
        is_listed = node.out(listed).endswith("so far")
        return is_listed and waits(node, "slow", "MB so far") and line(node, "slow")["level"] == "ok"

    node.wait("it tells how much has come", tells, 120)
    time.sleep(max(0, began + 21 - time.monotonic()))
    assert node.active("slow") == "inactive"
    node.out("touch /root/go-on")
    node.wait_active("slow", seconds=120)
    assert node.show("archy-slow", "NRestarts") == "0"


def test_an_image_made_here_is_never_fetched(node: Node) -> None:
    image = f"{HOME}/standin-mine:local"
    push(node, image)
    node.drop("mine", app("mine", image, "always"))
    node.out("systemctl start --no-block archy-mine")
    node.wait("it waits", lambda: waits(node, "mine", "archy image load FILE"), 90)
    node.podman(f"tag {IMAGE} {image}")
    node.wait_active("mine", seconds=120)


def test_an_archive_is_loaded_and_who_waits_for_it_starts(node: Node) -> None:
    image = f"{HOME}/standin-archive:1"
    node.podman(f"tag {IMAGE} {image}")
    node.podman(f"save --quiet --output /tmp/archive.tar {image}")
    node.out("chown root:root /tmp/archive.tar; chmod 600 /tmp/archive.tar")
    node.podman(f"rmi {image}")
    node.drop("archive", app("archive", image, "never"))
    node.out("systemctl start --no-block archy-archive")
    node.wait("the third attempt has failed", lambda: waits(node, "archive", "attempt 3"), 120)
    assert node.run("archy image list | grep archive").stdout.split()[1] == "missing"
    done = node.run("archy image load /tmp/archive.tar")
    assert (done.returncode, done.stdout) == (0, f"{image}: loaded, for archive\n")
    assert "archive: starts now, if this is its image" in done.stderr
    node.wait_active("archive")
    assert node.out("archy image load - </tmp/archive.tar") == f"{image}: loaded, for archive"


def test_a_bad_archive_is_refused_in_one_line(node: Node) -> None:
    node.out("head -c 10000 /dev/urandom >/tmp/bad.tar")
    done = node.run("archy image load /tmp/bad.tar")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("archy: image load: /tmp/bad.tar: cannot be loaded: ")
    assert len(done.stderr.splitlines()) == 2


def test_an_image_that_was_pruned_is_fetched_at_the_next_start(node: Node) -> None:
    node.out("systemctl stop archy-home")
    node.podman(f"rmi {HOME}/standin-home:1")
    assert not has(node, f"{HOME}/standin-home:1")
    node.out("systemctl start archy-home")
    assert has(node, f"{HOME}/standin-home:1")


def test_a_registry_that_is_away_is_no_matter_for_what_is_there(node: Node) -> None:
    """Also with a policy that asks it at each start, and after a boot."""
    push(node, f"{HOME}/standin-newer:1")
    node.drop("newer", app("newer", f"{HOME}/standin-newer:1", "newer"))
    node.out("systemctl start archy-newer")
    registry(node, 5001, up=False)
    node.out("systemctl restart archy-newer", timeout=60)
    assert "the existing one is used" in node.out("journalctl --sync; journalctl -u archy-image@newer -o cat")
    node.ctl("reboot")  # no registry is up then
    node.wait_active("newer", "home", "mirrored", seconds=90)
