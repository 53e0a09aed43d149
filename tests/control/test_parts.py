"""The watch over heaters, photodiodes and the ADC: what it says of which reading, and when it says nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any, cast

import pytest

from calibration.context import CalibrationContext
from calibration.fit import Resistance
from calibration.names import HEATER_MONITOR, HEATERS
from qmodd.control.parts import PartsWatch, frozen

R0, RHO, SET_A = 100.0, 0.8, 0.02
DIODES = ("pa0", "pa1", "pa3", "pa4", "pa5", "pa6")


class Amplifier:
    """0.2 V a decade above 0.1 nA."""

    log_slope_v_per_decade = 0.2
    log_intercept_a = 1e-10

    def current(self, volts: float) -> float:
        return float(1e-10 * 10.0 ** (volts / 0.2))


class Bench:
    """Four heaters that obey R(P) and six lit photodiodes; a test spoils what it likes."""

    def __init__(self) -> None:
        self.amperes = dict.fromkeys(HEATERS["alice"], SET_A)
        self.factor: dict[str, float] = {}
        self.stuck_v: dict[str, float] = {}
        self.opened: set[str] = set()
        self.volts = dict.fromkeys(DIODES, 0.6)
        self.dark = dict.fromkeys(DIODES, 3e-10)
        self.at: str | None = None
        self.noise, self.reads, self.once = 1e-6, 0, 0.0
        self.broken: list[str] = []
        self.active = True
        self.walking = asyncio.Lock()

    def law(self, channel: str) -> Resistance:
        return Resistance(R0, RHO, cast(Any, None), 0.0)

    async def read_volts(self, samples: int) -> Mapping[str, float]:
        self.reads += 1
        heater, self.once = self._heater() * (1.0 + self.once), 0.0
        return {**self.volts, HEATER_MONITOR: heater / 4.0 + self.noise * (self.reads % 7)}

    def _heater(self) -> float:
        if self.at is None:
            return 0.0
        if self.at in self.stuck_v:
            return self.stuck_v[self.at]
        i = self.amperes[self.at]
        p = self.law(self.at).power(i)
        return i * R0 * (1.0 + RHO * p) * self.factor.get(self.at, 1.0)

    async def monitor(self, channel: str | None) -> None:
        self.at = channel

    async def set_current(self, channel: str, amperes: float) -> None:
        self.amperes[channel] = amperes

    async def open_circuits(self) -> frozenset[str]:
        return frozenset(self.opened)

    async def settle(self) -> None:
        return None

    async def tell(self, why: str) -> None:
        self.broken.append(why)

    def record(self, name: str) -> Any:
        if name == "heater_iv":
            return SimpleNamespace(value={f"{c}_r0_ohm": R0 for c in self.amperes} | {"monitor_noise": 5e-4})
        return SimpleNamespace(value={f"{d}_dark_a": a for d, a in self.dark.items()}, sigma=lambda _n: 0.0)

    def watch(self) -> PartsWatch:
        heaters = SimpleNamespace(
            channels=(*self.amperes, "spare"),
            current=lambda c: self.amperes.get(c, 1e-3),
            monitor=self.monitor,
            set_current=self.set_current,
            open_circuits=self.open_circuits,
        )
        context = SimpleNamespace(
            side="alice",
            heaters=heaters,
            adc=SimpleNamespace(read_volts=self.read_volts),
            settle=self.settle,
            record=self.record,
            store=SimpleNamespace(active=self.record),
            drive=SimpleNamespace(resistance=self.law),
            factory=SimpleNamespace(photodiode=lambda _n: Amplifier()),
            settings=SimpleNamespace(heater_monitor_divider=4.0, heater_resistance_ohm=(60.0, 130.0)),
        )
        return PartsWatch(cast(CalibrationContext, context), lambda: self.active, self.walking, self.tell)

    def look(self) -> str:
        asyncio.run(self.watch().step(0.0))
        assert self.at is None
        return "; ".join(self.broken)


def test_whole_parts_are_left_as_they_are() -> None:
    bench = Bench()
    assert bench.look() == ""
    assert set(bench.amperes.values()) == {SET_A}


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda b: b.factor.update(phase=0.01), "heater 'phase' is shorted: 0.021 V at 20.0 mA, 1 ohm; 60 ohm is"),
        (lambda b: b.factor.update(phase=1.6), "heater 'phase' is open: 3.306 V at 20.0 mA"),
        (lambda b: (b.factor.update(split=1.6), b.opened.add("split")), "heater 'split' is open"),
        (lambda b: b.stuck_v.update(filter=3.2), "heater 'filter': its current source is stuck: 3.200 V with 0 mA set"),
        (
            lambda b: b.factor.update(shutter=1.12),
            "heater 'shutter': 115.7 ohm at 20.0 mA instead of 103.3 ohm; 5.0% is",
        ),
        (
            lambda b: b.volts.update(pa1=0.0),
            "photodiode pa1 is dead: its amplifier reads 0.00 mV; 10.00 mV is the least",
        ),
    ],
)
def test_what_is_broken_is_named(spoil: Any, said: str) -> None:
    bench = Bench()
    spoil(bench)
    assert said in bench.look()


def test_one_bad_reading_is_read_again() -> None:
    bench = Bench()
    bench.once = 0.5
    assert bench.look() == ""
    assert bench.reads == 5


def test_diode_with_little_dark_current_is_dead_where_light_has_passed_it() -> None:
    bench = Bench()
    bench.dark["pa0"] = 5e-11
    bench.volts["pa0"] = 0.0
    assert "for pa1 behind it sees 1e-07 A" in bench.look()


def test_dark_diode_alone_is_no_fault() -> None:
    bench = Bench()
    for name in DIODES:
        bench.dark[name], bench.volts[name] = 5e-11, 0.0
    assert bench.look() == ""


def test_converter_that_converts_nothing_is_told_before_the_heaters_are_blamed() -> None:
    bench = Bench()
    bench.noise = 0.0
    bench.stuck_v = dict.fromkeys(bench.amperes, 2.0)
    assert bench.look().startswith("monitor ADC is stale: 4 readings at different heaters are the same")


def test_two_equal_rows_are_chance() -> None:
    row: Mapping[str, float] = {"pa0": 0.1, HEATER_MONITOR: 0.2}
    assert frozen([("a", 0.01, row), ("b", 0.01, row)]) == ""
    assert frozen([("a", 0.01, row)] * 3) != ""


def test_rests_out_of_service_and_while_a_calibration_walks() -> None:
    bench = Bench()
    bench.factor["phase"] = 0.01
    bench.active = False
    assert bench.look() == ""
    bench.active = True

    async def busy() -> None:
        async with bench.walking:
            await bench.watch().step(0.0)

    asyncio.run(busy())
    assert bench.broken == []
    assert bench.reads == 0


def test_heaters_that_are_not_driven_are_not_judged() -> None:
    bench = Bench()
    bench.amperes = dict.fromkeys(HEATERS["alice"], 0.0)
    bench.factor["phase"] = 0.01
    assert bench.look() == ""
