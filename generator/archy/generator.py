# SPDX-License-Identifier: MIT
"""The systemd generator: installed apps in, units out, at every boot and daemon-reload (systemd.generator(7)).

It writes into its output directory only, starts nothing but Quadlet, and asks no service. A bad app is logged and
gets a unit that says so; the others come up. What is not in the cache is built by `archy.build`, imported for that.
"""

import os
import sys

from archy import cache, disk, installed, paths

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
# Where an operator's own units are. The last one ranks below generated units: ours is not written then.
_NATIVE = ("/etc/systemd/system", "/run/systemd/system", "/usr/local/lib/systemd/system")


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
    warnings = []
    try:
        app_ids, odd = installed.ids(root)
    except OSError as error:
        warnings.append(f"{paths.APPS}: {error.strerror}: the last good versions of all apps stay in force")
        app_ids, odd = installed.accepted_ids(root), []
    warnings += [
        f"{paths.APPS}/{name}: is not the name of an app (lower-case letters, digits, hyphens)" for name in odd
    ]
    active = installed.running(root)
    tools = cache.toolchain(root)
    units: dict[str, str] = {}
    missing = []
    local = _names(paths.under(root, _NATIVE[-1]))
    for app_id in app_ids:
        if paths.unit(app_id) in local:
            continue
        source = installed.source(root, app_id)
        found = cache.unpack(root, cache.units_path(app_id), cache.units_key(tools, source))
        if found is None:
            missing.append(source)
        else:
            units.update(found)
    _write(out, units)
    stopped = installed.stopped(root)
    _link_wants(out, [paths.unit(app_id) for app_id in app_ids if app_id not in stopped])
    gone = [app_id for app_id in sorted(active) if app_id not in app_ids and not _is_native(root, app_id)]
    _adopt_user_manager(root, out, bool(app_ids or gone))
    # From here on it may take long, or go wrong: what nothing is wrong with is written already.
    try:
        if missing:
            missing = _convert(root, missing, out)
        if missing or gone:
            warnings += _build(root, missing, gone, active, out)
    except Exception as error:
        lacking = [app_id for app_id in [*(source.id for source in missing), *gone] if not _has(out, app_id)]
        warnings += [f"{app_id}: cannot be made into a unit: {type(error).__name__}: {error}" for app_id in lacking]
        _write(out, {paths.unit(app_id): _LAST_RESORT for app_id in lacking})
    return warnings


def _has(out: str, app_id: str) -> bool:
    return os.path.exists(f"{out}/{paths.unit(app_id)}")


def _write(out: str, units: dict[str, str]) -> None:
    for name, text in units.items():
        disk.write(f"{out}/{name}", text)


def _convert(root: str, sources: list[installed.Source], out: str) -> list[installed.Source]:
    """Write the units of those whose Quadlet text was kept when they were accepted; returns the others."""
    from archy.convert import convert

    tools = cache.renderer(root)
    texts = {}
    for source in sources:
        if installed.is_accepted(root, source):
            text = cache.unpack(root, cache.text_path(source.id), cache.text_key(tools, source))
            if text is not None:
                texts[source.id] = text
    converted, _ = convert(root, texts, out)
    for found in converted.values():
        _write(out, found)
    return [source for source in sources if source.id not in converted]


def _build(root: str, missing: list[installed.Source], gone: list[str], active: set[str], out: str) -> list[str]:
    """Write the units of what is not known yet, is bad, or is gone but runs; returns warnings."""
    from archy import build

    warnings = []
    outcome = build.build(root, missing, out)
    for app_id, built in outcome.items():
        warnings += [str(problem) for problem in built.problems]
        _write(out, built.units)
        if built.app is None and app_id in active:
            gone = [*gone, app_id]
    for app_id in gone:
        problems = outcome[app_id].problems if app_id in outcome else ()
        try:
            _write(out, {paths.unit(app_id): build.leftover(root, app_id, problems)})
        except LookupError as error:
            warnings.append(f"{app_id}: runs, but nobody can stop it well: {error}")
    return warnings


def _names(directory: str) -> set[str]:
    try:
        return set(os.listdir(directory))
    except OSError:
        return set()


def _is_native(root: str, app_id: str) -> bool:
    return any(os.path.lexists(paths.under(root, f"{base}/{paths.unit(app_id)}")) for base in _NATIVE)


def _link_wants(out: str, names: list[str]) -> None:
    for wanting in _WANTED_BY if names else ():
        directory = f"{out}/{wanting}.wants"
        disk.make_flat(directory)
        for name in names:
            disk.link(f"../{name}", f"{directory}/{name}")


def _adopt_user_manager(root: str, out: str, wanted: bool) -> None:
    """The drop-in for the service user's manager; its name holds the UID, so it cannot be shipped as a file."""
    fields = installed.user_line(root).split(b":")
    if wanted and len(fields) > 2:
        directory = f"{out}/user@{fields[2].decode()}.service.d"
        disk.make_flat(directory)
        with open(paths.under(root, f"{paths.TEMPLATES}/user-manager.conf"), encoding="utf-8") as template:
            disk.write(f"{directory}/50-archy.conf", template.read())
