# SPDX-License-Identifier: MIT
"""Where things live on a node.

Every path is a constant as seen from the node; `under(root, path)` puts it below another root, so that tests work
on a directory. Imported by the generator's fast path: nothing but `os` may be imported here.
"""

import os

USER = "archipelago"
HOME = "/var/lib/archipelago"
SECRETS = HOME + "/secrets"
DATA_VERSIONS = HOME + "/.data-versions"
MADE_SECRETS = HOME + "/.made-secrets"
PREVIOUS = ".previous"  # ends the name of a secret's value before its rotation, until that is over

CATALOGUE = "/usr/share/archy/apps"
TEMPLATES = "/usr/share/archy/templates"
APPS = "/etc/archy/apps"
ACCEPTED = "/etc/archy/accepted"
STOPPED = "/etc/archy/stopped"
NODE = "/etc/archy/node.yml"
GRANTS = "/etc/archy/grants.yml"
FILES = "/usr/share/archy/files"  # what hooks may copy from, besides their own app's folder
ACCEPTED_NODE = ACCEPTED + "/node.yml"
ACCEPTED_GRANTS = ACCEPTED + "/grants.yml"
ACCEPTED_HOST = ACCEPTED + "/host.json"

UNIT_CACHE = "/run/archy/units"
PREPARED = "/run/archy/prepared"
STARTED = "/run/archy/started"
FACTS = "/run/archy/facts.json"
STATUS = "/run/archy/status.json"
LOCK = "/run/archy/lock"
# What containers get from archy besides their data; the service user's, for Podman reads it.
ENVIRONMENTS = "/run/archipelago/env"
SECRET_ENVIRONMENTS = "/run/archipelago/secret-env"
COPIES = "/run/archipelago/files"
# What the probe found, see archy-probe.service; what it keeps for its next run is the service user's own.
PROBE = "/run/archy/probe.json"
PROBE_ERROR = "/run/archy/probe.err"
PROBE_CACHE = "/run/archy-probe/cache.json"
RECOVERY = "/run/archy/recovery.json"
GENERATED = "/run/systemd/generator"

MANIFEST = "manifest.yml"
SLICE_CGROUP = "/sys/fs/cgroup/archipelago.slice/archipelago-apps.slice"
QUADLET = "/usr/libexec/podman/quadlet"


def under(root: str, path: str) -> str:
    """`path`, an absolute path of the node, as seen from outside when the node's root directory is `root`."""
    return path if root == "/" else os.path.join(root, path.lstrip("/"))


def unit(app_id: str) -> str:
    """The name of the service unit of an app."""
    return f"archy-{app_id}.service"


def image_unit(app_id: str) -> str:
    """The name of the unit that fetches the image of an app."""
    return f"archy-image@{app_id}.service"


def build_unit(app_id: str) -> str:
    """The name of the unit that makes the image of an app on the node."""
    return f"archy-{app_id}-build.service"


def rebuild_unit(app_id: str) -> str:
    """The name of the unit that makes the image of an app anew while the app runs."""
    return f"archy-rebuild@{app_id}.service"


def wait_unit(app_id: str) -> str:
    """The name of the unit that holds the start of an app until what it waits for is so."""
    return f"archy-wait@{app_id}.service"
