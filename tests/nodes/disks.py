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

from nodes.common import BOX, NODES, REPO, Problem, delete, environment, locked, run, step
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


@dataclass(frozen=True)
class Image:
    """An app image: its tar, the reference to load it under, and its configuration."""

    name: str
    tar: Path
    reference: str
    changes: tuple[str, ...]


def manifest_image(app: str) -> str:
    """Read the reference of an app's image from its manifest."""
    path = REPO / "apps" / app / "manifest.yml"
    text = path.read_text() if path.exists() else ""
    found = re.search(r"^ {2}container:\n(?:(?: {4}.*| *#.*)?\n)*? {4}image: *[\"']?([^\s\"'#]+)", text, re.MULTILINE)
    if not found:
        raise Problem(f"{path}: names no image under container:")
    return found[1]


def images(base: Path) -> list[Image]:
    """Return all app images, made as tests/images/<name>/ tell; busybox is taken from the base."""
    env = environment("PIP_", "http", "no_proxy") | {"BASE": str(base)}
    result = []
    for recipe in sorted((REPO / "tests/images").glob("*/image.json")):
        folder, told = recipe.parent, json.loads(recipe.read_text())

        def build(new: Path, log: Path, folder: Path = folder) -> None:
            step(log, *BOX, "./build", new, cwd=folder, env=env)

        files = sorted(path for path in folder.iterdir() if path != recipe)
        tar = layer(f"image-{folder.name}", digest_files(files), build, ".tar")
        reference = told.get("reference") or manifest_image(told["app"])
        result.append(Image(folder.name, tar, reference, tuple(told["changes"])))
    return result


def put_images(root: Path, wanted: Sequence[Image]) -> None:
    """Lay images onto a node's disk, and beside them `load`, which loads them for the user who runs it."""
    folder = root / "var/lib/archy-images"
    folder.mkdir()
    script = 'set -eu\ncd "$(dirname "$0")"\n'
    for image in wanted:
        shutil.copyfile(image.tar, folder / f"{image.name}.tar")
        changes = shlex.join(word for change in image.changes for word in ("--change", change))
        script += f"podman import --quiet {changes} {image.name}.tar {shlex.quote(image.reference)}\n"
    (folder / "load").write_text(script)


def create(node: Node, source: Path, wanted: Sequence[Image] = ()) -> None:
    """Make a node, whole or not at all."""
    new = NODES / f".{node.name}.new"
    delete(new)
    new.mkdir(parents=True)
    held = hold(source)
    if run("cp", "-a", "--reflink=auto", source, new / "root").returncode != 0:
        raise Problem(f"node {node.name}: {source} could not be copied")
    os.close(held)
    if wanted:
        put_images(new / "root", wanted)
    (new / "root/etc/machine-id").write_text(Path("/proc/sys/kernel/random/uuid").read_text().replace("-", ""))
    (new / "root/etc/hostname").write_text(f"{node.name}\n")
    (new / "root/etc/hosts").write_text(f"127.0.0.1 localhost\n::1 localhost\n127.0.1.1 {node.name}\n")
    with locked("number", "another node is being numbered", wait=True):
        taken = {int(path.read_text()) for path in NODES.glob("*/number")}
        free = [n for n in range(1, 255) if n not in taken and not Path(f"/sys/class/net/archy-{n}").exists()]
        if not free:
            raise Problem("254 nodes exist already")
        (new / "number").write_text(str(free[0]))
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

    loads = [(image.tar.name, image.reference, image.changes) for image in wanted]
    return layer("template", digest(base.name, deb.name, loads, PROVISION), build)
