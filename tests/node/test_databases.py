# SPDX-License-Identifier: MIT
"""Real databases, each an app with a named volume: what a real client has written is there after whatever happens."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import pytest
from conftest import AS_USER, Node, fresh_node
from consumers import HOME

MANIFEST = """
app:
  id: {name}
  name: A database
  version: '1'
  container:
    image: {image}
    pull_policy: never
    user: 999:999
    custom_args: {arguments}
    generated_secrets:
      - {{name: {name}-password, kind: hex32}}
    secret_env:
      - {{key: {variable}, secret_file: {name}-password}}
  stop_grace_secs: 60
  security: {{capabilities: [], readonly_root: true, no_new_privileges: true}}
  volumes:
    - {{type: volume, source: {name}-data, target: {target}}}
  environment: {environment}
  health_check: {{type: tcp, endpoint: 'localhost:{port}', interval: 30s}}
"""


@dataclass(frozen=True)
class Database:
    """A database. The scripts are for a shell in the container; N is a number that is written."""

    name: str
    image: str
    variable: str
    target: str
    port: int
    create: str
    write: str
    read: str  # prints all numbers, in any order
    arguments: str = "[]"
    environment: str = "[]"

    def manifest(self) -> str:
        """The manifest of the database as an app."""
        return MANIFEST.format(**vars(self))

    def inside(self, script: str) -> str:
        """A command for root on the node that runs a script in the container."""
        return f"({AS_USER} podman exec {self.name} bash -c '{script}')"


MARIADB = "mariadb --user=tester --password=$MARIADB_PASSWORD --protocol=tcp --host=127.0.0.1 --batch tests"
DATABASES = (
    Database(
        name="postgresql",
        image="docker.io/library/postgres:17",
        variable="POSTGRES_PASSWORD",
        target="/var/lib/postgresql/data",
        port=5432,
        create='psql -q -U tester tests -c "CREATE TABLE kept (n integer PRIMARY KEY)"',
        write='PGPASSWORD=$POSTGRES_PASSWORD psql -q -h 127.0.0.1 -U tester tests -c "INSERT INTO kept VALUES ($N)"',
        read='psql -q -t -A -U tester tests -c "SELECT n FROM kept"',
        environment="[POSTGRES_USER=tester, POSTGRES_DB=tests]",
    ),
    Database(
        name="mariadb",
        image="docker.io/library/mariadb:11.8",
        variable="MARIADB_PASSWORD",
        target="/var/lib/mysql",
        port=3306,
        create=f'{MARIADB} --execute="CREATE TABLE kept (n integer PRIMARY KEY) ENGINE=InnoDB"',
        write=f'{MARIADB} --execute="INSERT INTO kept VALUES ($N)"',
        read=f'{MARIADB} --skip-column-names --execute="SELECT n FROM kept"',
        environment="[MARIADB_ROOT_PASSWORD=only-a-test, MARIADB_USER=tester, MARIADB_DATABASE=tests]",
    ),
    Database(
        name="valkey",
        image="docker.io/valkey/valkey:8.1",
        variable="UNUSED_PASSWORD",
        target="/data",
        port=6379,
        create="valkey-cli -e DEL kept",
        write="valkey-cli -e SADD kept $N",
        read="valkey-cli -e SMEMBERS kept",
        arguments="[valkey-server, --appendonly, 'yes', --appendfsync, always]",
    ),
)
NAMES = [database.name for database in DATABASES]


@pytest.fixture(scope="module")
def node() -> Iterator[Node]:
    """A node with all of them, and a first number in each."""
    with fresh_node("databases") as fresh:
        for database in DATABASES:
            fresh.write(f"/etc/archy/apps/{database.name}/manifest.yml", database.manifest())
            fresh.out(f"archy app install {database.name}", timeout=120)
            fresh.out(database.inside(database.create))
        yield fresh


def numbers(node: Node, database: Database) -> set[int]:
    """All that is written."""
    return set(map(int, node.out(database.inside(database.read)).split()))


def write(node: Node, number: int) -> dict[str, set[int]]:
    """Write a number everywhere, and tell what is there then."""
    for database in DATABASES:
        node.out(database.inside(f"N={number}; {database.write}"))
    found = {database.name: numbers(node, database) for database in DATABASES}
    assert all(number in there for there in found.values())
    return found


def check(node: Node, before: dict[str, set[int]]) -> None:
    """All is there again, and more can be written."""
    node.wait_active(*NAMES)
    assert {database.name: numbers(node, database) for database in DATABASES} == before
    node.wait("all is well", lambda: node.run("archy reconcile; archy status").returncode == 0)
    node.nothing_failed()


def test_a_restart(node: Node) -> None:
    before, pids = write(node, 1), node.pids(*NAMES)
    node.out("systemctl restart " + " ".join(f"archy-{name}" for name in NAMES))
    check(node, before)
    assert [name for name, pid in node.pids(*NAMES).items() if pid == pids[name]] == []


def test_other_containers(node: Node) -> None:
    before, pids = write(node, 2), node.pids(*NAMES)
    node.run(f"{AS_USER} podman rm --force --time 60 " + " ".join(NAMES))  # beside the units' own, which may be faster
    node.wait("other containers", lambda: all(pid not in (0, pids[n]) for n, pid in node.pids(*NAMES).items()))
    check(node, before)


def test_a_reboot(node: Node) -> None:
    before = write(node, 3)
    node.ctl("reboot")
    check(node, before)


def test_a_removal_and_another_installation(node: Node) -> None:
    before = write(node, 4)
    for name in NAMES:
        node.out(f"archy app remove {name} && archy app install {name}", timeout=180)
    check(node, before)


def test_the_power_is_cut_while_clients_write(node: Node) -> None:
    """What a client was told to be written is there; and of what came last, it may be."""
    before = write(node, 5)
    for database in DATABASES:
        told = f"/root/told-{database.name}"
        loop = f"for N in $(seq 1000 9999); do export N; {database.write} >&2 && echo $N; done"
        node.write(f"/root/write-{database.name}", f"{database.inside(loop)} > {told}\n")
        node.out(f"systemd-run --quiet bash /root/write-{database.name}")
        node.wait(f"{database.name} is busy", lambda told=told: len(lines(node, told)) > 20)  # type: ignore[misc]
    node.ctl("kill")
    node.ctl("boot")
    node.wait_active(*NAMES)
    for database in DATABASES:
        written, there = lines(node, f"/root/told-{database.name}"), numbers(node, database)
        assert before[database.name] | set(written) <= there, database.name
    check(node, {database.name: numbers(node, database) for database in DATABASES})


@pytest.mark.parametrize("database", DATABASES[:2], ids=NAMES[:2])
def test_the_power_is_cut_while_a_database_is_made(node: Node, database: Database) -> None:
    """It is made whole with the next start; nobody has to clear away what was half there."""
    another = replace(database, name=f"{database.name}-2")
    node.write(f"/etc/archy/apps/{another.name}/manifest.yml", another.manifest())
    node.out(f"archy app install --no-wait {another.name}")
    inside = f"{HOME}/.local/share/containers/storage/volumes/{another.name}-data/_data"
    node.wait("something is there", lambda: node.run(f"ls -A {inside}").stdout != "")
    node.ctl("kill")
    node.ctl("boot")
    node.wait_active(another.name)
    for script in (another.create, f"N=1; {another.write}"):
        node.out(another.inside(script))
    assert numbers(node, another) == {1}
    node.out(f"archy app remove {another.name}")


def lines(node: Node, path: str) -> list[int]:
    """The numbers in a file, but for one that is not all there."""
    text = node.run(f"cat {path}").stdout
    return list(map(int, text[: text.rfind("\n") + 1].split()))
