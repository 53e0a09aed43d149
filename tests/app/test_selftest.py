"""The quick self-test at boot: what passes on a good module, and which check says what on a bad one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from drivers.errors import BusFault
from drivers.roles import RailReading
from qmodd.app.failures import NotReady
from qmodd.app.selftest import CheckResult, quick_selftest
from qmodd.module import Module
from qmodd.soak import Run
from tests.app.pair import build


@dataclass
class Bench:
    """A module of plain values; a test spoils one of them."""

    bus_v: float = 4.0
    current_a: float = 0.004
    short_v: float = 1e-5
    witness_c: float = 25.0
    open_channels: frozenset[str] = frozenset({"spare"})
    fault: Exception | None = None
    written: list[tuple[str, float]] = field(default_factory=list)

    async def read_rail(self) -> RailReading:
        if self.fault:
            raise self.fault
        return RailReading(bus_v=self.bus_v, current_a=self.current_a, power_w=0.0, die_temperature_c=30.0)

    async def read_volts(self, samples: int) -> Mapping[str, float]:
        return {"short": self.short_v, "pa0": 0.3}

    async def read_celsius(self) -> float:
        return self.witness_c

    async def set_current(self, channel: str, amperes: float) -> None:
        self.written.append((channel, amperes))

    async def open_circuits(self) -> frozenset[str]:
        driven = dict(self.written).get("spare", 0.0) > 0.0
        return self.open_channels if driven else self.open_channels - {"spare"}

    @property
    def module(self) -> Module:
        fake: Any = SimpleNamespace(
            rail=SimpleNamespace(read=self.read_rail),
            adc=SimpleNamespace(read_volts=self.read_volts),
            submount=SimpleNamespace(read_celsius=self.read_celsius),
            heaters=SimpleNamespace(set_current=self.set_current, open_circuits=self.open_circuits),
        )
        return cast(Module, fake)


async def test_good_module_passes_with_no_reason() -> None:
    bench = Bench()
    checks = await quick_selftest(bench.module)
    assert [c.name for c in checks] == [
        "heater_rail_voltage",
        "heater_rail_idle_current",
        "adc_shorted_input",
        "submount_temperature",
        "open_circuit_flag_of_spare_alone",
    ]
    assert all(c.ok and c.why == "" for c in checks)
    assert {channel for channel, _ in bench.written} == {"spare"}  # no heater of the chip was driven


@pytest.mark.parametrize(
    ("spoilt", "said"),
    [
        ({"bus_v": 3.1}, "heater_rail_voltage reads 3.1 V; allowed is 3.6 to 4.4 V"),
        ({"bus_v": 4.9}, "heater_rail_voltage reads 4.9 V"),
        ({"current_a": 0.2}, "heater_rail_idle_current reads 0.2 A; allowed is 0 to 0.05 A"),
        ({"short_v": 0.01}, "adc_shorted_input reads 0.01 V"),
        ({"short_v": -0.01}, "adc_shorted_input reads -0.01 V"),
        ({"witness_c": 85.0}, "submount_temperature reads 85 C; allowed is 5 to 60 C"),
        ({"witness_c": -256.0}, "submount_temperature reads -256 C"),
        ({"open_channels": frozenset()}, "open_circuit_flag_of_spare_alone reads 0"),
        ({"open_channels": frozenset({"spare", "phase"})}, "open_circuit_flag_of_spare_alone reads 0"),
    ],
)
async def test_failed_check_names_value_and_limits(spoilt: dict[str, Any], said: str) -> None:
    with pytest.raises(NotReady) as e:
        await quick_selftest(Bench(**spoilt).module)
    assert said in str(e.value)


async def test_all_failed_checks_are_told() -> None:
    with pytest.raises(NotReady) as e:
        await quick_selftest(Bench(bus_v=0.0, witness_c=99.0).module)
    assert "heater_rail_voltage" in str(e.value)
    assert "submount_temperature" in str(e.value)


async def test_bus_fault_is_not_hidden() -> None:
    with pytest.raises(BusFault, match="no acknowledge"):
        await quick_selftest(Bench(fault=BusFault("i2c:1: no acknowledge (0x40)")).module)


def test_limits_are_inclusive() -> None:
    assert CheckResult("x", 1.0, "V", 1.0, 2.0).ok
    assert CheckResult("x", 2.0, "V", 1.0, 2.0).ok
    assert not CheckResult("x", float("nan"), "V", 1.0, 2.0).ok


@pytest.mark.parametrize("site", ["alice", "bob"])
def test_emulated_module_passes_with_rails_on(tmp_path: Path, site: str) -> None:
    async def script(run: Run) -> None:
        module = run.sites[site].core.module
        await module.open()
        await module.platform.write("heater_enable", True)
        checks = await quick_selftest(module)
        assert [c.why for c in checks if not c.ok] == []

    build(tmp_path, script)


@pytest.mark.parametrize("site", ["alice", "bob"])
def test_emulated_module_without_its_rail_fails(tmp_path: Path, site: str) -> None:
    async def script(run: Run) -> None:
        module = run.sites[site].core.module
        await module.open()
        with pytest.raises(NotReady, match="heater_rail_voltage reads 0 V"):
            await quick_selftest(module)

    build(tmp_path, script)
