# SPDX-License-Identifier: MIT
"""The node that harm is done to: its apps, how each answers, what they keep, and whether all is well with them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from conftest import Node, standin
from consumers import HOME, six_apps

HERE = Path(__file__).resolve().parent


@dataclass(frozen=True)
class App:
    """An app of the node: its container, where and how it answers, and whether it serves a page, or asks others."""

    container: str
    port: int
    speaks: str = "http"
    web: bool = False
    asks: bool = False


APPS = {
    "bitcoin-knots": App("bitcoin-knots", 8332),
    "bitcoin-ui": App("archy-bitcoin-ui", 8334, web=True),
    "electrumx": App("electrumx", 50001, "electrum"),
    "electrs-ui": App("archy-electrs-ui", 18084, web=True),
    "lnd": App("lnd", 8081, "https"),
    "lnd-ui": App("archy-lnd-ui", 18083, web=True),
    "postgres": App("postgres", 15432, "postgres"),
    "plain": App("plain", 8090, web=True, asks=True),
    "deaf": App("deaf", 8091, web=True, asks=True),
}
POSTGRES = f"""
app:
  id: postgres
  name: PostgreSQL
  version: '17'
  container:
    image: docker.io/library/postgres:17
    user: 999:999
    data_uid: 100998
  environment: [POSTGRES_HOST_AUTH_METHOD=trust, PGDATA=/var/lib/postgresql/data/pgdata]
  stop_grace_secs: 30
  ports: [{{host: 15432, container: 5432, bind: 127.0.0.1}}]
  volumes:
    - {{type: bind, source: {HOME}/postgres, target: /var/lib/postgresql/data}}
    - {{type: volume, source: postgres-more, target: /more}}
  health_check: {{type: exec, command: [pg_isready, -q, -h, 127.0.0.1], interval: 5s, timeout: 5s, retries: 3}}
"""
CHECK = "{type: http, endpoint: 'localhost:8080', path: /health, interval: 5s, timeout: 3s, retries: 3}"
PLAIN = standin(
    "plain", port=8090, health=CHECK, extra=["volumes:", f"  - {{type: bind, source: {HOME}/plain, target: /data}}"]
)
DEAF = standin("deaf", port=8091, health=CHECK, env={"IGNORE_TERM": "1"}, grace=5)


@contextmanager
def world(name: str) -> Iterator[Node]:
    """A fresh node on regtest with all apps at work, and what PostgreSQL and others keep."""
    with six_apps(name) as node:
        for app, manifest in {"postgres": POSTGRES, "plain": PLAIN, "deaf": DEAF}.items():
            node.write(f"/etc/archy/apps/{app}/manifest.yml", manifest)
            node.out(f"archy app install {app}", timeout=120)
        node.bitcoin("gettxoutsetinfo")  # makes bitcoind write its index; killed before, it would not start again
        for script in ("chaos_watch.py", "chaos_look.py"):
            node.write(f"/root/{script}", (HERE / script).read_text())
        node.podman("exec postgres psql -q -c 'CREATE TABLE marks (number serial)'")
        node.wait("all is well", lambda: look(node) == [], 120)
        yield node


def look(node: Node) -> list[str]:
    """All that is not as it should be; see chaos_look.py."""
    apps = json.dumps({name: asdict(app) for name, app in APPS.items()})
    done = node.run(f"python3 /root/chaos_look.py '{apps}'")
    found: list[str] = json.loads(done.stdout) if done.returncode == 0 else [done.stderr]
    return found


def mark(node: Node) -> None:
    """Leave something in a bind mount, in a table, and in a named volume."""
    node.podman("exec plain sh -c 'echo mark >>/data/marks; sync /data/marks'")
    node.podman("exec postgres sh -c 'echo mark >>/more/marks; sync /more/marks'")
    node.podman("exec postgres psql -q -c 'INSERT INTO marks DEFAULT VALUES'")


def marks(node: Node) -> list[int]:
    """How much is left of it in each place."""
    return [
        int(node.podman("exec plain grep -c mark /data/marks") or 0),
        int(node.podman("exec postgres grep -c mark /more/marks") or 0),
        int(node.podman("exec postgres psql -Atc 'SELECT count(*) FROM marks'")),
    ]
