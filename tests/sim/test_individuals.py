"""Individuals stay in their ranges, and the factory's record is near the truth but is not the truth."""

from __future__ import annotations

import json
import math

import numpy as np

from sim.individuals import (
    draw_alice,
    draw_bob,
    factory_record,
    photons_per_pa3_ampere,
    voa_db,
)

SEEDS = range(150)


def test_ranges_of_transmitters() -> None:
    for a in map(draw_alice, SEEDS):
        for m, worst in ((a.carver, 23.0), (a.state, 19.5), (a.decoy, 20.0)):
            assert -20 * math.log10(abs(m.xi)) >= worst - 1e-9
            assert 3.4 <= m.v_pi <= 4.6
            assert abs(m.offset) <= m.v_pi
        assert 0.9 <= a.long_db <= 1.6
        assert np.all(np.abs(a.heaters.r0 / 90 - 1) <= 0.06)
        assert np.all((a.heaters.tau >= 15e-6) & (a.heaters.tau <= 60e-6))
        assert np.all(np.diag(a.heaters.theta) == 1.0)
        off = a.heaters.theta[~np.eye(4, dtype=bool)]
        assert off.max() < 0.05
        assert 41.0 > voa_db(a.voa, 5.0) - a.voa[0] > 34.0
    signs = [np.sign(draw_alice(s).state.xi) for s in SEEDS]
    assert 40 < signs.count(1.0) < 110


def test_ranges_of_receivers() -> None:
    for b in map(draw_bob, SEEDS):
        assert 2.0 <= b.common_db <= 3.2
        assert 0.975 <= b.v_mode <= 0.995
        assert abs(b.tau_mismatch_s) <= 5e-12
        assert np.all((b.efficiency >= 0.75) & (b.efficiency <= 0.88))
        assert np.all((b.delay_ps >= 0) & (b.delay_ps <= 3000))
        assert np.all((b.dead_ps >= 12e3) & (b.dead_ps <= 20e3))
        assert abs(b.clock_offset) <= 2e-6


def test_individuals_differ_and_repeat() -> None:
    assert draw_alice(3).serial == draw_alice(3).serial != draw_alice(4).serial
    assert draw_bob(3).long_db == draw_bob(3).long_db != draw_bob(4).long_db


def test_factory_record_is_measured_not_true() -> None:
    errors, tables, slopes = [], [], []
    for seed in SEEDS:
        a = draw_alice(seed)
        record = json.loads(json.dumps(factory_record(a, seed)))
        assert record == factory_record(a, seed)
        errors.append(record["mean_photon"]["constant"] / photons_per_pa3_ampere(a) - 1)
        voa = record["voa"]
        assert np.all(np.diff(voa["db"]) > 0)
        tables.append(np.mean([d - voa_db(a.voa, v) for v, d in zip(voa["volts"], voa["db"], strict=True)]))
        slopes.append(record["photodiodes"]["pa3"]["responsivity_a_per_w"] / a.monitors.responsivity[3] - 1)
    assert 0.004 < np.std(errors) < 0.006
    assert 0.015 < np.std(tables) < 0.025
    assert 0.008 < np.std(slopes) < 0.012
    assert min(map(abs, errors)) > 0.0


def test_receiver_record_has_no_transmitter_parts() -> None:
    record = factory_record(draw_bob(1), 1)
    assert set(record["photodiodes"]) == {"pb0", "pb1", "pb2", "pb3"}
    assert "voa" not in record
    assert record["heaters"]["max_power_w"] == 0.110
