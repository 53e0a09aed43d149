"""From expected counts to key: a block's length, the time it takes to fill, the secret key rate over loss."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from qmodd.keys.counts import BlockCounts
from qmodd.keys.estimation import KeyLength, key_length_interval, planned_leak
from qmodd.rate.model import Rates, rates
from qmodd.rate.system import Keys, System

# Bits disclosed for a block of so many bits at a QBER.
Leak = Callable[[int, float], int]
BLOCK_SIZES = tuple(round(base * 10.0**power) for power in range(4, 9) for base in (1, 2, 5))


@dataclass(frozen=True)
class Expectation:
    """One link and block size. `block_s`: time to fill a block; inf where nothing arrives. `skr_bps`: secret bits a
    second, the block's length over its time. `per_pulse`: the same a pulse."""

    loss_db: float
    n_z: int
    block_s: float
    skr_bps: float
    per_pulse: float
    length: KeyLength | None
    rates: Rates

    @property
    def length_bits(self) -> int:
        return self.length.length_bits if self.length else 0


def leak_model(keys: Keys) -> Leak:
    """f n h(QBER) and the tag, as the system says."""
    return lambda n, qber: planned_leak(n, qber, keys.efficiency, keys.tag_bits)


def expected(system: System, loss_db: float, n_z: int | None = None, leak: Leak | None = None) -> Expectation:
    """At the expected counts of a block that closes at n_Z (the system's own if not given).

    The mean of many blocks' lengths is a little below this, by the curvature of the bound over the counts' scatter.
    """
    size = system.keys.n_z if n_z is None else n_z
    r = rates(system, loss_db)
    if r.total_z <= 0.0:
        return Expectation(loss_db, size, float("inf"), 0.0, 0.0, None, r)
    seconds = size / r.total_z
    length = block_length(system, counts_in(r, seconds, size), leak)
    skr = length.length_bits / seconds
    return Expectation(loss_db, size, seconds, skr, skr * system.source.symbol_period_ps * 1e-12, length, r)


def counts_in(r: Rates, seconds: float, n_z: int) -> BlockCounts:
    """Whole counts of an interval; n_Z comes out exactly, the brightest intensity takes what rounding leaves."""
    z, x = _whole(r.n_z * seconds), _whole(r.n_x * seconds)
    z = (max(0, n_z - sum(z[1:])), *z[1:])
    m_z = tuple(min(m, n) for m, n in zip(_whole(r.m_z * seconds), z, strict=True))
    m_x = tuple(min(m, n) for m, n in zip(_whole(r.m_x * seconds), x, strict=True))
    return BlockCounts(z, m_z, x, m_x)


def block_length(system: System, counts: BlockCounts, leak: Leak | None = None) -> KeyLength:
    """The least length over the system's intensity intervals."""
    k, s = system.keys, system.source
    disclosed = (leak or leak_model(k))(counts.total_z, counts.qber_z)
    return key_length_interval(k.proof, counts, s.mu_intervals, s.p_mu, k.eps_sec, k.eps_cor, disclosed)


def over_loss(system: System, losses_db: Sequence[float], n_z: int | None = None) -> list[Expectation]:
    return [expected(system, loss, n_z) for loss in losses_db]


def block_sizes(system: System, loss_db: float, sizes: Sequence[int] = BLOCK_SIZES) -> list[Expectation]:
    """The choice: larger blocks give more, and give it later."""
    return [expected(system, loss_db, n) for n in sizes]


def _whole(values: np.ndarray[tuple[int, ...], np.dtype[np.float64]]) -> tuple[int, ...]:
    return tuple(round(float(v)) for v in values)
