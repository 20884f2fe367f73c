# SPDX-License-Identifier: MIT
"""Self-signed TLS certificates of apps. Pure but for the randomness in keys, serial numbers and signatures."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence
from datetime import datetime, timedelta

from archy.errors import quoted

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric import ec, rsa

Host = str | ipaddress.IPv4Address | ipaddress.IPv6Address

# The clock of a small machine may be wrong until it has asked others, or hold the local time.
_CLOCK_SKEW = timedelta(days=1)

# Apple's systems refuse what is valid for more than 825 days, also when a person has trusted it (support.apple.com,
# 103769), and an app at home is used from telephones. Both ends count (RFC 5280, 4.1.2.5).
_LIFETIME = timedelta(days=825, seconds=-1)
_RENEWAL = timedelta(days=30)

# Underscores are in the names of many containers. What ends in a number is an address, or was meant to be one.
_LABEL = "[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
_DNS_NAME = re.compile(rf"(?=.{{1,253}}\Z)(?!(?:.*\.)?[0-9]+\Z)(?:\*\.)?{_LABEL}(?:\.{_LABEL})*")


def wanted_names(common_name: str, sans: Sequence[str]) -> tuple[str, list[Host]]:
    """The common name and the hosts that a manifest asks for; raises ValueError for what no certificate can hold.

    Clients look at the SANs alone (RFC 9525): a common name that is a host's is among them. Its default is the first.
    """
    name = common_name or next(iter(sans), "")
    if not name.isprintable() or not 0 < len(name.encode()) <= 64:  # RFC 5280, ub-common-name
        raise ValueError(f"the common name must be 1 to 64 bytes of printable text; is {quoted(name)}")
    for text in sans or [name]:
        if _host(text) is None:
            raise ValueError(f"{quoted(text)} is neither a DNS name nor an IP address")
    return name, sorted({host for text in (name, *sans) if (host := _host(text)) is not None}, key=str)


def new_key() -> bytes:
    """A new private key, as PEM (PKCS #8). On P-256, the one curve that every client knows."""
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key, plain = ec.generate_private_key(ec.SECP256R1()), serialization.NoEncryption()
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain)


def issue(key: bytes, common_name: str, sans: Sequence[str], now: datetime) -> bytes:
    """A new certificate for `key`, as PEM; `now` knows its time zone. Raises ValueError if a name or the key is bad."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization

    private = _private(key)
    subject, hosts = _as_x509(common_name, sans)
    builder = (
        x509.CertificateBuilder(subject, subject, private.public_key())
        .serial_number(x509.random_serial_number())  # browsers refuse two of one issuer with the same number
        .not_valid_before(now - _CLOCK_SKEW)
        .not_valid_after(now - _CLOCK_SKEW + _LIFETIME)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.KeyUsage(True, *[False] * 8), critical=True)  # digitalSignature alone
        .add_extension(x509.ExtendedKeyUsage([x509.oid.ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectAlternativeName(hosts), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(private.public_key()), critical=False)
    )
    return builder.sign(private, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def why_not(crt: bytes | None, key: bytes, common_name: str, sans: Sequence[str], now: datetime) -> str:
    """Why `crt` must be issued again, in few words; "" when it is right. Raises ValueError as `issue` does."""
    from cryptography import x509

    public = _private(key).public_key()
    subject, wanted = _as_x509(common_name, sans)
    if crt is None:
        return "missing"
    try:
        found = x509.load_pem_x509_certificate(crt)
        hosts = {host for e in found.extensions if e.oid == x509.SubjectAlternativeName.oid for host in e.value}
        if found.public_key() != public:
            return "is not for this key"
        if not found.issuer == found.subject == subject:
            return f"is not by and for {subject.rfc4514_string()}"
        found.verify_directly_issued_by(found)
    except Exception:  # the library's errors have no class in common
        return "cannot be read"
    if missing := [str(host.value) for host in wanted if host not in hosts]:
        return f"does not name {', '.join(missing)}"
    if unwanted := sorted(quoted(str(host.value)) for host in hosts.difference(wanted)):
        return f"names {', '.join(unwanted)}"
    start, end = found.not_valid_before_utc, found.not_valid_after_utc
    if start > now:  # issued when the clock was ahead; systemd-timesyncd keeps one from falling behind
        return f"begins on {start:%Y-%m-%d}"
    return f"ends on {end:%Y-%m-%d}" if end - now < _RENEWAL else ""


def _host(text: str) -> Host | None:
    """A host's name or address as clients compare it, or None if it is neither."""
    try:
        return None if "%" in text else ipaddress.ip_address(text)  # a certificate has no place for an interface
    except ValueError:
        return text.lower() if _DNS_NAME.fullmatch(text) else None


def _as_x509(common_name: str, sans: Sequence[str]) -> tuple[x509.Name, list[x509.GeneralName]]:
    from cryptography import x509

    name, hosts = wanted_names(common_name, sans)
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    return subject, [x509.DNSName(host) if isinstance(host, str) else x509.IPAddress(host) for host in hosts]


def _private(key: bytes) -> ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey:
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec, rsa

    try:
        private = serialization.load_pem_private_key(key, None)
    except TypeError:
        raise ValueError("is encrypted, and nobody is here to give its password") from None
    except Exception:  # whatever the library's reason is, it might quote what it has read
        raise ValueError("is not a private key in PEM") from None
    if not isinstance(private, ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey):  # an adopted node may bring RSA
        raise ValueError("is neither an EC nor an RSA key; browsers know no others")
    return private
