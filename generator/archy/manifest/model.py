# SPDX-License-Identifier: MIT
"""The typed model of an app. `parse` makes it from a manifest."""

from __future__ import annotations

from dataclasses import dataclass

SHARED_NETWORK = "archy-net"
ALONE = ("pasta", "host")  # network modes in which a container has no name and no neighbours

# Fixed, because bitcoin.conf's rpcallowip takes addresses only.
SUBNETS = {SHARED_NETWORK: "10.89.0.0/24"}
RPC_SECRET = "bitcoin-rpc-password"
BITCOIN = "bitcoin"  # what an implementation of Bitcoin provides, and its name on its network


@dataclass(frozen=True)
class Port:
    """A published port, or as many as `more` says beside it."""

    host: int
    container: int
    protocol: str = "tcp"
    bind: str = "0.0.0.0"
    more: int = 0

    def clashes(self, other: Port) -> bool:
        """Whether both want the same port of the node on addresses that overlap."""
        apart = self.host + self.more < other.host or other.host + other.more < self.host
        everywhere = {"0.0.0.0", "::"} & {self.bind, other.bind}
        return self.protocol == other.protocol and not apart and bool(everywhere or self.bind == other.bind)


@dataclass(frozen=True)
class Network:
    """A network that a container is in besides its first one."""

    name: str
    aliases: tuple[str, ...] = ()


@dataclass(frozen=True)
class Build:
    """How an image is made on the node. `context` is a folder, relative to that of the manifest."""

    context: str
    dockerfile: str
    target: str
    args: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Copy:
    """A file or folder of the node that the container sees at `dest`. `src` is absolute, or below the manifest."""

    src: str
    dest: str


@dataclass(frozen=True)
class Hooks:
    """Steps at each start: copies; commands in their own container before it, and in the app's when it is ready."""

    copies: tuple[Copy, ...] = ()
    pre_start: tuple[tuple[str, ...], ...] = ()
    post_install: tuple[tuple[str, ...], ...] = ()


@dataclass(frozen=True)
class Runtime:
    """Further options of Podman for a container, in its own form; sizes are in bytes."""

    hostname: str = ""
    extra_hosts: tuple[str, ...] = ()
    ipv4_address: str = ""
    dns: tuple[str, ...] = ()
    group_add: tuple[str, ...] = ()
    working_dir: str = ""
    init: bool = False
    tty: bool = False
    stdin_open: bool = False
    stop_signal: str = ""
    tmpfs: tuple[str, ...] = ()
    shm_size: int | None = None
    sysctls: tuple[str, ...] = ()
    ulimits: tuple[str, ...] = ()
    devices: tuple[str, ...] = ()
    unconfined: tuple[str, ...] = ()  # the parts of Podman's confinement that are off
    logs: bool = True
    labels: tuple[str, ...] = ()


@dataclass(frozen=True)
class Volume:
    """A bind mount (`source` is an absolute path of the node) or a named volume."""

    kind: str
    source: str
    target: str
    options: tuple[str, ...] = ()


@dataclass(frozen=True)
class HealthCheck:
    """How an app is asked whether it serves, from inside the container, until it is ready and from then on.

    `command` is a list to execute, without a shell; `port` and `path` belong to the kinds `http` and `tcp`. `timeout`
    and `interval` are in seconds. After `retries` failures in a row the app is restarted.
    """

    kind: str
    port: int = 0
    path: str = "/"
    command: tuple[str, ...] = ()
    timeout: float = 5
    interval: float = 30
    retries: int = 3


@dataclass(frozen=True)
class Need:
    """Another app that this one needs, by its ID or by what it provides. `restart`: restarted after it whenever archy
    restarts that one. Not `required`: used where it is installed."""

    app_id: str
    restart: bool = False
    required: bool = True


@dataclass(frozen=True)
class Secret:
    """A canonical secret. `rotatable`: nothing keeps its value but what is derived from it."""

    name: str
    kind: str
    rotatable: bool = False

    @property
    def names(self) -> tuple[str, ...]:
        """The files that hold it: bcrypt has the hash, and the plain text for a person to log in with."""
        return (self.name, f"{self.name}.pw") if self.kind == "bcrypt" else (self.name,)


@dataclass(frozen=True)
class GeneratedFile:
    """A file on the node that is made for the app. `owner` and `group` are IDs as the container sees them."""

    path: str
    content: str | None
    template: str | None
    mode: int
    owner: int
    group: int
    overwrite: bool


@dataclass(frozen=True)
class SecretEnv:
    """An environment variable that reaches the container as a Podman secret: a secret's value, or a template's text."""

    key: str
    secret: str = ""
    template: str = ""


@dataclass(frozen=True)
class Certificate:
    """A self-signed certificate and its key, as files of the app. `common_name` and `sans` may hold placeholders."""

    crt: str
    key: str
    common_name: str
    sans: tuple[str, ...] = ()


@dataclass(frozen=True)
class Credential:
    """A login for a person. `secret` is the name of a secret."""

    name: str
    user: str
    secret: str


@dataclass(frozen=True, kw_only=True)
class App:
    """One app, as its manifest describes it. Times are in seconds, sizes in bytes."""

    id: str
    name: str
    version: str
    image: str
    pull: str
    network: str
    aliases: tuple[str, ...]
    networks: tuple[Network, ...]
    build: Build | None
    one_shot: bool  # it runs to its end, and is done if that was a good one
    runtime: Runtime
    user: str = ""
    entrypoint: tuple[str, ...] = ()
    arguments: tuple[str, ...]
    environment: tuple[str, ...]
    ports: tuple[Port, ...]
    volumes: tuple[Volume, ...]
    health: HealthCheck | None
    capabilities: tuple[str, ...]
    read_only: bool
    no_new_privileges: bool
    memory: int | None
    cpus: float | None
    pids: int | None
    privileged: bool = False
    stop_grace: int
    start_timeout: int | None
    provides: str = ""  # apps that provide the same are alternatives
    companion_of: str = ""
    part_of: str = ""
    storage: int | None
    bitcoin: tuple[str, ...]  # what the Bitcoin node must be: any, archival, synced
    needs: tuple[Need, ...]
    rpcwhitelist: tuple[str, ...] | None  # the calls of bitcoind's RPC that the app makes; None: it makes none
    restart_when_changed: bool = False
    secrets: tuple[Secret, ...]
    derived_env: tuple[tuple[str, str], ...]  # key, text with placeholders
    secret_env: tuple[SecretEnv, ...]
    env_files: tuple[str, ...]
    certificates: tuple[Certificate, ...]
    files: tuple[GeneratedFile, ...]
    credentials: tuple[Credential, ...]
    data_uid: int | None = None
    data_version: str = ""
    hooks: Hooks

    @property
    def need_ids(self) -> list[str]:
        """The apps that this one cannot do without."""
        return [need.app_id for need in self.needs if need.required]

    @property
    def secret_names(self) -> list[str]:
        """The canonical secrets whose values reach the app."""
        names = [name for declared in self.secrets for name in declared.names]
        names += [entry.secret for entry in self.secret_env if entry.secret]
        names += [RPC_SECRET] if self.rpcwhitelist is not None else []
        return list(dict.fromkeys(names))

    @property
    def container_name(self) -> str:
        """Companions are named after their unit, other apps keep their bare name."""
        return f"archy-{self.id}" if self.companion_of else self.id
