# SPDX-License-Identifier: MIT
"""What several tests need: a node as a directory tree, a manifest, and a reader of systemd's command lines."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

from archy.apps import facts as apps_facts
from archy.apps import installed
from archy.health.current import AppState, NodeState
from archy.host import systemd
from archy.host.idmap import Owner
from archy.manifest import load as manifest_load
from archy.manifest import model, settings
from archy.prepare import prepare as prepare_prepare
from archy.prepare import render, stamps
from archy.probe.report import Report
from archy.units import generator

REPO = Path(__file__).resolve().parents[2]
SHIPPED = sorted(path.name for path in (REPO / "apps").iterdir())
QUADLET = "/usr/libexec/podman/quadlet"

PASSWD = "root:x:0:0:root:/root:/bin/bash\narchipelago:x:990:989::/var/lib/archipelago:/usr/sbin/nologin\n"
SUBUID = "somebody:100000:65536\narchipelago:231072:65536\n"
SUBGID = "somebody:100000:65536\narchipelago:331072:65536\n"
OWNER = Owner(990, 989, (range(231072, 296608),), (range(331072, 396608),))

FACTS = render.Context(OWNER, settings.parse(None), {}, frozenset({"web", "bitcoin-knots"}), {})

GOOD = """\
app:
  id: web
  name: Web
  version: 1.0.0
  container:
    image: docker.io/library/nginx:1.26
"""


def app_text(app_id: str = "web", container: str = "", app: str = "") -> str:
    """A good manifest with YAML lines added to its container (from line 7 on) and then to the app."""
    text = GOOD.replace("id: web", f"id: {app_id}")
    for lines, indent in ((container, " " * 4), (app, " " * 2)):
        text += "".join(f"{indent}{line}\n" for line in lines.splitlines())
    return text


def app_of(container: str = "", app: str = "", beside: frozenset[str] = frozenset()) -> model.App:
    """The checked app of `app_text`."""
    return manifest_load.check(app_text("web", container, app).encode(), "manifest.yml", "web", beside)


def material(app: model.App, facts: render.Context = FACTS, **fields: dict[str, str]) -> render.Inputs:
    """What the texts of an app are made of: `templates`, `values` and `own`, each empty if not given."""
    return render.Inputs(app, **{"templates": {}, "values": {}, "own": {}, **fields}, facts=facts)


NOW, UP = 1_800_000_000.0, 100_000.0  # the clock, and seconds since the boot


def running(app_id: str = "web", /, **fields: Any) -> AppState:
    """An app that has run for an hour, on what it should have. Fields are of its state, its unit or its summary."""
    app = app_of()
    about = apps_facts.summary(app) | {key: fields.pop(key) for key in [*fields] if key in apps_facts.summary(app)}
    unit: dict[str, Any] = {"loaded": True, "generated": True, "active": "active", "sub": "running", "invocation": "1"}
    unit |= {"changed": UP - 3600, "began": UP - 3660}
    unit |= {key: fields.pop(key) for key in [*fields] if key in systemd.Unit.__dataclass_fields__}
    state = {"comparable": True, "summary": about, **fields}
    return AppState(app_id, systemd.Unit(f"archy-{app_id}.service", **unit), **state)


def down(app_id: str = "web", /, **fields: Any) -> AppState:
    """An app that does not run."""
    off = {"active": "inactive", "sub": "dead", "invocation": "", "comparable": False, "began": 0.0}
    return running(app_id, **{**off, **fields})


def state(*apps: AppState, **fields: Any) -> NodeState:
    """A node with these apps, on which all else is well."""
    probe = Report(at=UP - 20, containers=(), podman_at=UP - 20)
    well = {"wall": NOW, "monotonic": UP, "probe": probe, "size": 1000, "free": 500}
    return NodeState(apps, **{**well, **fields})


class Node:
    """A directory that looks like the root of a node."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.name = str(root)
        for directory in ("etc/archy/apps", "usr/share/archy", "usr/libexec/podman", "run", "var/lib/archipelago"):
            (root / directory).mkdir(parents=True)
        for name, text in (("passwd", PASSWD), ("subuid", SUBUID), ("subgid", SUBGID)):
            (root / "etc" / name).write_text(text)
        for name in ("apps", "templates"):
            shutil.copytree(REPO / name, root / "usr/share/archy" / name)
        (root / "usr/libexec/podman/quadlet").symlink_to(QUADLET)

    def path(self, path: str) -> Path:
        """Where the node's `path` is for us."""
        return self.root / path.lstrip("/")

    def write(self, path: str, content: str | bytes) -> Path:
        """Write a file of the node, with the directories above it."""
        target = self.path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content.encode() if isinstance(content, str) else content)
        return target

    def app(self, app_id: str = "web", text: str | None = None, **beside: str) -> Path:
        """Drop an app of the operator's own into /etc/archy/apps."""
        for name, content in beside.items():
            self.write(f"/etc/archy/apps/{app_id}/{name}", content)
        return self.write(f"/etc/archy/apps/{app_id}/manifest.yml", app_text(app_id) if text is None else text)

    def install(self, *app_ids: str) -> None:
        """Install apps of the catalogue."""
        for app_id in app_ids:
            self.path(f"/etc/archy/apps/{app_id}").symlink_to(f"/usr/share/archy/apps/{app_id}")

    def shelve(self, *app_ids: str) -> None:
        """Leave only these apps in the catalogue."""
        for folder in self.path("/usr/share/archy/apps").iterdir():
            if folder.name not in app_ids:
                shutil.rmtree(folder)

    def fake_quadlet(self, script: str) -> None:
        """Put a shell script in the place of Quadlet. It may run the real one."""
        self.path(QUADLET).unlink()
        self.write(QUADLET, f"#!/bin/sh\n{script}\n").chmod(0o755)

    def runs(self, app_id: str, populated: int = 1) -> None:
        """Make it look as if the app had processes."""
        cgroup = f"/sys/fs/cgroup/archipelago.slice/archipelago-apps.slice/archy-{app_id}.service"
        self.write(f"{cgroup}/cgroup.events", f"populated {populated}\nfrozen 0\n")

    def generate(self, name: str = "out") -> tuple[dict[str, str], list[str]]:
        """Run the generator into a new directory: what it wrote, and its warnings."""
        out = self.root / name
        shutil.rmtree(out, ignore_errors=True)
        out.mkdir()
        warnings = generator.generate(self.name, str(out))
        return tree(out), sorted(warnings)

    def failures(self, *app_ids: str, retry_failed: bool = False) -> dict[str, str]:
        """Make a pass over the given or over all apps, and over the node itself: why some cannot be prepared."""
        return prepare_prepare.prepare(self.name, list(app_ids) or installed.ids(self.name)[0], retry_failed)

    def prepare(self, *app_ids: str) -> int:
        """Run archy-prepare for the given or for all apps: its exit code, as `prepare.main` finds it."""
        return int(any(not name.startswith("@") for name in self.failures(*app_ids)))

    def is_fresh(self, name: str) -> bool:
        """Whether nothing has changed since the last pass over an app, or over `@node`."""
        return stamps.fresh(self.name, name) is not None


def tree(directory: Path) -> dict[str, str]:
    """All files below a directory: relative path to text, or to `-> target` for links."""
    result = {}
    for folder, folders, names in os.walk(directory):
        for name in [*names, *(name for name in folders if Path(folder, name).is_symlink())]:
            path = Path(folder, name)
            found = (
                f"-> {os.readlink(path)}"
                if path.is_symlink()
                else path.read_bytes().decode("utf-8", "backslashreplace")
            )
            result[str(path.relative_to(directory))] = found
    return dict(sorted(result.items()))


_ESCAPES = {"a": 7, "b": 8, "f": 12, "n": 10, "r": 13, "t": 9, "v": 11, "s": 32, "\\": 92, '"': 34, "'": 39}


def systemd_words(line: str) -> list[str]:
    """The words of a command line as systemd executes it (systemd.service(5), systemd.syntax(7)).

    Independent of the code under test: quotes and C escapes, `%%` and `$$`. Any other `%` or `$` is what no value of
    ours may come to, and raises ValueError; a word that is a variable of systemd's own (`$MAINPID`) is none of ours.
    """
    words: list[str] = []
    word: list[str] | None = None
    quote = ""
    at = 0
    while at < len(line):
        char = line[at]
        at += 1
        if quote and char == quote:
            quote = ""
        elif char == "\\":
            code, at = _unescaped(line, at)
            word = [*(word or []), code]
        elif quote:
            word = [*(word or []), char]
        elif char in "'\"":
            quote, word = char, word or []
        elif char in " \t":
            if word is not None:
                words.append("".join(word))
            word = None
        else:
            word = [*(word or []), char]
    if quote:
        raise ValueError(f"an open {quote}: {line}")
    words += ["".join(word)] if word is not None else []
    return [_undoubled(_undoubled(one, "%"), "$") for one in words]


def _unescaped(line: str, at: int) -> tuple[str, int]:
    kind = line[at]
    length = {"x": 2, "u": 4, "U": 8}.get(kind)
    if length:
        return chr(int(line[at + 1 : at + 1 + length], 16)), at + 1 + length
    return chr(_ESCAPES[kind]), at + 1


def _undoubled(text: str, char: str) -> str:
    halves = text.split(char * 2)
    if any(char in half for half in halves):
        raise ValueError(f"a single {char}: {text}")
    return char.join(halves)


def exec_start(unit: str) -> list[str]:
    """The words of `podman run ...` in a unit's ExecStart=, without the shell around it."""
    line = next(line for line in unit.split("\n") if line.startswith("ExecStart="))
    command = line.removeprefix("ExecStart=")
    shell = """/bin/sh -c '"$$@" && exec systemd-notify --ready' sh """
    assert command.startswith(shell), command
    # %N is the unit's name, and the only specifier that is wanted.
    return systemd_words(command.removeprefix(shell).replace("/run/archipelago/%N.cid", "CIDFILE", 1))


def setting(unit: str, key: str) -> list[str]:
    """The values of all lines `key=` of a unit."""
    return [line.partition("=")[2] for line in unit.split("\n") if line.startswith(f"{key}=")]


def options(words: list[str], name: str) -> list[str]:
    """The values of a repeated option `--name value` or `--name=value`."""
    spaced = [words[at + 1] for at, word in enumerate(words) if word == name]
    return spaced + [word.partition("=")[2] for word in words if word.startswith(f"{name}=")]


def data(text: str) -> Any:
    """YAML text as our loader reads it."""
    from archy.manifest.document import load

    return load(text.encode(), "f").data


def verify(node: Node, units: list[str]) -> list[str]:
    """What systemd finds wrong with units of ours, but for the programs that only the package brings."""
    path = f"{node.path('/out')}:{REPO / 'units'}:"
    command = ["systemd-analyze", "verify", "--man=no", *(str(node.path(f"/out/{name}")) for name in units)]
    env = {**os.environ, "SYSTEMD_UNIT_PATH": path}
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    absent = re.compile(
        r"\S+: Command /usr/libexec/archy/archy-(hook|prepare|secrets|wait) is not executable: No such file or di.*"
    )
    return [line for line in done.stderr.splitlines() if not absent.fullmatch(line)]
