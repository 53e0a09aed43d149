"""Expected counts a second of a link: Poisson light, passive basis choice, acceptance rule, dead time with recovery.

The rule: a slot is live if no detector clicked in the hold-off before it; it is accepted if its clicks lie in gates of
one basis. Clicks in both bases give a random basis and a random bit, two X clicks a random bit. A detector's clicks are
a renewal process: after one it is dead, then recovers as 1 - exp(-t / recovery).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from qmodd.rate.system import Receiver, Source, System, transmission

Floats = npt.NDArray[np.float64]

# Rows are Alice's states Z0, Z1, X0, X1; their early and late pulse as shares of the light, before imperfections.
_STATES = 4
_FAR_SLOTS = 12
_MOST_SLOTS = 4000


@dataclass(frozen=True)
class Rates:
    """Means a second. Per intensity: matched detections and errors in Z and X. `live`: share of slots that are live;
    `clicks`: of each detector (3,)."""

    n_z: Floats
    m_z: Floats
    n_x: Floats
    m_x: Floats
    live: float
    clicks: Floats
    cross: float

    @property
    def total_z(self) -> float:
        return float(self.n_z.sum())

    @property
    def qber_z(self) -> float:
        return float(self.m_z.sum() / self.n_z.sum()) if self.total_z > 0.0 else 0.0

    @property
    def qber_x(self) -> float:
        total = float(self.n_x.sum())
        return float(self.m_x.sum() / total) if total > 0.0 else 0.0


def rates(system: System, loss_db: float) -> Rates:
    """Of the link over a fibre of `loss_db`. Raises ValueError on a loss that is none."""
    if not 0.0 <= loss_db <= 200.0:
        raise ValueError(f"loss_db {loss_db} must lie in 0 to 200")
    s, r = system.source, system.receiver
    z, x = _cells(s, r, loss_db)
    chance = _clicks(z, x, r, s.symbol_period_ps)
    weights = np.outer([(1 - s.p_x) / 2, (1 - s.p_x) / 2, s.p_x / 2, s.p_x / 2], s.p_mu)
    mean = np.tensordot(chance, weights, axes=([1, 2], [0, 1]))
    live, ready = _live(mean, r, s.symbol_period_ps)
    per_second = 1e12 / s.symbol_period_ps
    out = _outcomes(z, x, r, s.symbol_period_ps) * weights * live * per_second
    z0, z1, x0, x1, both, cross = out
    toss, draw = 0.5 * both, 0.25 * cross
    n = np.stack([z0 + draw, z1 + draw, x0 + toss + draw, x1 + toss + draw])
    return Rates(
        n_z=n[:2, :2].sum(axis=(0, 1)),
        m_z=n[1, 0] + n[0, 1],
        n_x=n[2:, 2:].sum(axis=(0, 1)),
        m_x=n[3, 2] + n[2, 3],
        live=live,
        clicks=mean * ready * per_second,
        cross=float(cross.sum()),
    )


def _cells(s: Source, r: Receiver, loss_db: float) -> tuple[Floats, Floats]:
    """Mean photo-detections a slot: at DZ (2 bins, state, intensity), at DX (output, 3 bins, state, intensity)."""
    mu = np.array(s.mu)
    line = transmission(loss_db)
    to_z = line * (1.0 - r.basis_split) * transmission(r.loss_z_db) * r.efficiency[0]
    wrong = s.error_z
    early = np.array([1.0 - wrong, wrong, 0.5, 0.5])
    z = to_z * np.stack([np.outer(early, mu), np.outer(1.0 - early, mu)])
    to_x = line * r.basis_split * transmission(r.loss_x_db) * np.array(r.efficiency[1:])
    at_0 = np.array([0.5, 0.5, r.error_x, 1.0 - r.error_x])  # X0 leaves by output 1
    x = np.empty((2, 3, _STATES, len(mu)))
    for q, right in enumerate((at_0, 1.0 - at_0)):
        side = (1.0 - r.interferes) / 2.0
        x[q, 0] = to_x[q] * side * np.outer(early, mu)
        x[q, 1] = to_x[q] * r.interferes * np.outer(right, mu)
        x[q, 2] = to_x[q] * side * np.outer(1.0 - early, mu)
    return z, x


def _clicks(z: Floats, x: Floats, r: Receiver, period_ps: float) -> Floats:
    """Chance that a ready detector clicks in a slot, (3, state, intensity)."""
    darks = np.array(r.darks_hz)[:, None, None] * period_ps * 1e-12
    light = np.stack([z.sum(axis=0), x[0].sum(axis=0), x[1].sum(axis=0)])
    return np.asarray(-np.expm1(-(light + darks)))


def _live(chance: Floats, r: Receiver, period_ps: float) -> tuple[float, Floats]:
    """(share of slots without a click in the hold-off before them, share of slots in which each detector is ready).

    Renewal: `alive[u]` is the chance of no click within u slots after one; far from it the tail is geometric. The
    chance that the last click is at least u slots away is the sum of `alive` from u on over the sum of all.
    """
    dead, recovery = np.array(r.dead_ns) * 1e3, np.maximum(np.array(r.recovery_ns) * 1e3, 1e-6)
    reach = int(min(_MOST_SLOTS, np.max((dead + 8.0 * recovery) / period_ps)))
    slots = max(_FAR_SLOTS, r.hold_off_slots) + reach + 1
    after = np.maximum(np.arange(1, slots + 1)[:, None] * period_ps - dead, 0.0)
    ready = -np.expm1(-after / recovery)
    q = np.maximum(chance, 1e-18)
    alive = np.vstack([np.ones(3), np.cumprod(1.0 - q * ready, axis=0)])
    tail = alive[-1] / q
    gap = alive[:-1].sum(axis=0) + tail
    quiet = (alive[r.hold_off_slots : -1].sum(axis=0) + tail) / gap
    available = np.minimum(1.0, 1.0 / (q * gap))
    # Without the rule a slot counts if the detector it needs is ready; Z makes the key, so DZ's share is taken.
    live = float(np.prod(quiet)) if r.hold_off_slots else float(available[0])
    return live, available


def _outcomes(z: Floats, x: Floats, r: Receiver, period_ps: float) -> Floats:
    """Chances in a live slot: Z0, Z1, X0, X1, both X outputs, cross; (6, state, intensity).

    Of two photo-detections at one detector the first one counts; a click outside the gates drops the slot.
    """
    gate = np.array(r.darks_hz) * 2e-12 * r.half_gate_ps
    outside = np.array(r.darks_hz) * period_ps * 1e-12 - gate * np.array([2, 3, 3])
    outside = np.maximum(outside, 0.0)
    early, late = z[0] + gate[0], z[1] + gate[0]
    no_z = np.exp(-early - late - outside[0])
    half = np.exp(-outside / 2.0)  # a dark before the click, on average in half of the slot
    z0 = -np.expm1(-early) * r.gate_share * half[0]
    z1 = np.exp(-early) * -np.expm1(-late) * r.gate_share * half[0]
    none, middle = [], []
    for q in (0, 1):
        first, second, third = (x[q, i] + gate[q + 1] for i in range(3))
        none.append(np.exp(-first - second - third - outside[q + 1]))
        middle.append(np.exp(-first) * -np.expm1(-second) * r.gate_share * half[q + 1])
    no_x = none[0] * none[1]
    one_x = (none[0] + middle[0]) * (none[1] + middle[1]) - no_x
    return np.stack(
        [
            z0 * no_x,
            z1 * no_x,
            no_z * none[0] * middle[1],
            no_z * none[1] * middle[0],
            no_z * middle[0] * middle[1],
            (z0 + z1) * one_x,
        ]
    )
