# SPDX-License-Identifier: MIT
"""Harm to apps, and to what Podman knows and needs: each heals without a hand.

Twenty runs of each on a node that is fresh for that kind of harm, not for each run: a node with all these apps takes
half a minute to make. A sample is made in every run of the tests, on one node. See chaos.py for what must be so.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest
from chaos import Nodes, Scenario, runs, strike

pytestmark = pytest.mark.chaos

STANDINS = ("plain", "deaf")
NGINX = "docker.io/library/nginx:1.26"
UIS = ("bitcoin-ui", "electrs-ui", "lnd-ui")
STOPPED = "systemctl stop 'archy-*'"
STARTED = "systemctl start --no-block 'archy-*'"
RUNTIME = "rm -rf $R/containers $R/libpod $R/podman"
PAUSE = "kill -9 $(cat $R/libpod/tmp/pause.pid)"
# All at once: with the first one gone, systemd would restart that app.
CONMONS = "pkill -9 -u archipelago -x conmon"
PASTA = "pkill -9 -u archipelago '^pasta'"
AARDVARK = "pkill -9 -u archipelago -x aardvark-dns"
TRUNCATED = "truncate -s 0 $STORAGE/db.sql"
HALVED = "truncate -s $(($(stat -c %s $STORAGE/db.sql) / 2)) $STORAGE/db.sql"
GARBAGE = "head -c 100000 /dev/urandom > $STORAGE/db.sql"
DELETED = "rm -f $STORAGE/db.sql*"
LINE = "$(printf 'f%.0s' $(seq 64)) 10.89.0.250  $APP,archy-$APP"
NETNS = f"""
as podman unshare umount -l $R/containers/networks/rootless-netns/rootless-netns
rm -f $R/containers/networks/rootless-netns/rootless-netns
{PASTA}; {AARDVARK}; true
"""
# An image that the node can have again, as others can from the Internet.
REGISTRY = f"""
cat > /etc/docker/registry/config.yml <<EOF
{{version: 0.1, storage: {{filesystem: {{rootdirectory: /var/lib/docker-registry}}}}, http: {{addr: "127.0.0.1:5000"}}}}
EOF
cat > /etc/containers/registries.conf.d/50-test.conf <<EOF
[[registry]]
prefix = "docker.io"
location = "localhost:5000"
insecure = true
EOF
systemctl start docker-registry
for i in $(seq 50); do curl -sf http://localhost:5000/v2/ >/dev/null && break; sleep 0.2; done
as podman push --quiet --tls-verify=false {NGINX} docker://{NGINX.replace("docker.io", "localhost:5000")}
"""
# What runs keeps its mount; what starts has no image.
LAYER = f"""
top=$(as podman image inspect --format '{{{{.GraphDriver.Data.UpperDir}}}}' {NGINX})
[ -d "$top" ]
rm -rf "${{top%/diff}}"
for app in {" ".join(UIS)}; do kill -9 "$(conmon "$app")"; done
"""
LEFTOVER = """
as podman create --quiet --name leftover --network archy-net --label PODMAN_SYSTEMD_UNIT=archy-bitcoin-ui.service \
    localhost/archy-standin:1 >/dev/null
"""
TIMER = """
id=$(printf 'e%.0s' $(seq 64))
as systemd-run --user --quiet --unit=$id-$NUMBER --on-unit-inactive=1s --on-active=1s \
    --timer-property=AccuracySec=1s podman healthcheck run $id
"""
# PID 1 goes on, and nobody listens.
UNHEARD = """
for pid in $(cat /sys/fs/cgroup/archipelago.slice/archipelago-apps.slice/archy-$APP.service/cgroup.procs); do
    case $(tr '\\0' ' ' </proc/$pid/cmdline) in httpd*) kill -9 $pid; killed=1 ;; esac
done
[ "$killed" = 1 ]
"""

SCENARIOS = (
    Scenario("app-stopped-by-signal", 'kill -STOP "$(main $APP)"', restarts=(), sample=True),
    Scenario("app-frozen", "systemctl freeze archy-$APP", restarts=()),
    Scenario("app-listens-no-more", UNHEARD, 120, restarts=(), victims=STANDINS),
    Scenario("app-killed-with-conmon", 'kill -9 "$(conmon $APP)"', restarts=()),
    Scenario("database-deleted", DELETED, sample=True),
    Scenario("database-deleted-while-stopped", f"{STOPPED}; {DELETED}; {STARTED}"),
    Scenario("database-truncated", TRUNCATED),
    Scenario("database-truncated-while-stopped", f"{STOPPED}; {TRUNCATED}; {STARTED}"),
    Scenario("database-halved", HALVED),
    Scenario("database-halved-while-stopped", f"{STOPPED}; {HALVED}; {STARTED}"),
    Scenario("database-garbage", GARBAGE),
    Scenario("database-garbage-while-stopped", f"{STOPPED}; {GARBAGE}; {STARTED}"),
    Scenario("runtime-directories-deleted", RUNTIME, 90),
    Scenario("pause-process-killed", PAUSE, restarts=()),
    Scenario("pause-process-and-conmons-killed", f"{PAUSE}; {CONMONS}", 90),
    Scenario("pasta-killed", PASTA),
    Scenario("aardvark-killed", AARDVARK),
    Scenario("pasta-and-aardvark-killed", f"{PASTA}; {AARDVARK}", sample=True),
    Scenario("network-namespace-destroyed", NETNS, 90, sample=True),
    Scenario(
        "stale-name",
        f'echo "{LINE}" >> $R/containers/networks/aardvark-dns/archy-net; pkill -HUP -x aardvark-dns',
        gone="! grep -q 10.89.0.250 $R/containers/networks/aardvark-dns/archy-net",
    ),
    Scenario("storage-lock-garbage", "head -c 64 /dev/urandom > $STORAGE/storage.lock"),
    Scenario("shared-locks-garbage", "head -c 80000 /dev/urandom > /dev/shm/libpod_rootless_lock_$U", 90),
    Scenario("shared-locks-deleted", "rm /dev/shm/libpod_rootless_lock_$U", 90),
    Scenario(
        "volatile-containers-garbage",
        "head -c 500 /dev/urandom > $STORAGE/overlay-containers/volatile-containers.json",
        90,
    ),
    Scenario("image-layer-removed", LAYER, 120, victims=UIS, restarts=UIS, prepare=REGISTRY),
    Scenario("leftover-container", LEFTOVER, gone="! as podman container exists leftover", restarts=()),
    Scenario(
        "leftover-health-timer",
        TIMER,
        gone="! as systemctl --user list-units --all --plain --no-legend 'eeee*.timer' | grep -q .",
        restarts=(),
    ),
    Scenario(
        "user-manager-killed-ten-times",
        "for i in $(seq 10); do systemctl kill --kill-whom=main --signal=KILL user@$U; sleep 1; done",
        90,
        sample=True,
    ),
)


@pytest.fixture(scope="module")
def nodes() -> Iterator[Nodes]:
    """The node that harm is done to."""
    with ExitStack() as stack:
        yield Nodes("chaos-podman", stack)


@pytest.mark.parametrize(("scenario", "number"), runs(SCENARIOS))
def test_it_heals(
    nodes: Nodes, scenario: Scenario, number: int, record_property: Callable[[str, object], None]
) -> None:
    strike(nodes.get(scenario, number), scenario, number, record_property)
