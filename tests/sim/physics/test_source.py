"""Runs, scheduled modes and symbols of the source; tag clock and slices of the tagger."""

from __future__ import annotations

import numpy as np
import pytest

from sim.physics.source import MODES, Source, Stretch
from sim.physics.symbols import key_symbols
from sim.physics.tagger import BobClock
from tests.sim.physics.test_thermal import Still


class Bench(Source):
    """A source with a clock moved by hand."""

    def __init__(self) -> None:
        self.t = 0.0
        super().__init__(Still(), lambda: self.t, 8000, 1)


def test_slots_count_from_the_start_of_the_run() -> None:
    s = Bench()
    assert s.run_now() == (0, 0)
    s.t = 1.0
    assert s.start_run() == 1
    assert s.run_now() == (1, 0)
    s.t = 1.0 + 80e-9
    assert s.run_now() == (1, 10)
    s.stop_run()
    assert s.run_now() == (0, 0)
    s.t = 3.0
    assert s.start_run() == 2


def test_scheduled_modes_and_at_once() -> None:
    s = Bench()
    s.start_run()
    s.t = 1.0
    now = s.run_now()[1]
    s.schedule(now + 100, "SYNC")
    s.schedule(now + 200, "KEY")
    s.schedule(now + 150, "FIX", 2, 1)
    assert [s.mode_at(now + d) for d in (99, 100, 149, 150, 199, 200)] == ["OFF", "SYNC", "SYNC", "FIX", "FIX", "KEY"]
    slots = now + np.array([99, 150, 199, 200, 300])
    assert s.modes(slots).tolist() == [False, False, False, True, True]
    assert s.symbols(slots)[:2].tolist() == [0, 0b101]
    s.schedule(now + 150, "NULL")
    assert s.mode_at(now + 150) == "NULL"
    s.schedule(0, "CW")
    assert {s.mode_at(now + d) for d in (0, 100, 200)} == {"CW"}
    assert s.mode_at(now - 1) == "OFF"


def test_mode_before_a_run_is_that_of_slot_0() -> None:
    s = Bench()
    s.set_probabilities(65536, 0)
    s.schedule(0, "KEY")
    assert s.mode_at(5) == "OFF"
    s.start_run()
    assert s.mode_at(0) == "KEY"
    assert set(s.symbols(np.arange(200)).tolist()) == {1, 3}


def test_probabilities_change_from_now_on_and_not_before() -> None:
    s = Bench()
    s.set_probabilities(0, 0)
    s.schedule(0, "KEY")
    s.start_run()
    before = s.symbols(np.arange(1000))
    s.t = 8e-6
    s.schedule(2000, "KEY")
    s.set_probabilities(65536, 65536)
    assert np.array_equal(s.symbols(np.arange(1000)), before)
    assert set((s.symbols(np.arange(1000, 3000)) & 5).tolist()) == {5}


def test_every_run_has_its_own_key() -> None:
    s = Bench()
    s.schedule(0, "KEY")
    s.start_run()
    first = s.symbols(np.arange(400))
    s.schedule(0, "KEY")
    s.start_run()
    assert not np.array_equal(first, s.symbols(np.arange(400)))
    for _ in range(20):
        s.start_run()
    assert len(s.runs) == 8


def test_refusals() -> None:
    s = Bench()
    for bad in (("ON", 0, 0), ("FIX", 4, 0), ("FIX", 0, 2)):
        with pytest.raises(ValueError, match="modes are"):
            s.schedule(0, *bad)
    with pytest.raises(ValueError, match="carver"):
        s.set_rf("laser", 1.0)
    with pytest.raises(ValueError, match="65536"):
        s.set_probabilities(70000, 0)


def test_weights_are_shares() -> None:
    for mode in MODES:
        w = Stretch(0, mode, 1, 1, 16384, 32768).weights()
        assert w.sum() == pytest.approx(0.0 if mode in ("OFF", "CW") else 1.0)
    key = Stretch(0, "KEY", t_x=16384, t_decoy=32768).weights()
    assert key[:8] == pytest.approx(np.outer([0.375, 0.375, 0.125, 0.125], [0.5, 0.5]).ravel())


@pytest.mark.parametrize("pilot", [0, 2, 16])
def test_patterning_changes_the_mean_of_key_mode_by_what_goes_before(pilot: int) -> None:
    """Against all slots of a long stretch, symbol by symbol; other modes are as they were."""
    p = np.array([[0.01, -0.02], [0.03, 0.005]])
    key, t_x, t_d, slots = (np.uint64(3), np.uint64(4)), 16384, 20000, np.arange(400_000)
    c = key_symbols(slots, *key, np.uint64(t_x), np.uint64(t_d)) >> 2
    before = np.append(0, c[:-1])
    if pilot:
        before[1:][slots[:-1] % pilot == 0] = 0
    kept = slots % pilot != 0 if pilot else slots >= 0
    plain = Stretch(0, "KEY", t_x=t_x, t_decoy=t_d, pilot=pilot)
    patterned = Stretch(0, "KEY", t_x=t_x, t_decoy=t_d, pilot=pilot, pattern=tuple(p.ravel().tolist()))
    factor = np.ones(11)
    factor[:8] = np.tile([float(p[k, before[kept & (c == k)]].mean()) + 1.0 for k in (0, 1)], 4)
    assert patterned.weights() == pytest.approx(plain.weights() * factor, abs=3e-5)
    s = Source(Still(), lambda: 0.0, 8000, 1, (pilot, 10.0), p)
    s.start_run()
    for mode in MODES:
        s.schedule(0, mode)
        assert s.stretch_now().pattern == (tuple(p.ravel().tolist()) if mode == "KEY" else ())


def test_bob_s_clock_does_not_jump_when_its_pace_changes() -> None:
    c = BobClock(2e-6)
    c.restart(10**12)
    assert c.at(2 * 10**12) == (10**12 + 2 * 10**6, 0.0)
    before = c.at(3 * 10**12 + 12345)
    c.set_offset(3 * 10**12 + 12345, -1e-6)
    assert c.at(3 * 10**12 + 12345) == before
    later = c.at(4 * 10**12 + 12345)
    assert later[0] + later[1] - before[0] - before[1] == pytest.approx(1e12 * (1 - 1e-6), abs=1e-3)
    # A month on, still exact to the picosecond.
    c.set_offset(10**12 + 30 * 86400 * 10**12, 0.0)
    a, b = c.at(10**12 + 30 * 86400 * 10**12), c.at(10**12 + 30 * 86400 * 10**12 + 1)
    assert b[0] - a[0] == 1
