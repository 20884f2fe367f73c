# SPDX-License-Identifier: MIT
"""The disks of nodes: app images, the template with package and images, and the plain copy of it for a new node."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from nodes import catalogue, standins
from nodes.common import BOX, MEMORY, NODES, REPO, Problem, delete, environment, locked, quietly, run, step
from nodes.layers import base_layer, digest, digest_files, hold, layer, package_layer
from nodes.node import Node
from nodes.power import cut_power, power_off, power_on, remove, settle

# In the template node, as root. The package is at /root/archy.deb, and stays there to be installed again in tests; the
# images are in /var/lib/archy-images.
PROVISION = """
set -eu
export DEBIAN_FRONTEND=noninteractive
apt-get install -y /root/archy.deb
uid=$(id -u archipelago)
systemctl start "user@$uid.service"
cd /
runuser -u archipelago -- env HOME=/var/lib/archipelago XDG_RUNTIME_DIR="/run/user/$uid" sh /var/lib/archy-images/load
rm -rf /var/lib/archy-images
"""


RECIPES = REPO / "tests/images"
ROOM = 6 * 1024**2  # KiB that must be available for a disk in memory: it needs two to three GiB, and the apps run, too
SHARED = "catalogue-standin"  # the recipe of what all stand-ins for images of the catalogue have in common


@dataclass(frozen=True)
class Image:
    """An app image: its tar, the references to load it under, and its configuration; or an archive that knows these."""

    name: str
    tar: Path
    references: tuple[str, ...] = ()
    changes: tuple[str, ...] = ()


def told_references(told: dict[str, list[str]]) -> tuple[str, ...]:
    """What a recipe is loaded as: references that it names, and those of apps, as far as the catalogue has them."""
    known = catalogue.apps()
    found = [reference for app in told.get("apps", ()) if app in known for reference in catalogue.references(app)]
    return tuple(dict.fromkeys([*told.get("references", ()), *found]))


def made(folder: Path, base: Path) -> Path:
    """Return the tar that a recipe makes; busybox is taken from the base."""
    files = sorted(path for path in folder.iterdir() if path.name != "image.json")
    env = environment("PIP_", "http", "no_proxy") | {"BASE": str(base)}

    def build(new: Path, log: Path) -> None:
        step(log, *BOX, "./build", new, cwd=folder, env=env)

    return layer(f"image-{folder.name}", digest_files(files), build, ".tar")


def images(base: Path) -> list[Image]:
    """Return all app images: those with a recipe, and stand-ins for what the catalogue needs besides."""
    result = []
    for path in sorted(RECIPES.glob("*/image.json")):
        told = json.loads(path.read_text())
        if references := told_references(told):
            result.append(Image(path.parent.name, made(path.parent, base), references, tuple(told["changes"])))
    taken = {reference for image in result for reference in image.references}
    if archive := standins.archive_layer(made(RECIPES / SHARED, base), taken):
        result.append(Image("standins", archive))
    return result


def put_images(root: Path, wanted: Sequence[Image]) -> None:
    """Lay images onto a node's disk, and beside them `load`, which loads them for the user who runs it."""
    folder = root / "var/lib/archy-images"
    folder.mkdir()
    script = 'set -eu\ncd "$(dirname "$0")"\n'
    for image in wanted:
        shutil.copyfile(image.tar, folder / f"{image.name}.tar")
        if not image.references:
            script += f"podman load --quiet --input {image.name}.tar\n"
            continue
        changes = shlex.join(word for change in image.changes for word in ("--change", change))
        first, *more = map(shlex.quote, image.references)
        script += f"podman import --quiet {changes} {image.name}.tar {first}\n"
        script += "".join(f"podman tag {first} {other}\n" for other in more)
    (folder / "load").write_text(script)


def has_memory() -> bool:
    """Whether a node's disk can be in memory: there is enough of it, and it can hold what rootless Podman needs."""
    available = re.search(r"^MemAvailable: +(\d+) kB", Path("/proc/meminfo").read_text(), re.MULTILINE)
    if not available or int(available[1]) < ROOM:
        return False
    with locked("memory", "another nodectl makes room in memory", wait=True):
        MEMORY.mkdir(parents=True, exist_ok=True)
        # As large as all memory: nodes see how full it is, and say so if it is nearly full.
        if not MEMORY.is_mount() and not quietly("mount", "-t", "tmpfs", "-o", "mode=755,size=100%", "nodes", MEMORY):
            return False
    try:
        os.setxattr(MEMORY, "user.archy", b"")  # since Linux 6.6
    except OSError:
        return False
    return True


def create(node: Node, source: Path, wanted: Sequence[Image] = (), *, memory: bool = False) -> None:
    """Make a node, whole or not at all."""
    new = NODES / f".{node.name}.new"
    root = MEMORY / f".{node.name}.new" if memory else new / "root"
    for path in (new, MEMORY / f".{node.name}.new", MEMORY / node.name):
        delete(path)
    new.mkdir(parents=True)
    held = hold(source)
    if run("cp", "-a", "--reflink=auto", source, root).returncode != 0:
        raise Problem(f"node {node.name}: {source} could not be copied")
    os.close(held)
    if wanted:
        put_images(root, wanted)
    (root / "etc/machine-id").write_text(Path("/proc/sys/kernel/random/uuid").read_text().replace("-", ""))
    (root / "etc/hostname").write_text(f"{node.name}\n")
    (root / "etc/hosts").write_text(f"127.0.0.1 localhost\n::1 localhost\n127.0.1.1 {node.name}\n")
    with locked("number", "another node is being numbered", wait=True):
        taken = {int(path.read_text()) for path in NODES.glob("*/number")}
        free = [n for n in range(1, 255) if n not in taken and not Path(f"/sys/class/net/archy-{n}").exists()]
        if not free:
            raise Problem("254 nodes exist already")
        (new / "number").write_text(str(free[0]))
        if memory:
            root.rename(MEMORY / node.name)
        new.rename(node.dir)


def template_layer() -> Path:
    """Return the disk that `start` copies: package installed, images loaded, powered off."""
    base = base_layer()
    deb, wanted = package_layer(), images(base)
    node = Node("template")

    def build(new: Path, log: Path) -> None:
        remove(node)
        create(node, base, wanted)
        shutil.copyfile(deb, node.root / "root/archy.deb")
        try:
            power_on(node)
            settle(node, 120)
            step(log, *node.command("sh", "-c", PROVISION))
            power_off(node)
        finally:
            cut_power(node)
        delete(node.root / "var/log/journal")
        (node.root / "var/log/journal").mkdir()
        node.root.rename(new)
        remove(node)

    loads = [(image.tar.name, image.references, image.changes) for image in wanted]
    return layer("template", digest(base.name, deb.name, loads, PROVISION), build)
