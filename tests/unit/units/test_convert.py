# SPDX-License-Identifier: MIT
# ruff: noqa: E501 - a case is a line
"""The container of a command that runs before an app: the app's own, but for what there can be only once."""

from __future__ import annotations

import pytest
from support import Node, app_text, setting

from archy.units import convert

RUN = "/usr/bin/podman run"
HOOK = "ExecStartPre=/usr/libexec/archy/archy-hook hooks.pre_start "
FULL = (
    f"{RUN} --name web --replace --rm --cidfile=%t/%N.cid --log-driver journald --cgroups disabled --tmpfs /t --dns 9.9.9.9"
    ' --entrypoint "[\\"/run\\", \\"two words\\"]" --sdnotify=healthy -d --device /dev/a --read-only'
    ' --publish 127.0.0.1:80:80/tcp -v /a:/b --env "A=b c" --health-cmd "[\\"true\\"]" --health-interval 1h --health-retries=3'
    " --privileged --tty -i --cidfile=/run/archipelago/%N.cid docker.io/library/nginx:1.26 -x --name $$HOME"
)


def unit(command: str, *before: str) -> str:
    lines = ["[Service]", *(f"ExecStartPre=@pre_start@ {entrypoint}" for entrypoint in before), f"ExecStart={command}"]
    return convert.service("\n".join(lines) + "\n", "/in/")


def test_the_container_of_a_hook() -> None:
    text = unit(FULL, '"[\\"/bin/init\\", \\"%%n $$x\\"]"', '"[\\"second\\"]"')
    kept = (
        f"{RUN} --rm --cgroups disabled --dns 9.9.9.9 --tmpfs /t --device /dev/a --read-only -v /a:/b"
        ' --env "A=b c" --privileged --log-driver none --sdnotify=ignore --entrypoint '
    )
    assert [line for line in text.split("\n") if line.startswith("ExecStartPre=")] == [
        f'{HOOK}{kept}"[\\"/bin/init\\", \\"%%n $$x\\"]" docker.io/library/nginx:1.26',
        f'{HOOK}{kept}"[\\"second\\"]" docker.io/library/nginx:1.26',
    ]


def test_the_app_s_own_is_as_without_a_hook() -> None:
    with_hook, without = unit(FULL, '"[\\"a\\"]"'), unit(FULL)
    assert [line for line in with_hook.split("\n") if not line.startswith(HOOK)] == without.split("\n")
    assert "--tty -i --cidfile=/run/archipelago/%N.cid docker.io/library/nginx:1.26 -x --name $$HOME\n" in without


def test_what_runs_the_least() -> None:
    least = f"{RUN} --cidfile=%t/%N.cid --cgroups disabled --sdnotify=conmon -d --cidfile=/run/archipelago/%N.cid image"
    text = unit(least, '"[\\"a\\"]"')
    assert (
        f'{HOOK}{RUN} --cgroups disabled --log-driver none --sdnotify=ignore --entrypoint "[\\"a\\"]" image\n' in text
    )


@pytest.mark.parametrize(
    "command",
    [
        FULL.replace("--cidfile=/run/archipelago/%N.cid ", ""),
        FULL.replace("--sdnotify=healthy ", ""),
        FULL.replace(" --cidfile=%t/%N.cid", ""),
    ],
)
def test_what_is_not_understood_is_refused(command: str) -> None:
    with pytest.raises((ValueError, StopIteration, RuntimeError)):
        unit(command, '"[\\"a\\"]"')


@pytest.mark.programs
def test_a_hook_of_an_app(node: Node) -> None:
    """With what the real Quadlet writes: the same mounts, networks, limits and secrets, another command."""
    container = 'user: 5:6\nnetworks: [{name: x}]\nsecret_env: [{key: A, secret_file: a}]\ncustom_args: ["--flag"]'
    app = """\
ports: [{host: 8080, container: 80}]
volumes: [{type: volume, source: d, target: /d}]
health_check: {type: tcp, endpoint: ":80"}
hooks: {pre_start: [{exec: [/bin/a, 'b "c" $d 1%']}]}"""
    node.app("web", app_text("web", container, app))
    found, warnings = node.generate()
    assert warnings == []
    *_, line = setting(found["archy-web.service"], "ExecStartPre")
    assert line == (
        f"/usr/libexec/archy/archy-hook hooks.pre_start {RUN} --rm --cgroups disabled"
        " --add-host host.archipelago:host-gateway --network archy-net --network x --pull never --stop-timeout 30"
        " --security-opt=no-new-privileges --cap-drop all --read-only --user 5:6 -v d:/d"
        " -v /usr/bin/busybox:/.archy/busybox:ro --secret archy-web-A,type=env,target=A"
        ' --log-driver none --sdnotify=ignore --entrypoint "[\\"/bin/a\\", \\"b \\\\\\"c\\\\\\" $$d 1%%\\"]"'
        " docker.io/library/nginx:1.26"
    )
