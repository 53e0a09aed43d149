"""The table of means: compiled against readable form, and every law of the reference pair A5."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from sim.jit import python_of
from sim.physics.light import light_of, qber
from sim.physics.optics import (
    ROWS,
    AliceOptics,
    BobOptics,
    alice_fields,
    continuous_split,
    fill_table,
    photons_of,
    table,
)

Floats = npt.NDArray[np.float64]
DEG3 = math.radians(3.0)
A, B = AliceOptics(), BobOptics()
W = np.array([0.7, 0.3])


def _random_pair(g: np.random.Generator) -> tuple[AliceOptics, BobOptics]:
    a = AliceOptics(
        mu_ref=g.uniform(0.1, 1.0),
        d_filter=g.normal(),
        d_split=g.normal(),
        phi=g.uniform(-7, 7),
        d_shutter=g.normal(),
        shutter_floor=5e-4,
        d_c=g.normal(),
        theta_c=g.uniform(0, 4),
        d_s=g.normal(),
        theta_s=g.uniform(0, 4),
        d_d=g.normal(),
        theta_d=g.uniform(0, 4),
        xi_s=g.uniform(-0.1, 0.1),
        long=g.uniform(0.6, 0.9),
        pilot_gain=g.uniform(0, 20),
    )
    b = BobOptics(kappa=g.uniform(), d_split=g.normal(), d_combine=g.normal(), phi=g.uniform(-7, 7))
    return a, b


@pytest.mark.parametrize("compiled", [True, False])
def test_compiled_table_equals_the_readable_one(compiled: bool) -> None:
    g = np.random.default_rng(1)
    fill = fill_table if compiled else python_of(fill_table)
    lam, photons = np.empty((ROWS, 8)), np.empty(ROWS)
    for _ in range(50):
        a, b = _random_pair(g)
        fill(a.vector(), b.vector(), 10.0, lam, photons)
        expected = table(a, b, 10.0)
        fields, leak = alice_fields(a)
        np.testing.assert_allclose(lam, expected, rtol=0, atol=1e-12 * expected.max())
        np.testing.assert_allclose(photons, (np.abs(fields) ** 2 + leak).sum(axis=1), rtol=1e-12)


def _seen(a: AliceOptics = A, b: BobOptics = B) -> dict[str, float]:
    lam = table(a, b, 10.0)
    z0, z1, x0, x1 = (W @ lam[2 * s : 2 * s + 2] for s in range(4))
    every = 0.25 * (z0 + z1 + x0 + x1)
    ez, ex = qber(lam, 0.3)
    return {
        "eZ": ez,
        "eX": ex,
        "eX1-eX0": x1[6] / (x1[3] + x1[6]) - x0[3] / (x0[3] + x0[6]),
        "E/L": z0[0] / z1[1],
        "X0/X1": x0.sum() / x1.sum(),
        "X/Z": (x0.sum() + x1.sum()) / (z0.sum() + z1.sum()),
        "decoy": lam[1, :2].sum() / lam[0, :2].sum(),
        "satellites": (every[2] + every[5]) / (every[4] + every[7]),
        "ports": (every[2] * every[7]) / (every[5] * every[4]),
        "flux": every.sum(),
    }


BEST = replace(A, phi=-A.xi_s)
SQ = DEG3 * DEG3
V = B.v_mode
# (change, observable, law, relative to the value without error)
LAWS: list[tuple[dict[str, Any], dict[str, Any], str, float, bool]] = [
    ({"d_s": DEG3}, {}, "eZ", SQ / 4, False),
    ({"d_s": DEG3}, {}, "X0/X1", math.sin(DEG3), True),
    ({"theta_s": math.pi * 0.95}, {}, "X/Z", -math.pi * 0.05 / 2, True),
    ({"theta_s": math.pi * 0.95}, {}, "eZ", 0.0, False),
    ({"d_split": DEG3}, {}, "E/L", -2 * DEG3, True),
    ({"d_split": DEG3}, {}, "eX", V * SQ / 4, False),
    ({}, {"d_split": DEG3}, "satellites", -2 * DEG3, True),
    ({}, {"d_split": DEG3}, "eX", V * SQ / 4, False),
    ({}, {"d_combine": DEG3}, "ports", -4 * DEG3, True),
    ({}, {"d_combine": DEG3}, "eX", V * SQ / 4, False),
    ({"d_c": DEG3}, {}, "eX", 4 * SQ / 8, False),
    ({"d_c": DEG3}, {}, "eZ", 0.0, False),
    ({"d_d": DEG3}, {}, "decoy", -math.tan(A.theta_d / 2) * DEG3, True),
    ({"d_shutter": DEG3}, {}, "flux", -SQ / 4, True),
    ({"d_filter": DEG3}, {}, "flux", -SQ / 4, True),
]


@pytest.mark.parametrize(("alice", "bob", "what", "law", "relative"), LAWS)
def test_each_error_makes_its_observable(
    alice: dict[str, Any], bob: dict[str, Any], what: str, law: float, relative: bool
) -> None:
    before, after = _seen()[what], _seen(replace(A, **alice), replace(B, **bob))[what]
    change = after / before - 1.0 if relative else after - before
    assert change == pytest.approx(law, rel=0.12, abs=5e-5)


def test_phase_optimum_is_at_minus_xi_and_the_state_difference_is_signed() -> None:
    best = _seen(BEST)
    for error in (DEG3, -DEG3):
        off = _seen(replace(BEST, phi=BEST.phi + error))
        assert off["eX"] - best["eX"] == pytest.approx(V * SQ / 4, rel=0.05)
        difference = off["eX1-eX0"] - best["eX1-eX0"]
        assert difference == pytest.approx(V * math.sin(A.xi_s) * math.sin(error), rel=0.1)


def test_extinction_of_the_state_modulator_sets_the_floor_of_qber_z() -> None:
    er = 10.0**2.2
    assert _seen()["eZ"] == pytest.approx(1.0 / (1.0 + er), rel=1e-2)


def test_undriven_state_modulator_leaves_its_leak_only() -> None:
    photons = photons_of(A)
    assert photons[8] / photons[0] == pytest.approx(2 * A.xi_s**2 / (1 + A.xi_s**2), rel=0.02)
    assert photons[0] == pytest.approx(A.mu_ref * (1 + A.xi_s**2), rel=0.01)


def test_unmodulated_light_keeps_its_energy_at_the_combiner() -> None:
    b = replace(BobOptics(), v_mode=1.0, eff_z=1.0, eff_x0=1.0, eff_x1=1.0)
    sums = [continuous_split(b, turn)[1:].sum() for turn in (0.0, 1.0, math.pi)]
    assert sums == pytest.approx([sums[0]] * 3, rel=1e-12)
    bright = continuous_split(b, 0.0)
    assert bright[1] == pytest.approx(0.0, abs=1e-12)
    assert bright[2] > 0.0


def test_light_caps_what_would_only_cost_time() -> None:
    light = light_of(replace(A, mu_ref=1e6), B, 10.0, 1e9, 0.0, np.full(3, 100.0), 8e-9)
    assert np.diff(light.cumulative(), axis=2).max() <= 0.5 + 1e-6


def test_pilots_show_the_sine_of_the_error_and_nothing_of_its_cosine() -> None:
    """Equal energy in both bins, gain times a signal; an output's difference over its sum goes with sin(phi_B - phi_A).

    The sign is as documented: the early field of the first leads.
    """
    bob = BobOptics(v_mode=1.0)
    for error in (-0.5, 0.0, 0.2):
        alice = AliceOptics(phi=0.7, pilot_gain=10.0, leak_c=0.0, xi_s=0.0)
        lam = table(alice, replace(bob, phi=0.7 + error), 10.0)
        assert lam[9, :2].sum() == pytest.approx(10.0 * lam[0, :2].sum(), rel=1e-9)
        assert lam[9, 0] == pytest.approx(lam[9, 1], rel=1e-6)
        for cell, sign in ((3, 1.0), (6, -1.0)):
            contrast = (lam[9, cell] - lam[10, cell]) / (lam[9, cell] + lam[10, cell])
            assert contrast == pytest.approx(sign * math.sin(error), abs=1e-6)


def test_without_pilot_its_rows_are_dark() -> None:
    assert np.all(table(AliceOptics(), BobOptics(), 10.0)[9:] == 0.0)
