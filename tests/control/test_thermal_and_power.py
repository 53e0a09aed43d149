from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from calibration.graph import bring_up
from calibration.procedures import alice_graph
from drivers.roles import LightMode, TecReading, TecState
from qmodd.control.loop import LoopFault
from qmodd.control.power import (
    CarverNullLoop,
    LaserPowerLoop,
    MeanPhotonLoop,
    StateBiasTrim,
    bias_error,
    expected_average,
    trim_step,
)
from qmodd.control.thermal import TecLoop, ThermalConfig, ramped
from tests.calibration.fakes import FakeAlice, FakeTime


class Tec:
    """First order, 2 s; reversed with `sign` -1."""

    def __init__(self, time: FakeTime, start: float = 25.0, sign: float = 1.0) -> None:
        self.time, self.object, self.target, self.sign = time, start, start, sign
        self.on, self.last, self.writes = False, 0.0, 0
        self.override: dict[str, object] = {}

    async def read(self) -> TecReading:
        dt, self.last = self.time.now - self.last, self.time.now
        if self.on:
            gap = self.target - self.object
            self.object += gap * (1 - math.exp(-dt / 2)) if self.sign > 0 else -0.5 * dt
        near = abs(self.target - self.object) < 0.01
        state = TecState.OFF if not self.on else TecState.STABLE if near else TecState.NOT_STABLE
        current = 0.1 if near else 2.0
        reading = TecReading(self.object, 27.0, self.target, self.target, current, 0.5, state)
        return replace(reading, **self.override)  # type: ignore[arg-type]

    async def set_target(self, celsius: float) -> None:
        self.target = celsius
        self.writes += 1

    async def set_gains(self, kp_a_per_k: float, ti_s: float, td_s: float = 0.0) -> None: ...
    async def set_current_limit(self, amperes: float) -> None: ...

    async def enable(self, on: bool) -> None:
        self.on = on


async def test_tec_ramps_to_its_target_and_says_when_it_is_stable() -> None:
    time = FakeTime()
    tec = Tec(time)
    loop = TecLoop(tec, ThermalConfig(), time)
    assert not loop.stable
    await loop.wait_stable(time.sleep, 120.0)
    assert loop.stable
    assert tec.target == pytest.approx(30.0)
    assert 10 < time.now < 60
    writes = tec.writes
    await loop.step(time.now + 1)
    assert tec.writes == writes
    assert ramped(25.0, 30.0, 0.5, 1.0) == 25.5


async def test_heater_sum_feeds_forward() -> None:
    time, power = FakeTime(), [0.1]
    tec = Tec(time, 30.0)
    loop = TecLoop(tec, ThermalConfig(feed_forward_k_per_w=1.0, reference_w=0.1), time, lambda: power[0])
    await loop.wait_stable(time.sleep, 60.0)
    power[0] = 0.14
    await time.sleep(1.0)
    await loop.step(time.now)
    assert tec.target == pytest.approx(30.0 - 0.04)


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
async def test_tec_diagnoses(override: dict[str, object], why: str) -> None:
    time = FakeTime()
    tec = Tec(time)
    loop = TecLoop(tec, ThermalConfig(), time)
    await loop.start()
    tec.override = override
    with pytest.raises(LoopFault, match=why):
        await loop.step(1.0)


async def test_a_reversed_peltier_is_named_and_a_slow_one_times_out() -> None:
    time = FakeTime()
    loop = TecLoop(Tec(time, sign=-1.0), ThermalConfig(), time)
    with pytest.raises(LoopFault, match="reversed"):
        await loop.wait_stable(time.sleep, 120.0)
    time = FakeTime()
    loop = TecLoop(Tec(time), ThermalConfig(target_c=40.0), time)
    with pytest.raises(LoopFault, match=r"not stable at 40.00 C after 5 s: 2\d"):
        await loop.wait_stable(time.sleep, 5.0)


# ------------------------------------------------------------ light


async def steps(loop: LaserPowerLoop | CarverNullLoop, n: int, before: Callable[[], None] = lambda: None) -> None:
    for _ in range(n):
        before()
        await loop.step(0.0)


async def pushes(trim: StateBiasTrim, n: int) -> None:
    for _ in range(n):
        await trim.add(20_000, 40_000)


async def calibrated(seed: int = 1) -> tuple[FakeAlice, object]:
    a = FakeAlice(seed)
    context = a.context()
    await bring_up(alice_graph(), context)
    await a.source.set_mode(LightMode.FIX, 0, 0)
    return a, context


async def test_mean_photon_loop_takes_a_change_of_light_out() -> None:
    a, context = await calibrated()
    record = context.record("mean_photon")  # type: ignore[attr-defined]
    # FIX Z0 signal stands for an average over classes that happens to be Z0 signal only.
    flat = {k: record.value["i_z0_signal_a"] for k in record.value if k.startswith("i_")}
    context.store.append(record.model_copy(update={"value": record.value | flat}))  # type: ignore[attr-defined]
    on = [True]
    loop = MeanPhotonLoop(context, lambda: on[0], lambda: (0.25, 0.5))  # type: ignore[arg-type]
    wanted = record.value["voa_db"]
    a.heaters.phi0[0] += 0.6  # the filter loses light
    for _ in range(30):
        await loop.step(0.0)
    lost = (await context.photocurrents("pa3"))["pa3"] / record.value["i_z0_signal_a"]  # type: ignore[attr-defined]
    assert loop.trim_db == pytest.approx(10 * math.log10(lost), abs=0.05)
    assert context.factory.voa.attenuation(a.biases.volts["voa"]) == pytest.approx(wanted + loop.trim_db, abs=0.01)  # type: ignore[attr-defined]
    assert abs(loop.relative_error) < 0.01
    on[0] = False
    await loop.step(0.0)
    on[0] = True
    a.heaters.phi0[0] += 0.9
    with pytest.raises(LoopFault, match="cannot be held"):
        await loop.step(0.0)
    a.laser.emitting = False
    with pytest.raises(LoopFault, match="pa3 sees"):
        await loop.step(0.0)


def test_expected_average_and_trim() -> None:
    class Values:
        value = {f"i_{s}_{k}_a": (1.0 if k == "signal" else 0.25) * (2.0 if s[0] == "x" else 1.0)
                 for s in ("z0", "z1", "x0", "x1") for k in ("signal", "decoy")}  # fmt: skip

    assert expected_average(Values(), 0.25, 0.5) == pytest.approx((0.75 + 0.25 * 2) * 0.625)  # type: ignore[arg-type]
    trim, railed = trim_step(2.0, 1.0, 0.0, 1.0, 1.0)
    assert (trim, railed) == (1.0, True)


async def test_laser_loop_trims_and_tells() -> None:
    a, context = await calibrated()
    on = [True]
    loop = LaserPowerLoop(context, lambda: on[0])  # type: ignore[arg-type]
    await loop.step(0.0)
    a.laser.power = 0.0
    original = a.powers
    a.powers = lambda: {k: 0.97 * v for k, v in original().items()}  # type: ignore[method-assign]
    await loop.step(0.0)
    assert loop.trim_db > 0.02
    assert a.laser.power == pytest.approx(13.0 + loop.trim_db)
    with pytest.raises(LoopFault, match="cannot be held"):
        await steps(loop, 20)
    a.dead = frozenset({"pa6"})
    with pytest.raises(LoopFault, match="pa6 sees"):
        await loop.step(0.0)
    a.laser.emitting = False
    with pytest.raises(LoopFault, match="does not emit"):
        await loop.step(0.0)
    on[0] = False
    await loop.step(0.0)


async def test_carver_null_follows_a_drifting_bias() -> None:
    a, context = await calibrated(2)
    on = [True]
    loop = CarverNullLoop(context, lambda: on[0])  # type: ignore[arg-type]
    for _ in range(60):
        a.v0["carver"] += 0.005
        await loop.step(0.0)
    assert abs(np.degrees(a.bias("carver"))) < 1.5
    with pytest.raises(LoopFault, match="the null has moved"):
        await steps(loop, 400, lambda: a.v0.update(carver=a.v0["carver"] + 0.01))
    on[0] = False
    await loop.step(0.0)


@pytest.mark.parametrize("degrees", [-20.0, -3.0, 0.0, 5.0, 30.0])
def test_bias_error_law(degrees: float) -> None:
    d, a = math.radians(degrees), math.radians(5.4)

    def light(x: float) -> float:
        return 0.02 + 1.7 * (1 - math.cos(x)) / 2

    assert bias_error(light(d + a), light(d - a), light(d), a) == pytest.approx(d)
    with pytest.raises(ValueError, match="no minimum"):
        bias_error(0.9, 0.9, 1.0, a)


async def test_state_bias_follows_the_public_counts() -> None:
    rng = np.random.default_rng(3)
    v_pi, null, truth, written = 4.0, 1.0, 1.0, list[float]()

    async def write(volts: float) -> None:
        written.append(volts)

    trim = StateBiasTrim(math.pi / v_pi, null, write)
    for _ in range(400):
        d = math.pi * (trim.volts - truth) / v_pi
        # The detectors of X0 and X1 differ by 10 %: the reference takes that out.
        await trim.add(int(rng.poisson(6000 * 1.1 * (1 + math.sin(d)))), int(rng.poisson(6000)))
        truth += 0.0005
    assert trim.volts == pytest.approx(truth, abs=0.05)
    assert written
    trim.volts = null + 0.59
    with pytest.raises(LoopFault, match="state modulator"):
        await pushes(trim, 50)
