# SPDX-License-Identifier: MIT
"""The command `archy`: arguments in, exit codes and words out. What the verbs do stands in other modules."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from archy import __version__, build, catalogue, derive, install, manifest, paths, quadlet, settings, systemd
from archy.installed import Source
from archy.output import FAILED, NO_SUCH_APP, NOT_PERMITTED, OK, REFUSED, USAGE, CannotDo, complain, emit, say, table
from archy.owner import Owner, owner_of
from archy.problem import Problem, Refused

_EXITS = """exit codes:
  0  done          1  it failed          2  wrong usage
  3  a manifest or setting was refused   4  no such app   5  not permitted
  130  interrupted"""


# For a look at an app on a machine that is no node.
_SAMPLE_IDS = (range(100_000, 165_536),)
_SAMPLE_OWNER = Owner(999, 999, _SAMPLE_IDS, _SAMPLE_IDS)


def main(arguments: list[str]) -> int:
    """Run one command; returns its exit code. No traceback is shown without --debug."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed by the caller
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115
    parser = _parser()
    options = parser.parse_args(arguments)
    try:
        result: int = options.run(options)
        sys.stdout.flush()
        return result
    except CannotDo as error:
        complain(error)
        return error.code
    except Refused as refused:
        for problem in refused.problems:
            say(str(problem))
        where = refused.problems[0].file
        complain(CannotDo(options.what, where, "is refused, see above", "archy-manifest(5) has every key"))
        return REFUSED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except KeyboardInterrupt:
        say("\ninterrupted; what was begun goes on, and the same command takes it up again")
        return 130
    except Exception as error:
        if options.debug:
            raise
        where = getattr(error, "filename", None) or "archy"
        why = getattr(error, "strerror", None) or str(error) or type(error).__name__
        complain(CannotDo(options.what, str(where), why, "run again with --debug for the whole story"))
        return FAILED


def _parser() -> argparse.ArgumentParser:
    layout: dict[str, Any] = {"formatter_class": argparse.RawDescriptionHelpFormatter, "epilog": _EXITS}
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--debug", action="store_true", help="show the traceback of an error")
    reading = argparse.ArgumentParser(add_help=False, parents=[common])
    reading.add_argument("--json", action="store_true", help="print the result for a program")
    parser = argparse.ArgumentParser(prog="archy", description="The apps of this node.", **layout)
    parser.add_argument("--version", action="version", version=f"archy {__version__}")
    groups = parser.add_subparsers(metavar="COMMAND", required=True)
    verbs = groups.add_parser("app", help="list, check, install and remove apps", **layout)
    verb = verbs.add_subparsers(metavar="VERB", required=True)

    def add(name: str, run: Callable[[argparse.Namespace], int], text: str, argument: str, parent: Any) -> Any:
        one = verb.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".", parents=[parent], **layout)
        if argument:
            one.add_argument(argument.lower(), metavar=argument)
        one.set_defaults(run=run, what=name)
        return one

    add("list", _list, "show all apps, installed or not, and how they are", "", reading)
    add(
        "validate",
        _validate,
        "check a manifest, or the folder of one, and show everything wrong with it",
        "PATH",
        reading,
    )
    add(
        "render",
        _render,
        "print the Quadlet text and the units of an app (an ID, or a path with a /), and touch nothing",
        "APP",
        reading,
    )
    one = add("install", _install, "install an app with its companions, and start them", "APP", common)
    one.add_argument("--no-wait", action="store_true", help="do not wait until the app is ready")
    add("remove", _remove, "stop and remove an app with its companions; data and secrets stay", "APP", common)
    return parser


def _list(options: argparse.Namespace) -> int:
    entries = catalogue.entries("/")
    units = systemd.units([paths.unit(entry.id) for entry in entries if entry.installed])
    rows: list[dict[str, Any]] = []
    for entry in entries:
        unit = units.get(paths.unit(entry.id))
        rows.append(
            {
                "id": entry.id,
                "name": entry.app.name if entry.app else "",
                "version": entry.app.version if entry.app else "",
                "origin": entry.origin,
                "installed": entry.installed,
                "state": unit.active if unit else ("unknown" if entry.installed else "not installed"),
                "restarts": unit.restarts if unit else 0,
                "companion_of": entry.companion_of,
                "problems": [_as_data(problem) for problem in entry.problems],
            }
        )
    if options.json:
        emit({"apps": rows})
        return OK
    colours = {"active": "green", "failed": "red", "activating": "yellow", "not installed": "dim"}
    shown = [[row["id"], row["state"], row["version"], row["name"] or row["problems"][0]["text"]] for row in rows]
    table(["APP", "STATE", "VERSION", "NAME"], shown, colours)
    return OK


def _as_data(problem: Problem) -> dict[str, Any]:
    return {**asdict(problem), "text": str(problem)}


def _validate(options: argparse.Namespace) -> int:
    source = _source_at("validate", options.path)
    problems, notes = _problems(source)
    if options.json:
        found = [_as_data(problem) for problem in problems]
        emit({"path": options.path, "ok": not problems, "problems": found, "notes": notes})
    else:
        for line in (*problems, *(f"note: {note}" for note in notes)):
            print(line)
        if not problems:
            print(f"{options.path}: ok")
    return REFUSED if problems else OK


def _source_at(what: str, path: str) -> Source:
    """The app in a folder, or of a manifest, that lies anywhere."""
    folder = path
    if not os.path.isdir(folder):
        folder, name = os.path.split(folder)
        if name != paths.MANIFEST or not os.path.isfile(path):
            why = f"is not a folder with a {paths.MANIFEST}"
            raise CannotDo(what, path, why, "give the folder, or the manifest in it", USAGE)
    return catalogue.source_at(os.path.abspath(folder), folder or ".")


def _built(source: Source) -> build.Built:
    """The units of an app that need not be installed, on a machine that need not be a node."""
    try:
        owner = owner_of("/")
    except LookupError:
        owner = _SAMPLE_OWNER
    with tempfile.TemporaryDirectory(prefix="archy-") as work:
        return build.build("/", [source], work, owner)[source.id]


def _problems(source: Source) -> tuple[list[Problem], list[str]]:
    """Everything wrong with an app: its manifest, what this node's Podman says to it, its templates; and notes."""
    app, problems = build.model("/", source)
    if app is None or source.content is None:
        return list(problems), []
    notes = manifest.notes(source.content, source.path)
    if quadlet.exists("/"):
        problems = _built(source).problems
    else:
        notes.append(f"{paths.QUADLET} is not here: not checked against Podman")
    samples = {secret: "0" * 32 for one in app.secrets for secret in (one.name, f"{one.name}.pw")}
    facts = derive.Facts(_SAMPLE_OWNER, settings.parse(None), frozenset())
    folder = os.path.dirname(source.path)
    for file in app.files:
        try:
            text = ""
            if file.template:
                with open(os.path.join(folder, file.template), encoding="utf-8") as template:
                    text = template.read()
            derive.content(app, file, {file.template or "": text}, samples, facts)
        except (derive.CannotDerive, UnicodeDecodeError) as error:
            where = os.path.join(folder, file.template or paths.MANIFEST)
            problems = (*problems, Problem(where, 0, 0, "", str(error)))
    return list(problems), notes


def _render(options: argparse.Namespace) -> int:
    if "/" in options.app:
        source = _source_at("render", options.app)
    else:
        entry = catalogue.entry("/", options.app)
        if entry is None:
            where = f"{paths.APPS}, {paths.CATALOGUE}"
            raise CannotDo("render", where, f"there is no app {options.app}", "archy app list shows all", NO_SUCH_APP)
        source = catalogue.source_at(entry.folder, f"{paths.APPS}/{entry.id}")
    built = _built(source)
    if options.json:
        found = [_as_data(problem) for problem in built.problems]
        emit({"app": source.id, "quadlet": built.quadlet, "units": built.units, "problems": found})
        return REFUSED if found else OK
    if built.app is None:
        raise Refused(built.problems)
    for kind, texts in (("Quadlet", built.quadlet), ("unit", built.units)):
        for name, text in texts.items():
            print(f"### {kind} {name}\n{text}")
    return OK


def _install(options: argparse.Namespace) -> int:
    _as_root(f"install {options.app}")
    install.install(options.app, not options.no_wait)
    return OK


def _remove(options: argparse.Namespace) -> int:
    _as_root(f"remove {options.app}")
    install.remove(options.app)
    return OK


def _as_root(what: str) -> None:
    if os.geteuid() != 0:
        raise CannotDo(what, "archy", "only root may do this", "use sudo", NOT_PERMITTED)
    if not systemd.booted():
        raise CannotDo(what, "/run/systemd/system", "systemd does not run this machine", "boot it with systemd", FAILED)
