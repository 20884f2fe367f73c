# SPDX-License-Identifier: MIT
"""Where things live on a node.

Every path is a constant as seen from the node; `under(root, path)` puts it below another root, so that tests work
on a directory. Imported by the generator's fast path: nothing may be imported here, not even `os`.
"""

USER = "archipelago"
HOME = "/var/lib/archipelago"
SECRETS = HOME + "/secrets"
DATA_VERSIONS = HOME + "/.data-versions"
MADE_SECRETS = HOME + "/.made-secrets"
PREVIOUS = ".previous"  # the end of the name of a secret's previous value, until its rotation is complete
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
SNAPSHOT = ACCEPTED + "/.snapshot"
PREPARED = "/run/archy/prepared"
STARTED = "/run/archy/started"
FACTS = "/run/archy/facts.json"
STATUS = "/run/archy/status.json"
LOCK = "/run/archy/lock"
PASS_LOCK = "/run/archy/pass.lock"

# Stamps and failures are kept by app. These keys among them, which no app's ID can be, stand for the node itself, and
# for a directory of secrets that is not root's.
NODE_KEY = "@node"
SECRETS_KEY = "@secrets"

# Files for containers, besides their data; the service user's, as Podman reads them.
ENVIRONMENTS = "/run/archipelago/env"
SECRET_ENVIRONMENTS = "/run/archipelago/secret-env"
COPIES = "/run/archipelago/files"

# The results of the probe, see archy-probe.service; its cache is the service user's.
PROBE = "/run/archy/probe.json"
PROBE_ERROR = "/run/archy/probe.err"
PROBE_CACHE = "/run/archy-probe/cache.json"
RECOVERY = "/run/archy/recovery.json"
GENERATED = "/run/systemd/generator"
MANIFEST = "manifest.yml"
SLICE_CGROUP = "/sys/fs/cgroup/archipelago.slice/archipelago-apps.slice"
QUADLET = "/usr/libexec/podman/quadlet"
# Where an operator's own units are. The last one ranks below generated units: ours is not written then.
NATIVE = ("/etc/systemd/system", "/run/systemd/system", "/usr/local/lib/systemd/system")


def under(root: str, path: str) -> str:
    """`path`, an absolute path of the node, as seen from outside when the node's root directory is `root`."""
    return path if root == "/" else f"{root.rstrip('/')}/{path.lstrip('/')}"


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
    """The name of the unit that delays the start of an app until its condition holds, as that Bitcoin is synced."""
    return f"archy-wait@{app_id}.service"


_LABEL = frozenset("abcdefghijklmnopqrstuvwxyz0123456789-")

# Unit names that are ours: archy-<id>.service must never be one of them, nor one of the units Quadlet makes.
_RESERVED = frozenset(
    [
        "all",
        "archipelago",
        "bitcoin",
        "hold",
        "image",
        "podman",
        "prepare",
        "probe",
        "rebuild",
        "reconcile",
        "recover",
        "tick",
        "wait",
    ]
)
_RESERVED_ENDINGS = ("-network", "-volume", "-build", "-image", "-pod")


def is_label(name: str) -> bool:
    """Whether `name` can be the ID of an app, and so a part of a unit's name."""
    return 0 < len(name) <= 63 and _LABEL.issuperset(name) and name[0] != "-" and name[-1] != "-"


def is_reserved(app_id: str) -> bool:
    """Whether archy-<id>.service would be a unit of archy's own, or archy-<id> the container of a companion."""
    return app_id in _RESERVED or app_id.endswith(_RESERVED_ENDINGS) or app_id.startswith("archy-")


STORAGE = HOME + "/.local/share/containers/storage"


def environment_path(app_id: str) -> str:
    """Where the variables of an app's `derived_env` are."""
    return f"{ENVIRONMENTS}/{app_id}.env"


def copy_path(app_id: str, number: int) -> str:
    """Where the node keeps the copy that a hook of an app puts into its container."""
    return f"{COPIES}/{app_id}/{number}"


def secret_path(name: str) -> str:
    """Where the canonical secret `name` is kept."""
    return f"{SECRETS}/{name}"


def secret_environment_path(app_id: str, key: str) -> str:
    """Where the value of a secret variable is until it is a Podman secret."""
    return f"{SECRET_ENVIRONMENTS}/{app_id}/{key}"


def data_version_path(app_id: str) -> str:
    """Where the version of an app's data is recorded: with the data, as both outlive the app's removal."""
    return f"{DATA_VERSIONS}/{app_id}"


def made_secret_path(name: str) -> str:
    """Where it is recorded that this secret existed: with the data, so that both move together."""
    return f"{MADE_SECRETS}/{name}"


def units_path(app_id: str) -> str:
    """Where the finished units of an app are kept."""
    return f"{ACCEPTED}/{app_id}.units"
