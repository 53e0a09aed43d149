from __future__ import annotations

import sys
from pathlib import Path

import pytest

from drivers import registry
from drivers.registry import RegistryError
from drivers.roles import Device
from tests.drivers.fakes import Clock, make_pool

OPTIONS: dict[str, dict[str, object]] = {
    "ads131m08": {"channels": {"PA0": 0}},
    "counter": {},
    "cryostat": {},
    "eeprom24c64": {},
    "ina228": {"shunt_ohm": 0.05, "max_current_a": 0.5},
    "itla": {},
    "ltc2668": {"channels": {"C": {"index": 0}}},
    "ltc2672": {"channels": {"phase": 2}, "max_current_a": 0.033},
    "mecom_tec": {},
    "pca9535": {"lines": {"led": {"port": 0, "bit": 3, "direction": "out"}}},
    "pmbus": {},
    "snspd": {"counts_address": "tcp:127.0.0.1:12345"},
    "symbol_source": {},
    "time_tagger": {},
    "tmp117": {},
}
ADDRESS = {
    "ads131m08": "spi:1.0",
    "counter": "visa:TCPIP::c::hislip0::INSTR",
    "cryostat": "visa:TCPIP::d::7777::SOCKET",
    "eeprom24c64": "i2c:2:0x50",
    "ina228": "i2c:1:0x40",
    "itla": "serial:/dev/laser",
    "ltc2668": "spi:0.1",
    "ltc2672": "spi:0.0",
    "mecom_tec": "serial:/dev/tec",
    "pca9535": "i2c:2:0x20",
    "pmbus": "i2c:2:0x58",
    "snspd": "tcp:127.0.0.1:12000",
    "symbol_source": "visa:TCPIP::a::hislip0::INSTR",
    "time_tagger": "visa:TCPIP::b::hislip0::INSTR",
    "tmp117": "i2c:1:0x48",
}


def test_every_built_in_driver_can_be_made_without_touching_a_bus(clock: Clock) -> None:
    pool = make_pool(clock)
    assert set(OPTIONS) == set(registry.BUILT_IN)
    for driver, options in OPTIONS.items():
        device = registry.create(driver, f"my_{driver}", ADDRESS[driver], pool, options)
        assert isinstance(device, Device)
        assert device.name == f"my_{driver}"


def test_unknown_driver_lists_the_known_ones(clock: Clock) -> None:
    with pytest.raises(RegistryError, match=r"unknown driver 'ltc9999'; known are ads131m08, counter, .*tmp117"):
        registry.create("ltc9999", "x", "spi:0.0", make_pool(clock), {})


@pytest.mark.parametrize(
    ("driver", "options", "words"),
    [
        ("ltc2672", {"channels": {"a": 0}, "max_current_a": 0.03, "wrong": 1}, "'x' .driver ltc2672.: wrong: Extra"),
        ("ltc2672", {"channels": {"a": 0}}, "max_current_a: Field required"),
        ("ltc2672", {"channels": {"a": 5}, "max_current_a": 0.03}, r"channels.a.index: .* less than 5, not 5"),
        ("ltc2672", {"channels": {"a": 1, "b": 1}, "max_current_a": 0.03}, "options: channels: two names share"),
        ("ltc2672", {"channels": {"a": 1}, "max_current_a": 0.06}, "limit 0.06 A exceeds full scale 0.05 A of span 5"),
        ("ltc2672", {"channels": {"a": {"index": 1, "safe_a": 0.04}}, "max_current_a": 0.03}, "safe value 0.04 A"),
        ("ltc2668", {"channels": {"a": {"index": 1, "high_v": 11}}}, "limits -10 to 11 V exceed span 3"),
        ("ltc2668", {"channels": {"a": {"index": 1}, "b": {"index": 1}}}, "two names share"),
        ("ina228", {"shunt_ohm": 0.05, "max_current_a": float("nan")}, "max_current_a"),
        ("ina228", {"shunt_ohm": 1.0, "max_current_a": 1.0}, "exceeds 163.84 mV"),
        ("ina228", {"shunt_ohm": 1e-6, "max_current_a": 1e-5}, "does not fit 15 bits"),
        ("ads131m08", {"channels": {"a": 8}}, "distinct and 0 to 7"),
        ("pca9535", {"lines": {"a": {"port": 0, "bit": 1}, "b": {"port": 0, "bit": 1}}}, "share one pin"),
        ("itla", {"low_hz": 2e14, "high_hz": 1e14}, "must lie below"),
        ("mecom_tec", {"safe_c": 99.0}, "safe value 99 C must lie in 10 to 60 C"),
        ("snspd", {"counts_address": "tcp:h:1", "channels": ["a", "a"]}, "names must be distinct"),
    ],
)
def test_wrong_options_name_device_and_field(driver: str, options: dict[str, object], words: str) -> None:
    with pytest.raises(RegistryError, match=words):
        registry.validate(driver, "x", options)


def test_two_devices_on_one_address_are_refused(clock: Clock) -> None:
    pool = make_pool(clock)
    registry.create("tmp117", "a", "i2c:1:0x48", pool, {})
    with pytest.raises(RegistryError, match=r"device 'b' .driver tmp117.: b: address i2c:1:0x48 is already taken by a"):
        registry.create("tmp117", "b", "i2c:1:0x48", pool, {})


MODULE = """
from drivers.options import DriverOptions
from drivers.roles import Identity

class Options(DriverOptions):
    decibel: float = 3.0

class Voa:
    Options = Options

    def __init__(self, name, address, buses, options):
        self.name = name
        self.decibel = options.decibel
        self.bus = buses.spi(address, name, mode=0)

    async def open(self):
        return Identity("outside_voa", self.bus.address, "VOA")

    async def make_safe(self): ...
    async def close(self): ...
"""


async def test_a_driver_from_outside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, clock: Clock) -> None:
    (tmp_path / "outside_voa.py").write_text(MODULE)
    info = tmp_path / "outside_voa-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: outside-voa\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[qmodd.drivers]\noutside_voa = outside_voa:Voa\nlost = no_such_module:X\n"
        "bare = outside_voa:DriverOptions\ntmp117 = outside_voa:Voa\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    device = registry.create("outside_voa", "voa", "spi:3.0", make_pool(clock), {"decibel": 7})
    assert getattr(device, "decibel") == 7.0  # noqa: B009
    assert (await device.open()).model == "VOA"
    assert "outside_voa" in registry.known()
    assert registry.known()["tmp117"] == registry.BUILT_IN["tmp117"]
    with pytest.raises(RegistryError, match="'lost' cannot be loaded from no_such_module:X"):
        registry.driver_class("lost")
    with pytest.raises(RegistryError, match="'bare' cannot be loaded"):
        registry.driver_class("bare")
    sys.modules.pop("outside_voa", None)
