# SPDX-License-Identifier: MIT
"""What runs, as the kernel tells it: units' cgroups and processes, as files below another root."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from support import Node

from archy import paths
from archy.probe import containers
from archy.probe.containers import Container

ID = "0123456789abcdef" * 4


class Kernel:
    """Makes cgroups of units, and processes in them."""

    def __init__(self, node: Node) -> None:
        self.node = node

    def unit(self, app: str, *pids: int, cpu: str = "usage_usec 2500000\nuser_usec 1\n", frozen: int = 0) -> None:
        base = f"{paths.SLICE_CGROUP}/{paths.unit(app)}"
        self.node.write(f"{base}/cgroup.events", f"populated {int(bool(pids))}\nfrozen {frozen}\n")
        self.node.write(f"{base}/cgroup.procs", "".join(f"{pid}\n" for pid in pids))
        self.node.write(f"{base}/cpu.stat", cpu)

    def process(self, pid: int, parent: int, name: str = "app", state: str = "S", arguments: str = "") -> None:
        self.node.write(f"/proc/{pid}/stat", f"{pid} ({name}) {state} {parent} {pid} {pid} 0 -1 4194560 1 2\n")
        self.node.write(f"/proc/{pid}/cmdline", arguments.replace(" ", "\0") + "\0")
        self.node.write(f"/proc/{pid}/ns/user", "")

    def app(self, app: str = "web", conmon: int = 100, identity: str = ID, **fields: Any) -> None:
        """An app as it usually is: conmon, the container's PID 1, and a child of that."""
        self.unit(app, conmon, conmon + 1, conmon + 2, **fields)
        self.process(
            conmon, 1, "conmon", arguments=f"/usr/bin/conmon --api-version 1 -c {identity} -u {identity} -n {app}"
        )
        self.process(conmon + 1, conmon, "nginx")
        self.process(conmon + 2, conmon + 1, "nginx")

    def running(self) -> list[Container]:
        return containers.running(self.node.name)


@pytest.fixture
def kernel(node: Node) -> Kernel:
    return Kernel(node)


def test_an_app_as_it_usually_is(kernel: Kernel) -> None:
    kernel.app()
    (found,) = kernel.running()
    assert (found.app, found.id, found.conmon, found.pid) == ("web", ID, 100, 101)
    assert (found.stopped, found.main_stopped, found.frozen, found.cpu) == ([], False, False, 2.5)
    assert found.userns == os.stat(kernel.node.path("/proc/100/ns/user")).st_ino


def test_all_apps_sorted_and_who_does_not_run_is_not_among_them(kernel: Kernel) -> None:
    for number, app in enumerate(["z", "a", "m"]):
        kernel.app(app, 100 * (number + 1), f"{number}" * 64)
    kernel.unit("off")
    kernel.node.write(f"{paths.SLICE_CGROUP}/cgroup.procs", "")
    kernel.node.write(f"{paths.SLICE_CGROUP}/other.service/cgroup.events", "populated 1\n")
    assert [(found.app, found.id[0], found.pid) for found in kernel.running()] == [
        ("a", "1", 201),
        ("m", "2", 301),
        ("z", "0", 101),
    ]


def test_a_node_without_apps(kernel: Kernel) -> None:
    assert kernel.running() == []


def test_the_container_s_first_process_is_the_one(kernel: Kernel) -> None:
    """Whatever else conmon has started later."""
    kernel.app()
    kernel.unit("web", 100, 101, 102, 150)
    kernel.process(150, 100, "later")
    assert [found.pid for found in kernel.running()] == [101]


def test_a_stopped_monitor_does_not_see_that_its_container_has_ended(kernel: Kernel) -> None:
    kernel.app()
    kernel.unit("web", 100)
    kernel.process(100, 1, "conmon", "T", f"conmon -c {ID}")
    (found,) = kernel.running()
    assert (found.conmon, found.pid, found.stopped, found.main_stopped) == (100, 0, [100], True)


@pytest.mark.parametrize("pids", [(), (100,), (101, 102)], ids=["empty", "conmon-alone", "no-conmon"])
def test_a_unit_without_a_container(kernel: Kernel, pids: tuple[int, ...]) -> None:
    """Podman is about to make it, or it has just ended, or somebody has killed its monitor."""
    kernel.app()
    kernel.unit("web", *pids)
    kernel.node.write(f"{paths.SLICE_CGROUP}/archy-web.service/cgroup.events", "populated 1\n")
    assert kernel.running() == []


def test_podman_before_it_makes_the_container(kernel: Kernel) -> None:
    kernel.unit("web", 50, 51)
    kernel.process(50, 1, "sh")
    kernel.process(51, 50, "podman", arguments=f"podman run -c {ID}")
    assert kernel.running() == []


@pytest.mark.parametrize("gone", [100, 101, 102])
def test_who_has_ended_in_this_moment(kernel: Kernel, gone: int) -> None:
    """The list has it, /proc has not. Only a container without conmon or a process of its own is none."""
    kernel.app()
    kernel.process(103, 100, "other")
    kernel.unit("web", 100, 101, 102)
    for name in ("stat", "cmdline"):
        kernel.node.path(f"/proc/{gone}/{name}").unlink()
    assert [found.pid for found in kernel.running()] == ([101] if gone == 102 else [])


@pytest.mark.parametrize(
    ("path", "content"),
    [
        ("/proc/100/cmdline", ""),
        ("/proc/100/cmdline", "conmon\0-c"),
        ("/proc/100/cmdline", "conmon\0-c\0\xff\0"),
        ("/proc/101/stat", ""),
        ("/proc/101/stat", "101 (x) S"),
        ("/proc/101/stat", "101 (x) S x y"),
        ("/proc/100/ns/user", None),
        (f"{paths.SLICE_CGROUP}/archy-web.service/cgroup.procs", "x\n"),
        (f"{paths.SLICE_CGROUP}/archy-web.service/cpu.stat", "usage_usec x\n"),
    ],
)
def test_what_cannot_be_read_is_no_container_and_harms_no_other(kernel: Kernel, path: str, content: str | None) -> None:
    kernel.app()
    kernel.app("other", 200)
    if content is None:
        kernel.node.path(path).unlink()
    else:
        kernel.node.write(path, content.encode("latin-1"))
    assert [found.app for found in kernel.running()] == ["other"]


@pytest.mark.parametrize("name", ["a) S 1 (b", "conmon", "(conmon", ") R 1 (conmon", "x (conmon"])
def test_a_process_may_be_called_whatever_it_likes(kernel: Kernel, name: str) -> None:
    """Only conmon is a child of the machine's PID 1."""
    kernel.app()
    kernel.process(102, 101, name)
    assert [(found.conmon, found.pid) for found in kernel.running()] == [(100, 101)]


@pytest.mark.parametrize(
    ("states", "stopped", "main"),
    [
        ({}, [], False),
        ({101: "T"}, [101], True),
        ({100: "T"}, [100], True),
        ({102: "T"}, [102], False),
        ({100: "T", 101: "T", 102: "T"}, [100, 101, 102], True),
        ({101: "t"}, [], False),  # by a debugger
        ({101: "Z", 102: "D"}, [], False),
    ],
)
def test_who_was_stopped_by_a_signal(kernel: Kernel, states: dict[int, str], stopped: list[int], main: bool) -> None:
    kernel.app()
    for pid, state in states.items():
        kernel.process(
            pid, {100: 1, 101: 100, 102: 101}[pid], "conmon" if pid == 100 else "x", state, f"conmon -c {ID}"
        )
    (found,) = kernel.running()
    assert (found.stopped, found.main_stopped) == (stopped, main)


@pytest.mark.parametrize(
    ("name", "forwarded"),
    [
        ("rootlessport", True),
        ("rootlessport-ch", True),
        ("pasta", True),
        ("pasta.avx2", True),
        ("conmon", False),
        ("nginx", False),
        ("my-pasta", False),
        ("xrootlessport", False),
    ],
)
def test_who_passes_on_what_comes_to_its_ports(kernel: Kernel, name: str, forwarded: bool) -> None:
    """A child of Podman, which has ended, in the unit's cgroup."""
    kernel.app()
    kernel.app("other", 200)
    kernel.unit("web", 100, 101, 102, 150)
    kernel.process(150, 1 if name != "conmon" else 100, name)
    assert [(found.app, found.forwarded) for found in kernel.running()] == [("other", False), ("web", forwarded)]


@pytest.mark.parametrize(("frozen", "is_frozen"), [(0, False), (1, True)])
def test_a_frozen_unit(kernel: Kernel, frozen: int, is_frozen: bool) -> None:
    kernel.app(frozen=frozen)
    assert kernel.running()[0].frozen is is_frozen


@pytest.mark.parametrize(
    ("text", "cpu"),
    [
        ("usage_usec 0\n", 0.0),
        ("usage_usec 7\nuser_usec 3\n", 7e-6),
        ("nr_periods 1\nusage_usec 5000000", 5.0),
        ("", 0.0),
    ],
)
def test_the_time_that_it_has_used(kernel: Kernel, text: str, cpu: float) -> None:
    kernel.app(cpu=text)
    assert kernel.running()[0].cpu == pytest.approx(cpu)


def test_the_kernel_s_own_files_are_like_that() -> None:
    """Of this process: the second field is its name in parentheses, the fourth its parent."""
    name, _, rest = Path("/proc/self/stat").read_bytes().rpartition(b")")
    assert name.startswith(f"{os.getpid()} (".encode())
    assert (rest.split()[0], int(rest.split()[1])) == (b"R", os.getppid())
