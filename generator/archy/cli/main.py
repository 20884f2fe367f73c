# SPDX-License-Identifier: MIT
"""The command `archy`: arguments in, exit codes and words out. What the verbs do stands in other modules."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from typing import Any

from archy import __version__
from archy.cli import apps as cli_apps
from archy.cli import images as cli_images
from archy.cli import manifests
from archy.cli import secrets as cli_secrets
from archy.cli import status as cli_status
from archy.cli.output import print_error
from archy.errors import Refused
from archy.host import systemd
from archy.operations import install, remove, start, switch
from archy.operations.progress import FAILED, NOT_PERMITTED, OK, REFUSED, CannotDo, progress

Command = Callable[[argparse.Namespace], int]

_EXITS = """exit codes:
  0  done          1  it failed          2  wrong usage
  3  a manifest or setting was refused   4  no such app   5  not permitted
  130  interrupted"""

_LAYOUT: dict[str, Any] = {"formatter_class": argparse.RawDescriptionHelpFormatter, "epilog": _EXITS}


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
        print_error(error)
        return error.code
    except Refused as refused:
        for problem in refused.problems:
            progress(str(problem))
        where = refused.problems[0].file
        print_error(CannotDo(options.what, where, "is refused, see above", "archy-manifest(5) has every key"))
        return REFUSED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except KeyboardInterrupt:
        progress("\ninterrupted; what was begun goes on, and the same command takes it up again")
        return 130
    except Exception as error:
        if options.debug:
            raise
        where = getattr(error, "filename", None) or "archy"
        why = getattr(error, "strerror", None) or str(error) or type(error).__name__
        print_error(CannotDo(options.what, str(where), why, "run again with --debug for the whole story"))
        return FAILED


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="archy", description="The apps of this node.", **_LAYOUT)
    parser.add_argument("--version", action="version", version=f"archy {__version__}")
    groups = parser.add_subparsers(metavar="COMMAND", required=True)
    apps = groups.add_parser("app", help="the apps: look at them, install, start, stop and remove them", **_LAYOUT)
    verbs = apps.add_subparsers(metavar="VERB", required=True)
    read, act = _common(json=True), _common(json=False)
    _add(verbs, "list", cli_apps.list_, "show all apps, installed or not, and how they are", read)
    text = "show what an app is, what it needs, and what it may do, before or after it is installed"
    _add(verbs, "show", cli_apps.show, text, read, "APP")
    text = "check a manifest, or the folder of one, and show everything wrong with it"
    _add(verbs, "validate", manifests.validate, text, read, "PATH")
    text = "print the Quadlet text and the units of an app (an ID, or a path with a /), and touch nothing"
    _add(verbs, "render", manifests.render, text, read, "APP")
    text = "show what a person needs to log in to an app"
    _add(verbs, "credentials", _as_root(cli_secrets.credentials), text, read, "APP")
    text = "install an app with its companions, and start them"
    one = _add(verbs, "install", _as_root(_install), text, act, "APP")
    one.add_argument("--no-wait", action="store_true", help="do not wait until the app is ready")
    text = "stop and remove an app with its companions; data and secrets stay"
    _add(verbs, "remove", _as_root(_remove), text, act, "APP")
    _add(
        verbs,
        "stop",
        _as_root(_stop),
        "stop an app with its companions; it stays stopped, also after a boot",
        act,
        "APP",
    )
    one = _add(verbs, "start", _as_root(_start), "start an app again, and what it needs", act, "APP")
    one.add_argument("--yes", action="store_true", help="do not ask before starting what it needs and was stopped")
    text = "change from an app to an alternative, which goes on with the same data"
    one = _add(verbs, "switch", _as_root(_switch), text, act, "APP")
    one.add_argument("other", metavar="OTHER")
    images = groups.add_parser("image", help="the images of apps: which are there, and loading them", **_LAYOUT)
    verbs = images.add_subparsers(metavar="VERB", required=True)
    text = "show the images that apps want, which are there, and what is said of those that are not"
    _add(verbs, "list", _as_root(cli_images.list_), text, read, group="image")
    text = "load images from an archive (- is standard input), for a node without a network"
    _add(verbs, "load", _as_root(cli_images.load), text, act, "FILE", "image")
    secrets = groups.add_parser("secret", help="the secrets: which there are, and new values for them", **_LAYOUT)
    verbs = secrets.add_subparsers(metavar="VERB", required=True)
    _add(
        verbs,
        "list",
        _as_root(cli_secrets.list_secrets),
        "show the names of all secrets, and who uses them",
        read,
        group="secret",
    )
    text = "give a secret a new value without locking an app out, and prove that it is in use"
    _add(verbs, "rotate", _as_root(cli_secrets.rotate), text, act, "NAME", "secret")
    text = "show how the node and its apps are; exit code 0: well, 1: degraded, 2: broken"
    _add(groups, "status", cli_status.show, text, read)
    text = "put right what has drifted, as the timer does every 30 s"
    one = _add(groups, "reconcile", _as_root(cli_status.run_reconcile), text, act)
    one.add_argument("--dry-run", action="store_true", help="print what would be done, and do nothing")
    return parser


def _common(json: bool) -> argparse.ArgumentParser:
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--debug", action="store_true", help="show the traceback of an error")
    if json:
        common.add_argument("--json", action="store_true", help="print the result for a program")
    return common


def _add(
    verbs: Any, name: str, run: Command, text: str, parent: argparse.ArgumentParser, argument: str = "", group: str = ""
) -> Any:
    description = text[0].upper() + text[1:] + "."
    one = verbs.add_parser(name, help=text, description=description, parents=[parent], **_LAYOUT)
    if argument:
        one.add_argument(argument.lower(), metavar=argument)
    one.set_defaults(run=run, what=f"{group} {name}".strip())
    return one


def _install(options: argparse.Namespace) -> int:
    install.install(options.app, not options.no_wait)
    return OK


def _remove(options: argparse.Namespace) -> int:
    remove.remove(options.app)
    return OK


def _stop(options: argparse.Namespace) -> int:
    start.stop(options.app)
    return OK


def _switch(options: argparse.Namespace) -> int:
    switch.switch(options.app, options.other)
    return OK


def _start(options: argparse.Namespace) -> int:
    start.start(options.app, options.yes)
    return OK


def _as_root(run: Command) -> Command:
    """The command for root only, on a machine that systemd runs."""

    def checked(options: argparse.Namespace) -> int:
        target = next((getattr(options, name) for name in ("app", "name", "file") if hasattr(options, name)), "")
        what = f"{options.what} {target}".strip()
        if os.geteuid() != 0:
            raise CannotDo(what, "archy", "only root may do this", "use sudo", NOT_PERMITTED)
        if not systemd.booted():
            where = "/run/systemd/system"
            raise CannotDo(what, where, "systemd does not run this machine", "boot it with systemd", FAILED)
        return run(options)

    return checked
