"""Which files a configuration's reader needs: each process its own, and credentials from its service."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from qmodd.cli import main
from qmodd.clock import SystemClock
from qmodd.config import Config, ConfigError, load
from qmodd.config_files import Part, left_unresolved
from qmodd.demo.compose import provision_site, shipped
from qmodd.randomness import SeededRandomness

SECRETS = ("kek.key", "module.key", "pre-shared.key")


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A transmitter's, whole."""
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    provision_site(tmp_path, SystemClock().utc(), SeededRandomness(1))
    path = tmp_path / "alice" / "alice.toml"
    path.write_text(shipped("alice.toml"))
    (path.parent / "factory.json").write_text("{}")
    return path


def with_credentials(path: Path) -> None:
    text = path.read_text()
    for old, name in (("secrets/kek.key", "kek"), ("secrets/module.key", "module-key")):
        assert f'"{old}"' in text
        text = text.replace(f'"{old}"', f'"credential:{name}"')
    path.write_text(text)


def test_uplink_does_not_miss_what_is_cores(path: Path) -> None:
    for name in SECRETS:
        (path.parent / "secrets" / name).unlink()
    (path.parent / "factory.json").unlink()
    load(path, "uplink")
    load(path, "none")
    for part in ("core", "both"):
        with pytest.raises(ConfigError) as e:
            load(path, part)  # type: ignore[arg-type]
        for field in ("pair.key_encryption_key", "uplink.identity", "pair.pre_shared_key", "module.factory"):
            assert field in str(e.value)


def test_core_does_not_miss_what_is_uplinks(path: Path) -> None:
    text = path.read_text().replace('broker = "mqtt://127.0.0.1:1883"', 'broker = "mqtts://b:8883"\nca = "no.pem"')
    path.write_text(text)
    load(path, "core")
    with pytest.raises(ConfigError, match=r"uplink\.ca = .*no\.pem.*: no such file"):
        load(path, "uplink")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may look everywhere")
def test_a_directory_that_may_not_be_looked_into_is_said(path: Path) -> None:
    (path.parent / "secrets").chmod(0)
    try:
        with pytest.raises(ConfigError, match="cannot be looked at by this user: Permission denied"):
            load(path, "core")
    finally:
        (path.parent / "secrets").chmod(0o700)


def test_a_file_that_cannot_be_looked_at_is_said(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    exists = Path.exists

    def denied(self: Path) -> bool:
        if self.name == "kek.key":
            raise PermissionError(13, "Permission denied")
        return exists(self)

    monkeypatch.setattr(Path, "exists", denied)
    with pytest.raises(ConfigError, match=r"pair\.key_encryption_key = .*: cannot be looked at by this user"):
        load(path, "core")


def given(path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Credentials as systemd hands them to the service."""
    directory = path.parent / "credentials"
    directory.mkdir()
    for name, source in (("kek", "kek.key"), ("module-key", "module.key")):
        (path.parent / "secrets" / source).rename(directory / name)
        (directory / name).chmod(0o440)
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(directory))
    return directory


def test_the_service_finds_its_credentials(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with_credentials(path)
    directory = given(path, monkeypatch)
    config = load(path, "core")
    assert (config.pair.key_encryption_key, config.uplink.identity) == (directory / "kek", directory / "module-key")
    assert left_unresolved(config) == []


def test_a_credential_that_the_unit_does_not_give_is_missed(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with_credentials(path)
    (given(path, monkeypatch) / "kek").unlink()
    with pytest.raises(ConfigError, match=r"pair\.key_encryption_key = '.*/credentials/kek': no such file"):
        load(path, "core")


@pytest.mark.parametrize("part", ["core", "both"])
def test_without_a_service_there_are_none(path: Path, part: Part) -> None:
    with_credentials(path)
    with pytest.raises(ConfigError, match=r"uplink\.identity = 'credential:module-key': \$CREDENTIALS"):
        load(path, part)
    unresolved: Config = load(path, part, given=False)
    assert len(left_unresolved(unresolved)) == 2
    assert left_unresolved(load(path, "uplink")) == left_unresolved(unresolved)


def test_check_says_what_it_could_not_see(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["core", "--check", "--config", str(path)]) == 0
    assert capsys.readouterr().err == f"{path}: in order\n"
    with_credentials(path)
    assert main(["core", "--check", "--config", str(path)]) == 0
    assert "in order, but for what only the service is given: pair.key_encryption_key = 'credential:kek'" in (
        capsys.readouterr().err
    )


def test_a_credentials_name_that_leads_elsewhere_is_refused(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", "/run/credentials/x")
    path.write_text(path.read_text().replace('"secrets/kek.key"', '"credential:../kek"'))
    with pytest.raises(ConfigError, match=r"pair\.key_encryption_key = 'credential:\.\./kek': a credential's name is"):
        load(path, "core")
