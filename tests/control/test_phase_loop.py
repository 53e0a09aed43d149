"""The loop about the lock: heaters written, key guarded, ledger kept, faults snapshot; on fake heaters."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from typing import Any

import pytest

from qmodd.control import key_guard
from qmodd.control.ledger import LockLedger
from qmodd.control.phase_heater import PhaseHeater
from qmodd.control.phase_loop import HOP_BALANCED_S, PhaseLoop, Surroundings
from qmodd.control.phase_types import Stage
from tests.control.fringe import RAD, Fibre, config
from tests.control.heaters import FakeContext

P_PI = 0.036


@dataclass
class Bench:
    """A loop with the plant of `Fibre` behind it: `run` seconds of it."""

    ballast: bool = False
    limits: dict[str, float | bool] = field(default_factory=dict)
    plant: dict[str, float] = field(default_factory=dict)
    flags: list[tuple[str, str]] = field(default_factory=list)
    flagged: set[str] = field(default_factory=set)
    kept_out: list[float] = field(default_factory=list)
    told_w: list[float] = field(default_factory=list)
    events: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    slept: float = 0.0
    temperature: str = ""
    leased: str = ""
    blind: str = ""
    latched: str = ""

    def __post_init__(self) -> None:
        power = {"basis": 0.02, "split": 0.03, "phase": 0.045, "combine": 0.02}
        self.context = FakeContext(power | ({"ballast": 0.0} if self.ballast else {}))
        heater = PhaseHeater.of(self.context.typed, P_PI)
        chosen = config(low_rad=heater.low_rad, high_rad=heater.high_rad, **self.limits)
        ledger = LockLedger(None, str, lambda name, fields: self.events.append((name, dict(fields))))

        async def feed_forward(watts: float) -> None:
            self.told_w.append(watts)

        async def sleep(seconds: float) -> None:
            self.slept += seconds

        around = Surroundings(lambda: self.temperature, lambda: self.leased, lambda: self.blind, feed_forward)
        self.loop = PhaseLoop(chosen, heater, ledger, lambda: self.fibre.now, self, around, sleep, latched=self.latched)
        self.fibre = Fibre(self.loop.lock, **self.plant)  # type: ignore[arg-type]

    def flag_interval(self, reason: str, since_s: float = 0.0) -> None:
        self.flags.append(("+", reason))
        self.flagged.add(reason)

    def clear_flag(self, reason: str) -> None:
        self.flags.append(("-", reason))
        self.flagged.discard(reason)

    async def run(self, seconds: float) -> None:
        f = self.fibre
        for i in range(round(seconds / f.batch)):
            f._sense()
            arrived = [s for t, s in f._under_way if t <= f.now + 1e-9]
            f._under_way = [(t, s) for t, s in f._under_way if t > f.now + 1e-9]
            for sample in arrived:
                if sample.pilot is not None and self.loop.take_pilot(sample.pilot, sample.end_s):
                    self.kept_out.append(sample.end_s)
                if sample.counts is not None and sample.end_s not in self.kept_out:
                    self.loop.take_batch(sample.counts, sample.end_s)
            if (i + 1) % round(f.period / f.batch) == 0:
                await self.loop.step(f.now)
            moved = self.context.watts["phase"] - self.loop.heater.base_w["phase"]
            f.heater = moved / self.loop.heater.per_rad_w["phase"]

    @property
    def locked(self) -> bool:
        return self.loop.report().locked


PILOT: dict[str, float | bool] = {
    "pilot": True, "period_s": 0.1, "dwell_s": 0.5, "fresh_s": 0.5, "pilot_offset_rad": 0.079
}  # fmt: skip


async def test_locks_by_its_heaters_and_keeps_the_ledger() -> None:
    b = Bench()
    await b.loop.begin()
    await b.run(20)
    assert b.locked
    assert abs(b.fibre.error()) < 4 * RAD
    assert b.loop.report().power_w == pytest.approx(b.context.watts["phase"], abs=1e-5)
    assert not b.flagged
    b.fibre.theta += 2.0
    await b.run(6)
    assert b.locked
    assert [name for name, _ in b.events] == ["phase.lost", "phase.relocked"]
    assert b.loop.ledger.sums.losses == 1


@pytest.mark.parametrize("ballast", [True, False])
async def test_a_hop_is_flagged_for_as_long_as_it_takes(ballast: bool) -> None:
    b = Bench(ballast, PILOT, {"pilot": 1e5, "latency": 0.1, "ramp": 0.15, "walk": 0.0, "slow": 0.0})
    await b.loop.begin()
    await b.run(60)
    hops = [f for f in b.events if f[0] == "phase.wrap"]
    assert len(hops) == b.loop.lock.wraps >= 1
    assert ("+", key_guard.HOP) in b.flags
    assert ("-", key_guard.HOP) in b.flags
    assert all(fields["balanced"] is ballast for _, fields in hops)
    if ballast:
        assert not b.told_w
        assert b.slept == pytest.approx(HOP_BALANCED_S * len(hops))
        assert sum(b.context.watts.values()) == pytest.approx(0.045 + 0.065 + 0.07, abs=1e-3)
    else:
        assert abs(b.told_w[0]) == pytest.approx(2 * P_PI, rel=0.02)


async def test_what_is_kept_out_does_not_depend_on_x_errors() -> None:
    """Two runs whose X counts differ, but in which the heaters, pilots and facts are the same: the same flags."""
    out = []
    for spoilt in (False, True):
        b = Bench(limits=PILOT, plant={"pilot": 1e5, "latency": 0.1, "walk": 0.0, "slow": 0.0})
        await b.loop.begin()
        await b.run(5)
        b.context.broken = True  # nothing moves from here on
        b.fibre.unmodulated = spoilt
        b.flags.clear()
        await b.run(2)
        b.fibre.theta += 0.5
        await b.run(2)
        out.append((list(b.flags), [round(t, 3) for t in b.kept_out]))
        assert not b.locked
    flags, kept_out = out[0]
    assert ("+", key_guard.ACTUATOR) in flags
    assert len(kept_out) >= 15
    assert abs(len(kept_out) - len(out[1][1])) <= 1, "the pilots of the two runs differ by their noise only"
    assert flags == out[1][0]


async def test_a_pilot_that_keeps_its_batches_out_finds_the_way_alone() -> None:
    for jump in (0.6, 1.2, 2.4, -2.0):
        b = Bench(limits=PILOT, plant={"pilot": 1e5, "latency": 0.1})
        await b.loop.begin()
        await b.run(5)
        assert b.locked
        b.fibre.theta += jump
        await b.run(5)
        assert b.locked
        assert abs(b.fibre.error()) < 4 * RAD
        assert b.kept_out


async def test_bad_x_errors_without_a_pilot_flag_nothing() -> None:
    b = Bench()
    await b.loop.begin()
    await b.run(10)
    b.flags.clear()
    b.context.watts["phase"] += 0.0
    b.fibre.silent = 0
    await b.run(5)
    assert not b.locked
    assert not b.flags


async def test_facts_hold_it_and_keep_out_what_they_must() -> None:
    b = Bench()
    await b.loop.begin()
    await b.run(10)
    for name, reason, stage in (
        ("temperature", key_guard.TEMPERATURE, Stage.WARM_UP),
        ("leased", None, Stage.HOLD),
        ("blind", key_guard.BIAS, Stage.HOLD),
    ):
        writes = b.context.writes
        setattr(b, name, "a reason")
        await b.run(1)
        assert b.loop.report().stage is stage
        assert (reason in b.flagged) is (reason is not None)
        if name != "blind":
            assert b.context.writes == writes
        setattr(b, name, "")
        await b.run(6)
        assert b.locked
        assert not b.flagged


async def test_a_write_that_fails_and_a_source_that_does_not_obey_are_facts() -> None:
    b = Bench()
    await b.loop.begin()
    await b.run(10)
    b.context.broken = True
    await b.run(2)
    report = b.loop.report()
    assert report.stage is Stage.DEGRADED
    assert "no answer" in report.why
    assert key_guard.ACTUATOR in b.flagged
    b.context.broken = False
    b.context.stuck_a = 0.011
    await b.run(3)
    assert not b.locked
    assert "heaters draw" in b.loop.report().why
    b.context.stuck_a = 0.0
    await b.run(8)
    assert b.locked


async def test_giving_up_is_latched_with_a_snapshot_and_cleared_by_command_only() -> None:
    b = Bench(limits={"attempts_max": 0}, plant={"walk": 0.0, "slow": 0.0})
    await b.loop.begin()
    await b.run(6)
    b.fibre.unmodulated = True
    for _ in range(60):
        await b.run(1)
        if b.loop.lock.latched:
            break
    assert b.loop.report().stage is Stage.FAULT
    snapshot = json.loads(json.dumps(b.loop.snapshot(), default=str))
    assert "not found" in snapshot["why"]
    assert snapshot["history"][-1]["stage"] == "fault"
    assert len(snapshot["counts"]) > 20
    assert set(snapshot["heater_w"]) == {"phase"}
    assert [e for e, _ in b.events].count("phase.fault") == 1
    b.fibre.unmodulated = False
    await b.run(5)
    assert b.loop.report().stage is Stage.FAULT
    b.loop.lock.clear_latch()
    await b.run(8)
    assert b.locked


async def test_a_latch_from_before_a_restart_holds() -> None:
    b = Bench(latched="not found in 6 sweeps")
    await b.loop.begin()
    await b.run(5)
    assert b.loop.report().stage is Stage.FAULT
    assert b.loop.report().latched
    assert not [e for e, _ in b.events if e == "phase.fault"], "it was counted when it happened"


async def test_rest_recalibration_and_going_back() -> None:
    b = Bench()
    await b.loop.begin()
    await b.run(10)
    here = b.loop.report().phase_rad
    b.loop.rest()
    b.context.watts["phase"] = 0.02
    await b.loop.back()
    assert b.context.watts["phase"] == pytest.approx(b.loop.heater.powers(here)["phase"], abs=1e-5)
    await b.run(6)
    assert b.locked
    b.loop.reconfigured(b.loop.config)
    assert b.loop.report().stage is Stage.WARM_UP
    await b.run(6)
    assert b.locked
    b.context.watts["phase"] = 0.05
    heater = PhaseHeater.of(b.context.typed, P_PI)
    b.fibre.theta = 0.3
    await b.loop.recalibrated(config(low_rad=heater.low_rad, high_rad=heater.high_rad), heater)
    await b.run(8)
    assert b.locked
    assert b.loop.take_request() is None


async def test_requests_wait_until_they_are_taken() -> None:
    b = Bench(plant={"walk": 0.0, "slow": 0.0})
    await b.loop.begin()
    await b.run(6)
    b.fibre.unmodulated = True
    await b.run(60)
    assert b.loop.take_request() == "recalibrate_fringe"
    assert b.loop.take_request() is None
    assert math.isfinite(b.loop.report().error_rad)
