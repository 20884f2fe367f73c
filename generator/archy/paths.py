# SPDX-License-Identifier: MIT
"""Where things live on a node.

Every path is a constant as seen from the node; `under(root, path)` puts it below another root, so that tests work
on a directory. Imported by the generator's fast path: nothing but `os` may be imported here.
"""

import os

USER = "archipelago"
HOME = "/var/lib/archipelago"
SECRETS = HOME + "/secrets"

CATALOGUE = "/usr/share/archy/apps"
TEMPLATES = "/usr/share/archy/templates"
APPS = "/etc/archy/apps"
ACCEPTED = "/etc/archy/accepted"
NODE = "/etc/archy/node.yml"

UNIT_CACHE = "/run/archy/units"
PREPARED = "/run/archy/prepared"
LOCK = "/run/archy/lock"

MANIFEST = "manifest.yml"
SLICE_CGROUP = "/sys/fs/cgroup/archipelago.slice/archipelago-apps.slice"
QUADLET = "/usr/libexec/podman/quadlet"


def under(root: str, path: str) -> str:
    """`path`, an absolute path of the node, as seen from outside when the node's root directory is `root`."""
    return path if root == "/" else os.path.join(root, path.lstrip("/"))


def unit(app_id: str) -> str:
    """The name of the service unit of an app."""
    return f"archy-{app_id}.service"
