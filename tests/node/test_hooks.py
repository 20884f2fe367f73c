# SPDX-License-Identifier: MIT
"""Hooks, which are done at each start, and images that are built from the folder of an app."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from conftest import AS_USER, Node, fresh_node, standin

SHELF, FILES, HOME = "/usr/share/archy/apps", "/usr/share/archy/files", "/var/lib/archipelago"
NASTY = """a 'b' "c" $d ${PORT} $$ %n %% %i \\n \\ # ; |& é"""
# Keeps its arguments as they came, and the environment.
KEEP = (
    """[/bin/sh, -c, 'echo "$1" >> /data/hooks; printf %s "$2" > /data/$1; """
    """printf "%s|%s" "$NASTY" "$SECRET" > /data/$1.env', sh, {kind}, {word}]"""
)


def put(node: Node, app: str, manifest: str) -> None:
    """Put an app into the catalogue."""
    node.write(f"{SHELF}/{app}/manifest.yml", manifest)


def word(text: str) -> str:
    """Text as a quoted scalar."""
    return "'" + text.replace("'", "''") + "'"


def hooked(app: str) -> str:
    """A stand-in with all kinds of hooks."""
    lines = [
        f"volumes: [{{type: bind, source: {HOME}/{app}, target: /data}}]",
        "hooks:",
        "  pre_start:",
        "    - copy_from_host: {src: sub, dest: /opt/sub}",
        f"    - exec: {KEEP.format(kind='pre_start', word=word(NASTY))}",
        "    - exec: [/bin/sh, -c, 'cat /opt/sub/deep/b.txt > /data/copied; hostname > /data/pre_start.host']",
        "  post_install:",
        "    - copy_from_host: {src: a.txt, dest: /etc/a.txt}",
        f"    - copy_from_host: {{src: {FILES}/common.sh, dest: /opt/common.sh}}",
        f"    - copy_from_host: {{src: {FILES}/more, dest: /opt/more}}",
        f"    - exec: {KEEP.format(kind='post_install', word=word(NASTY))}",
        "    - exec: [/bin/sh, -c, 'cat /data/copied /etc/a.txt /opt/more/c.txt > /tmp/seen']",
        "    - exec: [/bin/sh, -c, '/opt/common.sh >> /tmp/seen']",
    ]
    secret = [
        "generated_secrets: [{name: hook-secret, kind: hex16}]",
        "secret_env: [{key: SECRET, secret_file: hook-secret}]",
    ]
    text = standin(app, extra=lines, container=secret)
    return text.replace("    - PORT=8080", f"    - PORT=8080\n    - {word('NASTY=' + NASTY)}")


@pytest.fixture(scope="module")
def node() -> Iterator[Node]:
    """A node with an app that has hooks."""
    with fresh_node("hooks") as fresh:
        for path, text in {
            f"{SHELF}/hooked/a.txt": "a1",
            f"{SHELF}/hooked/sub/deep/b.txt": "b1",
            f"{FILES}/common.sh": "#!/bin/sh\necho common1\n",
            f"{FILES}/more/c.txt": "c1",
        }.items():
            fresh.write(path, text)
        fresh.out(f"chmod 755 {FILES}/common.sh")
        put(fresh, "hooked", hooked("hooked"))
        put(fresh, "plain", standin("plain"))
        fresh.out("archy app install hooked && archy app install plain")
        yield fresh


def seen(node: Node) -> str:
    """What the last hook put together in the container."""
    return node.run(f"{AS_USER} podman exec hooked cat /tmp/seen").stdout


def check_effects(node: Node, expected: str = "b1a1c1common1\n") -> None:
    """All hooks were done in this container, in order."""
    node.wait_active("hooked")
    assert seen(node) == expected


def anew(node: Node, harm: str) -> None:
    """Do harm to the app, and wait until it runs again."""
    before = node.pid("hooked")
    assert before
    node.out(f"rm -f {HOME}/hooked/*; {harm}")
    node.wait("another run", lambda: node.pid("hooked") not in (0, before))
    node.wait_active("hooked")


def test_commands_get_their_words_and_the_apps_surroundings(node: Node) -> None:
    check_effects(node)
    assert node.out(f"cat {HOME}/hooked/hooks").split() == ["pre_start", "post_install"]
    for kind in ("pre_start", "post_install"):
        assert node.out(f"cat {HOME}/hooked/{kind}") == NASTY
        assert node.out(f"cat {HOME}/hooked/{kind}.env") == f"{NASTY}|{node.out(f'cat {HOME}/secrets/hook-secret')}"


def test_what_is_before_the_start_is_in_another_container(node: Node) -> None:
    assert node.out(f"cat {HOME}/hooked/pre_start.host") != node.podman("exec hooked hostname")
    assert node.podman("ps --all --format '{{.Names}}'").split() == ["hooked", "plain"]


def test_copies_are_read_only(node: Node) -> None:
    done = node.run(f"{AS_USER} podman exec hooked sh -c 'echo harm >> /etc/a.txt; echo harm > /opt/more/x'")
    assert done.stderr.count("can't create") == 2, done.stderr
    assert node.out(f"cat {SHELF}/hooked/a.txt") == "a1"


def test_effects_are_back_after_any_end(node: Node) -> None:
    for harm in (
        "kill -9 $(systemctl show -P MainPID archy-hooked)",
        f"({AS_USER} podman rm -f -t 5 hooked) || true",  # beside the unit's own, which may be faster
        "systemctl restart archy-hooked",
    ):
        anew(node, harm)
        check_effects(node)
        # Those of the attempt that succeeded: while Podman still removes the container, one may fail.
        assert node.out(f"cat {HOME}/hooked/hooks").split()[-2:] == ["pre_start", "post_install"]
    node.out(f"rm {HOME}/hooked/*")
    node.ctl("reboot")
    check_effects(node)


def test_a_changed_source_restarts_only_its_app(node: Node) -> None:
    plain = node.pid("plain")
    expected = "b1a1c1common1\n"
    for path, old, new in (
        (f"{SHELF}/hooked/a.txt", "a1", "a2"),
        (f"{SHELF}/hooked/sub/deep/b.txt", "b1", "b2"),
        (f"{FILES}/more/c.txt", "c1", "c2"),
        (f"{FILES}/common.sh", "common1", "common2"),
    ):
        before = node.pid("hooked")
        node.tick()
        assert node.pid("hooked") == before
        expected = expected.replace(old, new)
        node.calm()
        node.out(f"sed -i s/{old}/{new}/ {path}")
        node.tick()
        node.wait("a restart", lambda before=before: node.pid("hooked") not in (0, before))  # type: ignore[misc]
        check_effects(node, expected)
    assert node.pid("plain") == plain


@pytest.mark.parametrize(
    ("kind", "word", "said"),
    [
        (
            "pre_start",
            "echo broken before >&2; exit 3",
            ("broken before", "A step of hooks.pre_start failed", "status 3"),
        ),
        (
            "post_install",
            "echo broken after; exit 4",
            ("broken after", "A step of hooks.post_install failed", "status 4"),
        ),
    ],
)
def test_a_failing_hook_fails_the_app(node: Node, kind: str, word: str, said: tuple[str, ...]) -> None:
    put(node, "fails", standin("fails", extra=[f"hooks: {{{kind}: [{{exec: [/bin/sh, -c, '{word}']}}]}}"]))
    done = node.run("archy app install fails", timeout=180)
    assert done.returncode == 1, done.stderr
    assert all(part in done.stderr for part in said), done.stderr

    log = node.out("journalctl --sync; journalctl -u archy-fails --no-pager --lines 60")
    assert all(part in log for part in said), log
    assert node.active("fails") != "active"
    node.out("archy app remove fails")
    assert "fails" not in node.podman("ps --all --format '{{.Names}}'")


@pytest.mark.parametrize(
    ("src", "said"),
    [
        ("../plain/manifest.yml", "must be a plain path below the folder of the manifest"),
        ("sub/../../plain/manifest.yml", "must be a plain path below the folder of the manifest"),
        ("/etc/shadow", f"must be below {FILES}"),
        (f"{FILES}/../apps/plain/manifest.yml", f"must be below {FILES}"),
        (f"{HOME}/secrets/hook-secret", f"must be below {FILES}"),
        ("link", "is not a file or folder beside the manifest"),
        ("up/shadow", "is not a file or folder beside the manifest"),
        (f"{FILES}/link", f"{FILES}/link: leads out of {FILES}"),
        (f"{FILES}/up/shadow", f"{FILES}/up/shadow: leads out of {FILES}"),
        (f"{FILES}/nothing", f"{FILES}/nothing: is not there"),
    ],
)
def test_nothing_is_copied_from_elsewhere(node: Node, src: str, said: str) -> None:
    hook = f"hooks: {{pre_start: [{{copy_from_host: {{src: {src}, dest: /x}}}}]}}"
    put(node, "leaks", standin("leaks", extra=[hook]))
    for place in (f"{SHELF}/leaks", FILES):
        node.out(f"ln -sfn /etc/shadow {place}/link; ln -sfn /etc {place}/up")
    done = node.run("archy app install leaks", timeout=180)
    assert done.returncode != 0
    assert said in done.stderr, done.stderr
    assert "leaks" not in node.podman("ps --all --format '{{.Names}}'")
    assert node.run(f"grep -rlsF root: /run/archipelago/files /etc/archy/accepted {HOME}/leaks").stdout == ""
    node.run("archy app remove leaks")
    node.out(f"rm {FILES}/link {FILES}/up")


def test_a_link_in_a_copied_folder_is_left_out(node: Node) -> None:
    put(node, "leaks", standin("leaks", extra=["hooks: {pre_start: [{copy_from_host: {src: dir, dest: /x}}]}"]))
    node.write(f"{SHELF}/leaks/dir/good.txt", "good")
    node.out(f"ln -s /etc/shadow {SHELF}/leaks/dir/shadow; ln -s /etc {SHELF}/leaks/dir/etc")
    node.out("archy app install leaks")
    assert node.podman("exec leaks find /x -type f") == "/x/good.txt"
    node.out("archy app remove leaks")


def built(app: str, more: str = "") -> str:
    """A stand-in whose image is made on the node."""
    text = standin(app)
    return (
        text.replace(
            "    image: localhost/archy-standin:1\n    pull_policy: never", f"    build: {{context: image{more}}}"
        ).replace("  environment:\n    - PORT=8080\n", "")
        + "  environment: {PORT: 8080}\n"
    )


CONTAINERFILE = 'FROM localhost/archy-standin:1\nARG WHAT=none\nCOPY page /www/page\nRUN echo "$WHAT" > /www/what\n'


def test_an_image_is_built_from_its_context(node: Node) -> None:
    folder = f"{SHELF}/built/image"
    put(node, "built", built("built", ', args: {WHAT: "a $b %c"}'))
    node.write(f"{folder}/Containerfile", CONTAINERFILE)
    node.write(f"{folder}/page", "one")
    node.out("archy app install built", timeout=300)
    assert node.podman("exec built cat /www/page /www/what") == "onea $b %c"
    assert node.podman("inspect built --format '{{.ImageName}}'") == "localhost/archy-built:built"
    plain, before = node.pid("plain"), node.pid("built")
    node.tick()
    assert node.pid("built") == before
    node.calm()
    node.write(f"{folder}/page", "two")
    node.tick()
    node.wait("a restart", lambda: node.pid("built") not in (0, before), 180)
    node.wait_active("built")
    assert node.podman("exec built cat /www/page") == "two"
    assert node.pid("plain") == plain


def test_a_broken_containerfile_is_said_harms_nobody_and_mending_it_is_enough(node: Node) -> None:
    folder, before = f"{SHELF}/built/image", node.pid("built")
    node.calm()
    node.write(f"{folder}/Containerfile", CONTAINERFILE + "RUN exit 7\n")
    node.tick()
    node.wait(
        "the image fails", lambda: "exit status 7" in node.run("journalctl -u archy-built-build -n 50").stdout, 120
    )
    node.wait("status says so", lambda: "archy-built-build" in node.run("archy status").stdout)
    assert node.pid("built") == before
    assert node.podman("exec built cat /www/page") == "two"
    node.write(f"{folder}/page", "three")
    node.write(f"{folder}/Containerfile", CONTAINERFILE)
    node.calm()
    node.wait("it is built by itself", lambda: node.pid("built") not in (0, before), 240)
    node.wait_active("built")
    assert node.podman("exec built cat /www/page") == "three"
    node.passes_until("all is well", lambda: node.run("archy status").returncode == 0)
    after = node.pid("built")
    node.tick()
    assert node.pid("built") == after
    node.nothing_failed()


def test_a_stop_ends_the_attempts_to_build(node: Node) -> None:
    node.calm()
    node.write(f"{SHELF}/built/image/Containerfile", CONTAINERFILE + "RUN exit 7\n")
    node.tick()
    node.wait("the image fails", lambda: int(node.show("archy-built-build", "NRestarts")) > 0, 120)
    before = node.pid("built")
    node.out("systemctl stop archy-built-build")
    node.wait("nobody waits for it", lambda: node.show("archy-rebuild@built", "ActiveState") == "inactive")
    assert (node.pid("built"), node.active("built")) == (before, "active")
    node.calm()
    node.tick()
    node.wait("it is tried again", lambda: node.active("built-build") == "activating")
    node.out("systemctl stop archy-built")
    node.wait("nobody tries", lambda: node.show("archy-rebuild@built", "ActiveState") == "inactive")
    node.wait("the app is down", lambda: node.active("built") == "inactive")
    node.wait("its build is over", lambda: node.active("built-build") in ("inactive", "failed"))
    node.out("archy app remove built")


def test_a_local_image_is_left_alone(node: Node) -> None:
    put(node, "mine", built("mine", ", tag: 'localhost/mine:local'"))
    node.write(f"{SHELF}/mine/image/Containerfile", "FROM localhost/archy-standin:1\nRUN exit 9\n")
    node.podman("tag localhost/archy-standin:1 localhost/mine:local")
    image = node.podman("image inspect localhost/mine:local --format '{{.Id}}'")
    node.out("archy app install mine")
    assert node.podman("inspect mine --format '{{.Image}}'") == image
    node.out("systemctl restart archy-mine")
    assert node.podman("image inspect localhost/mine:local --format '{{.Id}}'") == image
    node.out("archy app remove mine")
