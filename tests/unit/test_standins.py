# SPDX-License-Identifier: MIT
"""Stand-ins that test nodes have for images of the catalogue: what they are told, and how they are packed."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile

import pytest
from nodes import catalogue, standins

APP = {
    "id": "one",
    "container": {"image": "example.org/one:1", "user": "1000:1001", "entrypoint": ["/opt/one/start"]},
    "ports": [
        {"host": "80", "container": "8080-8081"},
        {"host": "90", "container": "53", "protocol": "udp"},
    ],
    "volumes": [
        {"type": "volume", "source": "one-data", "target": "/srv/data"},
        {"type": "bind", "source": "/var/lib/archipelago/one", "target": "/etc/one", "options": ["ro"]},
    ],
    "health_check": {"type": "exec", "test": ["CMD", "one-ctl", "ping"]},
    "hooks": {
        "pre_start": [{"exec": ["/opt/one/migrate", "all"]}, {"copy_from_host": {"src": "x", "dest": "/hook"}}],
        "post_install": [{"exec": ["/hook/run"]}],
    },
}


def test_a_stand_in_is_told_what_the_manifest_says() -> None:
    made = standins.stand_in("example.org/one:1", [APP])
    told = dict(entry.split("=", 1) for entry in made.environment)
    assert (told["STANDIN_PORTS"], told["STANDIN_VOLUMES"]) == ("8080 8081", "/srv/data")
    assert hashlib.sha256(b"migrate all").hexdigest() in told["STANDIN_HOOKS"].split()
    # /hook/run is in what is mounted there.
    assert made.programs == ("/opt/one/migrate", "/opt/one/start", "/usr/local/bin/one-ctl")
    assert made.folders == (("/srv/data", 1000, 1001),)


def test_the_archive_has_all_images_and_what_they_share_once() -> None:
    made = [standins.stand_in(f"example.org/{name}:1", [APP | {"id": name}]) for name in ("one", "two")]
    with tarfile.open(fileobj=io.BytesIO(standins.archive(b"base", made))) as tar:
        content = {entry.name: (tar.extractfile(entry) or io.BytesIO()).read() for entry in tar}
    images = json.loads(content["manifest.json"])
    assert [image["RepoTags"] for image in images] == [["example.org/one:1"], ["example.org/two:1"]]
    shared, own = images[0]["Layers"]
    assert images[1]["Layers"] == [shared, own]
    assert len(content) == 1 + 2 + 2
    config = json.loads(content[images[0]["Config"]])
    assert config["rootfs"]["diff_ids"] == [
        f"sha256:{hashlib.sha256(content[name]).hexdigest()}" for name in (shared, own)
    ]
    with tarfile.open(fileobj=io.BytesIO(content[own])) as tar:
        entries = {entry.name: entry for entry in tar}
    assert entries["opt/one/start"].linkname == standins.PROGRAM
    assert (entries["srv/data"].uid, entries["srv/data"].gid, entries["srv"].uid) == (1000, 1001, 0)


@pytest.mark.parametrize(
    ("check", "program"),
    [
        ({"type": "exec", "command": ["a", "b"]}, "a"),
        ({"test": ["CMD-SHELL", "a || b"]}, "/bin/sh"),
        ({"test": "a || b"}, "/bin/sh"),
    ],
)
def test_the_program_of_a_check(check: dict[str, object], program: str) -> None:
    assert catalogue.check_command({"health_check": check})[0] == program


def test_the_port_of_a_check() -> None:
    def port(endpoint: str) -> int | None:
        return catalogue.health_port({"health_check": {"type": "http", "endpoint": endpoint}})

    assert [port(text) for text in ("localhost:81", "http://localhost:82/x", "http://localhost/x")] == [81, 82, 80]
