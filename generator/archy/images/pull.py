# SPDX-License-Identifier: MIT
"""archy-image: when this ends well, the image of an app is there; as the service user, before each start of the app.

What is there costs one question to Podman. What is not is fetched, for as long as bytes come. What cannot be had is
said as the unit's status, and systemd tries again, after pauses that grow. Fast path: no heavy imports.
"""

import os
import select
import sys
import time

from archy import paths
from archy.host import read as host_read
from archy.host import user

EX_CANNOT, EX_USAGE = 1, 2
CANNOT = "cannot be had"  # so begins the status of an image of which an attempt has failed
SO_FAR = "so far"  # and so ends that of one that is on its way, after a colon and an amount
_LOCKS = "/run/archipelago"  # the service user's
_PRESENCE = 10.0  # seconds
_LOOK = 2.0  # seconds between two looks at how much has come
_STEP = 10**5  # bytes that count as progress: Podman itself reads a little, too
_PATIENCE = 600.0  # seconds without progress after which an attempt is given up
_LITTLE_PATIENCE = 30.0  # the same where there is an image to start with
_EXTENSION = 900 * 10**6  # microseconds; see TimeoutStartSec= of the unit
_LONG = 24 * 3600 * 10**6
_MOST = 300  # characters of an error


def main(argv: list[str]) -> int:
    """The entry point. Exit codes: 0 the app can be started, 1 its image cannot be had now, 2 usage."""
    if len(argv) != 2 or not paths.is_label(argv[1]):
        print("usage: archy-image APP, from its unit", file=sys.stderr)
        return EX_USAGE
    os.environ |= user.environment(os.getuid())
    image, policy = wanted("/", argv[1])
    # Without one it is no app of ours any more, or one whose unit says what is wrong with it.
    return fetch(image, policy) if image else 0


def wanted(root: str, app_id: str) -> tuple[str, str]:
    """The image that the app's unit will run, and when it is to be fetched; empty if its unit does not say."""
    # Not from what a pass has left: the unit may be newer, and the app be another one by now.
    found = {"X-ArchyImage": "", "X-ArchyPull": ""}
    unit = host_read.read(paths.under(root, f"{paths.GENERATED}/{paths.unit(app_id)}")) or b""
    for line in unit.decode(errors="replace").splitlines():
        key, _, value = line.partition("=")
        if key in found:
            found[key] = value
    return found["X-ArchyImage"], found["X-ArchyPull"]


def fetch(image: str, policy: str) -> int:
    """Have the image there, as the policy says; returns the exit code."""
    failed, why = _failures()
    if failed:  # at once, as systemd has forgotten the status of the last attempt
        _tell(f"STATUS={CANNOT}: {why}; attempt {failed + 1}")
    there = is_there(image)
    if there and (policy not in ("always", "newer") or is_local(image)):
        return 0
    if is_local(image) or (policy == "never" and not there):
        error = f"{image} is not on this node, and is never fetched; load it: archy image load FILE"
    else:
        if not failed:
            _tell(f"STATUS=fetching {image}")
        error = _fetch_once(image, there)
    if not error:
        return 0
    if there:
        print(f"{image}: could not be fetched again: {error}; the one that is there is used", file=sys.stderr)
        return 0
    said = f"{CANNOT}: {error}; attempt {failed + 1}"
    _tell(f"STATUS={said}")
    print(said, file=sys.stderr)
    _remember(failed + 1, error)
    return EX_CANNOT


def is_local(image: str) -> bool:
    """Whether somebody made the image on this node: none of that name is to be had elsewhere, or wanted."""
    return image.startswith("localhost/") or image.endswith(":local")


def is_there(image: str) -> bool:
    """Whether Podman has the image. Where it does not answer, the start of the app will tell what is wrong with it."""
    # Without `subprocess`, which takes as long as all else here but Podman.
    pid = os.posix_spawnp("podman", ["podman", "image", "exists", "--", image], os.environ)
    descriptor = os.pidfd_open(pid)
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    if not poll.poll(_PRESENCE * 1000):
        print(f"{image}: Podman does not say within {_PRESENCE:g} s whether it is there", file=sys.stderr)
        os.kill(pid, 9)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    os.close(descriptor)
    return code != 1


def _fetch_once(image: str, there: bool) -> str:
    """One attempt, while no other app makes one for the same image. Returns why it failed, or nothing."""
    import hashlib

    from archy.host import locks

    lock = f"{_LOCKS}/image-{hashlib.sha256(image.encode()).hexdigest()[:16]}.lock"
    waiting = (f"STATUS=fetching {image}, as another app does already", f"EXTEND_TIMEOUT_USEC={_LONG}")
    with locks.hold("/", lock, lambda: _tell(*waiting)):
        if not there and is_there(image):
            return ""
        return pull(image, _LITTLE_PATIENCE if there else _PATIENCE)


def pull(image: str, patience: float) -> str:
    """Let Podman fetch the image, and tell how much has come. Returns why it failed, or nothing."""
    import subprocess

    # It compares digests first, and takes what layers are there. Without a bus it stays in the cgroup of this unit, and
    # ends with it; what it would tell systemd itself is not what we tell.
    command = ["podman", "pull", "--retry=0", "--", image]
    environment = {**os.environ, "DBUS_SESSION_BUS_ADDRESS": "unix:path=/dev/null"}
    environment.pop("NOTIFY_SOCKET", None)
    directory = environment.get("TMPDIR", "")  # emptied by the unit, however this ends
    if directory:
        os.makedirs(directory, mode=0o700, exist_ok=True)
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        cwd="/",
        env=environment,
    )
    assert process.stderr is not None
    said = b""
    sizes: dict[str, int] = {}
    read, moved, looked = 0, time.monotonic(), time.monotonic()
    while True:
        if select.select([process.stderr], [], [], _LOOK)[0]:
            chunk = os.read(process.stderr.fileno(), 65536)
            if not chunk:
                break
            os.write(2, chunk)
            said = (said + chunk)[-65536:]
        now = time.monotonic()
        if now - looked < _LOOK:
            continue
        looked = now
        _measure(directory, sizes)
        # While it unpacks nothing comes, and it reads what has come.
        if (done := _read()) > read + _STEP:
            read, moved = done, now
            come = sum(sizes.values()) // 10**6
            _tell(f"STATUS=fetching {image}: {come} MB {SO_FAR}", f"EXTEND_TIMEOUT_USEC={_EXTENSION}")
        elif now - moved > patience:
            process.kill()
            process.wait()
            return f"{image}: nothing came for {patience:.0f} s"
    return error_of(said.decode(errors="replace")) or "podman pull failed" if process.wait() else ""


def error_of(said: str) -> str:
    """Why Podman failed, by what it said, in one line. The end tells most, so the middle is left out of a long one."""
    said = f"\n{said.strip()}"
    text = said.rpartition("\nError: " if "\nError: " in said else "\n")[2]
    line = " ".join("".join(char if char.isprintable() else " " for char in text).split())
    return line if len(line) <= _MOST else f"{line[:90]} ... {line[-_MOST + 95 :]}"


def _measure(directory: str, sizes: dict[str, int]) -> None:
    """Look how large the files are that have come; those that were unpacked are gone, and counted all the same."""
    for above, _, names in os.walk(directory):
        for name in names:
            path = f"{above}/{name}"
            try:
                sizes[path] = max(sizes.get(path, 0), os.stat(path).st_size)
            except OSError:  # it was just unpacked
                continue


def _read() -> int:
    """How many bytes Podman has read, from the network or the disk: as long as it does, it gets on."""
    group = (host_read.read("/proc/self/cgroup") or b"").decode().rpartition("0::")[2].strip()
    found = [0]
    for pid in (host_read.read(f"/sys/fs/cgroup{group}/cgroup.procs") or b"").decode().split():
        if host_read.read(f"/proc/{pid}/comm") == b"podman\n":
            fields = (host_read.read(f"/proc/{pid}/io") or b"rchar: 0").split()
            found.append(int(fields[1]))
    return max(found)


def _tell(*lines: str) -> None:
    """Tell systemd (sd_notify(3))."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return
    import socket
    from contextlib import suppress

    with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as notify:
        notify.sendto("\n".join(lines).encode(), "\0" + address[1:] if address.startswith("@") else address)


def _failures() -> tuple[int, str]:
    """How many attempts have failed since the app's start was asked for, and why the last one did."""
    content = host_read.read(f"{os.environ.get('RUNTIME_DIRECTORY', '')}/failures")
    if not content:  # as nearly always
        return 0, ""
    import json

    try:
        found = json.loads(content)
        return int(found["count"]), str(found["why"])
    except (KeyError, ValueError, TypeError):
        return 0, ""


def _remember(count: int, why: str) -> None:
    import json
    from contextlib import suppress

    from archy.host import volatile

    with suppress(OSError, KeyError):
        volatile.write(f"{os.environ['RUNTIME_DIRECTORY']}/failures", json.dumps({"count": count, "why": why}))
