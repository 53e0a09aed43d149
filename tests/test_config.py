"""A wrong configuration is refused before any bus is touched, with file, field, value and what is allowed."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import pytest

from drivers.bus.libraries import Libraries
from qmodd.cli import main
from qmodd.clock import SystemClock
from qmodd.config import Config, ConfigError, load, validate
from qmodd.config_files import MINIMUM_PRE_SHARED_BYTES
from qmodd.demo.compose import provision_site, shipped
from qmodd.randomness import SeededRandomness


class Folder:
    """The shipped configurations, with every file that they name."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        provision_site(directory, SystemClock().utc(), SeededRandomness(1))
        for role in ("alice", "bob"):
            (directory / role / "factory.json").write_text("{}")
            self.path(role).write_text(shipped(f"{role}.toml"))

    def path(self, role: str) -> Path:
        return self.directory / role / f"{role}.toml"

    def change(self, old: str, new: str, role: str = "alice") -> Path:
        """Replaces one piece of text, which must be there once."""
        text = shipped(f"{role}.toml")
        assert text.count(old) == 1, f"{old!r} is there {text.count(old)} times"
        self.path(role).write_text(text.replace(old, new))
        return self.path(role)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Folder:
    return Folder(tmp_path_factory.mktemp("config"))


@pytest.fixture(autouse=True)
def _fresh(folder: Folder) -> None:
    for role in ("alice", "bob"):
        folder.path(role).write_text(shipped(f"{role}.toml"))


@pytest.fixture(autouse=True)
def no_bus(monkeypatch: pytest.MonkeyPatch) -> None:
    """Opening any bus fails the test."""

    def touched(*where: object) -> NoReturn:
        pytest.fail(f"a bus was opened: {where}")

    openers = Libraries(touched, touched, touched, touched, touched)
    monkeypatch.setattr("drivers.bus.real.real_libraries", lambda: openers)


def refused(capsys: pytest.CaptureFixture[str], path: Path, command: str = "core") -> str:
    """Exit status 2; what was said on stderr."""
    assert main([command, "--config", str(path)]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    return err


@pytest.mark.parametrize("role", ["alice", "bob"])
def test_shipped_configuration_is_in_order(folder: Folder, role: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["core", "--config", str(folder.path(role)), "--check"]) == 0
    assert "in order" in capsys.readouterr().err
    config = load(folder.path(role))
    assert config.module.role == role
    assert config.by_role("rail").driver == "ina228"
    assert config.module.state_dir.is_absolute()


WRONG_VALUES = [
    ("tec_target_c = 30.0", "tec_target_c = 300.0", "control.tec_target_c", "300.0", "45"),
    ("mu_signal = 0.54", "mu_signal = 5.4", "source.mu_signal", "5.4", "1"),
    ("p_x = 0.25", "p_x = 0.0", "source.p_x", "0.0", "greater than 0"),
    ("laser_power_dbm = 13.0", "laser_power_dbm = 20.0", "source.laser_power_dbm", "20.0", "14"),
    ("eps_sec = 1e-9", "eps_sec = 1e-3", "keys.eps_sec", "0.001", "0.000001"),
    ('proof = "wiesemann2024"', 'proof = "trustme"', "keys.proof", "trustme", "rusca2018"),
    ("key_bits = 256", "key_bits = 255", "keys.key_bits", "255", "256"),
    ("watchdog_period_s = 0.1", "watchdog_period_s = 0.6", "safety.watchdog_period_s", "0.6", "0.4"),
    ('role = "alice"', 'role = "carol"', "module.role", "carol", "'bob'"),
    ('serial = "QM-A-0001"', 'serial = "a b"', "module.serial", "a b", "pattern"),
    ('broker = "mqtt://127.0.0.1:1883"', 'broker = "http://x"', "uplink.broker", "http://x", "mqtt"),
    ('address = "i2c:1:0x48"', 'address = "i2c:1:72"', "device.4.address", "i2c:1:72", "0x"),
    ("batch_keys = 64", "batch_keys = 0", "recipient.0.batch_keys", "0", "1"),
]


@pytest.mark.parametrize(("old", "new", "field", "value", "limit"), WRONG_VALUES, ids=[w[2] for w in WRONG_VALUES])
def test_value_out_of_range(
    folder: Folder, capsys: pytest.CaptureFixture[str], old: str, new: str, field: str, value: str, limit: str
) -> None:
    path = folder.change(old, new)
    said = refused(capsys, path)
    for word in (str(path), field, value, limit):
        assert word in said


@pytest.mark.parametrize("command", ["core", "uplink", "run"])
def test_unknown_field(folder: Folder, capsys: pytest.CaptureFixture[str], command: str) -> None:
    path = folder.change("[control]", "[control]\ntec_taget_c = 30.0")
    said = refused(capsys, path, command)
    for word in (str(path), "control.tec_taget_c", "30.0", "not permitted"):
        assert word in said


def test_unknown_section(folder: Folder, capsys: pytest.CaptureFixture[str]) -> None:
    assert "lasers" in refused(capsys, folder.change("[control]", "[lasers]\nx = 1\n\n[control]"))


def test_missing_field(folder: Folder, capsys: pytest.CaptureFixture[str]) -> None:
    said = refused(capsys, folder.change('peer_serial = "QM-B-0001"', ""))
    assert "pair.peer_serial" in said
    assert "required" in said


def test_every_fault_is_told_at_once(folder: Folder, capsys: pytest.CaptureFixture[str]) -> None:
    path = folder.change("tec_target_c = 30.0", "tec_target_c = 99.0")
    path.write_text(path.read_text().replace("p_decoy = 0.50", "p_decoy = 1.5"))
    said = refused(capsys, path).splitlines()
    assert len([line for line in said if str(path) in line]) == 2


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        (
            'address = "i2c:1:0x48"',
            'address = "i2c:1:0x40"',
            ("heater_rail, submount", "address", "'i2c:1:0x40'", "unique"),
        ),
        ('name = "submount"', 'name = "heater_rail"', ("heater_rail", "name", "unique")),
        ('role = "submount" ', 'role = "rail" ', ("heater_rail, submount", "role 'rail'", "unique")),
    ],
)
def test_two_devices_on_one_place(
    folder: Folder, capsys: pytest.CaptureFixture[str], old: str, new: str, words: tuple[str, ...]
) -> None:
    said = refused(capsys, folder.change(old, new))
    for word in words:
        assert word in said


def test_missing_role(folder: Folder) -> None:
    raw = tomllib.loads(shipped("alice.toml"))
    raw["device"] = [d for d in raw["device"] if d["role"] != "platform"]
    with pytest.raises(ConfigError, match=r"no device plays the role 'platform'; alice needs .*platform"):
        validate(raw, folder.path("alice"))


def test_role_of_the_other_kind(folder: Folder) -> None:
    raw = tomllib.loads(shipped("alice.toml"))
    raw["device"].append({"name": "snspd", "role": "detectors", "driver": "snspd", "address": "tcp:1.2.3.4:1"})
    with pytest.raises(ConfigError, match=r"device 'snspd': role 'detectors' is none of"):
        validate(raw, folder.path("alice"))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("shunt_ohm = -1.0, max_current_a = 0.25", ("heater_rail", "ina228", "shunt_ohm", "-1.0", "greater than")),
        ("shunt_ohm = 0.05, max_amperes = 1", ("heater_rail", "ina228", "max_amperes", "not permitted")),
        ("shunt_ohm = 'x', max_current_a = 0.25", ("heater_rail", "shunt_ohm", "'x'", "number")),
    ],
)
def test_bad_driver_option(
    folder: Folder, capsys: pytest.CaptureFixture[str], options: str, words: tuple[str, ...]
) -> None:
    path = folder.change("shunt_ohm = 0.05, max_current_a = 0.25", options)
    said = refused(capsys, path)
    for word in (str(path), *words):
        assert word in said


def test_unknown_driver_lists_the_known(folder: Folder, capsys: pytest.CaptureFixture[str]) -> None:
    said = refused(capsys, folder.change('driver = "tmp117"', 'driver = "tmp119"'))
    assert "tmp119" in said
    assert "tmp117" in said


def pre_shared(folder: Folder, role: str = "alice") -> Path:
    return load(folder.path(role)).pair.pre_shared_key


def test_missing_pre_shared_key(folder: Folder, capsys: pytest.CaptureFixture[str]) -> None:
    key = pre_shared(folder)
    aside = key.rename(key.with_suffix(".aside"))
    try:
        said = refused(capsys, folder.path("alice"))
    finally:
        aside.rename(key)
    for word in (str(folder.path("alice")), "pair.pre_shared_key", str(key), "no such file", "qmodd provision"):
        assert word in said


def test_short_pre_shared_key(folder: Folder, capsys: pytest.CaptureFixture[str]) -> None:
    key = pre_shared(folder)
    whole = key.read_bytes()
    try:
        key.write_bytes(whole[:1000])
        said = refused(capsys, folder.path("alice"))
    finally:
        key.write_bytes(whole)
    for word in ("pair.pre_shared_key", str(key), "1000 bytes", str(MINIMUM_PRE_SHARED_BYTES)):
        assert word in said
    assert whole[:16].hex() not in said


@pytest.mark.parametrize(
    ("field", "find"),
    [
        ("module.factory", lambda c: c.module.factory),
        ("pair.key_encryption_key", lambda c: c.pair.key_encryption_key),
        ("uplink.identity", lambda c: c.uplink.identity),
        ("uplink.authority", lambda c: c.uplink.authority),
        ("recipient.kms-a.public", lambda c: c.recipient[0].public),
    ],
)
def test_missing_file_is_named(
    folder: Folder, capsys: pytest.CaptureFixture[str], field: str, find: Callable[[Config], Path]
) -> None:
    file = find(load(folder.path("alice")))
    aside = file.rename(file.with_suffix(".aside"))
    try:
        said = refused(capsys, folder.path("alice"))
    finally:
        aside.rename(file)
    assert f"{field} = {str(file)!r}: no such file" in said


@pytest.mark.parametrize(
    ("gate", "period"), [("1000", "0"), ("0", "1000"), ("2000", "1000")], ids=["no period", "no opening", "too long"]
)
def test_half_a_gate(folder: Folder, gate: str, period: str) -> None:
    raw = tomllib.loads(shipped("bob.toml"))
    raw["receiver"] |= {"gate_open_ps": int(gate), "gate_period_ps": int(period)}
    with pytest.raises(
        ConfigError, match=rf"gate_open_ps {gate} and receiver.gate_period_ps {period}: .*open <= period"
    ):
        validate(raw, folder.path("bob"))


@pytest.mark.parametrize(("role", "field"), [("alice", "relay_listen"), ("bob", "relay_connect")])
def test_service_channel_needs_its_end(folder: Folder, role: str, field: str) -> None:
    raw: dict[str, Any] = tomllib.loads(shipped(f"{role}.toml"))
    del raw["uplink"][field]
    with pytest.raises(ConfigError, match=rf"uplink.{field} is missing; {role}"):
        validate(raw, folder.path(role))


def test_not_toml_says_where(folder: Folder, capsys: pytest.CaptureFixture[str]) -> None:
    folder.path("alice").write_text("[module\n")
    said = refused(capsys, folder.path("alice"))
    assert "not TOML" in said
    assert "line 1" in said


def test_missing_configuration(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = refused(capsys, tmp_path / "absent.toml")
    assert f"{tmp_path / 'absent.toml'}: cannot be read: No such file or directory" in said


def test_factory_record_that_does_not_fit_is_2_too(folder: Folder, capsys: pytest.CaptureFixture[str]) -> None:
    """Found by core when it is composed, still before any bus."""
    said = refused(capsys, folder.path("alice"))
    assert re.search(r"photodiodes|diodes|required", said, re.I)


@pytest.mark.parametrize("role", ["alice", "bob"])
def test_every_field_is_documented_where_it_stands(role: str) -> None:
    """Each line with a value has a comment, or the same key has one in the other file or above it."""
    documented = "\n".join(shipped(f"{r}.toml") for r in ("alice", "bob"))
    for section, model in Config.model_fields.items():
        fields = getattr(model.annotation, "model_fields", {})
        for name in fields:
            # What is only there together with other values stands in a comment.
            assert re.search(rf"^(# )?{name} = ", documented, re.M), f"{section}.{name} is in neither file"
