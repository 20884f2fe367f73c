# SPDX-License-Identifier: MIT
"""Certificates: whom they are for, what is in them, when one is made again, and that a client takes them."""

from __future__ import annotations

import ipaddress
import re
import ssl
import subprocess
import sys
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.asymmetric.types import CertificateIssuerPrivateKeyTypes
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from hypothesis import given
from hypothesis import strategies as st
from support import REPO

from archy.prepare import certificates

NOW = datetime(2026, 7, 1, 12, 30, 15, tzinfo=UTC)
DAY = timedelta(days=1)
KEY = certificates.new_key()
OTHER = certificates.new_key()
SANS = ["web.local", "192.168.1.5"]


def pem(key: CertificateIssuerPrivateKeyTypes, password: bytes = b"") -> bytes:
    lock = serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption()
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, lock)


RSA = pem(rsa.generate_private_key(65537, 2048))


def read(crt: bytes) -> x509.Certificate:
    return x509.load_pem_x509_certificate(crt)


def loaded(key: bytes) -> ec.EllipticCurvePrivateKey:
    private = serialization.load_pem_private_key(key, None)
    assert isinstance(private, ec.EllipticCurvePrivateKey)
    return private


def foreign(
    hosts: Sequence[x509.GeneralName] = (), subject: str = "web", issuer: str = "web", signer: bytes = KEY
) -> bytes:
    """A certificate for KEY as somebody else might have made it."""
    names = [x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]) for name in (issuer, subject)]
    builder = x509.CertificateBuilder(names[0], names[1], loaded(KEY).public_key(), 7, NOW - DAY, NOW + 90 * DAY)
    if hosts:
        builder = builder.add_extension(x509.SubjectAlternativeName(hosts), critical=False)
    return builder.sign(loaded(signer), hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


@pytest.mark.parametrize(
    ("common_name", "sans", "name", "hosts"),
    [
        ("web", [], "web", ["web"]),
        ("Web.Local", ["web.local"], "Web.Local", ["web.local"]),
        ("My node", ["web"], "My node", ["web"]),
        ("", ["web.local", "a"], "web.local", ["a", "web.local"]),
        ("192.168.1.5", [], "192.168.1.5", [ipaddress.ip_address("192.168.1.5")]),
        ("web", ["FD00:0::1", "fd00::1"], "web", [ipaddress.ip_address("fd00::1"), "web"]),
        ("web", ["*.web", "my_app", "4.app4", "x--y"], "web", ["*.web", "4.app4", "my_app", "web", "x--y"]),
        ("Knöten ₿", ["web"], "Knöten ₿", ["web"]),
        ("a" * 64, ["b" * 63 + ".onion"], "a" * 64, ["b" * 63 + ".onion"]),
    ],
)
def test_names(common_name: str, sans: list[str], name: str, hosts: list[certificates.Host]) -> None:
    assert certificates.wanted_names(common_name, sans) == (name, hosts)
    assert certificates.wanted_names(name, [*sans[::-1], *sans]) == (name, hosts)


NO_DNS_NAMES = [
    "",
    " ",
    "a b",
    "a..b",
    ".a",
    "a.",
    "-a",
    "a-",
    "a.*",
    "*",
    "a/b",
    "http://a",
    "a:80",
    "a\n",
    "a\0",
    "ä.de",
]
NO_LENGTH = ["a" * 64, "a." * 126 + "aa"]
NO_ADDRESSES = ["192.168.1.300", "192.168.001.5", "192.168.1.0/24", "[::1]", "fe80::1%eth0", "1", "::g"]


@pytest.mark.parametrize("host", NO_DNS_NAMES + NO_LENGTH + NO_ADDRESSES)
def test_what_is_no_host(host: str) -> None:
    for sans in ([host], ["good", host]):
        with pytest.raises(ValueError, match=r" is neither a DNS name nor an IP address$"):
            certificates.wanted_names("web", sans)


@pytest.mark.parametrize(
    ("common_name", "sans", "message"),
    [
        ("", [], 'the common name must be 1 to 64 bytes of printable text; is ""'),
        ("a\nb", ["web"], 'the common name must be 1 to 64 bytes of printable text; is "a\\nb"'),
        ("a\0", ["web"], 'the common name must be 1 to 64 bytes of printable text; is "a\\u0000"'),
        ("\ud800", ["web"], 'the common name must be 1 to 64 bytes of printable text; is "\ud800"'),
        ("₿" * 22, ["web"], f'the common name must be 1 to 64 bytes of printable text; is "{"₿" * 22}"'),
        ("My node", [], '"My node" is neither a DNS name nor an IP address'),
        ("web", ["a", "b c", "d e"], '"b c" is neither a DNS name nor an IP address'),
    ],
)
def test_what_no_certificate_can_name(common_name: str, sans: list[str], message: str) -> None:
    for refuse in (
        lambda: certificates.wanted_names(common_name, sans),
        lambda: certificates.issue(KEY, common_name, sans, NOW),
        lambda: certificates.why_not(None, KEY, common_name, sans, NOW),
    ):
        with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
            refuse()


def test_a_new_key() -> None:
    assert KEY.startswith(b"-----BEGIN PRIVATE KEY-----\n")
    assert KEY != OTHER
    assert loaded(KEY).curve.name == "secp256r1"


@pytest.mark.parametrize("key", [KEY, RSA], ids=["EC", "RSA"])
def test_what_is_in_it(key: bytes) -> None:
    made = read(certificates.issue(key, "My node", SANS, NOW))
    assert made.version is x509.Version.v3
    assert made.subject.rfc4514_string() == made.issuer.rfc4514_string() == "CN=My node"
    assert made.not_valid_before_utc == NOW - DAY
    assert made.not_valid_after_utc - made.not_valid_before_utc + timedelta(seconds=1) == timedelta(days=825)
    assert isinstance(made.signature_hash_algorithm, hashes.SHA256)
    made.verify_directly_issued_by(made)
    names: list[x509.GeneralName] = [x509.IPAddress(ipaddress.ip_address("192.168.1.5")), x509.DNSName("web.local")]
    assert [(extension.critical, extension.value) for extension in made.extensions] == [
        (True, x509.BasicConstraints(ca=False, path_length=None)),
        (True, x509.KeyUsage(True, False, False, False, False, False, False, False, False)),
        (False, x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH])),
        (False, x509.SubjectAlternativeName(names)),
        (False, x509.SubjectKeyIdentifier.from_public_key(made.public_key())),
    ]


def test_two_of_a_key_differ_in_their_number() -> None:
    assert len({read(certificates.issue(KEY, "web", [], NOW)).serial_number for _ in range(3)}) == 3


HOSTS = st.from_regex(certificates._DNS_NAME, fullmatch=True) | st.ip_addresses().map(str).filter(
    lambda ip: "%" not in ip
)
TEXT = st.text(st.characters(codec="ascii", categories=("L", "N", "P", "S", "Zs")), min_size=1, max_size=64)


@given(st.lists(HOSTS, max_size=5), TEXT)
def test_what_is_issued_is_right(sans: list[str], common_name: str) -> None:
    """Whatever the names, it is never made again; nor when the manifest's order changes."""
    sans = ["web", *sans]
    crt = certificates.issue(KEY, common_name, sans, NOW)
    assert certificates.why_not(crt, KEY, common_name, sans, NOW) == ""
    assert certificates.why_not(crt, KEY, common_name, sans[::-1], NOW) == ""


@pytest.mark.parametrize(
    ("after", "why"),
    [
        (timedelta(), ""),
        (-DAY, ""),
        (-DAY - timedelta(seconds=1), "begins on 2026-06-30"),
        (timedelta(days=794, seconds=-1), ""),
        (timedelta(days=794), "ends on 2028-10-02"),
        (timedelta(days=5000), "ends on 2028-10-02"),
    ],
)
def test_time(after: timedelta, why: str) -> None:
    crt = certificates.issue(KEY, "web", SANS, NOW)
    for zone in (UTC, timezone(timedelta(hours=14))):
        assert certificates.why_not(crt, KEY, "web", SANS, (NOW + after).astimezone(zone)) == why
        assert certificates.issue(KEY, "web", SANS, NOW.astimezone(zone)) != crt


DNS, IP = x509.DNSName, x509.IPAddress
WEB, LOCAL, HOME = DNS("web"), DNS("web.local"), IP(ipaddress.ip_address("192.168.1.5"))


@pytest.mark.parametrize(
    ("crt", "why"),
    [
        (lambda: foreign([HOME, LOCAL, WEB]), ""),
        (lambda: foreign([HOME, LOCAL, WEB]) + foreign([], "ca"), ""),
        (lambda: None, "missing"),
        (lambda: b"", "cannot be read"),
        (lambda: b"\xff\0", "cannot be read"),
        (lambda: KEY, "cannot be read"),
        (lambda: foreign([HOME, LOCAL, WEB])[:300], "cannot be read"),
        (lambda: foreign([HOME, LOCAL, WEB], signer=OTHER), "cannot be read"),
        (lambda: certificates.issue(OTHER, "web", SANS, NOW), "is not for this key"),
        (lambda: certificates.issue(RSA, "web", SANS, NOW), "is not for this key"),
        (lambda: foreign([HOME, LOCAL, WEB], subject="Web"), "is not by and for CN=web"),
        (lambda: foreign([HOME, LOCAL, WEB], issuer="ca", signer=OTHER), "is not by and for CN=web"),
        (lambda: foreign(), "does not name 192.168.1.5, web, web.local"),
        (lambda: foreign([LOCAL, WEB]), "does not name 192.168.1.5"),
        (lambda: foreign([HOME, WEB]), "does not name web.local"),
        (lambda: foreign([DNS("192.168.1.5"), LOCAL, WEB]), "does not name 192.168.1.5"),
        (lambda: foreign([HOME, LOCAL, WEB, DNS("old"), IP(ipaddress.ip_address("::1"))]), 'names "::1", "old"'),
        (lambda: foreign([HOME, LOCAL, WEB, x509.RFC822Name("a@b")]), 'names "a@b"'),
        (lambda: foreign([HOME, LOCAL, WEB, IP(ipaddress.ip_network("10.0.0.0/8"))]), 'names "10.0.0.0/8"'),
    ],
)
def test_why_not(crt: Callable[[], bytes | None], why: str) -> None:
    content = crt()
    assert certificates.why_not(content, KEY, "web", SANS, NOW) == why
    if why:
        assert certificates.why_not(certificates.issue(KEY, "web", SANS, NOW), KEY, "web", SANS, NOW) == ""


def test_any_damage_is_seen() -> None:
    crt = certificates.issue(KEY, "web", SANS, NOW)
    der = read(crt).public_bytes(serialization.Encoding.DER)
    for place in range(0, len(der), 7):
        damaged = der[:place] + bytes([der[place] ^ 1]) + der[place + 1 :]
        assert certificates.why_not(ssl.DER_cert_to_PEM_cert(damaged).encode(), KEY, "web", SANS, NOW) != "", place


@pytest.mark.parametrize(
    ("key", "message"),
    [
        (b"", "is not a private key in PEM"),
        (b"\xff\0", "is not a private key in PEM"),
        (b"-----BEGIN PRIVATE KEY-----\nc2VjcmV0\n-----END PRIVATE KEY-----\n", "is not a private key in PEM"),
        (KEY[:100], "is not a private key in PEM"),
        (certificates.issue(KEY, "web", [], NOW), "is not a private key in PEM"),
        (pem(loaded(KEY), b"password"), "is encrypted, and nobody is here to give its password"),
        (
            ed25519.Ed25519PrivateKey.generate().private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            ),
            "is neither an EC nor an RSA key; browsers know no others",
        ),
    ],
    ids=[
        "empty",
        "binary",
        "bad-base64",
        "cut-off",
        "certificate",
        "encrypted",
        "ed25519",
    ],  # keys differ with each run
)
def test_an_unusable_key(key: bytes, message: str) -> None:
    for refuse in (
        lambda: certificates.issue(key, "web", SANS, NOW),
        lambda: certificates.why_not(None, key, "web", SANS, NOW),
    ):
        with pytest.raises(ValueError, match=f"^{re.escape(message)}$") as error:
            refuse()
        assert error.value.__suppress_context__ or error.value.__context__ is None


@pytest.mark.parametrize("host", ["web.local", "192.168.1.5", "fd00::5", "web"])
@pytest.mark.parametrize("key", [KEY, RSA], ids=["EC", "RSA"])
def test_a_client_that_trusts_it(tmp_path: Path, key: bytes, host: str) -> None:
    """A strict client connects by every name, and by no other."""
    crt = certificates.issue(key, "web", [*SANS, "fd00::5"], datetime.now(UTC))
    both = tmp_path / "both.pem"
    both.write_bytes(key + crt)
    service = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    service.load_cert_chain(both)

    def connects(name: str) -> None:
        client = ssl.create_default_context(cadata=crt.decode())
        assert client.verify_flags & ssl.VERIFY_X509_STRICT
        there, back = ssl.MemoryBIO(), ssl.MemoryBIO()
        ends = [client.wrap_bio(back, there, server_hostname=name), service.wrap_bio(there, back, server_side=True)]
        for _ in range(3):
            for end in ends:
                try:
                    end.do_handshake()
                except ssl.SSLWantReadError:
                    continue
        assert ends[0].getpeercert(binary_form=True) == ssl.PEM_cert_to_DER_cert(crt.decode())

    connects(host)
    with pytest.raises(ssl.SSLCertVerificationError, match=r"mismatch"):
        connects("else.local")


@pytest.mark.programs
def test_the_library_is_not_loaded_before_it_is_needed() -> None:
    code = "import sys; from archy.prepare import certificates; certificates.wanted_names('a', []); print(*sys.modules)"
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=REPO / "generator", capture_output=True, text=True, check=True)
    assert "archy.prepare.certificates" in done.stdout.split()
    assert "cryptography" not in done.stdout
