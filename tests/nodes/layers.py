# SPDX-License-Identifier: MIT
"""What nodes and the toolbox are made of: the host's tools, a base system, the package, the project's tools.

Each layer is made once for each state of its recipe, under a temporary name, and then renamed: a build that is killed
leaves nothing that looks whole. A layer's key is a digest of its recipe; what changes the result belongs into it.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from nodes.common import BOX, LAYERS, LOGS, REPO, STORE, Problem, delete, environment, locked, quietly, run, say, step

SUITE = "trixie"
RECENT = 1200  # seconds since its last use that a layer is kept, whatever is newer

# What the host must have (a command or a file), and the package that has it.
HOST_NEEDS = {
    "mmdebstrap": "mmdebstrap",
    "systemd-nspawn": "systemd-container",
    "ip": "iproute2",
    "nsenter": "util-linux",
    "newuidmap": "uidmap",
    "git": "git",
    "pip3": "python3-pip",
    "make": "make",
    "/usr/lib/python3/dist-packages/yaml/__init__.py": "python3-yaml",
    "/usr/share/keyrings/debian-archive-keyring.gpg": "debian-archive-keyring",
}

# All that the package depends on, since a node has no network to fetch it from; and what helps in tests.
NODE_PACKAGES = """
systemd systemd-sysv dbus dbus-user-session libpam-systemd podman crun netavark aardvark-dns passt uidmap catatonit
python3 python3-bcrypt python3-cryptography python3-jinja2 python3-yaml python3-jsonschema python3-systemd
busybox-static nftables passwd iproute2 procps curl strace jq less ca-certificates docker-registry
"""
# What is there for a test to start.
NODE_DISABLED = ("docker-registry.service",)
# What cannot work, or has no business, in a container without a network.
NODE_MASKED = ("systemd-modules-load.service", "apt-daily.timer", "apt-daily-upgrade.timer")
NODE_FILES = {
    # The host may lack CAP_SYS_RESOURCE and the cgroup controllers.
    "/etc/containers/containers.conf.d/90-test-node.conf": (
        '[containers]\ndefault_ulimits = ["nofile=16384:16384"]\npids_limit = 0\n'
    ),
    "/etc/resolv.conf": "# A test node reaches its host and nothing else.\n",
}

TOOL_PACKAGES = """
build-essential debhelper dh-python pybuild-plugin-pyproject python3-all python3-setuptools lintian mypy python3-pytest
python3-pytest-xdist python3-hypothesis shellcheck python3-bcrypt python3-cryptography
python3-jinja2 python3-yaml python3-jsonschema python3-systemd systemd podman man-db git
busybox-static python3-pip bash-completion strace ca-certificates
"""
TOOL_PIP = ("ruff==0.17.5", "types-PyYAML==6.0.12.20261113", "types-jsonschema==4.26.0.20261006")

PACKAGE_INPUTS = "Makefile generator units templates apps debian docs setup.cfg pyproject.toml README.md LICENSE"

# Runs a command in a throw-away view of the tools; or, to complete them, in the tools themselves.
TOOLBOX = """
set -eu
tools=$1 mode=$2 repo=$3 mnt=$4
shift 4
root=$mnt/root
mount -t tmpfs -o mode=0755 tmpfs "$mnt"
mkdir "$mnt/upper" "$mnt/work" "$root"
case $mode in
rw) mount --bind "$tools" "$root" ;;
ro) mount -t overlay -o "lowerdir=$tools,upperdir=$mnt/upper,workdir=$mnt/work" overlay "$root" ;;
esac
mkdir -p "$root/src"
mount --bind "$repo" "$root/src"
for dir in dev proc sys; do mount --rbind "/$dir" "$root/$dir"; done
mount -t tmpfs -o mode=1777 tmpfs "$root/tmp"
for file in /etc/resolv.conf /etc/pip.conf /etc/ssl/certs/ca-certificates.crt; do
    [ -e "$file" ] || continue
    [ -e "$root$file" ] || : >"$root$file"
    mount --bind "$file" "$root$file"
done
exec chroot "$root" env -C /src "$@"
"""


def digest(*recipe: object) -> str:
    """Hash a recipe."""
    return hashlib.sha256(json.dumps(recipe, sort_keys=True).encode()).hexdigest()[:16]


def digest_files(files: Sequence[Path]) -> str:
    """Hash the names, modes and contents of files."""
    return digest([(str(f.relative_to(REPO)), f.stat().st_mode & 0o111, f.read_bytes().hex()) for f in files])


def layer(kind: str, key: str, build: Callable[[Path, Path], None], suffix: str = "") -> Path:
    """Return the layer of this kind and key; if it is not there, let build(path, log) make it now."""
    path = LAYERS / f"{kind}-{key}{suffix}"
    if used(path):
        return path
    with locked(f"layer.{kind}", f"{kind}: another nodectl is building it", wait=True):
        if used(path):
            return path
        say(f"{kind}: building")
        began = time.monotonic()
        for folder in (LAYERS, LOGS):
            folder.mkdir(parents=True, exist_ok=True)
        new, log = LAYERS / f"new-{kind}{suffix}", LOGS / f"{kind}.log"
        delete(new)
        log.unlink(missing_ok=True)
        build(new, log)
        os.utime(new)
        new.rename(path)
        say(f"{kind}: built in {time.monotonic() - began:.0f} s")
        others = sorted(LAYERS.glob(f"{kind}-{'[0-9a-f]' * 16}{suffix}"), key=lambda p: p.stat().st_mtime)
        for old in others[:-2]:
            prune(old)
    return path


def hold(path: Path) -> int:
    """Keep a layer from being pruned, until the descriptor is closed."""
    fd = os.open(path, os.O_RDONLY)
    fcntl.flock(fd, fcntl.LOCK_SH)
    return fd


def used(path: Path) -> bool:
    """Whether a layer is there; from now on it is one that was used a moment ago."""
    try:
        os.utime(path)
    except FileNotFoundError:
        return False
    return True


def prune(path: Path) -> None:
    """Delete a layer, unless it is in use, or was a moment ago: other clones have layers of their own here."""
    fd = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if time.time() - path.stat().st_mtime > RECENT:
            delete(path)
    except BlockingIOError:
        pass
    finally:
        os.close(fd)


def host_prerequisites() -> None:
    """Install what the host lacks."""
    if os.geteuid() != 0:
        raise Problem("this needs root")
    missing = sorted({pkg for need, pkg in HOST_NEEDS.items() if not (Path(need).exists() or shutil.which(need))})
    if missing:
        say(f"host: installing {' '.join(missing)}")
        quietly("apt-get", "-qq", "update")
        env = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
        install = ("apt-get", "-qq", "install", "--no-install-recommends", "-y", *missing)
        if run(*install, env=env, stdout=sys.stderr).returncode != 0:
            raise Problem(f"host: apt-get could not install {' '.join(missing)}")


def base_layer() -> Path:
    """Return the root file system of a bare node."""
    hook = "".join(f'ln -sf /dev/null "$1/etc/systemd/system/{unit}"\n' for unit in NODE_MASKED)
    hook += f'chroot "$1" systemctl --quiet disable {" ".join(NODE_DISABLED)}\n'
    for name, text in NODE_FILES.items():
        hook += f'mkdir -p "$1{os.path.dirname(name)}"; printf %s {shlex.quote(text)} >"$1{name}"\n'
    hook += 'rm -f "$1/etc/dpkg/dpkg.cfg.d/99mmdebstrap"; mkdir -p "$1/var/log/journal"\n'
    slim = [f"--dpkgopt=path-exclude=/usr/share/{folder}/*" for folder in ("doc", "info", "locale", "man")]
    options = ["--variant=minbase", f"--include={','.join(NODE_PACKAGES.split())}", *slim, f"--customize-hook={hook}"]

    def build(new: Path, log: Path) -> None:
        step(log, *BOX, "mmdebstrap", *options, SUITE, new)

    return layer("base", digest(options, SUITE), build)


def package_layer() -> Path:
    """Return the archy package, built from the sources as they are now."""
    command = ("git", "-c", "safe.directory=*", "ls-files", "-coz", "--exclude-standard", "--", *PACKAGE_INPUTS.split())
    listing = run(*command, cwd=REPO, stdout=subprocess.PIPE)
    if listing.returncode != 0:
        raise Problem(f"package: git cannot list the sources in {REPO}")
    sources = [path for name in sorted(set(listing.stdout.split("\0"))) if (path := REPO / name).is_file()]

    def build(new: Path, log: Path) -> None:
        step(log, *BOX, "make", "-C", REPO, "deb")
        found = list((REPO / "build").glob("archy_*_all.deb"))
        if len(found) != 1:
            raise Problem(f"package: make deb left {len(found)} files build/archy_*_all.deb, expected one")
        shutil.copyfile(found[0], new)

    return layer("package", digest_files(sources), build, ".deb")


def tools_layer() -> Path:
    """Return the root file system with all that builds and checks the project."""
    git = 'printf "[safe]\\n\\tdirectory = *\\n" >"$1/etc/gitconfig"'
    options = ["--variant=minbase", f"--include={','.join(TOOL_PACKAGES.split())}", f"--customize-hook={git}"]
    pip = ("pip", "install", "--no-cache-dir", "--no-deps", "--break-system-packages", *TOOL_PIP)

    def build(new: Path, log: Path) -> None:
        step(log, *BOX, "mmdebstrap", *options, SUITE, new)
        step(log, *BOX, *toolbox(new, "rw", pip), env=environment("PIP_", "http", "no_proxy"))

    return layer("tools", digest(options, pip, SUITE), build)


def toolbox(tools: Path, mode: str, command: Sequence[str]) -> list[str]:
    """Compose the command that runs another among the tools."""
    mnt = STORE / "mnt"
    mnt.mkdir(parents=True, exist_ok=True)
    private = ["unshare", "--mount", "--propagation", "private", "sh", "-c", TOOLBOX, "toolbox"]
    return [*private, str(tools), mode, str(REPO), str(mnt), *command]
