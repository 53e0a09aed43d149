"""The expected counts against a slot-by-slot simulation written apart from it, and against limits that are known."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qmodd.rate.model import rates
from qmodd.rate.system import Receiver, Source, System


def system(source=None, receiver=None):
    return System(source=Source(**(source or {})), receiver=Receiver(**(receiver or {})))


def simulated(s, loss_db, slots, seed):
    """Every slot by itself: Poisson photons, detectors with dead time and recovery, the rule as it is written down."""
    rng = np.random.default_rng(seed)
    src, rec = s.source, s.receiver
    period = src.symbol_period_ps
    basis = rng.random(slots) < src.p_x
    bit = rng.integers(0, 2, slots)
    decoy = (rng.random(slots) < src.p_mu[1]).astype(int)
    light = np.array(src.mu)[decoy] * 10 ** (-loss_db / 10)
    to_z = light * (1 - rec.basis_split) * 10 ** (-rec.loss_z_db / 10) * rec.efficiency[0]
    into = [light * rec.basis_split * 10 ** (-rec.loss_x_db / 10) * e for e in rec.efficiency[1:]]
    early = np.where(basis, 0.5, np.where(bit == 0, 1 - src.error_z, src.error_z))
    at0 = np.where(basis, np.where(bit == 0, rec.error_x, 1 - rec.error_x), 0.5)
    cells = [to_z * early, to_z * (1 - early)]
    for q, share in ((0, at0), (1, 1 - at0)):
        cells += [into[q] * early / 4, into[q] * share / 2, into[q] * (1 - early) / 4]
    hits = [np.flatnonzero(rng.random(slots) < -np.expm1(-c)) for c in cells]
    detector, bins = (0, 0, 1, 1, 1, 2, 2, 2), (0, 1, 0, 1, 2, 0, 1, 2)
    photons = sorted((int(i), bins[c], detector[c]) for c, found in enumerate(hits) for i in found)
    last = [-1e18] * 3
    clicks = {}
    for slot, when, d in photons:
        since = (slot * period + when * 800.0 - last[d]) - rec.dead_ns[d] * 1e3
        if since <= 0 or rng.random() > -np.expm1(-since / (rec.recovery_ns[d] * 1e3)):
            continue
        last[d] = slot * period + when * 800.0
        clicks.setdefault(slot, []).append((d, when))
    n = {"n_z": [0, 0], "m_z": [0, 0], "n_x": [0, 0], "m_x": [0, 0], "cross": [0, 0]}
    before = -(10**9)
    for slot, seen in clicks.items():
        live, before = slot - before > rec.hold_off_slots, slot
        if not live or any(d and b != 1 for d, b in seen):
            continue
        z = [b for d, b in seen if d == 0]
        x = [2 - d for d, b in seen if d]  # DX1 (d 2) is bit 0, DX0 (d 1) bit 1
        k = decoy[slot]
        if z and x:
            n["cross"][k] += 1
            in_x, got = rng.random() < 0.5, int(rng.random() < 0.5)
        elif z:
            in_x, got = False, z[0]
        else:
            in_x, got = True, x[0] if len(x) == 1 else int(rng.random() < 0.5)
        if in_x == basis[slot]:
            name = "x" if in_x else "z"
            n[f"n_{name}"][k] += 1
            n[f"m_{name}"][k] += int(got != bit[slot])
    return n, slots * period * 1e-12, len(clicks)


@pytest.mark.parametrize(("loss_db", "slots"), [(0.0, 400_000), (6.0, 800_000), (12.0, 1_000_000)])
def test_against_every_slot_by_itself(loss_db, slots):
    s = system({"error_z": 0.02}, {"darks_hz": (0.0, 0.0, 0.0), "gate_share": 1.0, "error_x": 0.03})
    got, seconds, _ = simulated(s, loss_db, slots, 7)
    r = rates(s, loss_db)
    for name in ("n_z", "m_z", "n_x", "m_x"):
        for k in (0, 1):
            mean = getattr(r, name)[k] * seconds
            assert abs(got[name][k] - mean) < 4.5 * mean**0.5 + 0.004 * mean, (name, k, got[name][k], mean)
    cross = r.cross * seconds
    assert abs(sum(got["cross"]) - cross) < 4.5 * cross**0.5 + 1


def test_small_signals_follow_the_textbook():
    """Q = 1 - exp(-eta k), E Q = e (1 - exp(-eta k)) and half of the darks."""
    darks = 50.0
    s = system({"p_x": 0.1}, {"darks_hz": (darks,) * 3, "gate_share": 1.0, "half_gate_ps": 200.0})
    loss = 35.0
    r = rates(s, loss)
    eta = 10 ** (-(loss + s.receiver.loss_z_db) / 10) * (1 - s.receiver.basis_split) * s.receiver.efficiency[0]
    y0 = 2 * darks * 400e-12
    per_second = 1e12 / s.source.symbol_period_ps * 0.9 * 0.5
    for k, mu in enumerate(s.source.mu):
        q = y0 + 1 - np.exp(-eta * mu)
        wrong = y0 / 2 + s.source.error_z * (1 - np.exp(-eta * mu))
        assert r.n_z[k] == pytest.approx(per_second * q, rel=2e-3)
        assert r.m_z[k] == pytest.approx(per_second * wrong, rel=5e-3)


@settings(max_examples=60, deadline=None)
@given(
    st.floats(0, 60),
    st.floats(0.02, 0.98),
    st.floats(0.02, 0.98),
    st.floats(0.0, 200.0),
    st.floats(0.0, 1e6),
    st.integers(0, 60),
)
def test_rates_are_possible_at_any_setting(loss_db, p_x, split, dead_ns, darks, holdoff):
    receiver = {"basis_split": split, "dead_ns": (dead_ns,) * 3, "darks_hz": (darks,) * 3, "hold_off_slots": holdoff}
    r = rates(system({"p_x": p_x}, receiver), loss_db)
    assert 0.0 <= r.live <= 1.0
    for n, m in ((r.n_z, r.m_z), (r.n_x, r.m_x)):
        assert np.all(m >= 0)
        assert np.all(m <= n * (1 + 1e-12))
    assert float(r.n_z.sum() + r.n_x.sum()) <= 125e6
    assert np.all(r.clicks >= 0)


def test_a_dead_detector_saturates():
    """Clicks cannot be more than one a dead time, which ends at a slot."""
    s = system(None, {"dead_ns": (100.0,) * 3, "recovery_ns": (0.0,) * 3, "loss_z_db": 0.0})
    for loss in (0.0, 5.0, 10.0):
        rate = rates(s, loss).clicks[0]
        assert rate < 1e9 / 100.0
    bright = s.model_copy(update={"source": Source(mu=(10.0, 9.0))})
    assert rates(bright, 0.0).clicks[0] == pytest.approx(1e12 / (13 * 8000.0), rel=0.02)  # dead for twelve slots


def test_losses_that_are_none_are_refused():
    for loss in (-1.0, float("nan"), 201.0):
        with pytest.raises(ValueError, match="loss_db"):
            rates(System(), loss)
