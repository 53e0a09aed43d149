"""What Alice counts of the slots before detections: which she may ask for, and what the hold-off does to the sums."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from calibration.procedures.patterning import PatternCounts, pattern
from qmodd.keys.counts import BatchReport
from qmodd.keys.patterning import MOST, PatternTally, neighbours, slots_before
from qmodd.keys.sifting import Detect
from sim.physics.clicks import CELLS, KIND_KEY
from sim.physics.optics import AliceOptics, BobOptics, table
from sim.physics.symbols import key_symbols
from tests.sim.physics.link import KEY, Bench, T, accept

Int64s = npt.NDArray[np.int64]
T_X, T_D, HOLD = 16384, 26214, 6
P = (1.0 - T_D / 65536, T_D / 65536)


def _detect(slots: Int64s, first: int = 0) -> Detect:
    return Detect(first, int(slots[-1]) + 1, slots, np.zeros(len(slots), np.uint8))


def _report(live: int) -> BatchReport:
    none = (0, 0)
    return BatchReport(0, live, live, 0, 0, 0, 0, 0, 0, none, none, none, none, none, (0, 0, 0, 0))


def test_only_slots_that_nobody_asked_for_are_chosen() -> None:
    slots = np.array([100, 107, 108, 121, 133, 140])
    # 99 belongs to the batch before, 107 is a detection itself, 120 a pilot.
    assert slots_before(_detect(slots, 100), 40).tolist() == [1, 4, 5]
    assert slots_before(_detect(slots, 100), 0).tolist() == [1, 3, 4, 5]
    assert slots_before(_detect(slots, 99), 0).tolist() == [0, 1, 3, 4, 5]
    assert len(slots_before(Detect(0, 9, np.empty(0, np.int64), np.empty(0, np.uint8)), 0)) == 0


@pytest.mark.parametrize("n", [MOST, MOST + 1, 7 * MOST + 3])
def test_a_large_batch_is_looked_at_evenly(n: int) -> None:
    chosen = slots_before(_detect(10 + 7 * np.arange(n)), 0)
    assert MOST // 2 <= len(chosen) <= MOST
    assert chosen[-1] > n - 8
    assert len(set(np.diff(chosen).tolist())) == 1


def test_sums_leave_out_what_is_not_valid() -> None:
    symbols = np.array([0, 4, 1, 5, 2, 6], np.uint8)
    detect = Detect(0, 60, np.arange(8, 60, 9), np.array([0, 0, 1, 1, 0, 0], np.uint8))
    seen = neighbours(detect, symbols, np.array([0, 1, 2, 3, 5]), np.array([4, 3, 8, 7, 12], np.uint8))
    assert seen.counts.tolist() == [[0, 1], [1, 1]]
    # Clicked slots: a detection in X stands for one beside the middle bin, too.
    assert seen.clicked.tolist() == [4, 4]
    tally = seen.tally(_report(100), P)
    assert (tally + tally).total == 6
    with pytest.raises(ValueError, match="do not add up"):
        tally + PatternTally(tally.counts, tally.clicked, 1, (0.5, 0.5))


def _tally(truth: npt.NDArray[np.float64], loss_db: float, slots: int, seed: int) -> PatternTally:
    """What the engine would count of clicks drawn by the emulator, by the acceptance rule of tests/sim."""
    lam = table(AliceOptics(), BobOptics(), loss_db)[:8]
    means = np.zeros((1, 8, CELLS))
    means[0, :, :8], means[0, :, 8:] = lam, 100.0 * T * 1e-12
    bench = Bench(means.cumsum(axis=2), seed=seed, pattern=truth, size=4_000_000)
    times, channels, _ = bench.block(np.array([[0, slots, KIND_KEY, 0, 0, T_X, T_D]]), slots)
    found, outcome, live = accept(times, channels, bench.delay, HOLD)
    detect = Detect(0, slots, found, ((outcome == 2) | (outcome == 3)).astype(np.uint8))

    def symbols(of: Int64s) -> npt.NDArray[np.uint8]:
        return key_symbols(of, *KEY, np.uint64(T_X), np.uint64(T_D))

    all_of_them = slots_before(detect, 0)
    step = max(1, -(-len(found) // MOST))
    counts = np.zeros((2, 2), np.int64)
    for shift in range(step):
        chosen = all_of_them + shift
        chosen = chosen[chosen < len(found)]
        seen = neighbours(detect, symbols(found), chosen, symbols(found[chosen] - 1))
        counts += seen.counts
    return PatternTally(counts, seen.clicked, live, P)


def _expected(truth: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    means = (1.0 + truth) @ np.array(P)
    return np.asarray((1.0 + truth) / means[:, None] - 1.0)


@pytest.mark.parametrize(("loss_db", "size"), [(2.0, 0.01), (10.0, 0.0)])
def test_the_hold_off_is_taken_out(loss_db: float, size: float) -> None:
    """Without patterning the slot before a detection is a decoy too often, by much more than the uncertainty."""
    truth = size * np.array([[0.9, -0.6], [-0.8, 0.5]])
    tally = _tally(truth, loss_db, int(2.2e7 * 10 ** (0.07 * loss_db)), seed=int(loss_db) + 3)
    ratios, covariance = pattern(PatternCounts(tally.counts, tally.before))
    sigma = np.sqrt(np.diag(covariance)).reshape(2, 2)
    assert sigma.max() < 0.005
    assert np.abs((ratios - _expected(truth)) / sigma).max() < 3.5
    raw, _ = pattern(PatternCounts(tally.counts, P))
    assert np.abs((raw - _expected(truth)) / sigma).max() > 4.0
