"""The temperature loop on the emulator's plant: identification, feed-forward, hand-over, diagnoses."""

from __future__ import annotations

import asyncio
import math
from dataclasses import replace

import numpy as np
import pytest

from calibration.fit import FitRefused
from calibration.tec_experiment import Identified, Relay, Way, experiment
from drivers.roles import TecReading, TecState
from qmodd.control.facts import Stale
from qmodd.control.feed_forward import TargetOffset, Tuning, feed_forward_k, ramped
from qmodd.control.loop import LoopFault
from qmodd.control.thermal import TecLoop, ThermalConfig
from tests.control.plant import PlantTec

KNOWN = Tuning(0.95, 8.8, 2.0)


class Bench:
    """A loop over a plant, stepped as the scheduler would."""

    def __init__(self, start_c: float = 25.0, tuning: Tuning | None = None, **plant: object) -> None:
        self.tec = PlantTec(start_c, **plant)  # type: ignore[arg-type]
        self.stored: list[Identified] = []
        self.sum_w: float | None = None
        self.loop = TecLoop(
            self.tec,
            ThermalConfig(kp_a_per_k=1.9, ti_s=4.4),
            self.tec,
            lambda: self.sum_w,
            sleep=self.tec.sleep,
            tuning=tuning,
            identified=self.store,
        )

    async def store(self, found: Identified) -> None:
        self.stored.append(found)

    async def step(self) -> None:
        began = self.tec.time.now
        await self.loop.step(began)
        await self.tec.sleep(max(0.01, began + 0.5 - self.tec.time.now))

    async def until_stable(self, within_s: float = 120.0) -> float:
        while not self.loop.stable:
            assert self.tec.time.now < within_s, self.loop.reading
            await self.step()
        return self.tec.time.now

    async def settled(self) -> None:
        await self.until_stable()
        for _ in range(160):
            await self.step()


async def test_the_plant_is_identified_on_the_first_way_and_costs_no_time() -> None:
    first = Bench()
    took = await first.until_stable()
    (found,) = first.stored
    assert found.kind == "way"
    # alpha T / (C_m + C_d); sensor 0.5 s, die 0.05 s, half a conversion
    assert found.plant.slope_k_per_a_s == pytest.approx(0.0133 * 303.15 / 8.05, rel=0.03)
    assert found.plant.delay_s == pytest.approx(0.6, abs=0.06)
    assert found.element is not None
    assert found.element.optimum_a(30.0) == pytest.approx(0.0133 * 303.15 / 1.03, rel=0.03)
    assert found.gains() == pytest.approx((1.68, 4.7), rel=0.08)
    assert (first.loop.tuning.kp_a_per_k, first.loop.tuning.ti_s) == found.gains()
    assert first.tec.plant.kp_a_per_k == found.gains()[0]
    again = Bench(tuning=Tuning(*found.gains(), found.clamp_a(2.0)))
    assert took <= await again.until_stable() + 1.0
    assert again.stored == []
    # nothing overshoots by more than the handover may
    assert max(first.tec.submount) < 30.2


async def test_near_the_target_a_relay_does_it() -> None:
    bench = Bench(29.9)
    await bench.until_stable()
    (found,) = bench.stored
    assert found.kind == "relay"
    assert found.plant.slope_k_per_a_s == pytest.approx(0.5, rel=0.06)
    assert found.plant.delay_s == pytest.approx(0.6, abs=0.08)
    assert np.abs(np.array(bench.tec.submount) - 29.9).max() < 0.5


async def test_from_far_away_it_regulates_first() -> None:
    bench = Bench(42.0)
    await bench.until_stable(200.0)
    assert [f.kind for f in bench.stored] == ["relay"]


async def test_by_command_in_service_and_regulation_goes_on_without_a_bump() -> None:
    bench = Bench(30.0, KNOWN, sink_c=27.0)
    await bench.settled()
    asked = asyncio.create_task(bench.loop.identify())
    for _ in range(5):
        await asyncio.sleep(0)
    assert [bench.loop.identifying, bench.loop.stable] == [True, False]
    with pytest.raises(LoopFault, match="not regulating"):
        await bench.loop.identify()
    begin = bench.tec.time.now
    while bench.loop.identifying:
        assert bench.tec.time.now - begin < 20.0
        await bench.step()
        await asyncio.sleep(0)
    found = await asked
    assert found.plant.slope_k_per_a_s == pytest.approx(0.5, rel=0.06)
    assert bench.stored == []  # the procedure that asked stores it
    n = len(bench.tec.submount)
    for _ in range(30):
        await bench.step()
    off = np.array(bench.tec.submount[n:]) - 30.0
    assert np.abs(off).max() < 0.25
    assert np.abs(off[-300:]).max() < 0.01


@pytest.mark.parametrize(("start", "amperes"), [(25.0, "-0.60 A"), (29.9, "-0.30 A")])
async def test_a_reversed_element_is_named_before_anything_runs_away(start: float, amperes: str) -> None:
    bench = Bench(start, reversed_leads=True)
    with pytest.raises(
        LoopFault, match=r"CHECK POLARITY: .* A should warm the object.* K the wrong way is the limit"
    ) as e:
        await bench.until_stable()
    assert amperes in str(e.value)
    assert bench.tec.time.now < 4.0
    assert not bench.tec.plant.enabled
    assert bench.tec.plant.static_a is None
    assert abs(bench.tec.submount[-1] - start) < 0.3
    assert bench.stored == []
    with pytest.raises(LoopFault, match="CHECK POLARITY"):
        await bench.until_stable()


async def test_reversed_with_a_record_it_runs_away_and_is_turned_off() -> None:
    bench = Bench(25.0, KNOWN, reversed_leads=True)
    with pytest.raises(LoopFault, match=r"CHECK POLARITY: temperature runs away.*4 K is the limit.*should warm it"):
        await bench.until_stable()
    assert not bench.tec.plant.enabled


async def test_a_dead_output_stage_reads_back_no_current() -> None:
    bench = Bench()
    bench.tec.dead_output = True
    with pytest.raises(LoopFault, match=r"reads \+0.00 A back while -0.60 A are driven.*20 % is the limit.*open"):
        await bench.until_stable()


async def test_a_thermistor_off_the_object_sees_no_response() -> None:
    way = Way(2.0, target_c=30.0)
    with pytest.raises(
        FitRefused, match=r"no response: -0.60 A moved the object by [+-]0.000 K within 3.. s; at least"
    ):
        for n in range(80):
            amperes = way.step(0.1 * n, reading(25.0, way._amperes[-1] if way._amperes else 0.0))
            assert amperes is not None
            way.drove(0.1 * n, amperes)


def reading(celsius: float, amperes: float = 0.0) -> TecReading:
    return TecReading(celsius, 25.0, 30.0, 30.0, amperes, 1.03 * amperes, TecState.NOT_STABLE)


def test_a_relay_that_drifts_off_gives_up() -> None:
    relay = Relay(2.0)
    with pytest.raises(FitRefused, match=r"no limit cycle: .* the limits are 1 K and 30 s"):
        for n in range(400):
            celsius = 30.0 + 0.002 * min(n, 12) - 0.02 * max(0, n - 12)
            amperes = relay.step(0.1 * n, reading(celsius, 0.1))
            assert amperes is not None
            relay.drove(0.1 * n, amperes)


def test_which_experiment_and_one_without_a_step() -> None:
    assert isinstance(experiment(reading(25.0), 30.0, 2.0, 0.5), Way)
    assert isinstance(experiment(reading(29.0), 30.0, 2.0, 0.5), Relay)
    assert experiment(reading(10.0), 30.0, 2.0, 0.5) is None
    with pytest.raises(FitRefused, match="never changed"):
        Relay(2.0).evaluate()


async def test_a_fit_that_is_refused_leaves_the_start_values(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Way) -> Identified:
        raise FitRefused("residuals of 90 mK")

    monkeypatch.setattr(Way, "evaluate", refuse)
    bench = Bench()
    await bench.until_stable()
    assert bench.loop.not_identified == "residuals of 90 mK"
    assert bench.stored == []
    assert bench.loop.tuning.kp_a_per_k == 1.9


# feed-forward


def test_the_offset_is_a_constant_current_through_the_controller() -> None:
    kp, ti, dt = 1.7, 4.7, 0.5
    offset, integral = TargetOffset(), 0.0
    offset.add(0.010, kp)
    for _ in range(100):
        wish = -kp * offset.kelvin
        assert wish + integral == pytest.approx(0.010, rel=1e-9)
        integral += wish * dt / ti
        offset.advance(dt, ti)
    assert abs(offset.kelvin) < 1e-6
    assert feed_forward_k(0.040, 4.03, 0.95) == pytest.approx(-0.01045, rel=1e-3)
    offset.add(1e3, kp)
    assert offset.kelvin == -0.3


async def peak_mk(feed: str) -> float:
    """Submount's largest excursion after +40 mW on the die, with the gains of the reference (pair A6.6)."""
    bench = Bench(30.0, KNOWN, sink_c=27.0)
    bench.sum_w = None if feed == "none" else 0.120
    await bench.settled()
    base, n = float(np.mean(bench.tec.submount[-2000:])), len(bench.tec.submount)
    await bench.tec.sleep(0.2)
    if feed == "told":
        await bench.loop.feed_forward(0.040)
    if feed != "none":
        bench.sum_w = 0.160
    bench.tec.plant.set_heat(0.160)
    await bench.tec.sleep(0.25)
    for _ in range(80):
        await bench.step()
    assert abs(bench.loop.offset_k) < 2e-4
    return 1e3 * float(np.abs(np.array(bench.tec.submount[n:]) - base).max())


async def test_forty_milliwatts_with_and_without_feed_forward() -> None:
    alone, followed, told = await peak_mk("none"), await peak_mk("followed"), await peak_mk("told")
    assert alone == pytest.approx(8.5, abs=0.4)
    assert followed < 1.6
    assert told < 0.7


# facts and diagnoses


async def test_a_frozen_reading_is_a_fact_and_not_stable() -> None:
    bench = Bench(30.0, KNOWN, sink_c=27.0)
    await bench.until_stable()
    bench.tec.frozen = replace(await bench.tec.read(), object_c=30.0)
    for _ in range(12):
        await bench.step()
    (fact,) = bench.loop.facts()
    assert isinstance(fact, Stale)
    assert "12 times in a row" in str(fact)
    assert not bench.loop.stable
    bench.tec.frozen = None
    await bench.until_stable(bench.tec.time.now + 20.0)
    assert bench.loop.facts() == ()


async def test_a_railed_current_is_a_fact() -> None:
    bench = Bench(20.0, Tuning(5.0, 4.4, 0.6))
    for _ in range(12):
        await bench.step()
    assert "is at its limit of 0.60 A" in str(bench.loop.facts()[0])


@pytest.mark.parametrize(
    ("override", "why"),
    [
        ({"state": TecState.ERROR, "error": 77}, "error 77"),
        ({"object_c": math.nan}, "thermistor"),
        ({"object_c": -80.0}, "thermistor"),
        ({"sink_c": 75.0}, "heat sink at 75.0"),
        ({"state": TecState.OFF}, "off although"),
    ],
)
async def test_diagnoses(override: dict[str, object], why: str) -> None:
    bench = Bench(30.0, KNOWN)
    await bench.step()
    bench.tec.frozen = replace(await bench.tec.read(), **override)  # type: ignore[arg-type]
    with pytest.raises(LoopFault, match=why):
        await bench.step()


async def test_an_error_while_identifying_takes_the_current_away() -> None:
    bench = Bench()
    await bench.step()
    bench.tec.frozen = replace(await bench.tec.read(), sink_c=90.0)
    with pytest.raises(LoopFault, match=r"heat sink at 90.0"):
        await bench.step()
    assert not bench.tec.plant.enabled


async def test_a_running_controller_keeps_its_integral() -> None:
    bench = Bench(30.0, KNOWN)
    await bench.settled()
    held = bench.tec.plant.current_a
    other = TecLoop(bench.tec, ThermalConfig(), bench.tec, tuning=KNOWN)
    await other.step(bench.tec.time.now)
    await bench.tec.sleep(0.3)
    assert bench.tec.plant.current_a == pytest.approx(held, abs=0.01)


async def test_waiting_has_an_end() -> None:
    tec = PlantTec(25.0)
    loop = TecLoop(tec, ThermalConfig(target_c=40.0), tec)
    with pytest.raises(LoopFault, match=r"not stable at 40.00 C after 5 s: 2\d"):
        await loop.wait_stable(tec.sleep, 5.0)
    tec = PlantTec(29.0)
    loop = TecLoop(tec, ThermalConfig(), tec)
    await loop.wait_stable(tec.sleep, 60.0)
    assert loop.stable
    assert ramped(25.0, 30.0, 0.5, 1.0) == 25.5
