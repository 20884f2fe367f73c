# SPDX-License-Identifier: MIT
"""Quadlet text to finished units: one run of Quadlet for all apps, and the rewrite of what it says."""

import os
import subprocess

from archy import disk, paths, rewrite
from archy.cache import LINK

Texts = dict[str, str]
_TIMEOUT = 25  # seconds; systemd gives a generator 90, and there may be three runs


def convert(root: str, texts: dict[str, Texts], work: str) -> tuple[dict[str, Texts], dict[str, str]]:
    """Run Quadlet over the texts of all apps: the units of each, and for some instead the reason why there are none.

    `work` is a directory to put temporary files into. Texts of the same name are the same file (a shared network).
    """
    if not texts:
        return {}, {}
    source, target = f"{work}/.quadlet-in-{os.getpid()}", f"{work}/.quadlet-out-{os.getpid()}"
    disk.make_flat(source)
    disk.make_flat(target)
    try:
        for name, text in {name: text for app in texts.values() for name, text in app.items()}.items():
            if not _is_finished(name, text):
                disk.write(f"{source}/{name}", text)
        complaints = _run(root, source, target)
        units: dict[str, Texts] = {}
        reasons: dict[str, str] = {}
        for app_id, app in texts.items():
            finished = {name: text for name, text in app.items() if _is_finished(name, text)}
            wanted = {name: service_name(name) for name in app if name not in finished}
            produced = {service: text for service in wanted.values() if (text := _read(f"{target}/{service}"))}
            lacking = [name for name, service in wanted.items() if service not in produced]
            if lacking:
                said = [line for name in lacking for line in complaints if f'"{name}"' in line]
                reasons[app_id] = "; ".join(said or complaints) or "no unit came out"
                continue
            try:
                units[app_id] = {name: rewrite.service(text, source) for name, text in produced.items()} | finished
            except Exception as error:  # text that no Quadlet we know writes: this app's trouble alone
                reasons[app_id] = f"what Quadlet wrote is not understood: {error}"
        return units, reasons
    finally:
        disk.remove_flat(source)
        disk.remove_flat(target)


def _is_finished(name: str, text: str) -> bool:
    """Whether it is a link or a drop-in already, and no text for Quadlet."""
    return "/" in name or text.startswith(LINK)


def service_name(name: str) -> str:
    """The unit that Quadlet makes of a file."""
    stem, _, kind = name.rpartition(".")
    return f"{stem}.service" if kind == "container" else f"{stem}-{kind}.service"


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8") as file:
            return file.read()
    except FileNotFoundError:
        return ""


def _run(root: str, source: str, target: str) -> list[str]:
    """Run Quadlet; what it complains of, without the prefixes. It goes on after a bad file and exits with 1."""
    try:
        done = subprocess.run(
            [paths.under(root, paths.QUADLET), "-no-kmsg-log", target],
            env={"QUADLET_UNIT_DIRS": source, "PATH": os.defpath},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            timeout=_TIMEOUT,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return [f"{paths.QUADLET} cannot be run: {error}"]
    lines = done.stderr.decode(errors="replace").splitlines()
    return [one_line(line.partition("]: ")[2] or line).replace(f"{source}/", "") for line in lines]


def one_line(text: str) -> str:
    """A text as it can stand in one line of a unit or a log."""
    return " ".join("".join(char if char.isprintable() else " " for char in text).split())
