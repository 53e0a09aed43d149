"""The transmitter's look at its own states inside a run."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import pytest

from drivers.errors import Refused
from drivers.roles import LightMode
from qmodd.control.facts import Railed
from qmodd.control.modulators import DecoyLock
from qmodd.control.probe import WINDOWS, DecoyLaw, SourceProbe, StateLaw
from tests.control.light import RATIO, Keying

PERIOD_S = 8e-9


class Scheduled:
    """A source that follows a plan by slot, on a clock that sleeping moves."""

    period_ps = 8000.0

    def __init__(self, light: Keying) -> None:
        self.light, self.t, self.run_id = light, 0.0, 1
        self.plan: list[tuple[int, LightMode, int, int]] = []
        self.said: list[tuple[str, int | None]] = []
        self.late_s = 0.0

    def slot(self) -> int:
        return round(self.t / PERIOD_S)

    async def sleep(self, seconds: float) -> None:
        self.t += seconds + self.late_s
        self.follow()

    def follow(self) -> None:
        for _, mode, state, intensity in [p for p in self.plan if p[0] <= self.slot()][-1:]:
            s = self.light.source
            s.mode, s.state, s.intensity = mode, state, intensity

    async def now(self) -> tuple[int, int]:
        return self.run_id, self.slot()

    async def set_mode(self, mode: LightMode, state: int = 0, intensity: int = 0, at_slot: int | None = None) -> None:
        self.said.append((mode.name, at_slot))
        if at_slot is None:
            self.plan = [(self.slot(), mode, state, intensity)]
            self.follow()
            return
        if (at_slot - self.slot()) * PERIOD_S < 0.2:
            raise Refused("-222 lead less than 0.2 s")
        self.plan.append((at_slot, mode, state, intensity))


class Clock:
    def __init__(self, source: Scheduled) -> None:
        self._source = source

    def monotonic(self) -> float:
        return self._source.t


class Bench:
    """A transmitter that makes keys, and its probe."""

    def __init__(self, noise: float = 1e-4) -> None:
        self.light = Keying(2, noise=noise)
        self.light.source.mode = LightMode.KEY
        self.source = Scheduled(self.light)
        context: Any = self.light.context_
        context.source, context.sleep, context.clock = self.source, self.source.sleep, Clock(self.source)
        self.active = True
        decoy, state = context.record("decoy").value, context.record("state_trim").value
        share = 0.5 * RATIO
        seen = self.light.powers()

        async def write_decoy(volts: float) -> None:
            await self.light.biases.set_voltage("decoy", volts)

        async def write_state(volts: float) -> None:
            await self.light.biases.set_voltage("state", volts)

        self.lock = DecoyLock(
            context,
            lambda: self.active and not self.probe.probing,
            seen["pa3"] / seen["pa0"],
            share / (0.5 + share),
            decoy["ratio_slope_per_v"],
            decoy["peak_v"],
            write_decoy,
        )
        self.probe = SourceProbe(
            context,
            lambda: self.active,
            StateLaw(state["null_slope_per_v"], state["null_v"]),
            DecoyLaw(decoy["ratio"], decoy["background"]),
            self.lock,
            write_state,
        )


async def test_a_drifted_state_bias_is_seen_with_its_sign_and_taken_back() -> None:
    for degrees in (2.0, -2.0):
        bench = Bench()
        bench.light.v0["state"] -= math.radians(degrees) / math.pi * bench.light.v_pi["state"]
        assert math.degrees(bench.light.bias("state")) == pytest.approx(degrees, abs=0.01)
        await bench.probe.step(0.0)
        assert math.degrees(bench.probe.state_error) == pytest.approx(degrees, abs=0.15)
        await bench.probe.step(30.0)
        assert abs(math.degrees(bench.light.bias("state"))) < 0.15
        assert (bench.probe.looks, bench.probe.missed) == (2, 0)


async def test_every_window_is_planned_by_slot_and_keys_follow() -> None:
    bench = Bench()
    await bench.probe.step(0.0)
    assert [name for name, _ in bench.source.said] == ["FIX"] * len(WINDOWS) + ["KEY"]
    starts = [at for _, at in bench.source.said]
    assert all(at is not None for at in starts)
    assert {b - a for a, b in pairwise(starts)} == {round(0.06 / PERIOD_S)}  # type: ignore[operator]
    assert bench.light.source.mode is LightMode.KEY, "it ends when keys are sent again"
    assert not bench.probe.probing


async def test_a_mean_that_lies_is_put_right_by_the_ratio_itself() -> None:
    """What moves the mean without the decoy fools the lock; the probe's ratio corrects what the mean stands for."""
    bench = Bench()
    bench.lock.expected *= 1.006
    wanted = bench.light.context_.record("decoy").value["ratio"]
    for k in range(40):
        await bench.lock.step(float(k))
    assert abs(bench.light.true_ratio() / wanted - 1.0) > 0.015
    for k in range(40, 160):
        await bench.lock.step(float(k))
        if k % 30 == 0:
            await bench.probe.step(float(k))
    assert abs(bench.light.true_ratio() / wanted - 1.0) < 0.003


async def test_the_end_of_a_run_in_between_leaves_nothing_planned_and_nothing_moved() -> None:
    bench = Bench()
    before = bench.light.biases.volts["state"]
    bench.active = False
    await bench.probe.step(0.0)
    assert bench.source.said == []
    bench.active = True
    set_mode = bench.source.set_mode

    async def ends(*args: Any, **more: Any) -> None:
        await set_mode(*args, **more)
        bench.active = False

    bench.source.set_mode = ends  # type: ignore[method-assign]
    await bench.probe.step(1.0)
    assert bench.source.plan == [(bench.source.slot(), LightMode.OFF, 0, 0)]
    assert (bench.probe.looks, bench.probe.missed) == (0, 1)
    assert bench.light.biases.volts["state"] == before


async def test_a_reading_that_comes_too_late_is_not_used() -> None:
    bench = Bench()
    bench.source.late_s = 0.05
    await bench.probe.step(0.0)
    assert (bench.probe.looks, bench.probe.missed) == (0, 1)


async def test_a_slow_bus_ends_in_keys_not_in_a_half_made_plan() -> None:
    bench = Bench()
    set_mode = bench.source.set_mode

    async def slow(*args: Any, **more: Any) -> None:
        bench.source.t += 0.2
        await set_mode(*args, **more)

    bench.source.set_mode = slow  # type: ignore[method-assign]
    await bench.probe.step(0.0)
    assert [p[1] for p in bench.source.plan] == [LightMode.KEY]
    assert bench.probe.missed == 1


async def test_a_bias_beyond_its_range_is_told() -> None:
    bench = Bench()
    bench.light.v0["state"] += 0.3
    with pytest.raises(Railed, match=r"state modulator: bias moved \+0\.\d\d V, 0\.6 V is the limit"):
        for k in range(20):
            bench.light.v0["state"] += 0.1
            await bench.probe.step(float(k))
