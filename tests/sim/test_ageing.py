"""Ageing stays inside the ranges of the reference pair A7, goes on with time, and does nothing at 0 hours."""

from __future__ import annotations

import math

import numpy as np
import pytest

from sim.ageing import FULL_AGE_H, MOST_SINK, aged_alice, aged_bob, aged_share, aged_sink
from sim.individuals import draw_alice, draw_bob, factory_record
from sim.physics.heaters import AGEING_S
from sim.scenario import Scenario, ScenarioError
from tests.sim.tuned import Pair

SEEDS = range(100)


def test_new_modules_are_as_drawn() -> None:
    a, b = draw_alice(3), draw_bob(3)
    assert aged_alice(a, 0.0, 3) is a
    assert aged_bob(b, 0.0, 3) is b
    assert aged_sink(0.0, 3, "alice") == 1.0
    assert (aged_share(0.0), aged_share(FULL_AGE_H)) == (0.0, 1.0)


@pytest.mark.parametrize("hours", [1000.0, FULL_AGE_H])
def test_old_modules_are_within_specification(hours: float) -> None:
    for seed in SEEDS:
        a, b = aged_alice(draw_alice(seed), hours, seed), aged_bob(draw_bob(seed), hours, seed)
        assert 0.9 <= a.long_db <= 1.6
        assert -0.1 <= a.laser_offset_db <= 0.1
        assert 6.4 <= a.before_amzi_db <= 8.2
        assert 2.6 <= a.state_db <= 3.8
        assert 2.4 <= a.decoy_db <= 3.6
        assert 2.0 <= b.common_db <= 3.2
        assert 0.2 <= b.z_db <= 0.5
        assert 0.4 <= b.x_db <= 0.9
        assert 0.9 <= b.long_db <= 1.6
        assert np.all((b.efficiency >= 0.75) & (b.efficiency <= 0.88))
        assert np.all(b.darks <= 100.0 * math.exp(1.5) + 1e-9)
        for m in (a.monitors, b.monitors):
            wired = m.tap > 0.0
            assert np.all((m.dark[wired] >= 1.5e-10) & (m.dark[wired] <= 4e-10))
            assert not m.dark[~wired].any()
        assert 0.85 <= b.diode.threshold_v <= 1.15
        assert 0.19e-3 <= b.diode.slope_w_per_v <= 0.31e-3
        assert 1.0 <= aged_sink(hours, seed, "bob") <= 1.0 + MOST_SINK


def test_each_part_ages_by_itself_and_more_with_time() -> None:
    new = draw_bob(4)
    young, old = (aged_bob(new, hours, 4) for hours in (500.0, 50_000.0))
    assert new.common_db < young.common_db < old.common_db
    assert np.all(new.efficiency > young.efficiency)
    assert np.all(young.efficiency > old.efficiency)
    assert np.all(old.darks > new.darks)
    way = (old.efficiency - new.efficiency) / (0.75 - new.efficiency)
    assert len(set(way.tolist())) == 3
    assert old.serial == new.serial
    np.testing.assert_array_equal(old.switch_a, new.switch_a)


def test_the_factory_record_is_that_of_the_new_module() -> None:
    for seed in range(10):
        a, b = draw_alice(seed), draw_bob(seed)
        assert factory_record(aged_alice(a, FULL_AGE_H, seed), seed) == factory_record(a, seed)
        assert factory_record(aged_bob(b, FULL_AGE_H, seed), seed) == factory_record(b, seed)


def test_heaters_of_an_old_module_have_drifted_by_their_law() -> None:
    """Also where the drifts are off: those are of the time in the emulator."""
    zero = dict.fromkeys(Scenario().drifts.model_dump(), 0.0)
    hours = 30_000.0
    new = Pair(Scenario.from_mapping({"seed": 3, "drifts": zero}))
    old = Pair(Scenario.from_mapping({"seed": 3, "drifts": zero, "modules": {"age_h": hours}}))
    for p in (new, old):
        p.advance(1.0)
    for side in ("alice", "bob"):
        cold = [getattr(p, side).heaters.cold_ohm(2) for p in (new, old)]
        assert cold[1] / cold[0] - 1 == pytest.approx(0.001 * math.log1p(hours / 100.0), rel=1e-9)
        assert getattr(old, side).sink_factor > 1.0 == getattr(new, side).sink_factor
    assert old.bob.individual.common_db > new.bob.individual.common_db


def test_ageing_goes_on_where_it_was() -> None:
    p = Pair(Scenario.from_mapping({"seed": 3, "modules": {"age_h": 100.0}}))
    before = p.bob.heaters.cold_ohm(0)
    p.bob.heaters.age(AGEING_S, 1.0)
    assert p.bob.heaters.cold_ohm(0) / before == pytest.approx(
        (1 + 0.001 * math.log(3.0)) / (1 + 0.001 * math.log(2.0)), rel=1e-12
    )


def test_ages_have_limits() -> None:
    with pytest.raises(ScenarioError, match="age_h"):
        Scenario.from_mapping({"modules": {"age_h": 300_000.0}})
