"""The papers' key lengths in 60-digit decimal arithmetic, written down from their equations, apart from the code.

Everything is kept in the papers' own order of calculation: asymptotic counts n*, then yields, then length. Returns the
real number before it is rounded down, or None where a proof says nothing (no single photons, a phase error of 1/2 or
more, no observed error in the bounds that need one).
"""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal, getcontext

getcontext().prec = 60
D = Decimal
TWO = D(2)


def log2(x: Decimal) -> Decimal:
    return x.ln() / TWO.ln()


def h(x: Decimal) -> Decimal:
    return D(0) if x <= 0 or x >= 1 else -x * log2(x) - (1 - x) * log2(1 - x)


def hoeffding(n: int, eps: Decimal) -> Decimal:
    return (D(n) / 2 * (1 / eps).ln()).sqrt()


class Source:
    def __init__(self, mu: Sequence[float], p: Sequence[float]) -> None:
        self.mu = [D(m) for m in mu]
        self.p = [D(q) for q in p]
        self.tau0 = sum((q * (-m).exp() for q, m in zip(self.p, self.mu, strict=True)), D(0))
        self.tau1 = sum((q * (-m).exp() * m for q, m in zip(self.p, self.mu, strict=True)), D(0))

    def scaled(self, counts: Sequence[int], eps: Decimal, sign: int) -> list[Decimal]:
        """e^k / p_k (c_k +- delta) for every intensity."""
        delta = hoeffding(sum(counts), eps)
        return [m.exp() / q * (D(c) + sign * delta) for m, q, c in zip(self.mu, self.p, counts, strict=True)]


Values = dict[str, Decimal]


def lim2014(n_z, n_x, m_x, mu, p, leak, eps_sec, eps_cor) -> tuple[Values, Decimal | None]:  # type: ignore[no-untyped-def]
    """Eqs. (1) to (5) of Phys. Rev. A 89, 022307, its X and Z exchanged."""
    s, e = Source(mu, p), D(eps_sec) / 21
    m1, m2, m3 = s.mu

    def vacuum(n: Sequence[int]) -> Decimal:
        low, high = s.scaled(n, e, -1), s.scaled(n, e, 1)
        return max(D(0), s.tau0 / (m2 - m3) * (m2 * low[2] - m3 * high[1]))

    def single(n: Sequence[int]) -> Decimal:
        low, high = s.scaled(n, e, -1), s.scaled(n, e, 1)
        multi = (m2**2 - m3**2) / m1**2 * (high[0] - vacuum(n) / s.tau0)
        return m1 * s.tau1 / (m1 * (m2 - m3) - (m2**2 - m3**2)) * (low[1] - high[2] - multi)

    errors = s.tau1 / (m2 - m3) * (s.scaled(m_x, e, 1)[1] - s.scaled(m_x, e, -1)[2])
    values = {"s_z0": vacuum(n_z), "s_z1": single(n_z), "s_x1": single(n_x), "v_x1": max(D(0), errors)}
    return finish(values, 21, 21, leak, eps_sec, eps_cor)


def one_decoy(n_z, m_z, n_x, m_x, mu, p, eps: Decimal) -> Values:  # type: ignore[no-untyped-def]
    """Eqs. (A16), (A17), (A19), (A22) of Appl. Phys. Lett. 112, 171104."""
    s = Source(mu, p)
    m1, m2 = s.mu

    def most_vacuum(n: Sequence[int], m: Sequence[int]) -> Decimal:
        wrong = s.scaled(m, eps, 1)
        each = [TWO * (s.tau0 * w + hoeffding(sum(n), eps)) for w in wrong]
        return min([D(sum(n)), *each])

    def single(n: Sequence[int], m: Sequence[int]) -> Decimal:
        low, high = s.scaled(n, eps, -1), s.scaled(n, eps, 1)
        rest = low[1] - m2**2 / m1**2 * high[0] - (m1**2 - m2**2) / m1**2 * most_vacuum(n, m) / s.tau0
        return s.tau1 * m1 / (m2 * (m1 - m2)) * rest

    low, high = s.scaled(n_z, eps, -1), s.scaled(n_z, eps, 1)
    errors = s.tau1 / (m1 - m2) * (s.scaled(m_x, eps, 1)[0] - s.scaled(m_x, eps, -1)[1])
    return {
        "s_z0": max(D(0), s.tau0 / (m1 - m2) * (m1 * low[1] - m2 * high[0])),
        "s_z1": single(n_z, m_z),
        "s_x1": single(n_x, m_x),
        "v_x1": max(D(0), errors),
    }


def rusca2018(n_z, m_z, n_x, m_x, mu, p, leak, eps_sec, eps_cor) -> tuple[Values, Decimal | None]:  # type: ignore[no-untyped-def]
    values = one_decoy(n_z, m_z, n_x, m_x, mu, p, D(eps_sec) / 19)
    return finish(values, 19, 21, leak, eps_sec, eps_cor)


def finish(v: Values, parts: int, k: int, leak: int, eps_sec: float, eps_cor: float) -> tuple[Values, Decimal | None]:
    """Phase error by sampling without replacement, Eq. (A21), then the length, Eq. (A25)."""
    z1, x1 = v["s_z1"], v["s_x1"]
    if z1 <= 0 or x1 <= 0:
        return v, None
    b = v["v_x1"] / x1
    if not 0 < b < D("0.5"):
        return v | {"phi_z": D("0.5")}, None
    part = (x1 + z1) / (x1 * z1 * (1 - b) * b)
    gamma = ((x1 + z1) * (1 - b) * b / (x1 * z1 * TWO.ln()) * log2(part * D(k) ** 2 / D(eps_sec) ** 2)).sqrt()
    phi = min(D("0.5"), b + gamma)
    v = v | {"phi_z": phi}
    if phi >= D("0.5"):
        return v, None
    paid = v["s_z0"] + z1 - z1 * h(phi) - leak - 6 * log2(D(parts) / D(eps_sec)) - log2(2 / D(eps_cor))
    return v, paid


def wiesemann2024(n_z, m_z, n_x, m_x, mu, p, leak, eps_sec, eps_cor) -> tuple[Values, Decimal | None]:  # type: ignore[no-untyped-def]
    eps = D(eps_sec) / 15
    v = one_decoy(n_z, m_z, n_x, m_x, mu, p, eps)
    z1, x1 = v["s_z1"], v["s_x1"]
    if z1 <= 0 or x1 <= 0:
        return v, None
    spread = ((z1 + x1) / (z1 * x1) * (x1 + 1) / x1 * (1 / eps).ln()).sqrt()
    phi = min(D("0.5"), v["v_x1"] / x1 + spread)
    v = v | {"phi_z": phi}
    if phi >= D("0.5"):
        return v, None
    security = 4 * log2(D(15) / (D(eps_sec) * TWO.sqrt().sqrt()))
    return v, z1 * (1 - h(phi)) - leak - log2(2 / D(eps_cor)) - security
