# SPDX-License-Identifier: MIT
"""Runs in a node: `bench_generator.py APPS RUNS` prints the generator's and Quadlet's median wall times in ms, as JSON.

The apps are those of the catalogue under other names. Each round runs, one after the other, Quadlet alone on the very
Quadlet text that archy renders; the generator where nothing changed (warm), where /run is empty besides, as at a boot
(cold), where one app has changed since (one), and without anything kept (new: manifests that nobody checked before).
Then a whole daemon-reload is timed, and the same with these units as plain files and the generator masked.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from archy import paths
from archy.apps import installed
from archy.host.idmap import owner_of
from archy.manifest import load
from archy.prepare import apply
from archy.units import drift, quadlet
from archy.units.cache import LINK

GENERATOR = "/usr/lib/systemd/system-generators/archy-generator"
MASK = Path("/etc/systemd/system-generators/archy-generator")
PLAIN = "/run/systemd/system"


def install(count: int) -> list[str]:
    """Install `count` apps, as an operator's own, and accept them."""
    shutil.rmtree(paths.APPS)
    shutil.rmtree(paths.ACCEPTED)
    originals = sorted(Path(paths.CATALOGUE).iterdir())
    app_ids = [f"app-{number:04d}" for number in range(count)]
    for number, app_id in enumerate(app_ids):
        original = originals[number % len(originals)]
        target = Path(paths.APPS, app_id)
        shutil.copytree(original, target)
        text = (target / paths.MANIFEST).read_text()
        text = re.sub(r"(?m)^  id: .*$", f"  id: {app_id}", text).replace(f"{paths.HOME}/", f"{paths.HOME}/{app_id}/")
        # With the names of the original, its networks and volumes would be another app's.
        text = re.sub(r"(?m)((?:network|source|name): )(?!archy-net)\S+-(net|data)$", rf"\1{app_id}-\2", text)
        (target / paths.MANIFEST).write_text(text)
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stderr(nowhere):
        failed = apply.Preparation("/", app_ids).run()
    if failed:
        sys.exit(f"the apps of the bench could not be prepared: {failed}")
    return app_ids


def quadlet_texts(app_ids: list[str], directory: Path) -> None:
    """Write the Quadlet text of all apps into a directory."""
    owner = owner_of("/")
    for app_id in app_ids:
        source = installed.source("/", app_id)
        app = load.trusted(source.content or b"", source.path)
        for name, text in quadlet.files(app, source.path, owner, "/").items():
            if "/" not in name and not text.startswith(LINK):
                (directory / name).write_text(text)


def timed(command: list[str], environment: dict[str, str] | None = None) -> float:
    """The wall time of a command that writes into a fresh directory, its last argument, in ms."""
    with tempfile.TemporaryDirectory(dir="/run") as out:
        start = time.perf_counter()
        subprocess.run([*command, out], env=environment, stderr=subprocess.DEVNULL, check=True)
        return (time.perf_counter() - start) * 1000


def without(*directories: str) -> Callable[[], float]:
    """The generator's time while these directories are away."""

    def run() -> float:
        for directory in directories:
            os.rename(directory, directory + ".away")
        try:
            return timed([GENERATOR])
        finally:
            for directory in directories:
                os.rename(directory + ".away", directory)

    return run


def keep() -> None:
    """What passes do after the installation: they load the units, find them right and keep them."""
    subprocess.run(["systemctl", "daemon-reload"], check=True)
    time.sleep(2.5)
    if said := drift.drift("/"):
        sys.exit(f"the units are not right: {said}")
    if not os.path.exists(paths.SNAPSHOT):
        sys.exit("the output of the generator was not kept")


def one_changed(app_id: str) -> float:
    """The generator's time after a change of one app that archy-prepare has seen."""
    manifest = Path(paths.APPS, app_id, paths.MANIFEST)
    before = manifest.read_text()
    manifest.write_text(f"{before}# changed\n")
    try:
        return timed([GENERATOR])
    finally:
        manifest.write_text(before)


def reload() -> float:
    """The time of a whole daemon-reload, in ms."""
    start = time.perf_counter()
    subprocess.run(["systemctl", "daemon-reload"], check=True)
    return (time.perf_counter() - start) * 1000


def plain_reload() -> float:
    """The same where nothing has to be generated: archy's units are plain files."""
    before = set(os.listdir(PLAIN))
    shutil.copytree(paths.GENERATED, PLAIN, symlinks=True, dirs_exist_ok=True)
    MASK.parent.mkdir(exist_ok=True)
    MASK.symlink_to("/dev/null")
    try:
        return reload()
    finally:
        MASK.unlink()
        for name in set(os.listdir(PLAIN)) - before:
            path = Path(PLAIN, name)
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        reload()


def main() -> None:
    """Measure and print."""
    count, runs = int(sys.argv[1]), int(sys.argv[2])
    # A pass would make again what is away.
    subprocess.run(["systemctl", "stop", "archy-reconcile.timer", "archy-reconcile.path"], check=True)
    with tempfile.TemporaryDirectory(dir="/run") as texts:
        app_ids = install(count)
        quadlet_texts(app_ids, Path(texts))
        keep()
        kinds: dict[str, Callable[[], float]] = {
            "quadlet": lambda: timed([paths.QUADLET], {"QUADLET_UNIT_DIRS": texts}),
            "warm": without(),
            "cold": without("/run/archy"),
            "new": without("/run/archy", paths.ACCEPTED),
            "reload": reload,
            "plain": plain_reload,
        }
        times: dict[str, list[float]] = {kind: [] for kind in kinds}
        for _ in range(runs + 1):
            for kind, run in kinds.items():
                times[kind].append(run())
        # The last ones: from now on the times of an input are not those that were kept.
        times["one"] = [one_changed(app_ids[0]) for _ in range(runs + 1)]
    # The first round fills the page cache and is not counted.
    print(json.dumps({kind: statistics.median(values[1:]) for kind, values in times.items()}))
    shutil.rmtree(paths.APPS)
    os.mkdir(paths.APPS)


if __name__ == "__main__":
    main()
