# SPDX-License-Identifier: MIT
"""Stacks: an app and its parts on a network of their own, which come and go together, and fail alone."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from conftest import AS_USER, Node, fresh_node, standin

HOME = "/var/lib/archipelago"
PARTS = ("alpha-cache", "alpha-db")
ALPHA = ("alpha", *PARTS)
BETA = ("beta", "beta-db")
DATA_VERSION = "must stay 17, of which there is data"


def put(node: Node, app: str, manifest: str) -> None:
    """Put an app into the catalogue."""
    node.write(f"/usr/share/archy/apps/{app}/manifest.yml", manifest)


def named(app: str, network: str, container: tuple[str, ...] = (), extra: tuple[str, ...] = (), **env: str) -> str:
    """A stand-in in a stack's network that answers with its own name."""
    files = [
        "generated_files:",
        *(f"  - {{path: {HOME}/{app}/{page}, content: {app}, mode: '0444'}}" for page in ("health", "name")),
    ]
    volumes = ["volumes:", f"  - {{type: bind, source: {HOME}/{app}, target: /www, options: [ro]}}"]
    return standin(app, env=env, container=[f"network: {network}", *files, *container], extra=[*volumes, *extra])


def database(version: str, **env: str) -> str:
    """The part of alpha that has data, and a secret."""
    container = (
        "network_aliases: [db]",
        f"data_version: {version}",
        "generated_secrets: [{name: alpha-password, kind: hex32}]",
        "secret_env: [{key: PASSWORD, secret_file: alpha-password}]",
    )
    extra = ("  - {type: volume, source: alpha-data, target: /kept}", "part_of: alpha")
    return named("alpha-db", "alpha-net", container, extra, READY_AFTER="4", **env)


@pytest.fixture(scope="module")
def node() -> Iterator[Node]:
    """A node with two stacks, both of which have a part that is called db."""
    with fresh_node("stacks") as fresh:
        db = "network_aliases: [db]"
        put(fresh, "alpha", named("alpha", "alpha-net", ("networks: [{name: archy-net}]",)))
        put(fresh, "alpha-db", database("17"))
        cache = ("part_of: alpha", "dependencies: [{app_id: alpha-db}]")
        put(fresh, "alpha-cache", named("alpha-cache", "alpha-net", (), cache))
        put(fresh, "beta", named("beta", "beta-net"))
        put(fresh, "beta-db", named("beta-db", "beta-net", (db,), ("part_of: beta",)))
        fresh.out("archy app install alpha && archy app install beta")
        yield fresh


def ask(node: Node, app: str, host: str) -> str:
    """What another container says its name is; empty if it cannot be reached."""
    return node.run(f"{AS_USER} podman exec {app} wget -T 2 -qO- http://{host}:8080/name").stdout


def answer(node: Node, app: str, host: str) -> str:
    """What it says, whatever that is, as soon as it says something."""
    said: list[str] = []

    def is_answered() -> bool:
        said.append(ask(node, app, host))
        return said[-1] != ""

    node.wait(f"{app} reaches {host}", is_answered)
    return said[-1]


def stamp(node: Node, app: str, name: str) -> int:
    """When something last happened to an app's unit, in microseconds since boot."""
    return int(node.show(f"archy-{app}", f"{name}TimestampMonotonic"))


def check_order(node: Node) -> None:
    """Each starts after those that it needs were ready."""
    for first, second in (("alpha-db", "alpha-cache"), ("alpha-db", "alpha"), ("alpha-cache", "alpha")):
        assert stamp(node, first, "ActiveEnter") <= stamp(node, second, "InactiveExit"), (first, second)


def left_alone(node: Node, before: dict[str, int]) -> None:
    """All these apps run as they did."""
    assert node.pids(*before) == before
    assert 0 not in before.values()


def test_an_alias_is_that_of_the_own_stack(node: Node) -> None:
    for app, found in (("alpha", "alpha-db"), ("alpha-cache", "alpha-db"), ("beta", "beta-db")):
        assert answer(node, app, "db") == found
    assert answer(node, "alpha", "alpha-cache") == "alpha-cache"
    assert answer(node, "alpha-db", "alpha") == "alpha"


def test_no_way_leads_from_one_stack_into_another(node: Node) -> None:
    form = "'{{range .NetworkSettings.Networks}}{{.IPAddress}} {{end}}'"
    for app, others in (("alpha", BETA), ("alpha-db", ("beta-db",)), ("beta-db", ALPHA)):
        for other in others:
            assert node.run(f"{AS_USER} podman exec {app} nslookup {other}").returncode != 0, (app, other)
            addresses = node.podman(f"inspect --format {form} {other}").split()
            assert addresses
            for address in addresses:
                assert ask(node, app, address) == "", (app, other, address)


def test_networks_are_the_stacks_own(node: Node) -> None:
    networks = set(node.podman("network ls --format '{{.Name}}'").split())
    assert {"alpha-net", "beta-net", "archy-net"} <= networks
    form = "'{{range $name, $_ := .NetworkSettings.Networks}}{{$name}} {{end}}'"
    where = {app: node.podman(f"inspect --format {form} {app}").split() for app in (*ALPHA, *BETA)}
    assert sorted(where.pop("alpha")) == ["alpha-net", "archy-net"]
    assert where == {app: [f"{app.split('-')[0]}-net"] for app in (*PARTS, *BETA)}


def test_the_start_waits_for_parts(node: Node) -> None:
    check_order(node)
    node.out("systemctl restart archy-alpha")
    node.wait_active(*ALPHA)
    check_order(node)


def test_stop_and_start_take_the_parts_along(node: Node) -> None:
    others = node.pids(*BETA)
    node.out("systemctl stop archy-alpha")
    # systemctl waits for what it was told to stop; the parts stop after their app.
    node.wait("all parts stop", lambda: {node.active(app) for app in ALPHA} == {"inactive"})
    assert all(node.processes(app) == [] for app in ALPHA)
    node.out("systemctl start archy-alpha")
    assert {app: node.active(app) for app in ALPHA} == dict.fromkeys(ALPHA, "active")
    check_order(node)
    node.out("systemctl stop archy-alpha; systemctl start archy-alpha")
    assert {app: node.active(app) for app in ALPHA} == dict.fromkeys(ALPHA, "active")
    check_order(node)
    left_alone(node, others)


@pytest.mark.parametrize("part", PARTS)
def test_the_stop_of_a_part_leaves_the_rest(node: Node, part: str) -> None:
    others = node.pids(*(app for app in (*ALPHA, *BETA) if app != part))
    node.out(f"systemctl stop archy-{part}")
    assert node.active(part) == "inactive"
    left_alone(node, others)
    node.out(f"systemctl start archy-{part}")
    left_alone(node, others)


@pytest.mark.parametrize("app", ALPHA)
def test_a_crash_concerns_nobody_else(node: Node, app: str) -> None:
    others = node.pids(*(one for one in (*ALPHA, *BETA) if one != app))
    for inside in (False, True):
        before = node.pid(app)
        assert before  # `kill 0` would end the tests
        node.out(f"kill -9 {f'$(pgrep -P {before})' if inside else before}")
        node.wait(f"{app} runs anew", lambda before=before: node.pid(app) not in (0, before))  # type: ignore[misc]
        node.wait_active(app)
        left_alone(node, others)
    assert answer(node, "alpha", "db") == "alpha-db"


def test_a_part_is_nothing_by_itself(node: Node) -> None:
    before = node.pids(*ALPHA)
    for verb in ("stop", "start", "remove", "install"):
        done = node.run(f"archy app {verb} alpha-db")
        assert done.returncode == 3, done.stderr
        assert "alpha-db: is a part of alpha" in done.stderr
        assert f"archy app {verb} alpha\n" in done.stderr
    left_alone(node, before)


def test_stopped_for_good_and_started_again(node: Node) -> None:
    others = node.pids(*BETA)
    node.out("archy app stop alpha")
    assert {app: node.active(app) for app in ALPHA} == dict.fromkeys(ALPHA, "inactive")
    left_alone(node, others)
    node.ctl("reboot")
    node.wait_active(*BETA)
    assert {app: node.active(app) for app in ALPHA} == dict.fromkeys(ALPHA, "inactive")
    node.out("archy app start alpha")
    assert {app: node.active(app) for app in ALPHA} == dict.fromkeys(ALPHA, "active")
    node.ctl("reboot")
    node.wait_active(*ALPHA, *BETA)
    check_order(node)
    assert (answer(node, "alpha", "db"), answer(node, "beta", "db")) == ("alpha-db", "beta-db")
    node.nothing_failed()


def test_removal_leaves_only_data(node: Node) -> None:
    node.podman("exec alpha-db sh -c 'echo still here > /kept/note'")
    others = node.pids(*BETA)
    node.out("archy app remove alpha")
    assert "alpha" not in node.podman("ps --all --format '{{.Names}}'")
    assert "alpha" not in node.podman("network ls --format '{{.Name}}'")
    assert node.podman("secret ls --quiet") == ""
    assert node.out("systemctl list-units --all --plain --no-legend '*alpha*'") == ""
    assert node.out("systemctl list-unit-files --plain --no-legend '*alpha*' || true") == ""
    assert node.out("find /run/archipelago /run/archy /run/systemd/generator /etc/archy -name '*alpha*'") == ""
    assert node.podman("volume ls --quiet --filter name=alpha") == "alpha-data"
    left_alone(node, others)
    secret = node.out(f"cat {HOME}/secrets/alpha-password")
    node.out("archy app install alpha")
    assert node.podman("exec alpha-db cat /kept/note") == "still here"
    assert node.podman("exec alpha-db sh -c 'echo $PASSWORD'") == secret
    assert answer(node, "alpha", "db") == "alpha-db"


def test_another_version_of_the_data_is_refused(node: Node) -> None:
    """Neither a new manifest nor a removal gets a database of another version onto the data."""
    before = node.pids(*ALPHA)
    put(node, "alpha-db", database("18", NEW="1"))
    node.out("systemctl daemon-reload")
    assert DATA_VERSION in node.out("systemctl status archy-alpha-db --no-pager")
    node.tick()
    code, found = node.status()
    assert code == 1
    assert DATA_VERSION in " ".join(found["apps"]["alpha-db"]["problems"])
    left_alone(node, before)
    node.out("systemctl restart archy-alpha")
    assert node.podman("exec alpha-db sh -c 'echo ${NEW:-none}; cat /kept/note'").split("\n") == ["none", "still here"]
    node.out("archy app remove alpha")
    done = node.run("archy app install alpha", timeout=120)
    assert done.returncode != 0
    assert "the data has version 17, the manifest wants 18" in done.stderr
    # Not its processes: one of archy's looks again and again whether it may start.
    assert "alpha-db" not in node.podman("ps --format '{{.Names}}'").split()
    node.out("archy app stop alpha")  # it would be said for ten minutes that it was restarted often
    put(node, "alpha-db", database("17", NEW="1"))
    node.out("archy app install alpha; archy app start alpha")
    assert node.podman("exec alpha-db sh -c 'echo ${NEW:-none}; cat /kept/note'").split("\n") == ["1", "still here"]
    node.passes_until("all is well", lambda: node.run("archy status").returncode == 0)
