"""The phase lock against the optical law: counts are drawn, the truth is the test's own."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from qmodd.control.phase_estimate import PhaseCounts
from qmodd.control.phase_lock import RECALIBRATE, Facts, PhaseLock, Sample, Stage
from qmodd.control.phase_types import PhaseLockConfig
from tests.control.fringe import RAD, Fibre, config, fibre

PILOT: dict[str, float | bool] = {
    "pilot": True,
    "period_s": 0.1,
    "dwell_s": 0.5,
    "fresh_s": 0.5,
    "pilot_offset_rad": 0.079,
}
FAST = {"walk": math.hypot(0.1, 0.3 * RAD * math.sqrt(2)) / math.sqrt(60), "slow": 3.5 * RAD, "ramp": 1 / 60}


def rms_deg(f: Fibre, after_s: float) -> float:
    e = np.array(f.errors[round(after_s / f.batch) :])
    return float(np.sqrt(np.mean(e**2))) / RAD


def locked(f: Fibre) -> bool:
    return f.lock.report(f.now).locked


def with_pilot(**kw: float) -> Fibre:
    return fibre(limits=PILOT, pilot=1e5, latency=0.1, **kw)


# holding


@pytest.mark.parametrize(
    ("rate", "batch", "seconds", "limit_deg"), [(46_837.0, 0.1, 300.0, 0.7), (150.0, 1.0, 3600.0, 1.9)]
)
def test_holds_the_phase_without_dither(rate: float, batch: float, seconds: float, limit_deg: float) -> None:
    f = fibre(rate=rate, batch=batch)
    f.run(seconds)
    assert rms_deg(f, 0.1 * seconds) < limit_deg
    report = f.lock.report(f.now)
    assert report.locked
    assert report.stage is Stage.LOCKED
    assert not report.dithering
    assert report.visibility > 0.93
    assert report.age_s <= 1.0
    assert 0.0 <= report.residual_rms_rad < 3.0 * RAD
    assert f.falsely == 0.0


def test_follows_a_fast_drift_that_it_was_not_told_of() -> None:
    f = fibre(rate=1e5, walk=FAST["walk"], slow=FAST["slow"], ramp=FAST["ramp"])
    f.run(200)
    assert rms_deg(f, 40) < 2.4
    assert locked(f)
    assert f.lock.report(f.now).drift_rad_per_s == pytest.approx(-1 / 60 * -1, abs=0.02)


def test_a_pilot_holds_a_fast_drift_within_a_degree() -> None:
    f = with_pilot(**FAST)
    f.run(120)
    assert rms_deg(f, 30) < 1.1
    assert locked(f)


def test_learns_a_pilot_offset_that_is_not_the_calibrated_one() -> None:
    f = fibre(limits={**PILOT, "pilot_offset_rad": 0.02}, pilot=1e5, latency=0.1)
    f.run(120)
    assert f.lock.tracker.filter.offset == pytest.approx(0.079, abs=0.01)
    assert abs(np.mean(f.errors[-600:])) < 0.5 * RAD


def test_a_pilot_that_contradicts_the_states_is_learnt_anew() -> None:
    f = with_pilot(walk=0.0, slow=0.0)
    f.run(20)
    f.xi = -0.079
    shift = 0.6
    true = f.pilots

    def shifted():  # type: ignore[no-untyped-def]
        f.theta += shift
        try:
            return true()
        finally:
            f.theta -= shift

    f.pilots = shifted  # type: ignore[method-assign]
    f.run(2)
    assert not locked(f)
    f.run(30)
    assert locked(f)
    assert abs(f.error()) < 2 * RAD
    assert f.lock.tracker.filter.offset == pytest.approx(0.679, abs=0.05)


def test_dithers_where_xi_is_too_small() -> None:
    f = fibre(xi=0.01, rate=20_000.0)
    f.run(400)
    report = f.lock.report(f.now)
    assert report.dithering
    assert report.locked
    assert math.sqrt(np.var(f.errors[600:]) - 0.08**2) / RAD < 1.5


# jumps


@pytest.mark.parametrize("start", [0.5, -1.2, 2.2, -2.8, 3.1])
def test_finds_the_phase_from_anywhere(start: float) -> None:
    f = fibre(theta=start)
    f.run(10)
    assert locked(f)
    assert abs(f.error()) < 0.1


@pytest.mark.parametrize("make", [fibre, with_pilot])
@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(jump=st.floats(0.25, 2 * math.pi - 0.25), phase=st.integers(0, 9), seed=st.integers(0, 1000))
def test_a_jump_of_any_size_is_noticed_within_a_period_and_made_good_within_five_seconds(
    make: Callable[..., Fibre], jump: float, phase: int, seed: int
) -> None:
    f = make(seed=seed)
    f.run(6)
    for _ in range(phase % round(f.period / f.batch)):
        f._sense()
    assert locked(f)
    f.theta += jump
    begin = f.now
    f.falsely = 0.0
    f.run(5.0, until=lambda: f.now - begin > f.period + 0.3 and locked(f))
    assert locked(f)
    assert abs(f.error()) < f.lock.config.error_limit
    assert f.falsely <= f.period + f.lock.config.dwell_s


def test_one_spoilt_batch_is_no_jump() -> None:
    f = fibre(walk=0.0, slow=0.0)
    f.run(10)
    before = f.heater
    f.theta += 1.0
    f._sense()
    f.theta -= 1.0
    f.run(3)
    assert abs(f.heater - before) < 0.05
    assert locked(f)


# wrap and rail


def test_hops_by_a_turn_at_the_end_of_the_range_and_does_not_come_back() -> None:
    f = fibre(walk=0.0, slow=0.3 * RAD, ramp=0.04)
    f.run(400)
    hops = [a.hop for a in f.actions if a.hop]
    assert f.lock.wraps == len(hops) >= 2
    assert len(set(hops)) == 1
    assert all(f.lock.config.low_rad <= a.phase_rad <= f.lock.config.high_rad for a in f.actions)
    f.ramp = 0.0
    f.run(10)
    assert locked(f)


def test_a_heater_at_its_rail_is_not_locked() -> None:
    f = fibre(limits={"low_rad": -0.4, "high_rad": 0.4}, walk=0.0, slow=0.0)
    f.run(10)
    assert locked(f)
    f.ramp = 0.05
    f.run(9)
    report = f.lock.report(f.now)
    assert not report.locked
    assert report.saturated
    assert "rail" in report.why


# no counts, wrong counts


@pytest.mark.parametrize("pilot", [False, True])
def test_light_that_goes_is_held_coasting_then_degraded_and_comes_back(pilot: bool) -> None:
    f = with_pilot(ramp=0.01, walk=1e-4, slow=0.0) if pilot else fibre(ramp=0.01, walk=1e-4, slow=0.0)
    f.run(60)
    begin, f.dead = f.heater, True
    f.falsely = 0.0
    f.run(8)
    report = f.lock.report(f.now)
    assert report.stage is Stage.HOLD
    assert not report.locked
    assert "light has gone" in report.why
    # It went on with the drift it knew: the phase is still there.
    assert f.heater - begin == pytest.approx(-0.08, abs=0.02)
    assert abs(f.error()) < 3 * RAD
    sigma = report.sigma_rad
    f.run(120)
    report = f.lock.report(f.now)
    assert report.sigma_rad > sigma
    assert report.stage in (Stage.HOLD, Stage.DEGRADED)
    f.run(600)
    assert f.lock.report(f.now).stage is Stage.DEGRADED
    assert "known to" in f.lock.report(f.now).why
    f.dead = False
    f.run(12)
    assert locked(f)
    assert f.falsely == 0.0


def test_no_batches_at_all_is_noticed_by_the_time_of_asking() -> None:
    f = fibre()
    f.run(10)
    assert locked(f)
    assert not f.lock.report(f.now + 1.6).locked
    assert "no counts for" in f.lock.report(f.now + 1.6).why
    f.run(3, deaf=True)
    assert f.lock.report(f.now).stage is Stage.HOLD


def test_less_light_that_still_makes_a_fringe_is_a_loss_and_not_a_cut() -> None:
    f = fibre()
    f.run(20)
    f.rate *= 0.1
    f.run(4)
    assert locked(f)
    f.dead = True
    f.run(1)
    assert not locked(f)


def test_less_light_with_another_phase_is_believed_in_the_end() -> None:
    f = fibre(walk=0.0, slow=0.0)
    f.run(20)
    f.rate *= 0.1
    f.theta += 1.5
    f.run(5)
    assert not locked(f)
    f.run(20)
    assert locked(f)


def test_a_silent_detector_is_not_taken_for_a_good_phase() -> None:
    for output in (0, 1):
        f = fibre()
        f.run(10)
        f.silent = output
        f.run(1)
        report = f.lock.report(f.now)
        assert not report.locked
        assert report.stage is Stage.HOLD
        assert f"DX{output}" in report.why
        f.silent = None
        f.run(5)
        assert locked(f)


@pytest.mark.parametrize("pilot", [False, True])
def test_exchanged_detectors_are_told_from_half_a_turn(pilot: bool) -> None:
    limits = {**(PILOT if pilot else {}), "efficiency_ratio": 0.94}
    f = fibre(limits=limits, ratio=0.94, pilot=1e5 if pilot else 0.0)
    f.run(20)
    f.falsely = 0.0
    f.theta += math.pi
    f.run(6)
    assert locked(f)
    f.swapped = True
    f.run(6)
    report = f.lock.report(f.now)
    assert report.stage is Stage.FAULT
    assert "exchanged" in report.latched
    assert not report.locked


def test_exchanged_detectors_of_equal_efficiency_cannot_be_told_and_are_half_a_turn() -> None:
    f = fibre()
    f.run(20)
    f.swapped = True
    f.run(1)
    assert "turned over" in f.lock.report(f.now).why or not locked(f)
    f.run(10)
    assert locked(f)


# facts


def test_temperature_actuator_lease_and_bias_end_a_lock_at_once() -> None:
    cases = (
        (Facts(temperature="too warm"), Stage.WARM_UP),
        (Facts(actuator="heaters draw 3 mA too much"), Stage.DEGRADED),
        (Facts(leased="output heater.phase is leased"), Stage.HOLD),
        (Facts(blind="detector DX0 has latched"), Stage.HOLD),
    )
    for facts, stage in cases:
        f = fibre()
        f.run(6)
        assert locked(f)
        heater = f.heater
        f.run(1, facts=facts)
        report = f.lock.report(f.now)
        assert report.stage is stage
        assert not report.locked
        assert next(t for t in (facts.temperature, facts.actuator, facts.leased, facts.blind) if t) == report.why
        if facts.leased or facts.actuator:
            assert f.heater == heater
        f.run(8)
        assert locked(f)


def test_a_heater_that_does_not_obey_is_never_locked_however_it_searches() -> None:
    f = fibre()
    f.run(10)
    f.stuck, f.heater, f.falsely = True, f.heater + 2.0, 0.0
    f.run(60)
    assert f.falsely <= 1.0
    assert f.lock.report(f.now).stage in (Stage.RELOCK, Stage.COARSE, Stage.DEGRADED)
    f.stuck = False
    f.run(30)
    assert locked(f)


# giving up


def test_a_fringe_that_is_gone_is_searched_asked_for_later_and_later_and_given_up_for_good() -> None:
    f = fibre(limits={"attempts_max": 2}, walk=0.0, slow=0.0)
    f.run(10)
    f.unmodulated, requests = True, []
    for _ in range(400):
        action = f.run(1.0)
        if action.request:
            assert action.request == RECALIBRATE
            requests.append(f.now)
        assert not locked(f) or f.now < 12
        if f.lock.latched:
            break
    assert len(requests) == 2
    assert requests[1] - requests[0] > 9.9
    report = f.lock.report(f.now)
    assert report.stage is Stage.FAULT
    assert "not found in 2 sweeps" in report.latched
    f.unmodulated = False
    f.run(20)
    assert f.lock.report(f.now).stage is Stage.FAULT
    f.lock.recalibrated(f.lock.config)
    f.run(5)
    assert f.lock.report(f.now).stage is Stage.FAULT, "only a person clears it"
    f.lock.clear_latch()
    f.run(10)
    assert locked(f)


def test_a_search_that_finds_the_place_goes_on_from_there() -> None:
    """The states' slope has another sign than was calibrated: the fine law runs away, the search does not need it."""
    f = fibre(walk=0.0, slow=0.0)
    f.run(10)
    f.unmodulated = True
    f.run(14)
    assert f.lock.report(f.now).stage is Stage.RELOCK
    f.unmodulated = False
    f.run(25)
    assert locked(f)
    assert f.lock.report(f.now).relocks == 1


def test_a_recalibrated_fringe_starts_anew_from_its_place() -> None:
    f = fibre()
    f.run(10)
    f.theta, f.heater = -0.5, 0.5
    f.lock.recalibrated(f.lock.config, 0.5)
    assert f.lock.report(f.now).stage is Stage.WARM_UP
    f.run(5)
    assert locked(f)


def test_configuration_is_checked() -> None:
    with pytest.raises(ValueError, match="outside"):
        PhaseLockConfig(0.1, 0.98, 0.5, 1.0)
    with pytest.raises(ValueError, match="must be positive"):
        config(dwell_s=0.0)


@settings(max_examples=30, deadline=None)
@given(
    steps=st.lists(
        st.tuples(st.integers(0, 3000), st.floats(0.0, 1.0), st.floats(0.0, 1.0), st.integers(0, 4)), max_size=60
    )
)
def test_whatever_the_counts_say_locked_keeps_its_promise(steps: list[tuple[int, float, float, int]]) -> None:
    """Any counts, any facts: the output stays in range, and locked means what it says."""
    lock, c = PhaseLock(config()), config()
    now = 0.0
    kinds = (Facts(), Facts(temperature="t"), Facts(actuator="a"), Facts(leased="l"), Facts(blind="b"))
    for n, e0, e1, kind in steps:
        now += 1.0
        facts = kinds[kind]
        counts = PhaseCounts(1.0, n, int(n * e0), n, int(n * e1))
        action = lock.update(now, [Sample(now - 1.2, now - 0.2, counts=counts)], facts)
        lock.applied(now, action.phase_rad)
        report = lock.report(now)
        assert c.low_rad <= action.phase_rad <= c.high_rad
        if report.locked:
            assert facts == Facts()
            assert abs(report.error_rad) <= c.error_limit
            assert report.visibility >= c.visibility_min
            assert report.sigma_rad <= c.error_limit
            assert not report.saturated
            assert report.age_s <= c.fresh_s
