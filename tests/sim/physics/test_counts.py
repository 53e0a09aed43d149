"""Counts without tags against the click generator with an acceptance rule of its own, and against themselves."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from sim.physics.clicks import KIND_KEY
from sim.physics.counts import CROSS, DOUBLE, OUTCOMES, X0, X1, Z0, Z1, Expected, Reception, counts, draw, expected
from sim.physics.light import Light, light_of
from sim.physics.optics import AliceOptics, BobOptics, from_db
from sim.physics.symbols import key_symbols
from sim.physics.tagger import Receiver
from tests.sim.physics.link import HALF_GATE, JITTER, KEY, TAU, Bench, T, accept

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
T_X, T_D, HOLD = 16384, 32768, 5
P_X, P_DECOY = T_X / 65536, T_D / 65536
PARAMETERS = np.outer([15e3, 4e3, 0.0, 1e5], np.ones(3))
HOW = Reception.of(Receiver(PARAMETERS, JITTER, np.zeros(3), TAU))
DARKS = np.array([100.0, 150.0, 200.0])


def light(loss_db: float, gain_db: float | None = None, turn: float = 0.1) -> Light:
    gain = 0.0 if gain_db is None else 1.0 / from_db(gain_db)
    alice = AliceOptics(mu_ref=0.54, d_s=0.03, d_split=0.05, d_c=0.03, pilot_gain=gain)
    return light_of(alice, BobOptics(kappa=0.26, d_split=-0.04, phi=turn), loss_db, 0.0, 0.0, DARKS, T * 1e-12)


def rows_of(slots: Ints, every: int) -> Ints:
    """Class of each slot, 8 and 9 for the pilots."""
    n = key_symbols(slots, *KEY, np.uint64(T_X), np.uint64(T_D)).astype(np.int64)
    rows: Ints = ((n & 1) << 2) | (((n >> 1) & 1) << 1) | (n >> 2)
    return np.where(slots % every == 0, 8 + (slots // every) % 2, rows) if every else rows


def satellites(times: Ints, channels: npt.NDArray[np.uint8], delay: Floats) -> Ints:
    """Clicks in the first and last bin of DX0, then of DX1, whatever their slot."""
    r = (times - delay[channels] + 0.1 * T) % T - 0.1 * T
    return np.array(
        [np.sum((channels == q) & (np.abs(r - b * TAU) <= HALF_GATE)) for q in (1, 2) for b in (0, 2)], np.int64
    )


def even_share(every: int) -> Floats:
    """Share of even slots in each row: the bench's rule gives a double click the bit of its slot's parity."""
    if not every:
        return np.full(10, 0.5)
    ordinary = np.arange(1, 2 * every)
    ordinary = ordinary[ordinary % every != 0]
    pilots = [1.0, 1.0 if every % 2 == 0 else 0.0]
    return np.append(np.full(8, np.mean(ordinary % 2 == 0)), pilots)


def both(loss: float, every: int, gain: float, slots: int, seed: int) -> tuple[Floats, Expected, Floats, Ints, float]:
    """(counts and means by row and the rule's outcome; the law; satellites; share of live slots)."""
    shown = light(loss, gain if every else None)
    bench = Bench(shown.cumulative()[:1], seed=seed)
    segment = np.array([[0, slots, KIND_KEY, 0, 0, T_X, T_D, every]])
    times, channels, _ = bench.block(segment, slots)
    seen, outcome, live = accept(times, channels, bench.delay, HOLD)
    n = np.zeros((10, 5))
    np.add.at(n, (rows_of(seen, every), outcome), 1)
    law = expected(shown, HOW, P_X, P_DECOY, every).times(slots * T * 1e-12)
    m = law.outcomes[:, [Z0, Z1, X0, X1, CROSS]].copy()
    even = even_share(every)
    m[:, 2] += law.outcomes[:, DOUBLE] * even
    m[:, 3] += law.outcomes[:, DOUBLE] * (1.0 - even)
    return n, law, m, satellites(times, channels, bench.delay), live / slots


@pytest.mark.parametrize(
    ("loss", "every", "gain", "slots"),
    [
        (10.0, 0, 0.0, 20_000_000),
        (10.0, 16, 10.0, 10_000_000),
        (10.0, 64, 20.0, 10_000_000),  # brighter than what is clipped elsewhere
        (10.0, 3, 5.0, 8_000_000),  # several pilots within a hold-off
        (25.0, 16, 10.0, 200_000_000),
    ],
)
def test_counts_follow_the_click_generator(loss: float, every: int, gain: float, slots: int) -> None:
    n, law, m, seen, live = both(loss, every, gain, slots, seed=int(loss) + every)
    enough = m > 5.0
    chi2 = float((((n - m) ** 2) / np.maximum(m, 1e-9))[enough].sum())
    assert enough.sum() >= (25 if every else 20)
    assert stats.chi2.sf(chi2, int(enough.sum())) > 1e-3
    # The law of live slots ignores that detectors share a slot's class: 0.3 % are granted.
    for rows in (slice(8), slice(8, 10)) if every else (slice(8),):
        total, mean = n[rows].sum(), m[rows].sum()
        assert abs(total - mean) < 4.0 * math.sqrt(mean) + 0.003 * mean
    assert np.all(np.abs(seen - law.satellites) < 4.5 * np.sqrt(law.satellites) + 0.005 * law.satellites)
    if not every:
        assert law.live / law.slots == pytest.approx(live, rel=1e-3)


def test_without_loss_where_detectors_are_mostly_dead_it_is_within_two_percent() -> None:
    n, law, m, seen, live = both(0.0, 0, 0.0, 4_000_000, seed=2)
    assert n.sum() == pytest.approx(m.sum(), rel=0.02)
    assert law.live / law.slots == pytest.approx(live, rel=0.02)
    assert live < 0.55
    np.testing.assert_allclose(seen, law.satellites, rtol=0.03)


def test_drawn_counts_have_the_means_and_scatter_of_the_law() -> None:
    law = expected(light(10.0, 10.0), HOW, P_X, P_DECOY, 16).times(0.02)
    g = np.random.default_rng(5)
    many = [draw(law, g) for _ in range(600)]
    o = law.outcomes
    tossed, doubles = o[:, CROSS] / 4.0, o[:, DOUBLE] / 2.0
    x = np.stack([o[:, X0] + tossed + doubles, o[:, X1] + tossed + doubles], axis=1)
    z = np.stack([o[:, Z0] + tossed, o[:, Z1] + tossed], axis=1)
    wanted = {
        "n_z": z[:4].sum(axis=1).reshape(2, 2).sum(axis=0),
        "m_z": z[[0, 1], [1, 1]] + z[[2, 3], [0, 0]],
        "n_x0": x[4:6].sum(axis=1),
        "e_x0": x[4:6, 1],
        "n_x1": x[6:8].sum(axis=1),
        "e_x1": x[6:8, 0],
        "z_early": o[:8, Z0].sum(),
        "z_late": o[:8, Z1].sum(),
        "cross": o[:8, CROSS].sum(),
        "double_x": o[:8, DOUBLE].sum(),
        "satellites": law.satellites,
        "pilot": x[8:, ::-1],
    }
    for name, mean in wanted.items():
        values = np.array([getattr(c, name) for c in many], float)
        np.testing.assert_array_less(
            np.abs(values.mean(axis=0) - mean), 4.5 * np.sqrt(np.asarray(mean) / len(many)) + 1e-9, err_msg=name
        )
        if np.min(mean) > 20.0:  # Poisson: variance as the mean
            np.testing.assert_allclose(values.var(axis=0) / mean, 1.0, atol=0.35, err_msg=name)
    assert {c.live_slots for c in many} == {round(law.live)}


@given(
    loss=st.floats(0.0, 40.0),
    every=st.integers(0, 40),
    seconds=st.floats(0.0, 1e5),
    p_x=st.floats(0.0, 1.0),
    p_decoy=st.floats(0.0, 1.0),
)
@settings(max_examples=60, deadline=None)
def test_any_step_gives_counts_that_some_batch_could_have(
    loss: float, every: int, seconds: float, p_x: float, p_decoy: float
) -> None:
    c = counts(light(loss, 10.0), HOW, p_x, p_decoy, seconds, np.random.default_rng(1), every)
    for n, errors in ((c.n_z, c.m_z), (c.n_x0, c.e_x0), (c.n_x1, c.e_x1)):
        assert all(0 <= e <= k for k, e in zip(n, errors, strict=True))
    assert 0 <= c.live_slots <= c.slots
    assert abs(c.slots - seconds / (T * 1e-12)) <= 0.5 + 1e-6
    assert c.pilot.shape == (2, 2)
    assert bool(c.pilot.sum()) <= bool(every)
    assert min(c.satellites) >= 0
    if p_x == 0.0:
        assert sum(c.n_x0) + sum(c.n_x1) == 0


def test_steps_add_up_whatever_their_length() -> None:
    law = expected(light(10.0, 10.0), HOW, P_X, P_DECOY, 16)
    parts = law.times(0.3) + law.times(0.7)
    np.testing.assert_allclose(parts.outcomes, law.outcomes)
    np.testing.assert_allclose(parts.satellites, law.satellites)
    assert parts.slots == pytest.approx(law.slots)
    assert parts.live == pytest.approx(law.live)
    nothing = draw(law.times(0.0), np.random.default_rng(1))
    assert (nothing.slots, nothing.live_slots, sum(nothing.n_z), nothing.pilot.sum()) == (0, 0, 0, 0)


def test_pilot_counts_show_the_sign_of_the_error() -> None:
    """In phase both outputs see the pilots alike; off it, DX0 sees more of the first for a receiver ahead, DX1 less."""
    for turn, sign in ((0.3, 1.0), (-0.3, -1.0)):
        c = counts(light(10.0, 10.0, turn), HOW, P_X, P_DECOY, 1.0, np.random.default_rng(3), 16)
        contrast = (c.pilot[0] - c.pilot[1]) / c.pilot.sum(axis=0)
        assert contrast[0] * sign == pytest.approx(math.sin(0.3), abs=0.06)
        assert contrast[1] * sign == pytest.approx(-math.sin(0.3), abs=0.06)


def test_darks_alone_are_counted_at_their_rate() -> None:
    dark = replace(light(80.0), darks=np.array([1e5, 2e5, 3e5]))
    law = expected(dark, HOW, P_X, P_DECOY)
    gate = 2e-12 * HALF_GATE * dark.darks
    assert law.outcomes.shape == (10, OUTCOMES)
    assert law.outcomes[:8, [Z0, Z1]].sum() == pytest.approx(2 * gate[0] * law.live, rel=0.01)
    assert law.outcomes[:8, X0].sum() == pytest.approx(gate[2] * law.live, rel=0.01)
    assert law.outcomes[:8, X1].sum() == pytest.approx(gate[1] * law.live, rel=0.01)
    assert law.outcomes[8:].sum() == 0.0
