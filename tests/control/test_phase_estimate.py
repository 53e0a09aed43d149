"""What counts say about the phase: law, variance, signs, and which outputs are silent or exchanged."""

from __future__ import annotations

import math

import numpy as np
import pytest

from qmodd.control.phase_estimate import (
    PhaseCounts,
    PhaseModel,
    PilotTally,
    Sine,
    exchanged,
    from_dither,
    from_pilot,
    from_states,
    fuse,
    silent_output,
)

V, XI = 0.985, 0.09
MODEL = PhaseModel(V, XI)


def counts(error: float, n: int, rng: np.random.Generator, xi: float = XI) -> PhaseCounts:
    e = [(1 - V * math.cos(error + s * xi)) / 2 for s in (-1, 1)]
    return PhaseCounts(1.0, n, int(rng.binomial(n, e[0])), n, int(rng.binomial(n, e[1])))


@pytest.mark.parametrize("error", [0.0, 0.1, -0.7, 2.0, -2.9])
def test_states_tell_the_whole_turn_with_an_honest_variance(error: float) -> None:
    rng = np.random.default_rng(7)
    off, variance = [], []
    for _ in range(300):
        e = from_states(counts(error, 20_000, rng), MODEL)
        off.append(math.remainder(e.angle - error, 2 * math.pi))
        variance.append(e.angle_variance)
        assert e.contrast == pytest.approx(1.0, abs=0.35)
    assert np.mean(off) == pytest.approx(0.0, abs=0.02)
    assert np.std(off) == pytest.approx(math.sqrt(np.mean(variance)), rel=0.3)


def test_what_is_decided_may_be_acted_upon() -> None:
    rng = np.random.default_rng(8)
    assert from_states(counts(0.0, 1000, rng), MODEL).decided
    assert from_states(counts(math.pi, 1000, rng), MODEL).decided
    assert not from_states(counts(0.9, 30, np.random.default_rng(1)), MODEL).decided
    assert from_states(counts(0.9, 50_000, rng), MODEL).decided


def test_unequal_detectors_do_not_shift_the_phase() -> None:
    r = 0.9
    e = [0.02 + 0.96 * (1 - V * math.cos(s * XI)) / 2 for s in (-1, 1)]
    n = 1e6
    x0 = (n * (1 - e[0]), n * e[0] * r)
    x1 = (n * (1 - e[1]) * r, n * e[1])
    c = PhaseCounts(1.0, int(sum(x0)), int(x0[1]), int(sum(x1)), int(x1[1]))
    assert abs(from_states(c, PhaseModel(V, XI, r)).sine) < 0.003
    assert abs(from_states(c, MODEL).sine) > 0.02


def test_dither_and_pilot_follow_their_laws() -> None:
    rng = np.random.default_rng(9)
    for error in (-0.3, 0.0, 0.2):
        sides = [
            PhaseCounts(1.0, 500_000, int(rng.binomial(500_000, (1 - V * math.cos(error + d)) / 2)), 1, 0)
            for d in (0.08, -0.08)
        ]
        assert from_dither(sides[0], sides[1], 0.08, PhaseModel(V, 0.0)).angle == pytest.approx(error, abs=0.03)
        found = []
        for _ in range(200):
            s = V * math.sin(error)
            draw = [int(rng.poisson(2500 * m * (1 + k * s))) for m, k in ((0.9, 1), (1, -1), (0.9, -1), (1, 1))]
            found.append(from_pilot(PilotTally(0.1, *draw), MODEL))
        assert np.mean([f.value for f in found]) == pytest.approx(math.sin(error), abs=0.005)
        # Reference control B6a: 1/(V sqrt N).
        assert math.sqrt(found[0].variance) == pytest.approx(1 / (V * math.sqrt(9500)), rel=0.05)
        assert np.std([f.value for f in found]) == pytest.approx(math.sqrt(found[0].variance), rel=0.15)


def test_fusing_is_by_inverse_variance() -> None:
    assert fuse([Sine(1.0, 1.0), Sine(0.0, 3.0)]) == Sine(0.75, 0.75)
    with pytest.raises(ValueError, match="nothing to fuse"):
        fuse([])


def test_estimates_without_counts_are_refused() -> None:
    nothing, some = PhaseCounts(1.0, 0, 0, 5, 1), PhaseCounts(1.0, 5, 1, 5, 1)
    for bad in (
        lambda: from_states(nothing, MODEL),
        lambda: from_dither(some, PhaseCounts(1.0, 0, 0, 0, 0), 0.08, MODEL),
        lambda: from_pilot(PilotTally(0.1, 0, 1, 0, 1), MODEL),
    ):
        with pytest.raises(ValueError, match=r"needs? counts"):
            bad()
    assert PhaseCounts(1.0, 0, 0, 0, 0).visibility == 0.0
    assert PhaseCounts(1.0, 0, 0, 0, 0).visibility_sigma > 0.9


def test_a_silent_output_is_named() -> None:
    assert silent_output(0, 99) == ""
    assert silent_output(450, 1000) == ""
    assert "DX0 has 3 of 1000" in silent_output(3, 1000)
    assert "DX1 has 4 of 1000" in silent_output(996, 1000)


@pytest.mark.parametrize("ratio", [0.93, 1.07])
def test_exchanged_outputs_are_told_from_half_a_turn_by_states_and_by_satellites(ratio: float) -> None:
    def seen(n0: float, n1: float, satellites: tuple[int, int, int, int] = (0, 0, 0, 0)) -> PhaseCounts:
        return PhaseCounts(1.0, round(n0), round(0.01 * n0), round(n1), round(0.01 * n1), satellites)

    n = 100_000
    before = seen(n, n * ratio)
    assert exchanged(before, seen(n, n * ratio), ratio) > 10
    assert exchanged(before, seen(n * ratio, n), ratio) < -10
    assert exchanged(before, seen(5, 5), ratio) == 0.0
    told, turned = (200_000, 190_000, 194_000, 199_000), (194_000, 199_000, 200_000, 190_000)
    assert exchanged(seen(n, n, told), seen(n, n, turned), 1.0) > 10
    assert exchanged(seen(n, n, told), seen(n, n, told), 1.0) < -10


def test_counts_of_a_batch_and_of_a_pilot() -> None:
    class Batch:
        n_x0, e_x0, n_x1, e_x1, satellites = (10, 5), (1, 0), (11, 6), (0, 2), (1, 2, 3, 4)

    class Pilots:
        n_plus_dx0, n_plus_dx1, n_minus_dx0, n_minus_dx1, seconds = 1, 2, 3, 4, 0.1

    c = PhaseCounts.of(Batch(), 0.1)
    assert c == PhaseCounts(0.1, 15, 1, 17, 2, (1, 2, 3, 4))
    assert (c + c).satellites == (2, 4, 6, 8)
    assert (c + c).halved() == c
    assert c.dx0 == 1 + 15
    tally = PilotTally.of(Pilots())
    assert (tally.dx0, tally.dx1, tally.total) == (4, 6, 10)
