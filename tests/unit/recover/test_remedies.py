# SPDX-License-Identifier: MIT
# ruff: noqa: E501 - a case is a line
"""Which rungs are climbed for which fault, in which order, and what they run: the least force first, and never more."""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest
from probes import ID, OTHER

from archy import paths as archy_paths
from archy.health.faults import LEFTOVERS, NETWORK, PODMAN, STORAGE, Fault
from archy.host.steps import AsUser, Hold, Start, Step
from archy.recover.remedies import ADVICE, REMEDIES, Remedy, Situation, applies

UNMOUNT = 'umount -l "$1/rootless-netns/rootless-netns"; rm -rf -- "$1"'
RUNTIME, STAMP, STORE = "/run/user/990", "20260102-030405", archy_paths.STORAGE
KINDS = [PODMAN, NETWORK, STORAGE, LEFTOVERS]


def scene(kind: str, said: str, /, **fields: Any) -> Situation:
    about = {key: fields.pop(key) for key in ("apps", "containers", "timers") if key in fields}
    return Situation(Fault(kind, said, **about), 990, RUNTIME, STAMP, **fields)


def climbed(kind: str, said: str, /, **fields: Any) -> list[str]:
    """What is tried, in order, if nothing helps and the same is seen each time."""
    here = scene(kind, said, **fields)
    return [rung.title for rung in REMEDIES[kind] if applies(rung, here)]


def rung(kind: str, says: str) -> Remedy:
    (one,) = (one for one in REMEDIES[kind] if one.title.startswith(says))
    return one


def run(kind: str, says: str, said: str = "x", /, **fields: Any) -> list[Step]:
    """The steps of a rung."""
    return rung(kind, says).steps(scene(kind, said, **fields))


def commands(steps: list[Step]) -> list[str]:
    return [" ".join(step.command) for step in steps if isinstance(step, AsUser)]


# Podman does not answer.

PAUSE = "make a new pause process, over an empty store"
DATABASE = "set the database aside"
LOCKS = "make the file of locks again"
ASIDE = "set the file aside that cannot be read"
WAIT, CLEAR, WORST = "wait", "clear the runtime directories", "set the database aside, for want of anything better"

MESSAGES = [
    ('invalid internal status, try resetting the pause process with "podman system migrate": could not find any running process: no such process', [PAUSE]),
    ("file is not a database", [DATABASE]),
    ("beginning transaction: database disk image is malformed", [DATABASE]),
    ("checking if table exists: disk I/O error: input/output error", [DATABASE]),
    ("executing query: no such table: DBConfig", [DATABASE]),
    ("scanning container: no such column: x", [DATABASE]),
    ("failed to open 2048 locks in /libpod_rootless_lock_990: no such file or directory", [LOCKS]),
    ("allocating lock: reading locks in /libpod_rootless_lock_990: numerical result out of range", [LOCKS]),
    (f'loading "{STORE}/overlay-containers/containers.json": unexpected end of JSON input', [ASIDE]),
    (f'loading "{STORE}/overlay-layers/layers.json": invalid character', [ASIDE]),
    ("no answer within 8 s", [WAIT]),
    ("podman ps ended with status 139", []),
    ("creating runtime static files directory: permission denied", []),
]  # fmt: skip


@pytest.mark.parametrize(("said", "wanted"), MESSAGES, ids=[said[:40] for said, _ in MESSAGES])
def test_each_message_has_its_rung(said: str, wanted: list[str]) -> None:
    """And while no app runs, then less careful ones after it."""
    assert climbed(PODMAN, said, running=("web",)) == wanted
    assert climbed(PODMAN, said) == [*wanted, CLEAR, WORST]


@pytest.mark.parametrize(
    "said",
    [
        "creating temporary file: no space left on device",
        f"open {STORE}/storage.lock: no space left on device",
        "database or disk is full",
        "beginning transaction: database or disk is full (13)",
        "creating container: disk quota exceeded",
    ],
)
@pytest.mark.parametrize("running", [(), ("web",)])
def test_a_full_disk_is_no_reason_to_clear_anything(said: str, running: tuple[str, ...]) -> None:
    """All would be well if there were space; nothing could be made anew without."""
    assert climbed(PODMAN, said, running=running) == []


def test_rungs_for_when_no_app_runs_are_not_climbed_while_one_does() -> None:
    """A container whose runtime directory is gone can neither be stopped nor be known."""
    idle = [one for kind in KINDS for one in REMEDIES[kind] if one.idle]
    assert [one.title for one in idle] == [CLEAR, WORST]
    for one in idle:
        for said, _ in MESSAGES:
            assert not applies(one, scene(PODMAN, said, running=("web",)))
            assert applies(one, scene(PODMAN, said))


def test_nothing_that_clears_or_removes_for_good_comes_before_what_keeps() -> None:
    says = [one.title for one in REMEDIES[PODMAN]]
    assert says == [PAUSE, DATABASE, LOCKS, ASIDE, WAIT, CLEAR, WORST]


def test_a_new_pause_process() -> None:
    assert commands(run(PODMAN, PAUSE)) == [
        f"podman --root {RUNTIME}/archy-empty/root --runroot {RUNTIME}/archy-empty/run ps -q",
        f"podman unshare rm -rf -- {RUNTIME}/archy-empty",
    ]


@pytest.mark.parametrize("says", [DATABASE + ",", DATABASE])
def test_the_database_is_kept_under_another_name(says: str) -> None:
    one = REMEDIES[PODMAN][-1 if says.endswith(",") else 1]
    aside, renumber = commands(one.steps(scene(PODMAN, "x")))
    assert aside == (
        f"find {STORE} -maxdepth 1 -name db.sql* ! -name *.broken-* -exec mv --no-clobber -- {{}} {{}}.broken-{STAMP} ;"
    )
    assert renumber == "podman system renumber"


def test_new_locks() -> None:
    assert commands(run(PODMAN, LOCKS)) == ["rm -f -- /dev/shm/libpod_rootless_lock_990", "podman system renumber"]


def test_the_runtime_directories() -> None:
    clear, renumber = commands(run(PODMAN, CLEAR))
    assert clear == "rm -rf -- " + " ".join(f"{RUNTIME}/{name}" for name in ("containers", "libpod", "podman", "crun"))
    assert renumber == "podman system renumber"


def test_to_wait_is_to_do_nothing() -> None:
    assert run(PODMAN, WAIT) == []
    assert rung(PODMAN, WAIT).timeout >= 30


def test_the_file_that_cannot_be_read_is_set_aside() -> None:
    (step,) = run(PODMAN, ASIDE, f'Error: loading "{STORE}/overlay-layers/layers.json": unexpected end')
    assert commands([step]) == [
        f"find {STORE}/overlay-layers -maxdepth 1 -name layers.json ! -name *.broken-*"
        f" -exec mv --no-clobber -- {{}} {{}}.broken-{STAMP} ;"
    ]


@pytest.mark.parametrize(
    "path",
    [
        "/etc/containers/storage.conf",
        "/var/lib/archipelago/secrets/bitcoin-rpc-password",
        "/var/lib/archipelago/.local/share/containers",
        f"{STORE}-other/x/layers.json",
        f"/x{STORE}/a/b",
        f"{STORE}",
        f"{STORE}/",
        f"{STORE}/db.sql",
        f"{STORE}/../../../../secrets/x",
        f"{STORE}/overlay-layers/../../../../../secrets/x",
        f"{STORE}/overlay-layers/..",
        f"{STORE}/overlay-layers/",
        f"{STORE}/overlay-layers/*",
        f"{STORE}/overlay-layers/?ayers.json",
        f"{STORE}/overlay-layers/[a-z]*",
        "layers.json",
        "-delete",
        "",
    ],
)
def test_a_path_that_is_no_file_of_the_storage_is_never_touched(path: str) -> None:
    """The text comes from the service user: whoever is in it could have written it."""
    assert run(PODMAN, ASIDE, f'loading "{path}": x') == []


def test_a_message_without_a_path() -> None:
    assert run(PODMAN, ASIDE, "loading x") == []


# The network.

PASTA, ONE = "start pasta again", "start the name server again, with one container"
ALL, FORGET = "connect all containers again", "let the name server forget what it knows"
SOME = "restart the apps that it concerns"
ANEW = "stop all apps, make the network anew, and start them"


@pytest.mark.parametrize(
    ("said", "wanted"),
    [
        ("pasta does not run: no way out", [PASTA, ALL]),
        ("pasta does not run: no way out; web: no name server: Connection refused", [PASTA, ONE, ALL]),
        ("web: no name server: Connection refused", [ONE, ALL]),
        ("web: no answer within 3 s", [ONE, ALL]),
        ("web: no way to the name server 10.89.0.1: Network is unreachable", [ALL]),
        ("web: it has no network any more", [ALL]),
        ("web: the name web resolves to nothing instead of 10.89.0.2", []),
        ("web: the name web resolves to 10.89.0.2, 10.89.0.7 instead of 10.89.0.2", []),
    ],
)
def test_what_is_tried_for_the_network(said: str, wanted: list[str]) -> None:
    """Apps are stopped as the last resort, for names; all of them if none of them knows any."""
    forget = [FORGET] if "web" in said else []
    some = [] if said.startswith("pasta") else [SOME]
    assert climbed(NETWORK, said, running=("web",)) == [*wanted, *forget, *some]
    assert climbed(NETWORK, f"all apps: {said}", running=("web",)) == [*wanted, *forget, ANEW]


def test_only_the_last_resort_holds_apps() -> None:
    here = scene(NETWORK, "web: no name server", apps=("web",), running=("a", "b"))
    for one in REMEDIES[NETWORK][:-2]:
        assert not [step for step in one.steps(here) if isinstance(step, Hold)]
    assert REMEDIES[NETWORK][-2].steps(here) == [Hold(("web",))]
    hold, *rest = REMEDIES[NETWORK][-1].steps(here)
    assert hold == Hold(("a", "b"))
    assert commands(rest) == [
        "pkill -KILL -u 990 ^(aardvark-dns|pasta(\\.avx2)?)$",
        f"podman unshare sh -c {UNMOUNT} sh {RUNTIME}/containers/networks",
    ]


@pytest.mark.programs
def test_what_is_mounted_there_is_none_of_ours_to_remove(tmp_path: Path) -> None:
    """It is unmounted first; and the rest goes also if nothing was mounted, as after a crash."""
    networks = tmp_path / "net works"
    (networks / "rootless-netns/rootless-netns").mkdir(parents=True)
    (networks / "aardvark-dns").mkdir()
    (tmp_path / "other").write_text("")
    *_, last = run(NETWORK, ANEW, running=("a",))
    assert isinstance(last, AsUser)
    assert last.command[:2] == ("podman", "unshare")
    mounts = tmp_path / "umount"
    mounts.write_text(f'#!/bin/sh\nls {shlex.quote(str(networks))} >&2\necho "$@"\nexit 32\n')
    mounts.chmod(0o755)
    command = [*last.command[2:-1], str(networks)]
    environment = {"PATH": f"{tmp_path}:/usr/bin:/bin"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == f"-l {networks}/rootless-netns/rootless-netns\n"
    assert done.stderr.split() == ["aardvark-dns", "rootless-netns"]
    assert {path.name for path in tmp_path.iterdir()} == {"umount", "other"}


@pytest.mark.parametrize("name", ["aardvark-dns", "pasta", "pasta.avx2"])
@pytest.mark.parametrize("around", ["{}", "x{}", "my-{}", "anti{}"])
def test_no_process_is_killed_for_a_name_that_is_alike(name: str, around: str) -> None:
    """Every app's processes belong to that user, too."""
    kill = next(step for step in run(NETWORK, ANEW) if isinstance(step, AsUser) and step.command[0] == "pkill")
    called = around.format(name)
    assert bool(re.search(kill.command[-1], called)) == (around == "{}"), called


def test_nobody_is_stopped_where_it_concerns_nobody() -> None:
    """Without pasta apps serve each other and the node; and if it cannot be started, neither could they."""
    said = "pasta does not run: no way out"
    here = scene(NETWORK, said, running=("a", "b"))
    for one in REMEDIES[NETWORK]:
        if applies(one, here):
            assert Hold(()) not in one.steps(here), one.title
    assert climbed(NETWORK, said, running=("a", "b")) == [PASTA, ALL]


def test_the_steps_of_the_network() -> None:
    here: dict[str, Any] = {"apps": ("web", "x"), "containers": (ID, OTHER), "running": ("web",)}
    assert commands(run(NETWORK, PASTA, **here)) == ["podman unshare --rootless-netns true"]
    assert commands(run(NETWORK, ONE, **here)) == [f"podman network reload {ID}"]
    assert commands(run(NETWORK, ALL, **here)) == [
        "podman unshare --rootless-netns true",
        "podman network reload --all",
    ]
    assert commands(run(NETWORK, FORGET, **here)) == [
        "pkill -KILL -u 990 -x aardvark-dns",
        f"rm -rf -- {RUNTIME}/containers/networks/aardvark-dns",
        "podman network reload --all",
    ]


# Storage, and what is left over.


DAMAGE = "remove what is damaged from the storage, to be fetched again"


@pytest.mark.parametrize(
    ("said", "wanted"),
    [
        ("Podman fails to start web", []),  # it is the image, or the manifest
        ("Podman fails to start web: Error: damage detected in local storage", [DAMAGE]),
        (f'Podman fails to start web: Error: loading "{STORE}/overlay-layers/layers.json": x', [ASIDE]),
        ("Podman fails to start web: Error: no space left on device", []),
    ],
)
@pytest.mark.parametrize("running", [(), ("web",)])
def test_what_is_tried_for_the_storage(said: str, wanted: list[str], running: tuple[str, ...]) -> None:
    assert climbed(STORAGE, said, running=running) == wanted


def test_what_is_damaged_is_removed_and_those_that_have_to_do_with_it_stand_still() -> None:
    """And no other app."""
    hold, repair = run(STORAGE, DAMAGE, "x", apps=("a", "b"), running=("c", "d"))
    assert hold == Hold(("a", "b"))
    assert commands([repair]) == ["podman system check --quick --repair"]
    assert isinstance(repair, AsUser)
    assert repair.timeout >= 1800


@pytest.mark.parametrize(
    ("containers", "timers", "wanted"),
    [
        ((ID, OTHER), (), [f"podman rm --force --ignore {ID} {OTHER}"]),
        ((), ("x.timer", "y.timer"), ["systemctl --user stop -- x.timer y.timer"]),
        ((ID,), ("x.timer",), [f"podman rm --force --ignore {ID}", "systemctl --user stop -- x.timer"]),
        ((), (), []),
    ],
)
def test_the_sweep(containers: tuple[str, ...], timers: tuple[str, ...], wanted: list[str]) -> None:
    steps = run(LEFTOVERS, "remove", "x", containers=containers, timers=timers)
    assert commands(steps) == wanted
    assert all(step.timeout > 3600 for step in steps if isinstance(step, AsUser) and "rm" in step.command)


# All of them.


def everything() -> list[tuple[str, Remedy, list[Step]]]:
    said = f'loading "{STORE}/a/b.json"'
    here: dict[str, Any] = {"running": ("web",), "apps": ("web",), "containers": (ID,), "timers": ("x.timer",)}
    return [(kind, one, one.steps(scene(kind, said, **here))) for kind in KINDS for one in REMEDIES[kind]]


def test_all_kinds_have_a_ladder_and_an_advice() -> None:
    assert {*REMEDIES} == {*ADVICE} == {*KINDS}
    assert all(ADVICE.values())


def test_what_is_never_run() -> None:
    """`migrate` stops every container, `reset` and `prune` throw away what is wanted, with volumes at worst."""
    for kind, one, steps in everything():
        for command in [*commands(steps), str(steps)]:
            assert not re.search(r"\b(migrate|reset|prune|volume|rmi|kill --all|stop --all)\b", command), (
                kind,
                one.title,
            )


def test_no_container_is_stopped_or_removed_but_what_is_left_over() -> None:
    for kind, _, steps in everything():
        for command in commands(steps):
            assert kind == LEFTOVERS or not re.search(r"podman (rm|kill|stop|pod|container)\b", command)


def test_what_is_removed_lies_in_the_runtime_directory() -> None:
    """It is made anew at each boot. What outlives a boot is renamed at most."""
    for kind, _, steps in everything():
        for step in steps:
            if isinstance(step, AsUser) and kind != LEFTOVERS and re.search(r"\brm\b", " ".join(step.command)):
                paths = step.command[step.command.index("--" if "rm" in step.command else UNMOUNT) + 1 :]
                paths = paths[1:] if paths[0] == "sh" else paths
                assert paths
                assert all(path.startswith((RUNTIME + "/", "/dev/shm/libpod_rootless_lock_")) for path in paths)
                assert not any(".." in path for path in paths)


def test_every_step_has_an_end() -> None:
    for _, one, steps in everything():
        assert 0 < one.timeout <= 120
        for step in steps:
            assert isinstance(step, Hold) or (isinstance(step, AsUser) and 0 < step.timeout <= 3700)
            assert not isinstance(step, Start)  # what is held is started again by whoever climbs


def test_every_pattern_is_one() -> None:
    for ladder in REMEDIES.values():
        for one in ladder:
            re.compile(one.when)
