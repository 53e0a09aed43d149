from __future__ import annotations

from itertools import product
from math import pi

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from calibration.crosstalk import (
    Matrix,
    Prior,
    adjust,
    distance_prior,
    hop,
    lagged_sum,
    regress,
    solve,
    stored_heat,
)
from calibration.fit import FitRefused

NAMES = ("a", "b", "c", "d")
TOP = dict.fromkeys(NAMES, 0.107)


def drawn(seed: int) -> tuple[Matrix, np.ndarray]:
    rng = np.random.default_rng(seed)
    p_pi = 0.040 * (1 + 0.06 * rng.normal(size=4))
    distance = np.abs(np.subtract.outer(np.arange(4), np.arange(4)))
    theta = np.where(distance == 0, 1.0, 0.04 * np.exp(-distance / 1.5) * np.exp(0.2 * rng.normal(size=(4, 4))))
    common = np.array([0.1, -0.2, 12.2, 0.1])
    return Matrix(NAMES, rng.uniform(-pi, pi, 4), theta * pi / p_pi, common), p_pi


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), target=st.lists(st.floats(-pi, pi), min_size=3, max_size=3))
def test_solved_powers_give_the_phases_and_keep_off_the_rails(seed: int, target: list[float]) -> None:
    matrix, _ = drawn(seed)
    wanted = dict(zip(("a", "b", "d"), target, strict=True))
    found = solve(matrix, wanted, TOP, {"c": 0.037})
    powers = np.array([found.power_w[n] for n in NAMES])
    phases = matrix.phases(powers)
    for name, phase in wanted.items():
        assert np.cos(phases[matrix.index(name)] - phase) == pytest.approx(1.0, abs=1e-9)
        assert found.margin * 0.107 - 1e-9 <= found.power_w[name] <= (1 - found.margin) * 0.107 + 1e-9
    assert found.power_w["c"] == 0.037
    assert found.total_w == pytest.approx(powers.sum())


def test_no_other_order_needs_less_power() -> None:
    matrix, p_pi = drawn(3)
    wanted = {"a": 0.3, "b": 1.0, "d": pi}
    found = solve(matrix, wanted, TOP, {"c": 0.037})
    base = np.array([found.power_w[n] for n in NAMES])
    for turns in product((-1, 0, 1), repeat=3):
        step = adjust(matrix, {n: 2 * pi * k for n, k in zip(("a", "b", "d"), turns, strict=True)} | {"c": 0.0})
        other = base + np.array([step[n] for n in NAMES])
        inside = all(found.margin * 0.107 <= other[matrix.index(n)] <= (1 - found.margin) * 0.107 for n in wanted)
        if inside and any(turns):
            assert other.sum() > base.sum() - 0.004  # `adjust` also moves c, which `solve` holds
    assert p_pi.min() > 0.03


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), turns=st.sampled_from((-1, 1)), name=st.sampled_from(NAMES))
def test_a_hop_turns_one_element_and_leaves_the_others(seed: int, turns: int, name: str) -> None:
    matrix, p_pi = drawn(seed)
    step = hop(matrix, name, turns)
    moved = matrix.total @ np.array([step[n] for n in NAMES])
    wanted = np.where(np.array(NAMES) == name, 2 * pi * turns, 0.0)
    assert moved == pytest.approx(wanted, abs=1e-9)
    # With a ballast the heater sum stays, so that the local response alone turns the phases, at once.
    step = hop(matrix, name, turns, ballast="e")
    assert sum(step.values()) == pytest.approx(0.0, abs=1e-12)
    assert matrix.local @ np.array([step[n] for n in NAMES]) == pytest.approx(wanted, abs=1e-9)
    assert abs(step[name]) == pytest.approx(2 * p_pi[matrix.index(name)], rel=0.01)


def test_what_cannot_be_set_is_said() -> None:
    matrix, _ = drawn(1)
    with pytest.raises(FitRefused, match="within 2% of the rails"):
        solve(matrix, {"a": 0.0}, dict.fromkeys(NAMES, 0.01), {"b": 0.0, "c": 0.0, "d": 0.0})
    with pytest.raises(ValueError, match="c, d: neither"):
        solve(matrix, {"a": 0.0}, TOP, {"b": 0.0})


def _settings() -> np.ndarray:
    up = [s for s in product((0, 1), repeat=4) if sum(s) == 2]
    return 0.02 + 0.04 * np.array([*up, *reversed(up), (1, 1, 0, 1), (0, 1, 0, 0)], dtype=np.float64)


def test_regression_finds_the_row_and_its_covariance_is_honest() -> None:
    rng = np.random.default_rng(5)
    squares = []
    for seed in range(60):
        matrix, _ = drawn(seed)
        powers = _settings()
        at = 0.03 * np.arange(len(powers))
        at[-2:] += (0.25, 0.5)
        die = lagged_sum(at - 0.02, powers.sum(axis=1), at, float(powers[0].sum()))
        walk = np.concatenate([[0.0], np.cumsum(0.015 * np.sqrt(np.diff(at)) * rng.normal(size=len(at) - 1))])
        i = 2
        phases = matrix.phi0_rad[i] + powers @ matrix.local[i] + matrix.common[i] * die + walk
        phases = phases + 0.002 * rng.normal(size=len(at))
        known = matrix.local[i] * (1 + np.array([0.2, 0.2, 0.002, 0.2]) * rng.normal(size=4))
        prior = Prior(known, matrix.local[i] * np.array([0.2, 0.2, 0.002, 0.2]), 12.2 + 0.6 * rng.normal(), 0.6)
        row = regress(phases, np.full(len(at), 0.002), powers, die, at, prior, walk_rad_per_root_s=0.015)
        error = np.append(row.local - matrix.local[i], row.common - matrix.common[i])
        squares.append(error**2 / np.diag(row.covariance)[1:])
        at_zero, sigma = row.phase_at(np.zeros(4))
        assert abs(at_zero - matrix.phi0_rad[i]) < 6 * sigma + 0.05
    assert 0.7 < np.mean(squares) < 1.35


def test_too_few_settings_and_wrong_phases_are_refused() -> None:
    powers = np.tile([0.02, 0.03, 0.02, 0.01], (6, 1))
    nothing = Prior(np.zeros(4), np.full(4, np.inf))
    at = np.arange(6.0)
    with pytest.raises(FitRefused, match="determine only"):
        regress(np.zeros(6), np.full(6, 0.01), powers, powers.sum(axis=1), at, nothing)
    rng = np.random.default_rng(1)
    spread = _settings()
    at = np.arange(float(len(spread)))
    with pytest.raises(FitRefused, match="times as much as their noise explains"):
        regress(
            rng.uniform(-1, 1, len(spread)), np.full(len(spread), 1e-3), spread, spread.sum(axis=1), at,
            Prior(np.zeros(4), np.full(4, 100.0), 0.0, 1.0),
        )  # fmt: skip


def test_the_die_follows_with_its_lag_and_the_submount_keeps_the_heat() -> None:
    times, sums = np.array([0.0, 0.1]), np.array([0.08, 0.04])
    at = np.array([0.05, 0.1, 10.0])
    felt = lagged_sum(times, sums, at, 0.02, tau_s=0.05)
    assert felt[0] == pytest.approx(0.08 - 0.06 * np.exp(-1.0))
    assert felt[2] == pytest.approx(0.04)
    heat = stored_heat(times, sums, felt, at, 0.02)
    assert heat[0] == pytest.approx(0.06 * 0.05 - 0.05 * (felt[0] - 0.02))
    assert heat[2] == pytest.approx(0.06 * 0.1 + 0.02 * 9.9 - 0.05 * 0.02)


def test_distance_prior_is_that_of_the_reference() -> None:
    p = distance_prior(4, 1, np.full(4, 0.04), 1e-4)
    assert p.local * 0.04 / pi == pytest.approx([0.0205, 1.0, 0.0205, 0.0105], abs=2e-4)
    assert p.local_sigma[1] == pytest.approx(p.local[1] * 0.0025)
