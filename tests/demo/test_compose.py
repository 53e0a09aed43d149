"""The demo runs on the shipped configurations: only addresses and file names are replaced."""

from __future__ import annotations

import stat
import tomllib
from pathlib import Path
from typing import Any

import pytest

from qmodd.clock import SystemClock
from qmodd.config import load
from qmodd.demo.compose import Places, configuration, provision_site, replace_value, shipped
from qmodd.randomness import SeededRandomness

TEXT = """\
[module]
name = "outside"   # a comment

[[device]]
name = "tec"
address = "serial:/dev/ttyTEC"  # stays on its line

[[device]]
name = "laser"
address = "serial:/dev/ttyLASER"
"""
ENDPOINTS: dict[str, Any] = {
    "alice": {
        "serial": {"tec": "/run/a/tec", "laser": "/run/a/laser"},
        "visa": {"source": "TCPIP::127.0.0.1::hislip0,5001::INSTR"},
        "tcp": {},
    },
    "bob": {
        "serial": {"tec": "/run/b/tec"},
        "visa": {
            "tagger": "TCPIP::127.0.0.1::hislip0,5002::INSTR",
            "counter": "TCPIP::127.0.0.1::hislip0,5005::INSTR",
            "cryostat": "TCPIP::127.0.0.1::5006::SOCKET",
        },
        "tcp": {"snspd": "127.0.0.1:5003", "snspd_counts": "127.0.0.1:5004"},
    },
    "factory": {"alice": "/run/alice.json", "bob": "/run/bob.json"},
}


def test_replaces_within_one_device_only() -> None:
    changed = tomllib.loads(replace_value(TEXT, "address", "serial:/x", within="tec"))
    assert [d["address"] for d in changed["device"]] == ["serial:/x", "serial:/dev/ttyLASER"]
    last = tomllib.loads(replace_value(TEXT, "address", 'quo"ted\\', within="laser"))
    assert last["device"][1]["address"] == 'quo"ted\\'


@pytest.mark.parametrize(
    ("key", "within", "said"),
    [
        ("address", "submount", "no device 'submount'"),
        ("adress", "tec", "'adress' is 0 times in tec"),
        ("address", None, "'address' is 2 times in the configuration"),
        ("nothing", None, "'nothing' is 0 times in the configuration"),
    ],
)
def test_refuses_to_leave_it_as_it_is(key: str, within: str | None, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        replace_value(TEXT, key, "x", within=within)


@pytest.mark.parametrize("role", ["alice", "bob"])
def test_configuration_differs_in_addresses_and_files_only(role: str) -> None:
    places = Places(Path("/run"), "mqtt://127.0.0.1:4711", "127.0.0.1:7711")
    made = tomllib.loads(configuration(role, ENDPOINTS, places))
    before = tomllib.loads(shipped(f"{role}.toml"))
    assert made["uplink"]["broker"] == "mqtt://127.0.0.1:4711"
    assert made["uplink"]["relay_listen" if role == "alice" else "relay_connect"] == "127.0.0.1:7711"
    assert made["module"]["factory"] == f"/run/{role}.json"
    for section in ("keys", "control", "safety", "pair"):
        assert made[section] == before[section]
    addresses = {d["name"]: d["address"] for d in made["device"]}
    assert addresses["tec"] == f"serial:/run/{role[0]}/tec"
    assert addresses["heater_rail"] == "i2c:1:0x40"  # what a supervisor serves stays as on hardware
    own = {
        "alice": ("symbol_source", "visa:TCPIP::127.0.0.1::hislip0,5001::INSTR"),
        "bob": ("detectors", "tcp:127.0.0.1:5003"),
    }
    assert addresses[own[role][0]] == own[role][1]


def test_counts_of_the_detectors_are_found_too() -> None:
    places = Places(Path("/run"), "mqtt://127.0.0.1:1", "127.0.0.1:2")
    made = tomllib.loads(configuration("bob", ENDPOINTS, places))
    options = next(d["options"] for d in made["device"] if d["name"] == "detectors")
    assert options["counts_address"] == "tcp:127.0.0.1:5004"


def test_settings_change_bare_values() -> None:
    places = Places(Path("/run"), "mqtt://127.0.0.1:1", "127.0.0.1:2")
    made = tomllib.loads(configuration("alice", ENDPOINTS, places, {"n_z": "200_000", "worker": "false"}))
    assert made["keys"]["n_z"] == 200_000
    assert made["keys"]["worker"] is False


def test_provisioned_pair_has_everything_its_configurations_name(tmp_path: Path) -> None:
    provision_site(tmp_path, SystemClock().utc(), SeededRandomness(3))
    pools = []
    for role in ("alice", "bob"):
        (tmp_path / role / "factory.json").write_text("{}")
        path = tmp_path / role / f"{role}.toml"
        path.write_text(shipped(f"{role}.toml"))
        config = load(path)
        pools.append(config.pair.pre_shared_key.read_bytes())
        for secret in (config.pair.pre_shared_key, config.pair.key_encryption_key, config.uplink.identity):
            assert stat.S_IMODE(secret.stat().st_mode) == 0o600
    assert pools[0] == pools[1]
    keks = [load(tmp_path / r / f"{r}.toml").pair.key_encryption_key.read_bytes() for r in ("alice", "bob")]
    assert keks[0] != keks[1]


def test_unknown_file_is_not_shipped() -> None:
    with pytest.raises(FileNotFoundError):
        shipped("carol.toml")
