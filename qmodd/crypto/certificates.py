"""X.509 certificates for connections (mTLS), ECDSA on P-256: what brokers and clients of every make can read.

They say who may speak to whom over the network. They say nothing about requests or keys, whose signatures are others
(`suites.py`).
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID


class BadCertificate(Exception):
    """A certificate or its key is not what it should be; the message says what."""


@dataclass(frozen=True)
class Issuer:
    """A certificate authority with its private key."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    @classmethod
    def new(cls, name: str, not_before: datetime, not_after: datetime) -> Issuer:
        key = ec.generate_private_key(ec.SECP256R1())
        subject = _name(name, None)
        usage = _usage(sign_certificates=True)
        builder = (
            _builder(subject, subject, key.public_key(), not_before, not_after)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(usage, critical=True)
        )
        return cls(builder.sign(key, hashes.SHA256()), key)

    @classmethod
    def from_pem(cls, certificate: bytes, key: bytes) -> Issuer:
        """Raises BadCertificate."""
        try:
            found = cls(x509.load_pem_x509_certificate(certificate), _private(key))
        except (ValueError, TypeError):
            raise BadCertificate("certificate or key of the authority is not PEM") from None
        if found.certificate.public_key() != found.key.public_key():
            raise BadCertificate("certificate and key of the authority do not belong together")
        return found

    def to_pem(self) -> tuple[bytes, bytes]:
        """Certificate and private key."""
        return self.certificate.public_bytes(serialization.Encoding.PEM), _key_pem(self.key)

    def server(self, name: str, hosts: Sequence[str], not_before: datetime, not_after: datetime) -> tuple[bytes, bytes]:
        """PEM of a certificate for a server under these host names or addresses, and of its new private key."""
        names = x509.SubjectAlternativeName([_host(h) for h in hosts])
        return self._issue(name, "broker", ExtendedKeyUsageOID.SERVER_AUTH, not_before, not_after, names)

    def client(self, name: str, unit: str, not_before: datetime, not_after: datetime) -> tuple[bytes, bytes]:
        """PEM of a client's certificate (`name` is its common name, at most 64 characters) and of its private key."""
        return self._issue(name, unit, ExtendedKeyUsageOID.CLIENT_AUTH, not_before, not_after, None)

    def _issue(
        self,
        name: str,
        unit: str,
        purpose: x509.ObjectIdentifier,
        not_before: datetime,
        not_after: datetime,
        hosts: x509.SubjectAlternativeName | None,
    ) -> tuple[bytes, bytes]:
        key = ec.generate_private_key(ec.SECP256R1())
        authority = x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key())
        builder = (
            _builder(_name(name, unit), self.certificate.subject, key.public_key(), not_before, not_after)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(sign_certificates=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
            .add_extension(authority, critical=False)
        )
        if hosts is not None:
            builder = builder.add_extension(hosts, critical=False)
        certificate = builder.sign(self.key, hashes.SHA256())
        return certificate.public_bytes(serialization.Encoding.PEM), _key_pem(key)

    def check(self, certificate: bytes, name: str) -> datetime:
        """Until when a PEM certificate holds that this authority issued to `name`. Raises BadCertificate."""
        try:
            found = x509.load_pem_x509_certificate(certificate)
            found.verify_directly_issued_by(self.certificate)
        except (ValueError, TypeError, InvalidSignature):
            raise BadCertificate("not issued by this authority") from None
        names = [a.value for a in found.subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
        if names != [name]:
            raise BadCertificate(f"issued to {', '.join(map(str, names)) or 'nobody'}, not to {name}")
        return found.not_valid_after_utc


def _builder(
    subject: x509.Name, issuer: x509.Name, public: ec.EllipticCurvePublicKey, not_before: datetime, not_after: datetime
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(not_before)
        .not_valid_after(not_after)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
    )


def _name(common: str, unit: str | None) -> x509.Name:
    parts = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, "qmodd")]
    if unit is not None:
        parts.append(x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, unit))
    return x509.Name([*parts, x509.NameAttribute(NameOID.COMMON_NAME, common)])


def _usage(*, sign_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not sign_certificates,
        key_cert_sign=sign_certificates,
        crl_sign=sign_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _host(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _private(pem: bytes) -> ec.EllipticCurvePrivateKey:
    key = serialization.load_pem_private_key(pem, None)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise ValueError("not a key on an elliptic curve")
    return key


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
