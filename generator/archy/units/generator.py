# SPDX-License-Identifier: MIT
"""The entry of archy-generator, and the directory that it writes to. Fast path: no heavy imports."""

import os
import sys

from archy import paths
from archy.apps import installed
from archy.host import read, volatile
from archy.units import cache

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping


class UnitDir:
    """Units and links in a directory, and what was written of them. Several apps bring the same unit of a network.

    `own` are the names of the units of installed apps: no link takes one of them. `running` are those of apps that run,
    and `contested` those of apps of which one got a link because another does not run.
    """

    __slots__ = ("contested", "own", "path", "running", "written")

    def __init__(self, path: str) -> None:
        self.path = path
        self.own: set[str] = set()
        self.running: set[str] = set()
        self.contested: set[str] = set()
        self.written: dict[str, str] = {}

    def add(self, units: "Mapping[str, str]") -> None:
        """Write units by their names, which may be in a directory of their own; a text may be a link (see `cache`)."""
        for name, text in units.items():
            is_link = text.startswith(cache.LINK)
            if is_link and name in self.own:
                continue
            before = self.written.get(name)
            if is_link and before is not None and before != text:
                self.contested |= {_target(before), _target(text)}
                text = min(before, text, key=self._rank)
            if text != before:
                self._write(name, text)
                self.written[name] = text

    def _rank(self, link: str) -> tuple[bool, str]:
        """Two links of one name differ only where alternatives were both installed by hand.

        The name is that of the one that runs, which systemd knows by it; else of the first one.
        """
        return _target(link) not in self.running, link

    def _write(self, name: str, text: str) -> None:
        above, _, _ = name.rpartition("/")
        if above:
            volatile.make_flat(f"{self.path}/{above}")
        path = f"{self.path}/{name}"
        if name in self.written:  # as a link, maybe
            os.unlink(path)
        if text.startswith(cache.LINK):
            volatile.link(_target(text), path)
        else:
            volatile.write(path, text)


def _target(link: str) -> str:
    return link.removeprefix(cache.LINK).rstrip()


# Both want all apps, each by links of its own: systemd does not follow Wants= through a unit that is active already.
_WANTED_BY = ("archy.target", "archy-all.service")

# When even the unit that states a reason cannot be made: the reason is in the kernel's log.
# If the app runs, this still stops it well.
_LAST_RESORT = """[Unit]
Description=An app that cannot be made into a unit (journalctl -k -g archy-generator)
[Service]
Type=notify
NotifyAccess=all
User=archipelago
Slice=archipelago-apps.slice
KillMode=mixed
TimeoutStopSec=3615
SuccessExitStatus=143 137
ExecStart=/bin/false
ExecStop=-/usr/libexec/archy/archy-stop 3600 /run/archipelago/%N.cid
"""

_NO_NAME = "is not the name of an app (lower-case letters, digits, hyphens)"


def main(argv: list[str]) -> int:
    """The entry point: one to three output directories, of which the first is used."""
    if not 2 <= len(argv) <= 4:
        print(
            "archy-generator: wants the output directories as systemd passes them: NORMAL [EARLY LATE]", file=sys.stderr
        )
        return 2
    try:
        for line in generate("/", argv[1]):
            log(line)
    except Exception as error:  # said in one line, as a person can read it in the kernel's log
        log(f"cannot write units: {type(error).__name__}: {error}")
        return 1
    return 0


def log(line: str) -> None:
    """A warning into the kernel's log: a generator must not use the journal (systemd.generator(7))."""
    try:
        with open("/dev/kmsg", "w", encoding="utf-8") as kmsg:
            kmsg.write(f"<4>archy-generator[{os.getpid()}]: {line}\n")
    except OSError:
        print(f"archy-generator: {line}", file=sys.stderr)


def generate(root: str, out: str) -> list[str]:
    """Write the units of the node at `root` into the directory `out`; returns warnings, a line each."""
    return write_units(root, UnitDir(out))


def write_units(root: str, units: UnitDir) -> list[str]:
    """Write the units of the node at `root`; returns warnings, a line each."""
    out, warnings = units.path, []
    try:
        app_ids, odd = installed.ids(root)
    except OSError as error:
        warnings.append(f"{paths.APPS}: {error.strerror}: the last good versions of all apps stay in force")
        app_ids, odd = installed.accepted_ids(root), []
    warnings += [f"{paths.APPS}/{name}: {_odd(name)}" for name in odd]
    active = installed.running(root)
    units.own, units.running = set(map(paths.unit, app_ids)), set(map(paths.unit, active))
    tools = cache.toolchain(root)
    missing = []
    local = _names(paths.under(root, paths.NATIVE[-1]))
    for app_id in app_ids:
        if paths.unit(app_id) in local:
            continue
        source = installed.source(root, app_id)
        found = cache.unpack(root, paths.units_path(app_id), cache.units_key(tools, source))
        if found is None:
            missing.append(source)
        else:
            units.add(found)
    stopped = installed.stopped(root)
    _link_wants(out, [paths.unit(app_id) for app_id in app_ids if app_id not in stopped])
    gone = [app_id for app_id in sorted(active) if app_id not in app_ids and not _is_native(root, app_id)]
    _adopt_user_manager(root, out, bool(app_ids or gone))
    # From here on it may take long, or go wrong: what nothing is wrong with is written already.
    try:
        if missing or gone:
            warnings += _build(root, missing, gone, active, units)
    except Exception as error:
        lacking = [app_id for app_id in [*(source.id for source in missing), *gone] if not _has(out, app_id)]
        warnings += [f"{app_id}: cannot be made into a unit: {type(error).__name__}: {error}" for app_id in lacking]
        units.add({paths.unit(app_id): _LAST_RESORT for app_id in lacking})
    return warnings


def _odd(name: str) -> str:
    reserved = paths.is_label(name)  # no unit of such a name is written, not even one that states a refusal
    return "is reserved for units of archy's own" if reserved else _NO_NAME


def _has(out: str, app_id: str) -> bool:
    return os.path.exists(f"{out}/{paths.unit(app_id)}")


def _build(root: str, missing: list[installed.Source], gone: list[str], active: set[str], units: UnitDir) -> list[str]:
    """Write the units of what is not known yet, is bad, or is gone but runs; returns warnings."""
    from archy.units import build

    warnings = []
    outcome = build.build(root, missing, units.path)
    for app_id, built in outcome.items():
        warnings += [str(problem) for problem in built.problems]
        units.add(built.units)
        if built.app is None and app_id in active:
            gone = [*gone, app_id]
    for app_id in gone:
        problems = outcome[app_id].problems if app_id in outcome else ()
        try:
            units.add({paths.unit(app_id): build.leftover(root, app_id, problems)})
        except LookupError as error:
            warnings.append(f"{app_id}: runs, but nobody can stop it well: {error}")
    return warnings


def _names(directory: str) -> set[str]:
    try:
        return set(os.listdir(directory))
    except OSError:
        return set()


def _is_native(root: str, app_id: str) -> bool:
    return any(os.path.lexists(paths.under(root, f"{base}/{paths.unit(app_id)}")) for base in paths.NATIVE)


def _link_wants(out: str, names: list[str]) -> None:
    for wanting in _WANTED_BY if names else ():
        directory = f"{out}/{wanting}.wants"
        volatile.make_flat(directory)
        for name in names:
            volatile.link(f"../{name}", f"{directory}/{name}")


def _adopt_user_manager(root: str, out: str, wanted: bool) -> None:
    """Drop-ins for the service user's manager, and for what needs it; they name its UID, so none is shipped."""
    uid, _ = read.user_ids(root)
    if not (wanted and uid):
        return
    unit = f"user@{uid}.service"
    for name, template in ((unit, "user-manager.conf"), ("archy-image@.service", "image.conf")):
        volatile.make_flat(f"{out}/{name}.d")
        with open(paths.under(root, f"{paths.TEMPLATES}/{template}"), encoding="utf-8") as file:
            volatile.write(f"{out}/{name}.d/50-archy.conf", file.read().replace("USER_MANAGER", unit))
