# SPDX-License-Identifier: MIT
"""archy-image: when this succeeds, the image of an app is here; as the service user, before each start of the app.

An image that is here costs one call of Podman. A missing one is fetched, as long as bytes arrive. If that fails, the
unit's status has the reason (and ERRNO= of sd_notify(3), for programs), and systemd tries again, after pauses that
grow. Fast path: no heavy imports.
"""

import errno
import os
import select
import sys
import time

from archy import paths
from archy.host import read as host_read
from archy.host import user

EX_CANNOT, EX_USAGE = 1, 2
SO_FAR = "so far"  # the status of an image that is being fetched ends with a colon, an amount and this
_FAILED, _NOT_FAILED = f"ERRNO={errno.EIO}", "ERRNO=0"
_LOCKS = "/run/archipelago"  # the service user's
_PRESENCE = 10.0  # seconds
_LOOK = 2.0  # seconds between two measurements of the progress
_STEP = 10**5  # bytes that count as progress: Podman itself reads a little, too
_PATIENCE = 600.0  # seconds without progress after which an attempt is given up
_LITTLE_PATIENCE = 30.0  # the same if an image exists already
_EXTENSION = 900 * 10**6  # microseconds; see TimeoutStartSec= of the unit
_LONG = 24 * 3600 * 10**6
_MOST = 300  # characters of an error


def main(argv: list[str]) -> int:
    """The entry point. Exit codes: 0 the app can be started, 1 its image cannot be had now, 2 usage."""
    if len(argv) != 2 or not paths.is_label(argv[1]):
        print("usage: archy-image APP, from its unit", file=sys.stderr)
        return EX_USAGE
    os.environ |= user.environment(os.getuid())
    image, policy = image_of("/", argv[1])
    # Without one it is no app any more, or its unit states a problem.
    return fetch(image, policy) if image else 0


def image_of(root: str, app_id: str) -> tuple[str, str]:
    """The image that the app's unit will run, and when it is to be fetched; empty if its unit has none."""
    # Not from the facts of the last pass: the unit may be newer.
    found = {"X-ArchyImage": "", "X-ArchyPull": ""}
    unit = host_read.read(paths.under(root, f"{paths.GENERATED}/{paths.unit(app_id)}")) or b""
    for line in unit.decode(errors="replace").splitlines():
        key, _, value = line.partition("=")
        if key in found:
            found[key] = value
    return found["X-ArchyImage"], found["X-ArchyPull"]


def fetch(image: str, policy: str) -> int:
    """Fetch the image if the policy demands it; returns the exit code."""
    failed, reason = _failures()
    if failed:  # at once, as systemd has forgotten the status of the last attempt
        _notify(f"STATUS=cannot be had: {reason}; attempt {failed + 1}", _FAILED)
    here = exists(image)
    if here and (policy not in ("always", "newer") or is_local(image)):
        return 0
    if is_local(image) or (policy == "never" and not here):
        error = f"{image} is not on this node, and is never fetched; load it: archy image load FILE"
    else:
        if not failed:
            _notify(f"STATUS=fetching {image}")
        error = _fetch_once(image, here)
    if not error:
        return 0
    if here:
        print(f"{image}: could not be fetched again: {error}; the existing one is used", file=sys.stderr)
        return 0
    text = f"cannot be had: {error}; attempt {failed + 1}"
    _notify(f"STATUS={text}", _FAILED)
    print(text, file=sys.stderr)
    _remember(failed + 1, error)
    return EX_CANNOT


def is_local(image: str) -> bool:
    """Whether the image was made on this node: it is never fetched from a registry."""
    return image.startswith("localhost/") or image.endswith(":local")


def exists(image: str) -> bool:
    """Whether Podman has the image; True if it does not answer, as the start of the app will then show the problem."""
    # Without `subprocess`, whose import takes as long as all else here but Podman.
    pid = os.posix_spawnp("podman", ["podman", "image", "exists", "--", image], os.environ)
    descriptor = os.pidfd_open(pid)
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    if not poll.poll(_PRESENCE * 1000):
        print(f"{image}: Podman does not tell within {_PRESENCE:g} s whether it has the image", file=sys.stderr)
        os.kill(pid, 9)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    os.close(descriptor)
    return code != 1


def _fetch_once(image: str, here: bool) -> str:
    """One attempt, while no other app makes one for the same image. Returns the reason of a failure, or nothing."""
    import hashlib

    from archy.host import locks

    lock = f"{_LOCKS}/image-{hashlib.sha256(image.encode()).hexdigest()[:16]}.lock"
    status = f"STATUS=fetching {image}, as another app does already"
    with locks.hold("/", lock, lambda: _notify(status, _NOT_FAILED, f"EXTEND_TIMEOUT_USEC={_LONG}")):
        if not here and exists(image):
            return ""
        return pull(image, _LITTLE_PATIENCE if here else _PATIENCE)


def pull(image: str, patience: float) -> str:
    """Let Podman fetch the image, and notify systemd of the progress. Returns the reason of a failure, or nothing."""
    import subprocess

    # It compares digests first, and reuses layers. Without a bus it stays in the cgroup of this unit, and ends with it;
    # its own notifications to systemd would mix with ours.
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
    output = b""
    sizes: dict[str, int] = {}
    read, moved, looked = 0, time.monotonic(), time.monotonic()
    while True:
        if select.select([process.stderr], [], [], _LOOK)[0]:
            chunk = os.read(process.stderr.fileno(), 65536)
            if not chunk:
                break
            os.write(2, chunk)
            output = (output + chunk)[-65536:]
        now = time.monotonic()
        if now - looked < _LOOK:
            continue
        looked = now
        _measure(directory, sizes)
        # While it unpacks, no bytes arrive, but it reads those that have.
        if (done := _read()) > read + _STEP:
            read, moved = done, now
            status = f"STATUS=fetching {image}: {sum(sizes.values()) // 10**6} MB {SO_FAR}"
            _notify(status, f"EXTEND_TIMEOUT_USEC={_EXTENSION}", _NOT_FAILED)
        elif now - moved > patience:
            process.kill()
            process.wait()
            return f"{image}: nothing came for {patience:.0f} s"
    return error_of(output.decode(errors="replace")) or "podman pull failed" if process.wait() else ""


def error_of(output: str) -> str:
    """The reason why Podman failed, in one line, from its output. A long one loses its middle: the end matters most."""
    output = f"\n{output.strip()}"
    text = output.rpartition("\nError: " if "\nError: " in output else "\n")[2]
    line = " ".join("".join(char if char.isprintable() else " " for char in text).split())
    return line if len(line) <= _MOST else f"{line[:90]} ... {line[-_MOST + 95 :]}"


def _measure(directory: str, sizes: dict[str, int]) -> None:
    """Update the sizes of the files that have arrived; those that were unpacked are gone, but count."""
    for above, _, names in os.walk(directory):
        for name in names:
            path = f"{above}/{name}"
            try:
                sizes[path] = max(sizes.get(path, 0), os.stat(path).st_size)
            except OSError:  # it was just unpacked
                continue


def _read() -> int:
    """The number of bytes that Podman has read, from the network or the disk: it makes progress while this grows."""
    group = (host_read.read("/proc/self/cgroup") or b"").decode().rpartition("0::")[2].strip()
    found = [0]
    for pid in (host_read.read(f"/sys/fs/cgroup{group}/cgroup.procs") or b"").decode().split():
        if host_read.read(f"/proc/{pid}/comm") == b"podman\n":
            fields = (host_read.read(f"/proc/{pid}/io") or b"rchar: 0").split()
            found.append(int(fields[1]))
    return max(found)


def _notify(*lines: str) -> None:
    """Notify systemd (sd_notify(3))."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return
    import socket
    from contextlib import suppress

    with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as notify:
        notify.sendto("\n".join(lines).encode(), "\0" + address[1:] if address.startswith("@") else address)


def _failures() -> tuple[int, str]:
    """The number of failed attempts since the app's start was requested, and the reason of the last one."""
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
