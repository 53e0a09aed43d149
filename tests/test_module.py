"""A module's devices by role; opening says which one is missing or wrong, where, and what was found instead."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from drivers.bus.libraries import Libraries
from drivers.bus.pool import BusPool
from drivers.registry import RegistryError
from drivers.roles import Device
from qmodd.config import Config
from qmodd.module import BringUpFailed, Module
from qmodd.soak import Run
from sim.inproc import InprocLibraries
from tests.app.pair import build, outputs


def other(run: Run, site: str, change: Callable[[dict[str, dict[str, Any]]], None]) -> Module:
    """The module of a site with another configuration of its devices, which `change` gets by name."""
    config = run.sites[site].core.config
    raw = config.model_dump()
    change({d["name"]: d for d in raw["device"]})
    found = InprocLibraries(run.rigs[site])
    libraries = Libraries(found.i2c, found.spi, found.serial, found.visa, found.tcp, threaded=False)
    return Module(Config.model_validate(raw), BusPool(libraries, run.clock.monotonic))


async def failure(module: Module) -> str:
    with pytest.raises(BringUpFailed) as e:
        await module.open()
    await module.close()
    return str(e.value)


def check(directory: Path, script: Callable[[Run], Any]) -> None:
    build(directory, script)


def test_open_identifies_every_device(tmp_path: Path) -> None:
    async def script(run: Run) -> None:
        for name, own in (("alice", {"laser", "source"}), ("bob", {"tags", "detectors"})):
            module = run.sites[name].core.module
            identities = await module.open()
            assert set(identities) == set(module.devices)
            assert own <= set(identities)
            assert "INA228" in identities["rail"].model
            assert outputs(run, name).dark
            assert all(isinstance(device, Device) for device in module.devices.values())

    check(tmp_path, script)


MISSING = [
    ("alice", "ina228", ("heater_rail: heater_rail at i2c:1:0x40", "expected INA228", "found nothing")),
    ("alice", "tmp117", ("submount: submount at i2c:1:0x48", "expected TMP117", "found nothing")),
    ("alice", "pca9535", ("platform", "i2c:2:0x20", "expected PCA9535", "found nothing")),
    ("alice", "ltc2672", ("heater_dac at spi:0.0", "expected LTC2672", "found fault register 0xff")),
    ("alice", "ltc2668", ("bias_dac at spi:0.1", "expected LTC2668", "found ffffffff")),
    ("alice", "ads131m08", ("monitor_adc at spi:1.0", "expected ADS131M08", "found nothing")),
    ("alice", "tec", ("tec at serial:tec", "expected MeCom TEC controller", "found nothing")),
    ("alice", "laser", ("laser at serial:laser", "expected OIF ITLA", "found nothing")),
    ("alice", "source", ("symbol_source at visa:source", "SYMBOL-SOURCE", "found nothing")),
    ("bob", "snspd", ("detectors at tcp:snspd:12000", "expected SNSPD controller", "found nothing")),
    ("bob", "tagger", ("time_tagger at visa:tagger", "TIME-TAGGER", "found nothing")),
]


@pytest.fixture(scope="module")
def said(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], str]:
    """What `open` says, by site and missing part or swapped pair."""
    told: dict[tuple[str, str], str] = {}

    async def script(run: Run) -> None:
        for site, part, _ in MISSING:
            run.rigs[site].unplug(part)
            told[site, part] = await failure(run.sites[site].core.module)
            run.rigs[site].replug(part)
        for site, first, second, _ in WRONG:
            told[site, f"{first} {second}"] = await failure(other(run, site, swap(first, second)))
            assert outputs(run, site).rails_off

    build(tmp_path_factory.mktemp("module"), script)
    return told


@pytest.mark.parametrize(("site", "part", "words"), MISSING, ids=[f"{m[0]}.{m[1]}" for m in MISSING])
def test_missing_device_is_named(
    said: dict[tuple[str, str], str], site: str, part: str, words: tuple[str, ...]
) -> None:
    for word in words:
        assert word in said[site, part]
    assert said[site, part].count("expected") == 1  # nothing else is blamed


def swap(first: str, second: str) -> Callable[[dict[str, dict[str, Any]]], None]:
    def change(devices: dict[str, dict[str, Any]]) -> None:
        a, b = devices[first], devices[second]
        a["address"], b["address"] = b["address"], a["address"]

    return change


WRONG = [
    ("alice", "heater_rail", "submount", ("heater_rail at i2c:1:0x48", "submount at i2c:1:0x40", "INA228", "TMP117")),
    # Both of the family echo their frames; that the heater source is not what it should be is enough to stay dark.
    ("alice", "heater_dac", "bias_dac", ("heater_dac at spi:0.1", "expected LTC2672")),
    ("alice", "bias_dac", "monitor_adc", ("bias_dac at spi:1.0", "monitor_adc at spi:0.1", "expected ADS131M08")),
    ("alice", "tec", "laser", ("tec at serial:laser", "laser at serial:tec", "expected MeCom", "expected OIF ITLA")),
]


@pytest.mark.parametrize(("site", "first", "second", "words"), WRONG, ids=[f"{w[1]} for {w[2]}" for w in WRONG])
def test_wrong_device_is_named_with_what_was_found(
    said: dict[tuple[str, str], str], site: str, first: str, second: str, words: tuple[str, ...]
) -> None:
    """Each sits where the other one should be."""
    for word in (*words, "found"):
        assert word in said[site, f"{first} {second}"]


def test_wrong_platform_opens_nothing_else(tmp_path: Path) -> None:
    """The rails must be known to be off before anything is spoken to."""

    async def script(run: Run) -> None:
        def move(devices: dict[str, dict[str, Any]]) -> None:
            devices["platform"]["address"] = "i2c:2:0x21"

        module = other(run, "alice", move)
        said = await failure(module)
        assert "platform at i2c:2:0x21" in said
        assert module.identities == {}
        assert set(module.buses.counters()) >= {"i2c:2"}
        assert all(c.transactions == 0 for bus, c in module.buses.counters().items() if bus != "i2c:2")

    check(tmp_path, script)


def test_several_faults_are_all_told(tmp_path: Path) -> None:
    async def script(run: Run) -> None:
        for part in ("tmp117", "laser", "ltc2668"):
            run.rigs["alice"].unplug(part)
        said = await failure(run.sites["alice"].core.module)
        assert said.count("expected") == 3
        assert said == "; ".join(sorted(said.split("; ")))

    check(tmp_path, script)


def test_outputs_are_those_with_a_safe_value_rails_first(tmp_path: Path) -> None:
    async def script(run: Run) -> None:
        names = {n: [d.name for d in run.sites[n].core.module.outputs()] for n in run.sites}
        assert names["alice"] == ["laser", "heater_dac", "symbol_source", "bias_dac", "tec"]
        assert names["bob"] == ["heater_dac", "bias_dac", "detectors", "tec"]

    check(tmp_path, script)


def test_role_of_the_other_kind_says_whose_it_is_not(tmp_path: Path) -> None:
    async def script(run: Run) -> None:
        with pytest.raises(LookupError, match="bob QM-B-0001 has no laser"):
            _ = run.sites["bob"].core.module.laser
        with pytest.raises(LookupError, match="alice QM-A-0001 has no tags"):
            _ = run.sites["alice"].core.module.tags

    check(tmp_path, script)


def test_building_touches_no_bus_and_refuses_a_wrong_driver(tmp_path: Path) -> None:
    async def script(run: Run) -> None:
        def misspell(devices: dict[str, dict[str, Any]]) -> None:
            devices["tec"]["driver"] = "mecom"

        with pytest.raises(RegistryError, match="unknown driver 'mecom'"):
            other(run, "alice", misspell)
        counters = run.sites["alice"].core.module.buses.counters()
        assert all(c.transactions + c.errors == 0 for c in counters.values())

    check(tmp_path, script)
