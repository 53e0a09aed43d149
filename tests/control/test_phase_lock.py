"""The phase lock against the optical law: counts are drawn, the truth is the test's own."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

import numpy as np
import pytest

from qmodd.control.phase_estimate import PhaseCounts, PhaseModel, from_dither, from_states
from qmodd.control.phase_lock import Action, PhaseLock, PhaseLockConfig, Stage

RAD = math.pi / 180
P_PI, V, FLOOR = 0.040, 0.985, 0.004


@dataclass
class Fibre:
    """Matched X counts at `rate` a second; `theta` is what drifts, rad; the heater adds to it."""

    lock: PhaseLock
    rate: float = 5000.0
    xi: float = -0.079
    theta: float = 0.0
    walk: float = 0.3 * RAD
    mk: float = 0.7 * RAD
    step: float = 1.0
    seed: int = 1
    now: float = 0.0
    dead: bool = False
    errors: list[float] = field(default_factory=list)
    actions: list[Action] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.rng = np.random.default_rng(self.seed)
        self.power = self.reference = self.lock.report().power_w
        self.slow = np.zeros(2)

    def error(self) -> float:
        e = self.theta + self.slow[0] - self.slow[1] + math.pi * (self.power - self.reference) / P_PI
        return float((e + math.pi) % (2 * math.pi) - math.pi)

    def counts(self) -> PhaseCounts:
        n = self.rng.poisson(self.rate * self.step / 2, 2) * (not self.dead)
        e = [FLOOR + (1 - 2 * FLOOR) * (1 - V * math.cos(self.error() + s * self.xi)) / 2 for s in (-1, 1)]
        wrong = [int(self.rng.binomial(n[k], e[k])) for k in (0, 1)]
        return PhaseCounts(self.step, int(n[0]), wrong[0], int(n[1]), wrong[1])

    def run(self, seconds: float, **kw: bool) -> Action:
        keep = math.exp(-self.step / 30)
        action = self.actions[-1] if self.actions else Action(self.power)
        for _ in range(round(seconds / self.step)):
            self.slow = self.slow * keep + self.rng.normal(size=2) * self.mk * math.sqrt(1 - keep**2)
            self.theta += self.rng.normal() * self.walk * math.sqrt(2 * self.step / 60)
            self.errors.append(self.error())
            self.now += self.step
            action = self.lock.update(self.now, self.counts(), **kw)
            self.power = action.power_w
            self.actions.append(action)
        return action


def fibre(xi: float = -0.079, start: float = 0.045, **kw: float) -> Fibre:
    return Fibre(PhaseLock(PhaseLockConfig(P_PI, xi, V), start), xi=xi, **kw)  # type: ignore[arg-type]


@pytest.mark.parametrize(("rate", "step", "limit_deg"), [(46_837.0, 1.0, 0.7), (150.0, 10.0, 2.0)])
def test_holds_the_phase_without_dither(rate: float, step: float, limit_deg: float) -> None:
    f = fibre(rate=rate, step=step)
    f.run(1800)
    assert np.std(f.errors[20:]) / RAD < limit_deg
    report = f.lock.report()
    assert report.locked
    assert report.stage is Stage.LOCKED
    assert not report.dithering
    assert report.visibility > 0.93
    assert all(a.flag is None for a in f.actions)


def test_dithers_where_xi_is_too_small() -> None:
    f = fibre(xi=0.01, rate=20_000.0)
    f.run(900)
    report = f.lock.report()
    assert report.dithering
    assert report.locked
    assert np.sqrt(np.var(f.errors[60:]) - 0.08**2) / RAD < 1.5


@pytest.mark.parametrize("start", [0.5, -1.2, 2.2, -2.8, 3.1])
def test_finds_the_phase_from_anywhere(start: float) -> None:
    f = fibre(theta=start)
    f.run(60)
    assert f.lock.report().locked
    assert abs(f.error()) < 0.1


@pytest.mark.parametrize("seed", range(8))
def test_a_jump_is_noticed_at_once_and_followed(seed: int) -> None:
    f = fibre(seed=seed)
    f.run(60)
    assert f.lock.report().locked
    f.theta += np.random.default_rng(seed).uniform(0.5, 2 * math.pi - 0.5)
    f.run(2)
    assert not f.lock.report().locked
    f.run(40)
    assert f.lock.report().locked


def test_wraps_by_two_p_pi_and_flags_it() -> None:
    f = fibre(walk=0.0, mk=0.0)
    f.run(20)
    for _ in range(120):
        f.theta += 0.08
        f.run(1)
    assert f.lock.report().wraps >= 1
    assert any(a.flag == "wrap by 2 P_pi" for a in f.actions)
    assert all(0.0 <= a.power_w <= 0.110 for a in f.actions)
    f.run(15)
    assert f.lock.report().locked


def test_a_railed_heater_is_not_locked() -> None:
    lock = PhaseLock(PhaseLockConfig(P_PI, -0.079, V, low_w=0.04, high_w=0.05), 0.045)
    f = Fibre(lock, walk=0.0, mk=0.0)
    f.run(20)
    for _ in range(30):
        f.theta += 0.05
        f.run(1)
    report = lock.report()
    assert not report.locked
    assert report.saturated
    assert "rail" in report.why


def test_no_counts_hold_then_degraded_and_back() -> None:
    f = fibre()
    f.run(30)
    power = f.power
    f.dead = True
    f.run(8)
    assert f.lock.report().stage is Stage.HOLD
    assert not f.lock.report().locked
    assert f.power == power
    f.run(70)
    assert f.lock.report().stage is Stage.DEGRADED
    assert "no counts" in f.lock.report().why
    f.dead = False
    f.run(40)
    assert f.lock.report().locked


def test_stale_counts_are_never_locked() -> None:
    f = fibre()
    f.run(30)
    f.run(1, fresh=False)
    assert not f.lock.report().locked
    f.run(4)
    assert f.lock.report().locked


def test_warm_up_and_a_lost_actuator() -> None:
    f = fibre()
    f.run(3, ready=False)
    assert f.lock.report().stage is Stage.WARM_UP
    f.run(20)
    action = f.run(1, actuator_ok=False)
    assert action.flag == "heater not under control"
    assert not f.lock.report().locked


def test_a_fringe_that_is_gone_asks_for_a_sweep_backs_off_and_ends_in_a_latched_fault() -> None:
    f = fibre()
    f.run(30)
    f.lock.config = replace(f.lock.config, attempts_max=2)
    blind = PhaseCounts(1.0, 2500, 1250, 2500, 1250)
    requests = []
    for _ in range(400):
        f.now += 1.0
        action = f.lock.update(f.now, blind)
        if action.request:
            requests.append(f.now)
            f.lock.recalibrated(f.lock.config, 0.045)
        assert not f.lock.report().locked
    assert len(requests) == 2
    assert requests[1] - requests[0] > 10
    assert f.lock.report().stage is Stage.FAULT
    assert "not found" in f.lock.report().why
    assert any(f.lock.update(f.now + k, f.counts()).stage is Stage.FAULT for k in (1, 2))
    f.lock.recalibrated(f.lock.config, f.power)
    f.theta = 0.0
    f.run(30)
    assert f.lock.report().locked


def test_estimators_recover_the_error_with_its_sign_and_variance() -> None:
    rng = np.random.default_rng(7)
    model = PhaseModel(V, 0.09)
    found, variance = [], []
    for _ in range(300):
        e = [(1 - V * math.cos(0.1 + s * 0.09)) / 2 for s in (-1, 1)]
        n = PhaseCounts(1.0, 4000, int(rng.binomial(4000, e[0])), 4000, int(rng.binomial(4000, e[1])))
        est = from_states(n, model)
        found.append(est.error)
        variance.append(est.variance)
    assert np.mean(found) == pytest.approx(0.1, abs=0.01)
    assert np.std(found) == pytest.approx(math.sqrt(np.mean(variance)), rel=0.15)
    plus = PhaseCounts(1.0, 5000, 115, 5000, 115)
    minus = PhaseCounts(1.0, 5000, 40, 5000, 40)
    assert from_dither(plus, minus, 0.08, PhaseModel(V, 0.0)).error > 0.1
    for bad in (
        lambda: from_states(PhaseCounts(1, 0, 0, 5, 1), model),
        lambda: from_dither(plus, PhaseCounts(1, 0, 0, 0, 0), 0.08, model),
    ):
        with pytest.raises(ValueError, match="needs counts"):
            bad()


def test_counts_of_a_batch() -> None:
    class Batch:
        n_x0, e_x0, n_x1, e_x1 = (10, 5), (1, 0), (11, 6), (0, 2)

    counts = PhaseCounts.of(Batch(), 0.1)
    assert counts == PhaseCounts(0.1, 15, 1, 17, 2)
    assert PhaseCounts(1.0, 0, 0, 0, 0).visibility == 0.0
