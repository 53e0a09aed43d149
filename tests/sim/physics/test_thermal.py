"""The thermal plant: the figures of the reference pair A6 at reduced length."""

from __future__ import annotations

import math

import numpy as np
import pytest

from sim.individuals import stream
from sim.jit import python_of
from sim.physics.thermal import (
    CURRENT,
    DIE,
    DIE_K_PER_W,
    DIE_LEAK,
    HEAT,
    INTEGRAL,
    MEASURED,
    SENSOR,
    SENSOR_NOISE_K,
    SINK,
    SUBMOUNT,
    TICK_S,
    TecWiring,
    ThermalPlant,
    run_plant,
)


class Still:
    """A world that does not move by itself."""

    def advance(self) -> None:
        return None

    def before_change(self) -> None:
        return None


def plant(start: float = 25.0, noise: float = SENSOR_NOISE_K) -> ThermalPlant:
    return ThermalPlant(Still(), start, stream(1, "thermistor"), noise)


def regulated(noise: float = SENSOR_NOISE_K) -> ThermalPlant:
    """At 30 C with 120 mW of heaters, settled for 500 s."""
    p = plant(noise=noise)
    p.target_c = 30.0
    p.enabled = True
    p.set_heat(0.120)
    p.run(0, 50_000, 25.0)
    return p


def record(p: ThermalPlant, ticks: int, ambient: float = 25.0) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    rows = []
    for tick in range(ticks):
        p.run(tick, 1, ambient)
        rows.append(p.state.copy())
    return np.array(rows)


def test_regulation_noise() -> None:
    p = regulated()
    rows = np.array([(p.run(t * 10, 10, 25.0), p.state.copy())[1] for t in range(12_000)])
    assert rows[:, SUBMOUNT].std() < 0.3e-3
    assert rows[:, DIE].std() < 1.0e-3
    assert rows[:, SUBMOUNT].mean() == pytest.approx(30.0, abs=0.5e-3)
    assert rows[:, MEASURED].std() == pytest.approx(SENSOR_NOISE_K, rel=0.3)


def test_heater_step_as_measured_for_the_reference_pair() -> None:
    p = regulated(noise=0.0)
    before = p.state.copy()
    p.set_heat(0.160)
    rows = record(p, 4000)
    die, submount = (rows[:, DIE] - before[DIE]) * 1e3, (rows[:, SUBMOUNT] - before[SUBMOUNT]) * 1e3
    assert die[30] == pytest.approx(41.0, abs=2.0)
    assert np.abs(submount).max() == pytest.approx(8.5, abs=0.8)
    assert np.flatnonzero(np.abs(submount) > 0.5)[-1] * TICK_S == pytest.approx(24.0, abs=4.0)


def test_die_sits_one_kelvin_per_watt_above_the_submount() -> None:
    p = regulated(noise=0.0)
    through = 0.120 - DIE_LEAK * (p.die_c - 25.0)
    assert p.die_c - p.submount_c == pytest.approx(through * DIE_K_PER_W, rel=1e-3)


def test_open_loop_slope() -> None:
    """0.478 K/s per ampere, positive current cools."""
    p = plant(noise=0.0)
    p.target_c, p.kp_a_per_k, p.ti_s = 0.0, 1e3, 0.0
    p.current_limit_a, p.enabled = 0.05, True
    rows = record(p, 600)
    slope = (rows[599, SENSOR] - rows[199, SENSOR]) / 4.0
    assert slope == pytest.approx(-0.478 * 0.05, rel=0.06)
    assert p.current_a == pytest.approx(0.05)
    assert p.voltage_v == pytest.approx(0.05 * 1.03 + 0.0133 * (p.state[SINK] - p.state[SUBMOUNT]))
    assert p.sink_c > 25.0


def test_reversed_leads_run_away_until_the_polarity_is_turned() -> None:
    p = plant()
    p.target_c, p.enabled = 30.0, True
    p.set_wiring(TecWiring(reversed=True))
    p.run(0, 2000, 25.0)
    assert p.object_c < 20.0
    assert p.polarity == 1
    p.polarity = -1
    p.run(2000, 20_000, 25.0)
    assert p.object_c == pytest.approx(30.0, abs=0.05)


def test_lost_fan_takes_the_sink_from_ambient_and_off_is_off() -> None:
    hot, cool = regulated(), regulated()
    hot.set_wiring(TecWiring(sink_factor=6.0))
    hot.run(0, 400_000, 25.0)
    cool.run(0, 400_000, 25.0)
    assert abs(hot.sink_c - 25.0) > 3.0 * abs(cool.sink_c - 25.0)
    hot.enabled = False
    hot.run(0, 20, 25.0)
    assert hot.current_a == 0.0
    assert hot.state[INTEGRAL] == 0.0


def test_settings_read_back_and_refuse_nonsense() -> None:
    p = plant()
    p.kp_a_per_k, p.ti_s, p.current_limit_a, p.polarity = 0.5, 12.0, -1.5, -7
    assert (p.kp_a_per_k, p.ti_s, p.current_limit_a, p.polarity) == (0.5, 12.0, 1.5, -1)
    assert (p.enabled, p.target_c) == (False, 25.0)
    with pytest.raises(ValueError, match="finite"):
        p.target_c = math.nan


def test_uncompiled_plant_is_the_same() -> None:
    a, b = regulated(), regulated()
    run_plant(0, 60, 24.0, a.act, a.state, a._rng, 1e-3)
    with np.errstate(over="ignore"):
        python_of(run_plant)(0, 60, 24.0, b.act, b.state, b._rng, 1e-3)
    np.testing.assert_allclose(a.state, b.state, rtol=1e-13)
    b.enabled = False
    b.set_heat(0.0)
    with np.errstate(over="ignore"):
        python_of(run_plant)(0, 1, 24.0, b.act, b.state, b._rng, 0.0)
    assert b.state[CURRENT] == 0.0
    assert b.act[HEAT] == 0.0


def test_a_static_current_stands_in_for_the_regulator() -> None:
    p = regulated(noise=0.0)
    held = p.current_a
    assert p.static_a is None
    p.static_a = held + 0.1
    before = p.submount_c
    p.run(0, 200, 25.0)
    assert p.current_a == pytest.approx(held + 0.1)
    assert p.submount_c < before - 0.03
    p.static_a = 5.0
    p.run(200, 10, 25.0)
    assert p.current_a == p.current_limit_a
    p.static_a = None
    p.run(210, 10, 25.0)
    # The regulator starts with an empty integral.
    assert p.current_a == pytest.approx(p.kp_a_per_k * (p.object_c - 30.0), rel=0.2)
    p.run(220, 20_000, 25.0)
    assert p.submount_c == pytest.approx(30.0, abs=2e-3)
    with pytest.raises(ValueError, match="not a finite number"):
        p.static_a = float("nan")
