"""Production level: temperatures that are reached and left again, tuning ranges, and a burn-in on simulated days."""

from __future__ import annotations

import math
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from calibration.fit import Resistance
from calibration.names import HEATERS
from calibration.plot import Plot
from qmodd.selftest import production
from qmodd.selftest.bench import Bench, Production
from qmodd.selftest.model import Check, Finding, Level, Limits
from qmodd.soak import Run
from tests.selftest.bench import on_bench


async def _submount(bench: Bench) -> Sequence[Finding]:
    bench.notes["seen"] = True
    value = await bench.module.submount.read_celsius()
    return [
        Finding("submount", value, "C", Limits(0.0, 33.0), "submount"),
        Finding("heater_resistance.split", 90.0 * (1.0 + 4e-4 * value), "ohm", Limits(), "heater split"),
    ]


AGAIN = (Check("submount", Level.LIGHT_OFF, _submount),)


def test_levels_run_again_at_every_temperature_and_the_chip_comes_back() -> None:
    async def work(bench: Bench, run: Run) -> tuple[list[Finding], float]:
        bench.production = Production(temperatures_c=(27.0, 34.0))
        found = await production.temperature_findings(bench, AGAIN)
        assert "seen" not in bench.notes  # what is noted elsewhere is not valid at the working point
        return found, (await bench.context.tec.read()).object_c

    found, home_c = on_bench("alice", work, settled=True)
    by_name = {f.name: f for f in found}
    assert by_name["submount@27C"].value == pytest.approx(27.0, abs=0.1)
    assert by_name["submount@27C"].ok
    assert not by_name["submount@34C"].ok  # its own limit, at that temperature
    assert by_name["reached@34C"].value < 120.0
    assert by_name["back_at_working_point"].ok
    assert home_c == pytest.approx(30.0, abs=0.1)
    slope = by_name["temperature_coefficient.split"]
    assert slope.value == pytest.approx(4e-4 / (1.0 + 4e-4 * 30.5), rel=0.02)


def test_a_temperature_that_is_not_reached_is_a_finding_and_nothing_is_judged_there() -> None:
    async def work(bench: Bench, run: Run) -> list[Finding]:
        bench.production = Production(temperatures_c=(40.0,), settle_s=12.0)
        return await production.temperature_findings(bench, AGAIN)

    found = on_bench("bob", work, settled=True)  # 10 K at 0.5 K/s take 20 s
    reached = next(f for f in found if f.name == "reached@40C")
    assert not reached.ok
    assert math.isinf(reached.value)
    assert "it is at" in reached.why
    assert "peltier" in reached.needs
    assert not any(f.name == "submount@40C" for f in found)


# a burn-in needs days; here a heater is a formula


class _Clock:
    t = 0.0

    def monotonic(self) -> float:
        return self.t

    async def sleep(self, seconds: float) -> None:
        self.t += seconds


class _Heaters:
    """R = r0 (1 + drift ln(1 + t/100 h)), read through a divider of four with relative noise."""

    max_current_a = 0.033

    def __init__(self, clock: _Clock, drifts: dict[str, float], noise: float) -> None:
        self.clock, self.drifts, self.noise = clock, drifts, noise
        self.set, self.routed, self.rng = dict.fromkeys(drifts, 0.0), "", np.random.default_rng(3)

    async def set_current(self, channel: str, amperes: float) -> None:
        self.set[channel] = amperes

    def current(self, channel: str) -> float:
        return self.set[channel]

    async def monitor(self, channel: str | None) -> None:
        self.routed = channel or ""

    async def read_volts(self, samples: int) -> dict[str, float]:
        ohm = 90.0 * (1.0 + self.drifts[self.routed] * math.log1p(self.clock.t / 360_000.0))
        noise = 1.0 + self.noise / math.sqrt(samples) * self.rng.normal()
        return {"heater_monitor": self.set[self.routed] * ohm / 4.0 * noise}


def _bench(heaters: _Heaters, plan: Production, findings: Sequence[Finding] = ()) -> Bench:
    async def settle() -> None:
        return None

    settings = SimpleNamespace(heater_monitor_divider=4.0, heater_max_power_w=0.11)
    context = SimpleNamespace(heaters=heaters, adc=heaters, settings=settings, settle=settle)
    laws = {c: Resistance(90.0, 0.0, np.zeros((2, 2)), 0.0) for c in heaters.drifts}
    return cast(
        Bench,
        SimpleNamespace(
            side="bob",
            context=context,
            clock=heaters.clock,
            sleep=heaters.clock.sleep,
            production=plan,
            notes={"heater_resistances": laws},
            figures={},
            findings=list(findings),
            part=lambda role: role,
            progress=lambda *_: None,
        ),
    )


def _heaters(drift: float = 1e-3, noise: float = 5e-4, **others: float) -> _Heaters:
    return _Heaters(_Clock(), {c: others.get(c, drift) for c in HEATERS["bob"]}, noise)


async def _burn_in(heaters: _Heaters, hours: float = 24.0) -> tuple[dict[str, Finding], Bench]:
    bench = _bench(heaters, Production(burn_in_h=hours))
    return {f.name: f for f in await production.burn_in_findings(bench)}, bench


async def test_burn_in_finds_the_heater_that_will_not_last() -> None:
    heaters = _heaters(combine=0.012)
    found, bench = await _burn_in(heaters)
    assert heaters.clock.t == pytest.approx(86_400.0, rel=1e-3)
    for channel in ("basis", "split", "phase"):
        drift = found[f"burn_in.{channel}"]
        assert drift.ok
        assert drift.value == pytest.approx(1e-3, abs=5.0 * drift.sigma)
    bad = found["burn_in.combine"]
    assert not bad.ok
    assert bad.part == "heater combine"
    assert "after a year its resistance would be off by +5." in bad.why
    assert set(heaters.set.values()) == {0.0}
    figure = bench.figures["burn-in"]
    assert isinstance(figure, Plot)
    assert [s.label for s in figure.series] == list(HEATERS["bob"])


async def test_a_burn_in_that_proves_nothing_says_so() -> None:
    found, _ = await _burn_in(_heaters(), hours=0.5)
    assert not found["burn_in_sigma.split"].ok
    assert "too short" in found["burn_in_sigma.split"].why
    assert found["burn_in.split"].skipped


async def test_tuning_range_goes_by_what_light_on_found() -> None:
    def p_pi(channel: str, watts: float) -> Finding:
        return Finding(f"p_pi.{channel}", watts, "W", Limits(0.02, 0.06), f"heater {channel}")

    before = [p_pi("basis", 0.040), p_pi("split", 0.058), p_pi("phase", 0.080)]
    found: dict[str, Any] = {
        f.name: f for f in await production.range_findings(_bench(_heaters(), Production(), before))
    }
    watts = 90.0 * (0.999 * 0.033) ** 2
    assert found["tuning_range.basis"].value == pytest.approx(watts / 0.040)
    assert found["tuning_range.basis"].ok
    assert not found["tuning_range.split"].ok  # 1.68 pi
    assert found["tuning_range.phase"].skipped  # light-on did not accept it
    assert found["tuning_range.combine"].skipped
    assert found["power_at_p_pi"].value == pytest.approx(0.098)
