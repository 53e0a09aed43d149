"""Who is who: module identities, recipients, the site authority, and certificates that give a client its role.

`provision_identities` writes all of a site's files; private ones have mode 0600.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from pydantic import ValidationError

from qmodd.crypto.suites import (
    BadKeyFile,
    BadSignature,
    OpeningKey,
    SealingKey,
    SigningKey,
    VerifyingKey,
    read_key_file,
    write_key_file,
)
from qmodd.messages import Certificate, CertificateBody, Client, Request, RequestBody, Role, Untrusted

CERTIFICATE_CONTEXT = b"qmodd-certificate-v1"
REQUEST_CONTEXT = b"qmodd-request-v1"
KEY_ACK_CONTEXT = b"qmodd-key-ack-v1"
KEY_NOTICE_CONTEXT = b"qmodd-key-notice-v1"
KEY_NOTICE_ACK_CONTEXT = b"qmodd-key-notice-ack-v1"

_SIGNER, _SIGNER_PUBLIC = "qmodd-signer-v1", "qmodd-signer-public-v1"
_RECIPIENT, _RECIPIENT_PUBLIC = "qmodd-recipient-v1", "qmodd-recipient-public-v1"


@dataclass(frozen=True)
class Signer:
    """A module, a client or the site authority, with its private key."""

    name: str
    key: SigningKey

    def save(self, path: Path) -> Path:
        return write_key_file(path, _SIGNER, self.name, {"private": self.key.to_bytes()}, secret=True)

    def save_public(self, path: Path) -> Path:
        return write_key_file(path, _SIGNER_PUBLIC, self.name, {"public": self.key.public.to_bytes()}, secret=False)

    @classmethod
    def load(cls, path: Path) -> Signer:
        """Raises BadKeyFile."""
        name, (private,) = read_key_file(path, _SIGNER, "private", secret=True)
        try:
            return cls(name, SigningKey.from_bytes(private))
        except ValueError as e:
            raise BadKeyFile(f"{path}: {e}") from None


@dataclass(frozen=True)
class SignerPublic:
    name: str
    key: VerifyingKey

    @classmethod
    def load(cls, path: Path) -> SignerPublic:
        """Raises BadKeyFile."""
        name, (public,) = read_key_file(path, _SIGNER_PUBLIC, "public", secret=False)
        try:
            return cls(name, VerifyingKey.from_bytes(public))
        except ValueError as e:
            raise BadKeyFile(f"{path}: {e}") from None


@dataclass(frozen=True)
class Recipient:
    """A KMS that receives keys: opens envelopes and signs acknowledgements."""

    name: str
    opening: OpeningKey
    signing: SigningKey

    def save(self, path: Path) -> Path:
        parts = {"opening": self.opening.to_bytes(), "signing": self.signing.to_bytes()}
        return write_key_file(path, _RECIPIENT, self.name, parts, secret=True)

    def save_public(self, path: Path) -> Path:
        parts = {"sealing": self.opening.public.to_bytes(), "verifying": self.signing.public.to_bytes()}
        return write_key_file(path, _RECIPIENT_PUBLIC, self.name, parts, secret=False)

    @property
    def public(self) -> RecipientPublic:
        return RecipientPublic(self.name, self.opening.public, self.signing.public)

    @classmethod
    def load(cls, path: Path) -> Recipient:
        """Raises BadKeyFile."""
        name, (opening, signing) = read_key_file(path, _RECIPIENT, "opening", "signing", secret=True)
        try:
            return cls(name, OpeningKey.from_bytes(opening), SigningKey.from_bytes(signing))
        except ValueError as e:
            raise BadKeyFile(f"{path}: {e}") from None


@dataclass(frozen=True)
class RecipientPublic:
    name: str
    sealing: SealingKey
    verifying: VerifyingKey

    @classmethod
    def load(cls, path: Path) -> RecipientPublic:
        """Raises BadKeyFile."""
        name, (sealing, verifying) = read_key_file(path, _RECIPIENT_PUBLIC, "sealing", "verifying", secret=False)
        try:
            return cls(name, SealingKey.from_bytes(sealing), VerifyingKey.from_bytes(verifying))
        except ValueError as e:
            raise BadKeyFile(f"{path}: {e}") from None


def issue_certificate(
    authority: Signer, client: str, public: VerifyingKey, role: Role, not_before: datetime, not_after: datetime
) -> Certificate:
    """The authority's word that `client` holds the key and has the role, between the two times (UTC)."""
    body = CertificateBody(
        client=client,
        role=role,
        not_before=not_before,
        not_after=not_after,
        public=base64.b64encode(public.to_bytes()).decode(),
        issuer=authority.key.public.kid.hex(),
    ).model_dump_json()
    signature = authority.key.sign(body.encode(), CERTIFICATE_CONTEXT)
    return Certificate(body=body, signature=base64.b64encode(signature).decode())


def sign_request(client: Signer, certificate: Certificate, body: RequestBody) -> Request:
    """Signs the raw bytes of the body; a client of another make does the same."""
    raw = body.model_dump_json()
    signature = client.key.sign(raw.encode(), REQUEST_CONTEXT)
    return Request(body=raw, certificate=certificate, signature=base64.b64encode(signature).decode())


@dataclass(frozen=True)
class Authority:
    """The site authority as a module trusts it: its public key."""

    key: VerifyingKey

    @classmethod
    def load(cls, path: Path) -> Authority:
        """Raises BadKeyFile."""
        return cls(SignerPublic.load(path).key)

    def authenticate(self, request: Request, now: datetime | None) -> Client:
        """Who signed the request: certificate first, then the signature over the raw bytes of the body.

        `now` None (a clock that is not synchronised) leaves the certificate's lifetime unjudged. Raises Untrusted.
        """
        certificate, key = self.check_certificate(request.certificate, now)
        try:
            key.verify(request.body.encode(), _binary(request.signature), REQUEST_CONTEXT)
        except BadSignature as e:
            raise Untrusted("bad_signature", f"request: {e}") from None
        return Client(certificate.client, certificate.role, key.kid.hex())

    def check_certificate(self, certificate: Certificate, now: datetime | None) -> tuple[CertificateBody, VerifyingKey]:
        """Raises Untrusted."""
        try:
            self.key.verify(certificate.body.encode(), _binary(certificate.signature), CERTIFICATE_CONTEXT)
        except BadSignature as e:
            raise Untrusted("bad_certificate", f"certificate: not signed by this site's authority: {e}") from None
        try:
            body = CertificateBody.model_validate_json(certificate.body)
            key = VerifyingKey.from_bytes(_binary(body.public))
        except (ValidationError, ValueError):
            raise Untrusted("bad_certificate", "certificate: signed, but not of the known form") from None
        if body.issuer != self.key.kid.hex():
            raise Untrusted("bad_certificate", "certificate: names another issuer")
        if now is not None and not body.not_before <= now <= body.not_after:
            raise Untrusted(
                "certificate_expired", f"certificate of {body.client}: valid {body.not_before} to {body.not_after}"
            )
        return body, key


def _binary(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise Untrusted("bad_signature", "not base64") from None


@dataclass(frozen=True)
class ClientFiles:
    """A client's key and certificate as they lie in its identity directory."""

    signer: Signer
    certificate: Certificate

    @classmethod
    def load(cls, directory: Path) -> ClientFiles:
        """Reads `client.key` and `client.cert`. Raises BadKeyFile."""
        signer = Signer.load(directory / "client.key")
        path = directory / "client.cert"
        try:
            return cls(signer, Certificate.model_validate_json(path.read_bytes()))
        except OSError as e:
            raise BadKeyFile(f"{path}: cannot be read: {e.strerror}") from None
        except ValidationError:
            raise BadKeyFile(f"{path}: not a certificate") from None

    def save(self, directory: Path) -> Path:
        directory.mkdir(parents=True, exist_ok=True)
        self.signer.save(directory / "client.key")
        (directory / "client.cert").write_bytes(self.certificate.payload())
        return directory


# Who operates a pair that has no identities of its own: one that runs it, one that may also borrow its outputs, and two
# who together may destroy its keys.
CLIENTS: Mapping[str, Role] = {
    "operator": "operator",
    "maintainer": "maintainer",
    "security-1": "security",
    "security-2": "security",
}


def provision_identities(
    out_dir: Path,
    now: datetime,
    *,
    modules: Sequence[str] = ("alice", "bob"),
    recipients: Sequence[str] = ("kms-alice", "kms-bob"),
    clients: Mapping[str, Role] | None = None,
    lifetime: timedelta = timedelta(days=365),
) -> dict[str, Path]:
    """Makes a site's keys anew and writes them under `out_dir`.

    Returns paths by name: `authority`, `authority.public`; for a module or recipient NAME `NAME` (private) and
    `NAME.public`; for a client NAME `client.NAME`, its identity directory. Certificates hold from a day before `now`
    (clocks differ) for `lifetime`.
    """
    authority = Signer("site-authority", SigningKey.generate())
    paths = {
        "authority": authority.save(out_dir / "authority.key"),
        "authority.public": authority.save_public(out_dir / "authority.pub"),
    }
    for name in modules:
        module = Signer(name, SigningKey.generate())
        paths[name] = module.save(out_dir / f"{name}.key")
        paths[f"{name}.public"] = module.save_public(out_dir / f"{name}.pub")
    for name in recipients:
        recipient = Recipient(name, OpeningKey.generate(), SigningKey.generate())
        paths[name] = recipient.save(out_dir / f"{name}.key")
        paths[f"{name}.public"] = recipient.save_public(out_dir / f"{name}.pub")
    for name, role in (clients or CLIENTS).items():
        signer = Signer(name, SigningKey.generate())
        certificate = issue_certificate(
            authority, name, signer.key.public, role, now - timedelta(days=1), now + lifetime
        )
        paths[f"client.{name}"] = ClientFiles(signer, certificate).save(out_dir / name)
    return paths
