"""Identities, certificates and the authority's judgement."""

import base64
import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from qmodd.crypto.suites import BadKeyFile, SigningKey
from qmodd.identity import (
    CERTIFICATE_CONTEXT,
    Authority,
    ClientFiles,
    Recipient,
    RecipientPublic,
    Signer,
    SignerPublic,
    issue_certificate,
    provision_identities,
    sign_request,
)
from qmodd.messages import Certificate, RequestBody, Untrusted

NOW = datetime(2026, 1, 1, tzinfo=UTC)
AUTHORITY = Signer("site-authority", SigningKey.generate())
CLIENT = Signer("ann", SigningKey.generate())
TRUST = Authority(AUTHORITY.key.public)
CERTIFICATE = issue_certificate(AUTHORITY, "ann", CLIENT.key.public, "operator", NOW, NOW + timedelta(days=1))
BODY = RequestBody(
    module="QM-A-0001",
    topic="qmodd/v1/QM-A-0001/command/stop",
    epoch="0" * 16,
    id="00000000-0000-4000-8000-000000000000",
    issued_at=NOW,
    expires_at=NOW + timedelta(seconds=60),
    client="ann",
)


def test_provisioning_writes_files_that_load_and_fit_together(tmp_path: Path) -> None:
    paths = provision_identities(tmp_path, NOW, modules=("alice", "bob"), recipients=("kms-a",))
    for name in ("alice", "bob"):
        assert Signer.load(paths[name]).key.public.kid == SignerPublic.load(paths[f"{name}.public"]).key.kid
        assert stat.S_IMODE(paths[name].stat().st_mode) == 0o600
    recipient, public = Recipient.load(paths["kms-a"]), RecipientPublic.load(paths["kms-a.public"])
    assert recipient.opening.open(public.sealing.seal(b"k", b"i"), b"i") == b"k"
    assert recipient.public.sealing.kid == public.sealing.kid
    files = ClientFiles.load(paths["client.operator"])
    request = sign_request(files.signer, files.certificate, BODY.model_copy(update={"client": "operator"}))
    who = Authority.load(paths["authority.public"]).authenticate(request, NOW)
    assert (who.name, who.role) == ("operator", "operator")


def test_a_private_file_is_not_taken_for_a_public_one(tmp_path: Path) -> None:
    with pytest.raises(BadKeyFile, match="not a qmodd-signer-public-v1"):
        SignerPublic.load(CLIENT.save(tmp_path / "c.key"))


def test_damaged_identity_files_are_named(tmp_path: Path) -> None:
    short = base64.b64encode(b"abc").decode()
    for load, kind, parts in (
        (Signer.load, "qmodd-signer-v1", ("private",)),
        (SignerPublic.load, "qmodd-signer-public-v1", ("public",)),
        (Recipient.load, "qmodd-recipient-v1", ("opening", "signing")),
        (RecipientPublic.load, "qmodd-recipient-public-v1", ("sealing", "verifying")),
    ):
        path = tmp_path / "x"
        fields = ", ".join(f'"{p}": "{short}"' for p in parts)
        path.touch(mode=0o600)
        path.write_text(f'{{"kind": "{kind}", "name": "n", {fields}}}')
        with pytest.raises(BadKeyFile, match="3 bytes"):
            load(path)


def test_client_files_without_certificate_are_named(tmp_path: Path) -> None:
    CLIENT.save(tmp_path / "client.key")
    with pytest.raises(BadKeyFile, match=r"client\.cert: cannot be read"):
        ClientFiles.load(tmp_path)
    (tmp_path / "client.cert").write_text("{}")
    with pytest.raises(BadKeyFile, match="not a certificate"):
        ClientFiles.load(tmp_path)


def test_a_good_request_names_its_client() -> None:
    assert TRUST.authenticate(sign_request(CLIENT, CERTIFICATE, BODY), NOW).name == "ann"


def test_another_key_than_the_certificate_s_is_not_believed() -> None:
    request = sign_request(Signer("ann", SigningKey.generate()), CERTIFICATE, BODY)
    with pytest.raises(Untrusted, match="Ed25519") as refused:
        TRUST.authenticate(request, NOW)
    assert refused.value.code == "bad_signature"


def test_a_body_that_was_changed_is_not_believed() -> None:
    request = sign_request(CLIENT, CERTIFICATE, BODY)
    changed = request.model_copy(update={"body": request.body.replace("stop", "start")})
    with pytest.raises(Untrusted):
        TRUST.authenticate(changed, NOW)


def test_a_certificate_of_another_authority_is_not_believed() -> None:
    other = Signer("other", SigningKey.generate())
    certificate = issue_certificate(other, "ann", CLIENT.key.public, "security", NOW, NOW + timedelta(days=1))
    with pytest.raises(Untrusted, match="not signed by this site's authority"):
        TRUST.authenticate(sign_request(CLIENT, certificate, BODY), NOW)


@pytest.mark.parametrize("when", [NOW - timedelta(seconds=1), NOW + timedelta(days=2)])
def test_a_certificate_holds_between_its_times_when_the_clock_is_good(when: datetime) -> None:
    request = sign_request(CLIENT, CERTIFICATE, BODY)
    with pytest.raises(Untrusted) as refused:
        TRUST.authenticate(request, when)
    assert refused.value.code == "certificate_expired"
    assert TRUST.authenticate(request, None).name == "ann"


def _signed(body: str) -> Certificate:
    signature = AUTHORITY.key.sign(body.encode(), CERTIFICATE_CONTEXT)
    return Certificate(body=body, signature=base64.b64encode(signature).decode())


def test_a_signed_certificate_of_unknown_form_is_not_believed() -> None:
    with pytest.raises(Untrusted, match="not of the known form"):
        TRUST.check_certificate(_signed("{}"), NOW)
    with pytest.raises(Untrusted, match="another issuer"):
        TRUST.check_certificate(_signed(CERTIFICATE.body.replace(AUTHORITY.key.public.kid.hex(), "0" * 32)), NOW)


def test_a_signature_that_is_not_base64_is_not_believed() -> None:
    request = sign_request(CLIENT, CERTIFICATE, BODY).model_copy(update={"signature": "a"})
    with pytest.raises(Untrusted, match="not base64"):
        TRUST.authenticate(request, NOW)
