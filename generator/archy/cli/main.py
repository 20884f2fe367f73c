# SPDX-License-Identifier: MIT
"""The command `archy`: its verbs, and the way from an error to an exit code. The work is done in other modules."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from archy import __version__
from archy.cli import apps, images, manifests, secrets, status
from archy.cli.output import print_error
from archy.errors import Refused
from archy.host import systemd
from archy.operations import install, remove, rotate, start, switch
from archy.operations.progress import FAILED, NOT_PERMITTED, OK, REFUSED, CannotDo, progress

_EXITS = """exit codes:
  0  done          1  it failed          2  wrong usage
  3  a manifest or setting was refused   4  no such app   5  not permitted
  130  interrupted"""

_LAYOUT: dict[str, Any] = {"formatter_class": argparse.RawDescriptionHelpFormatter, "epilog": _EXITS}


@dataclass(frozen=True)
class Verb:
    """A command, as its synopsis has it: words, arguments, options; and its text of help.

    Its function gets the values of arguments and options, in this order. It returns an exit code, or None for success.
    Without `as_root`, anybody may run it, on any machine.
    """

    synopsis: str
    run: Callable[..., int | None]
    help: str
    as_root: bool = True

    @property
    def words(self) -> list[str]:
        return [part for part in self.synopsis.split() if part[0].islower()]

    @property
    def values(self) -> list[str]:
        """The names of its arguments and options."""
        return [part for part in self.synopsis.split() if not part[0].islower()]


def _start(app_id: str, yes: bool) -> None:
    stopped = start.stopped_needs(app_id) if sys.stdin.isatty() and not yes else []
    if stopped:
        progress(f"{app_id} needs apps that are stopped: {', '.join(stopped)}")
        yes = input("Start them, too? [y/N] ").strip().lower() in ("y", "yes")
    start.start(app_id, yes)


_GROUPS = {
    "app": "list, install, start, stop and remove apps",
    "image": "list and load the images of apps",
    "secret": "list secrets, and give them new values",
}
_OPTIONS = {
    "--debug": "show the traceback of an error",
    "--json": "print the result for a program",
    "--no-wait": "do not wait until the app is ready",
    "--yes": "start stopped apps that it needs without asking",
    "--dry-run": "print what would be done, and do nothing",
}
_VERBS = (
    Verb("app list --json", apps.list_, "show all apps, installed or not, and their state", False),
    Verb("app show APP --json", apps.show, "show what an app is, needs, and may do, installed or not", False),
    Verb(
        "app validate PATH --json", manifests.validate, "check a manifest or its folder, and show all problems", False
    ),
    Verb(
        "app render APP --json", manifests.render, "print Quadlet text and units of an app (ID or path with /)", False
    ),
    Verb("app credentials APP --json", secrets.credentials, "show what a person needs to log in to an app"),
    Verb("app install APP --no-wait", install.install, "install an app with its companions, and start them"),
    Verb("app remove APP", remove.remove, "stop and remove an app with its companions; data and secrets stay"),
    Verb("app stop APP", start.stop, "stop an app with its companions; it stays stopped, also after a boot"),
    Verb("app start APP --yes", _start, "start an app again, and the apps that it needs"),
    Verb("app switch APP OTHER", switch.switch, "replace an app by an alternative, which uses the same data"),
    Verb("image list --json", images.list_, "show the images of apps, and the state of those that are missing"),
    Verb("image load FILE", images.load, "load images from an archive (- is standard input), without a network"),
    Verb("secret list --json", secrets.list_, "show the names of all secrets, and the apps that use them"),
    Verb("secret rotate NAME", rotate.rotate, "give a secret a new value without locking an app out, and prove it"),
    Verb("status --json", status.show, "show the state of the node; exit code 0: ok, 1: degraded, 2: broken", False),
    Verb("reconcile --dry-run", status.run_reconcile, "make a pass now, as the timer does every 30 s"),
)


def main(arguments: list[str]) -> int:
    """Run one command; returns its exit code. No traceback is shown without --debug."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed by the caller
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115
    options = vars(_parser().parse_args(arguments))
    verb: Verb = options["verb"]
    values = [options[name] for name in verb.values]
    what = " ".join(verb.words).removeprefix("app ")
    try:
        if verb.as_root:
            _check_rights(" ".join([what, *filter(lambda value: isinstance(value, str), values[:1])]))
        result = verb.run(*values)
        sys.stdout.flush()
        return result or OK
    except CannotDo as error:
        print_error(error)
        return error.code
    except Refused as refused:
        for problem in refused.problems:
            progress(str(problem))
        where = refused.problems[0].file
        print_error(CannotDo(what, where, "is refused, see above", "archy-manifest(5) has every key"))
        return REFUSED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except KeyboardInterrupt:
        progress("\ninterrupted; what has begun goes on, and the same command completes it")
        return 130
    except Exception as error:
        if options["--debug"]:
            raise
        where = getattr(error, "filename", None) or "archy"
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        print_error(CannotDo(what, str(where), reason, "run it again with --debug for the details"))
        return FAILED


def _check_rights(what: str) -> None:
    """For root only, on a machine that systemd runs; raises CannotDo elsewhere."""
    if os.geteuid() != 0:
        raise CannotDo(what, "archy", "only root may do this", "use sudo", NOT_PERMITTED)
    if not systemd.booted():
        where = "/run/systemd/system"
        raise CannotDo(what, where, "systemd does not run this machine", "boot it with systemd")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="archy", description="The apps of this node.", **_LAYOUT)
    parser.add_argument("--version", action="version", version=f"archy {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    groups = {"": commands}
    for name, text in _GROUPS.items():
        group = commands.add_parser(name, help=text, **_LAYOUT)
        groups[name] = group.add_subparsers(metavar="VERB", required=True)
    for verb in _VERBS:
        *above, name = verb.words
        description = verb.help[0].upper() + verb.help[1:] + "."
        one = groups[" ".join(above)].add_parser(name, help=verb.help, description=description, **_LAYOUT)
        for value in ("--debug", *verb.values):
            if value in _OPTIONS:
                one.add_argument(value, dest=value, action="store_true", help=_OPTIONS[value])
            else:
                one.add_argument(value)
        one.set_defaults(verb=verb)
    return parser
