"""The click sampler against laws that do not share its code: analytic probabilities, a per-pulse loop, plain Python."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pytest
from scipy import stats

from sim.jit import python_of
from sim.physics import clicks
from sim.physics.clicks import CELLS, KIND_FIXED, KIND_KEY, KIND_SYNC, detect, photodetections
from sim.physics.optics import AliceOptics, BobOptics, table
from sim.physics.symbols import key_symbols, sync_symbols
from tests.sim.physics.link import KEY, TAU, Bench, T, accept, probabilities

Floats = npt.NDArray[np.float64]
ALICE = AliceOptics(d_s=0.03, phi=0.1, d_split=0.05, d_c=0.03)
BOB = BobOptics(kappa=0.26, d_split=-0.04, d_combine=0.05)
T_X, T_D = 16384, 32768
DARKS = np.array([100.0, 150.0, 200.0])


def _cumulative(lam: Floats, darks: Floats = DARKS) -> Floats:
    means = np.zeros((1, 8, CELLS))
    means[0, :, :8] = lam
    means[0, :, 8:] = darks * T * 1e-12
    return means.cumsum(axis=2)


def _key_segment(slots: int) -> npt.NDArray[np.int64]:
    return np.array([[0, slots, KIND_KEY, 0, 0, T_X, T_D]])


def _classes(slots: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    n = key_symbols(slots, *KEY, np.uint64(T_X), np.uint64(T_D)).astype(np.int64)
    out: npt.NDArray[np.int64] = ((n & 1) << 2) | (((n >> 1) & 1) << 1) | (n >> 2)
    return out


@pytest.mark.parametrize(("loss", "slots"), [(0.0, 5_000_000), (10.0, 40_000_000), (25.0, 400_000_000)])
def test_outcomes_per_class_follow_the_analytic_law(loss: float, slots: int) -> None:
    lam = table(ALICE, BOB, loss)[:8]
    bench = Bench(_cumulative(lam), seed=int(loss) + 5)
    times, channels, _ = bench.block(_key_segment(slots), slots)
    seen, outcome, live = accept(times, channels, bench.delay, hold=5)
    counts = np.zeros((8, 5))
    np.add.at(counts, (_classes(seen), outcome), 1)
    shares = np.outer([0.75 / 2, 0.75 / 2, 0.125, 0.125], [0.5, 0.5]).ravel()
    expected = probabilities(lam, DARKS) * shares[:, None] * live
    enough = expected > 5.0
    chi2 = float((((counts - expected) ** 2) / expected)[enough].sum())
    assert enough.sum() >= 20
    assert stats.chi2.sf(chi2, int(enough.sum())) > 1e-3


def test_dead_time_and_recovery_against_a_pulse_by_pulse_loop() -> None:
    lam = np.zeros((8, 8))
    lam[0, 0] = 0.15
    slots, g = 300_000, np.random.default_rng(8)
    bench = Bench(_cumulative(lam, np.zeros(3)), seed=9, dead=20e3, recovery=5e3)
    times, _, _ = bench.block(np.array([[0, slots, KIND_FIXED, 0, 0, 0, 0]]), slots)
    kept, last = 0, -math.inf
    for i in np.flatnonzero(g.random(slots) < -math.expm1(-0.15)):
        since = i * T - last - 20e3
        if since >= 0.0 and g.random() < -math.expm1(-since / 5e3):
            kept, last = kept + 1, i * T
    assert abs(len(times) - kept) < 4.5 * math.sqrt(len(times) + kept)
    assert np.diff(times).min() > 20e3 - 1500


def test_afterpulses_come_at_their_rate_and_delay() -> None:
    lam = np.zeros((8, 8))
    lam[0, 0] = 1e-6
    slots = 20_000_000_000
    bench = Bench(_cumulative(lam, np.zeros(3)), seed=2, afterpulse=0.05, recovery=1.0)
    times, _, _ = bench.block(np.array([[0, slots, KIND_FIXED, 0, 0, 0, 0]]), slots)
    expected = slots * 1e-6 / (1 - 0.05)
    assert abs(len(times) - expected) < 5 * math.sqrt(expected * 1.2)
    near = np.diff(times)
    near = near[near < 1_000_000]
    assert near.mean() - 15e3 == pytest.approx(1e5, rel=0.1)


def test_one_run_is_the_same_in_one_block_or_many() -> None:
    """Not click by click (the random numbers fall differently) but in rate, and dead time holds across blocks."""
    lam = table(ALICE, BOB, 0.0)[:8]
    whole = Bench(_cumulative(lam), seed=3)
    n, _, _ = whole.block(_key_segment(2_000_000), 2_000_000)
    parts = Bench(_cumulative(lam), seed=4)
    pieces = [parts.block(_key_segment(1000), 1000)[:2] for _ in range(2000)]
    times = np.concatenate([p[0] for p in pieces])
    channels = np.concatenate([p[1] for p in pieces])
    assert abs(len(times) - len(n)) < 5 * math.sqrt(2 * len(n))
    for q in range(3):
        assert np.diff(np.sort(times[channels == q])).min() > 15e3 - 1500


def test_segments_use_their_own_mode_and_table() -> None:
    means = np.zeros((2, 8, CELLS))
    means[0, 0, 0] = means[0, 2, 1] = 0.02
    means[1, :, 9] = 0.01
    bench = Bench(means.cumsum(axis=2), seed=5, delay=np.zeros(3))
    n = 500_000
    rows = np.array([[0, n, KIND_SYNC, 0, 0, 0, 0], [n, n, KIND_FIXED, 0, 2, 0, 0], [2 * n, n, KIND_FIXED, 1, 0, 0, 0]])
    times, channels, _ = bench.block(rows, 3 * n)
    slot, late = np.floor((times + 400) / T).astype(int), (times + 400) % T > TAU
    sync = slot < n
    assert (sync_symbols(slot[sync]) >> 1 == late[sync]).mean() > 0.995  # the rest is the jitter's tail
    fixed = (slot >= n) & (slot < 2 * n)
    assert late[fixed].mean() > 0.995
    assert set(channels[slot > 2 * n]) == {1}
    assert np.histogram(times[slot > 2 * n] % T, 8)[0].min() > 400


def test_a_dark_table_costs_nothing_and_draws_nothing() -> None:
    bench = Bench(np.zeros((1, 8, CELLS)))
    before = bench.rng.copy()
    times, _, n = bench.block(_key_segment(10**9), 10**9)
    assert (len(times), n) == (0, 0)
    assert np.array_equal(bench.rng, before)


def test_too_small_buffers_are_told() -> None:
    lam = table(ALICE, BOB, 0.0)[:8]
    bench = Bench(_cumulative(lam), size=10)
    assert bench.block(_key_segment(10_000), 10_000)[2] == -1
    n, many = 20, np.linspace(0.0, 19e6, 20)
    small = np.empty(5, np.int64)
    arguments = (
        1e9,
        bench.parameters,
        bench.jitter,
        0,
        0.0,
        1.0,
        bench.memory,
        bench.rng,
        small,
        np.empty(5, np.uint8),
    )
    assert detect(n, many, np.zeros(20, np.uint8), *arguments) == -1


def test_uncompiled_kernels_give_the_same_clicks() -> None:
    lam = table(ALICE, BOB, 0.0)[:8]
    rows = np.array(
        [[0, 300, KIND_KEY, 0, 0, T_X, T_D], [300, 200, KIND_SYNC, 0, 0, 0, 0], [500, 100, KIND_FIXED, 0, 6, 0, 0]]
    )
    noisy = np.array([2e6, 2e6, 2e6])
    fast = Bench(_cumulative(lam, noisy), seed=6, afterpulse=0.2, afterpulse_tau=2e4)
    slow = Bench(_cumulative(lam, noisy), seed=6, afterpulse=0.2, afterpulse_tau=2e4)
    with np.errstate(over="ignore"):
        for _ in range(3):
            t, c, n = fast.block(rows, 600)
            t2, c2, n2 = slow.block(rows, 600, python_of(photodetections), python_of(detect))
            assert n == n2
            assert n > 50
            assert np.array_equal(t, t2)
            assert np.array_equal(c, c2)
        pick = python_of(clicks._segment_class)
        assert pick(KIND_FIXED, 5, 1, *KEY, 0, 0) == 5
        assert pick(KIND_KEY, 0, 7, *KEY, T_X, T_D) == _classes(np.array([7]))[0]
        assert pick(KIND_SYNC, 0, 7, *KEY, 0, 0) in (0, 2)


def _with_pilot(lam: Floats) -> Floats:
    """Eight classes and the two pilots of an eleven-row table."""
    means = np.zeros((1, 10, CELLS))
    means[0, :, :8] = lam[[*range(8), 9, 10]]
    means[0, :, 8:] = DARKS * T * 1e-12
    return means.cumsum(axis=2)


PILOT_ALICE = AliceOptics(phi=0.3, pilot_gain=10.0)


def _pilot_segment(slots: int, every: int) -> npt.NDArray[np.int64]:
    return np.array([[3, slots, KIND_KEY, 0, 0, T_X, T_D, every]])


def test_pilot_slots_have_their_own_means_and_others_none_of_them() -> None:
    """Photo-detections of every cell, in pilot slots of both kinds and in the others, are Poisson about the table."""
    every, slots = 16, 3_000_000
    lam = table(PILOT_ALICE, BOB, 10.0)
    bench = Bench(_with_pilot(lam), seed=3, delay=np.zeros(3), dead=0.0, recovery=1e-9)
    n = bench.block(_pilot_segment(slots, every), slots + 3)[2]
    t, detectors = bench.photon_times[:n], bench.photon_detectors[:n]
    assert np.all(np.diff(t) >= 0.0)
    slot = np.floor(t / T + 0.1).astype(np.int64)
    position = t - slot * T
    where = np.where(slot % every, 0, 1 + (slot // every) % 2)
    number = np.bincount(np.where(np.arange(3, slots + 3) % every, 0, 1 + (np.arange(3, slots + 3) // every) % 2))
    p_x, p_d = T_X / 65536, T_D / 65536
    shares = np.outer([(1 - p_x) / 2, (1 - p_x) / 2, p_x / 2, p_x / 2], [1 - p_d, p_d]).ravel()
    expected = np.stack([shares @ lam[:8], lam[9], lam[10]])
    for kind in range(3):
        for cell, (detector, bin_) in enumerate([(0, 0), (0, 1), (1, 0), (1, 1), (1, 2), (2, 0), (2, 1), (2, 2)]):
            hit = (where == kind) & (detectors == detector) & (np.abs(position - bin_ * TAU) < 1.0)
            mean = expected[kind, cell] * number[kind]
            assert abs(hit.sum() - mean) < 5.0 * math.sqrt(mean) + 1.0, (kind, cell)


def test_pilots_leave_the_other_slots_as_they_were() -> None:
    """Without pilot the draw is the same to the last bit whether or not the table has rows for one."""
    lam = table(PILOT_ALICE, BOB, 10.0)
    plain, rich = Bench(_cumulative(lam[:8]), seed=8), Bench(_with_pilot(lam), seed=8)
    a, b = plain.block(_key_segment(100_000), 100_000), rich.block(_key_segment(100_000), 100_000)
    assert np.array_equal(a[0], b[0])
    assert np.array_equal(a[1], b[1])


def test_pilot_kernel_uncompiled_gives_the_same() -> None:
    lam = table(PILOT_ALICE, BOB, 0.0)
    fast, slow = Bench(_with_pilot(lam), seed=4), Bench(_with_pilot(lam), seed=4)
    a = fast.block(_pilot_segment(2000, 7), 2003)
    b = slow.block(_pilot_segment(2000, 7), 2003, python_of(photodetections), python_of(detect))
    assert a[2] == b[2] > 100
    assert np.array_equal(a[0], b[0])


PATTERN = np.array([[0.04, -0.03], [-0.05, 0.02]])


def _counts_by_the_slot_before(bench: Bench, rows: npt.NDArray[np.int64], slots: int) -> npt.NDArray[np.int64]:
    """Photo-detections by class and the intensity before (0 signal, 1 decoy, 2 pilot), shape (8, 3); no pilots."""
    n, every = bench.block(rows, slots)[2], int(rows[0, 7])
    slot = np.floor(bench.photon_times[:n] / T + 0.1).astype(np.int64)
    before = _classes(slot - 1) % 2
    if every:
        slot, before = slot[slot % every != 0], before[slot % every != 0]
        before = np.where((slot - 1) % every == 0, 2, before)
    out = np.zeros((8, 3), np.int64)
    np.add.at(out, (_classes(slot), before), 1)
    return out


@pytest.mark.parametrize("every", [0, 8])
def test_patterned_rates_follow_the_slot_before(every: int) -> None:
    """Only pulses differ, darks do not: they are drawn as many as the light here."""
    slots, darks = 4_000_000, np.array([4e5, 1e5, 1e5])
    lam = table(PILOT_ALICE, BOB, 3.0)
    means = np.zeros((1, 10, CELLS))
    means[0, :, :8], means[0, :, 8:] = lam[[*range(8), 9, 10]], darks * T * 1e-12
    bench = Bench(means.cumsum(axis=2), seed=12 + every, delay=np.zeros(3), pattern=PATTERN, size=4_000_000)
    rows = np.array([[1, slots, KIND_KEY, 0, 0, T_X, T_D, every]])
    counts = _counts_by_the_slot_before(bench, rows, slots + 1)
    shares = np.outer([0.375, 0.375, 0.125, 0.125], [0.5, 0.5]).ravel()
    if every:
        before = np.array([(every - 2) / every / 2] * 2 + [1 / every])
    else:
        before = np.array([0.5, 0.5, 0.0])
    factor = np.column_stack([PATTERN[np.arange(8) % 2], PATTERN[np.arange(8) % 2, 0]]) + 1.0
    each = lam[:8].sum(axis=1)[:, None] * factor + darks.sum() * T * 1e-12
    expected = slots * shares[:, None] * before * each
    used = expected > 0.0
    assert not counts[~used].any()
    chi2 = float(((counts - expected)[used] ** 2 / expected[used]).sum())
    assert 1e-3 < stats.chi2.sf(chi2, int(used.sum())) < 1 - 1e-6
    unpatterned = expected / each * (lam[:8].sum(axis=1)[:, None] + darks.sum() * T * 1e-12)
    assert float(((counts - unpatterned)[used] ** 2 / expected[used]).sum()) > 10 * used.sum()


def test_patterning_of_zero_changes_no_bit_and_fixed_light_is_not_patterned() -> None:
    lam = table(PILOT_ALICE, BOB, 5.0)
    for rows, pattern in (
        (_pilot_segment(50_000, 8), np.zeros((2, 2))),
        (np.array([[0, 50_000, KIND_SYNC, 0, 0, 0, 0]]), PATTERN),
        (np.array([[0, 50_000, KIND_FIXED, 0, 3, 0, 0]]), PATTERN),
    ):
        plain, other = Bench(_with_pilot(lam), seed=8), Bench(_with_pilot(lam), seed=8, pattern=pattern)
        a, b = plain.block(rows, 50_003), other.block(rows, 50_003)
        assert a[2] == b[2] > 500
        assert np.array_equal(a[0], b[0])
        assert np.array_equal(a[1], b[1])


def test_patterned_kernel_uncompiled_gives_the_same() -> None:
    lam = table(PILOT_ALICE, BOB, 0.0)
    fast, slow = (Bench(_with_pilot(lam), seed=4, pattern=PATTERN) for _ in range(2))
    a = fast.block(_pilot_segment(2000, 7), 2003)
    with np.errstate(over="ignore"):
        b = slow.block(_pilot_segment(2000, 7), 2003, python_of(photodetections), python_of(detect))
        factor = python_of(clicks._patterning)
        assert factor(3, 0, 0, *KEY, T_X, T_D, PATTERN) == 1.0 + PATTERN[1, 0]
        assert factor(2, 8, 7, *KEY, T_X, T_D, PATTERN) == 1.0 + PATTERN[0, 0]
        before = _classes(np.array([9]))[0] % 2
        assert factor(2, 10, 7, *KEY, T_X, T_D, PATTERN) == 1.0 + PATTERN[0, before]
    assert a[2] == b[2] > 100
    assert np.array_equal(a[0], b[0])
