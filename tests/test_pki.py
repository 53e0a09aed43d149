"""A site's certificates and rules: the right files for the right eyes, made once, and never a name for two."""

from __future__ import annotations

import stat
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

from qmodd.broker_site import LAB, MAY_ASK, Site, SiteError, access_rules, load_site
from qmodd.cli import main
from qmodd.clock import SystemClock
from qmodd.crypto.certificates import BadCertificate, Issuer
from qmodd.crypto.suites import BadKeyFile
from qmodd.demo.compose import shipped
from qmodd.identity import Authority, ClientFiles
from qmodd.pki import Pki
from qmodd.provision import provision
from qmodd.randomness import SeededRandomness

NOW = datetime(2026, 6, 1, tzinfo=UTC)


def make(directory: Path, site: Site = LAB, authority: Path | None = None) -> Pki:
    pki = Pki(site, directory, NOW, timedelta(days=90))
    pki.run(authority)
    return pki


def certificate(path: Path) -> x509.Certificate:
    return x509.load_pem_x509_certificate(path.read_bytes())


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("pki")
    make(directory)
    return directory


def test_each_has_a_certificate_of_its_own_name(lab: Path) -> None:
    ca = certificate(lab / "ca" / "ca.pem")
    where = {f"modules/{m}": m for m in LAB.modules} | {f"recipients/{r}": r for r in LAB.recipients}
    where |= {f"clients/{c}": c for c in LAB.clients}
    keys = set()
    for directory, name in where.items():
        own = certificate(lab / directory / "tls.pem")
        own.verify_directly_issued_by(ca)
        assert own.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)[0].value == name
        usage = own.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
        assert list(usage) == [ExtendedKeyUsageOID.CLIENT_AUTH]
        assert not own.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
        assert own.not_valid_after_utc == NOW + timedelta(days=90)
        keys.add(own.public_key().public_numbers())  # type: ignore[union-attr]
    assert len(keys) == len(where)


def test_the_broker_is_known_by_its_hosts_and_is_no_client(lab: Path) -> None:
    broker = certificate(lab / "broker" / "tls.pem")
    names = broker.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["localhost"]
    assert [str(a) for a in names.get_values_for_type(x509.IPAddress)] == ["127.0.0.1"]
    usage = broker.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(usage) == [ExtendedKeyUsageOID.SERVER_AUTH]


def test_secrets_are_for_their_owner_only(lab: Path) -> None:
    secret = list(lab.rglob("*.key"))
    assert len(secret) > 2 * len(LAB.clients)
    for path in secret:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path
        assert stat.S_IMODE(path.parent.stat().st_mode) & 0o007 == 0 or path.parent == lab


def test_clients_have_their_roles_from_the_authority(lab: Path) -> None:
    authority = Authority.load(lab / "authority.pub")
    for name, role in LAB.clients.items():
        body, _ = authority.check_certificate(ClientFiles.load(lab / "clients" / name).certificate, NOW)
        assert (body.client, body.role) == (name, role)


def test_the_authority_of_a_provisioned_pair_is_used(tmp_path: Path) -> None:
    provision(tmp_path / "secrets", "QM-A-0001", "QM-B-0001", "l", 65_536, SeededRandomness(1), SystemClock().utc())
    make(tmp_path / "pki", authority=tmp_path / "secrets" / "site" / "authority.key")
    trusted = Authority.load(tmp_path / "secrets" / "QM-A-0001" / "authority.pub")
    files = ClientFiles.load(tmp_path / "pki" / "clients" / "security-2")
    assert trusted.check_certificate(files.certificate, NOW)[0].role == "security"
    assert not (tmp_path / "pki" / "authority.key").exists()


def contents(directory: Path) -> Mapping[Path, bytes]:
    return {p: p.read_bytes() for p in directory.rglob("*") if p.is_file()}


def test_what_exists_is_kept_and_what_is_new_is_added(tmp_path: Path) -> None:
    make(tmp_path)
    before = contents(tmp_path)
    again = make(tmp_path)
    assert contents(tmp_path) == before
    assert again.made == [tmp_path / "acl"]
    more = LAB.model_copy(update={"modules": [*LAB.modules, "QM-C-0001"], "clients": {**LAB.clients, "bea": "viewer"}})
    make(tmp_path, more)
    after = contents(tmp_path)
    assert {p: after[p] for p in before if p.name != "acl"} == {p: d for p, d in before.items() if p.name != "acl"}
    assert {p.parent.name for p in after.keys() - before.keys()} == {"QM-C-0001", "bea"}
    assert "user bea" in (tmp_path / "acl").read_text()


@pytest.mark.parametrize(
    ("lost", "said"),
    [
        ("modules/QM-A-0001/tls.pem", "its other half is missing"),
        ("clients/viewer/tls.key", "its other half is missing"),
        ("ca/ca.key", "is missing; a new authority would not be believed"),
    ],
)
def test_half_of_something_is_never_made_up_for(tmp_path: Path, lost: str, said: str) -> None:
    make(tmp_path)
    (tmp_path / lost).unlink()
    before = contents(tmp_path)
    with pytest.raises(BadCertificate, match=said):
        make(tmp_path)
    assert contents(tmp_path) == before


def test_a_certificate_that_is_another_s_is_found(tmp_path: Path) -> None:
    make(tmp_path)
    (tmp_path / "modules" / "QM-A-0001" / "tls.pem").write_bytes(
        (tmp_path / "modules" / "QM-B-0001" / "tls.pem").read_bytes()
    )
    with pytest.raises(BadCertificate, match=r"QM-A-0001/tls.pem: issued to QM-B-0001, not to QM-A-0001"):
        make(tmp_path)
    stranger = Issuer.new("another", NOW, NOW + timedelta(days=1))
    public, _ = stranger.client("QM-A-0001", "module", NOW, NOW + timedelta(days=1))
    (tmp_path / "modules" / "QM-A-0001" / "tls.pem").write_bytes(public)
    with pytest.raises(BadCertificate, match="not issued by this authority"):
        make(tmp_path)


def test_a_role_is_not_changed_in_place(tmp_path: Path) -> None:
    make(tmp_path)
    promoted = LAB.model_copy(update={"clients": {**LAB.clients, "viewer": "operator"}})
    with pytest.raises(BadKeyFile, match="gives the role viewer, the list says operator"):
        make(tmp_path, promoted)


@pytest.mark.parametrize(
    ("site", "said"),
    [
        ({"modules": ["QM-A-0001"], "clients": {"QM-A-0001": "viewer"}}, "'QM-A-0001' is there twice"),
        ({"recipients": {"kms-a": []}, "bridges": {"kms-a": []}}, "'kms-a' is there twice"),
        ({"modules": ["QM-A-0001"], "recipients": {"kms-a": ["QM-B-0001"]}}, "'QM-B-0001' is none of the modules"),
        ({"clients": {"ann": "king"}}, "clients.ann"),
        ({"clients": {"a/b": "viewer"}}, "clients.a/b"),
        ({"broker": []}, "broker"),
        ({"people": []}, "people"),
    ],
)
def test_a_list_that_is_not_in_order(tmp_path: Path, site: dict[str, Any], said: str) -> None:
    file = tmp_path / "site.toml"
    lines = [f"{k} = {v!r}" for k, v in site.items() if not isinstance(v, dict)]
    for name, table in site.items():
        if isinstance(table, dict):
            lines += [f"[{name}]", *(f'"{n}" = {x!r}' for n, x in table.items())]
    file.write_text("\n".join(lines))
    with pytest.raises(SiteError, match=said) as e:
        load_site(file)
    assert str(file) in str(e.value)


def test_the_shipped_list_is_that_of_the_lab(tmp_path: Path) -> None:
    (tmp_path / "site.toml").write_text(shipped("mosquitto/site.toml"))
    assert load_site(tmp_path / "site.toml") == LAB


def test_no_rule_lets_a_client_speak_as_a_module() -> None:
    """The patterns are for everybody; a name that is no module's is shut out of them."""
    rules = access_rules(LAB)
    for name in (*LAB.clients, *LAB.recipients):
        section = rules.split(f"user {name}\n")[1].split("\n\n")[0]
        assert section.splitlines()[0] == f"topic deny qmodd/v1/{name}/#"
        writes = [line for line in section.splitlines() if line.startswith("topic write")]
        role = LAB.clients.get(name)
        if role in MAY_ASK:
            assert {w.split("/+/")[1] for w in writes} == {"command/+", "set/#"}
        else:
            assert all("/command/" in w or w.endswith(f"keys/{name}/ack") for w in writes)
            assert not any(w.endswith(("/+", "/#")) for w in writes)


# the command line


def test_command_makes_the_lab_and_lists_what_it_made(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["pki", "--out", str(tmp_path / "p")]) == 0
    said = capsys.readouterr()
    listed = {Path(line) for line in said.err.splitlines()}
    assert listed == {p for p in (tmp_path / "p").rglob("*") if p.is_file()}
    assert "PRIVATE" not in said.err + said.out
    assert main(["pki", "--out", str(tmp_path / "p")]) == 0
    assert capsys.readouterr().err.split() == [str(tmp_path / "p" / "acl")]


def test_command_makes_the_rules_alone(tmp_path: Path) -> None:
    assert main(["pki", "--out", str(tmp_path), "--acl-only"]) == 0
    assert [p.name for p in tmp_path.iterdir()] == ["acl"]
    assert (tmp_path / "acl").read_text() == access_rules(LAB)


def test_command_warns_of_a_certificate_that_ends(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["pki", "--out", str(tmp_path), "--days", "10"]) == 0
    assert "the certificate of QM-A-0001 ends on" in capsys.readouterr().err


def test_wrong_usage_is_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["pki", "--out", str(tmp_path), "--site", str(tmp_path / "none.toml")]) == 2
    assert "cannot be read" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="2"):
        main(["pki", "--out", str(tmp_path), "--days", "0"])
