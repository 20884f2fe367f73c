# SPDX-License-Identifier: MIT
"""What archy gives an app besides its data: secrets in its environment, certificates, and logins for a person."""

from __future__ import annotations

import json
from typing import Any

from conftest import Node, standin

TICK = 120  # seconds: more than it takes until the next tick, and for what that does
SECRETS, HOME = "/var/lib/archipelago/secrets", "/var/lib/archipelago"
NASTY = """ a 'b' "c" $d ${e} %n %% \\n \\ # ; |& {{ x }} é """


def install(node: Node, app: str, **values: Any) -> None:
    """Have a stand-in run as its operator's own app."""
    node.write(f"/etc/archy/apps/{app}/manifest.yml", standin(app, **values))
    node.out(f"archy app install {app}")


def environment(node: Node, app: str) -> dict[str, str]:
    """The variables of an app's first process."""
    text = node.podman(f"exec {app} cat /proc/1/environ")
    return dict(entry.split("=", 1) for entry in text.split("\0") if entry)


def test_a_secret_reaches_the_environment_and_shows_nowhere(node: Node) -> None:
    keys = [
        "generated_secrets: [{name: keyed, kind: hex32, rotatable: true}]",
        "secret_env:",
        "  - {key: KEY, secret_file: keyed}",
        "  - {key: URL, template: 'x://u:{{ secret(\"keyed\") }}@h/'}",
    ]
    node.write(f"{SECRETS}/keyed", NASTY)
    install(node, "keyed", container=keys)
    for value in (NASTY, "0123456789abcdef" * 4):
        if value != NASTY:
            pid = node.pid("keyed")
            node.write(f"{SECRETS}/keyed", value + "\n")
            node.wait("a restart", lambda pid=pid: node.pid("keyed") not in (0, pid), TICK)  # type: ignore[misc]
            node.wait_active("keyed")
        found = environment(node, "keyed")
        assert (found["KEY"], found["URL"]) == (value, f"x://u:{value}@h/")
        assert node.podman('exec keyed sh -c \'printf "<%s>" "$KEY"\'') == f"<{value}>"
        shown = [
            node.podman("inspect keyed"),
            node.out("systemctl show archy-keyed; systemctl cat archy-keyed"),
            node.out("cat /proc/[0-9]*/cmdline 2>/dev/null | tr '\\0' ' '"),
            node.out(
                "journalctl --no-pager --output cat; archy status --json; archy secret list; archy app render keyed"
            ),
        ]
        assert [number for number, text in enumerate(shown) if value.strip() in text] == []
        # Podman's own state has it for as long as the app runs, where nobody but the service user may look.
        node.write("/tmp/pattern", value.strip() + "\n")
        grep = "grep -rlsF -f /tmp/pattern"
        assert node.run(f"runuser -u nobody -- {grep} /run /etc /var").stdout == ""
        assert node.run(f"{grep} /run/systemd /run/archy /etc /usr/share/archy").stdout == ""
    assert len(node.podman("secret ls --quiet").split()) == 2
    node.out("systemctl stop archy-keyed")
    assert node.podman("secret ls --quiet") == ""
    node.out("archy app remove keyed")
    assert node.run("test -e /run/archipelago/secret-env/keyed").returncode != 0


def test_a_lost_podman_secret_is_made_again(node: Node) -> None:
    keys = ["generated_secrets: [{name: keyed, kind: hex32}]", "secret_env: [{key: KEY, secret_file: keyed}]"]
    install(node, "keyed", container=keys)
    pid = node.pid("keyed")
    node.podman("secret rm archy-keyed-KEY")
    node.out(f"kill -9 {pid}")
    node.wait("another run", lambda: node.pid("keyed") not in (0, pid))
    node.wait_active("keyed")
    assert environment(node, "keyed")["KEY"] == node.out(f"cat {SECRETS}/keyed")
    node.out("archy app remove keyed")


def sans(node: Node, path: str) -> set[str]:
    """The names in a certificate."""
    text = node.out(f"openssl x509 -in {path} -noout -ext subjectAltName | tail -n +2")
    return {name.strip().partition(":")[2] for name in text.split(",")}


def test_a_certificate_and_its_key(node: Node) -> None:
    crt, key = f"{HOME}/tls/tls.crt", f"{HOME}/tls/tls.key"
    pair = "generated_certs: [{{crt: {}, key: {}, common_name: tls.example, sans: [{}]}}]"

    def look(path: str) -> str:
        return node.out(f"sha256sum {path}; stat -c '%u %g %a' {path}")

    def manifest(names: str) -> str:
        return standin("tls", container=[pair.format(crt, key, names)])

    node.write("/etc/archy/apps/tls/manifest.yml", manifest("'{{HOST_MDNS}}', '{{HOST_IP}}', fixed.example"))
    node.out("archy app install tls")
    host = json.loads(node.out("cat /run/archy/facts.json"))["host"]
    assert sans(node, crt) == {"tls.example", "fixed.example", host["HOST_MDNS"], host["HOST_IP"]}
    assert [node.out(f"stat -c '%u %a' {path}") for path in (key, crt)] == [
        f"{node.out('id -u archipelago')} {mode}" for mode in (400, 444)
    ]
    node.out(
        f"test $(openssl x509 -in {crt} -noout -pubkey | sha256sum | cut -c-64) = "
        f"$(openssl pkey -in {key} -pubout | sha256sum | cut -c-64) && openssl verify -CAfile {crt} {crt}"
    )
    before, first, pid = look(key), look(crt), node.pid("tls")
    node.tick()
    node.out("rm -r /run/archy/prepared")
    node.tick()
    assert (look(key), look(crt)) == (before, first)
    node.out(f"chmod 644 {key}; chown 12345 {key}")
    node.tick()
    assert look(key) == before
    assert node.pid("tls") == pid
    for harm in (f"echo garbage > {crt}", f"rm {crt}"):
        node.calm()
        node.out(harm)
        node.tick()
        assert sans(node, crt) == {"tls.example", "fixed.example", host["HOST_MDNS"], host["HOST_IP"]}
        assert look(crt).split()[1:] == first.split()[1:]
    node.calm()
    node.out("hostname other.example")
    node.tick()
    assert sans(node, crt) == {"tls.example", "fixed.example", "other.local", host["HOST_IP"]}
    node.out(f"hostname {host['HOST_MDNS'].removesuffix('.local')}")
    node.calm()
    node.write("/etc/archy/apps/tls/manifest.yml", manifest("new.example"))
    node.out("systemctl daemon-reload")
    node.tick()
    assert sans(node, crt) == {"tls.example", "new.example"}
    assert look(key) == before
    node.passes_until("the app runs on the new one", lambda: node.status()[0] == 0 and not stale(node, "tls"), TICK)
    node.wait_active("tls")
    assert node.pid("tls") != pid
    node.out("archy app remove tls")


def test_a_lost_key_is_said_until_it_is_back(node: Node) -> None:
    """Nobody makes another one by themselves: clients have learnt the old one."""
    crt, key = f"{HOME}/lost/tls.crt", f"{HOME}/lost/tls.key"
    install(node, "lost", container=[f"generated_certs: [{{crt: {crt}, key: {key}, sans: [lost.example]}}]"])
    pid, first = node.pid("lost"), node.out(f"cat {crt} {key}")
    node.out(f"mv {key} /root/key")
    node.tick()
    code, found = node.status()
    assert (code, found["apps"]["lost"]["level"], found["apps"]["lost"]["current"]) == (1, "degraded", "running")
    assert f"{key}: is missing; restore it" in " ".join(found["apps"]["lost"]["problems"])
    node.out(f"mv /root/key {key}")
    node.tick()
    assert (node.status()[0], node.pid("lost"), node.out(f"cat {crt} {key}")) == (0, pid, first)
    node.out("archy app remove lost")


def stale(node: Node, app: str) -> list[str]:
    """The files that an app was started with, and that are others now."""
    found: list[str] = node.status()[1]["apps"][app]["stale"]
    return [reason for reason in found if "manifest" not in reason]


def test_credentials_are_for_root(node: Node) -> None:
    install(node, "vault", container=["generated_secrets: [{name: vault-password, kind: bcrypt}]"])
    plain = node.out(f"cat {SECRETS}/vault-password.pw")
    check = "import bcrypt, sys; sys.exit(not bcrypt.checkpw(sys.argv[1].encode(), sys.argv[2].encode()))"
    node.out(f"python3 -c '{check}' '{plain}' '{node.out(f'cat {SECRETS}/vault-password')}'")
    assert node.out("archy app credentials vault").split() == ["FOR", "USER", "PASSWORD", "vault-password", "-", plain]
    assert json.loads(node.out("archy app credentials --json vault")) == {
        "app": "vault",
        "credentials": [{"name": "vault-password", "user": "", "password": plain}],
    }
    done = node.run("runuser -u nobody -- archy app credentials vault")
    assert (done.returncode, done.stdout, plain in done.stderr) == (5, "", False)
    assert node.run("archy app credentials nothing").returncode == 4
    assert plain not in node.out("journalctl --no-pager --output cat")
    node.out("archy app remove vault")
    assert node.run("archy app credentials vault").returncode == 4


def test_a_secret_that_data_were_made_with_is_not_made_anew(node: Node) -> None:
    """Its loss is said, what runs goes on, no start has another value, and no other app is harmed."""
    lost, mark = f"{SECRETS}/kept-password", f"{HOME}/.made-secrets/kept-password"
    install(node, "kept", container=["generated_secrets: [{name: kept-password, kind: hex32}]"])
    install(node, "beside")
    before = node.pids("kept", "beside")
    secret = node.out(f"mv {lost} /root/kept-password; cat /root/kept-password")
    with node.without_ticks():
        node.tick()
        assert node.pids("kept", "beside") == before
        found = node.status()[1]["apps"]
        said = (
            f"{lost}: is lost, and the data were made with it; restore it, or, if the data are gone too, remove {mark}"
        )
        assert said in "; ".join(found["kept"]["problems"])
        assert found["beside"]["problems"] == []
        assert node.run("systemctl restart archy-kept").returncode != 0
        assert said in node.out("journalctl --sync; journalctl -u archy-kept -o cat -n 20")
        assert (node.run(f"test -e {lost}").returncode, node.pid("beside")) == (1, before["beside"])
        node.out(f"mv /root/kept-password {lost}")
        node.out("systemctl restart archy-kept")
        assert (node.active("kept"), node.out(f"cat {lost}")) == ("active", secret)
        node.out(f"rm {lost} {mark}; systemctl restart archy-kept")
        assert (node.active("kept"), node.out(f"wc -c < {lost}").strip()) == ("active", "65")
        assert node.out(f"cat {lost}") != secret
    node.out("archy app remove kept; archy app remove beside")
