"""The best intensities, probabilities and basis split for a measured link. A pure function of its arguments.

A pattern search in coordinates that cannot leave their ranges: the key length is rounded to whole bits and has edges,
so nothing that wants a derivative is asked for one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from qmodd.rate.planner import Expectation, expected
from qmodd.rate.system import System

# Range of each setting; what the source and the basis splitter can do.
RANGES: dict[str, tuple[float, float]] = {
    "mu_signal": (0.05, 1.0),
    "decoy_ratio": (0.05, 0.9),
    "p_decoy": (0.02, 0.98),
    "p_x": (0.02, 0.98),
    "basis_split": (0.02, 0.98),
}
# Where the search begins: nothing is said about a link's optimum by one of them alone.
_STARTS = (
    (0.54, 0.33, 0.50, 0.25, 0.26),
    (0.45, 0.30, 0.30, 0.10, 0.10),
    (0.50, 0.30, 0.65, 0.45, 0.45),
    (0.40, 0.40, 0.40, 0.30, 0.15),
)
_FIRST_STEP, _LAST_STEP = 0.05, 4e-4
_MOST_ROUNDS = 200


@dataclass(frozen=True)
class Proposal:
    """`settings` by name as in the configuration ([source] and receiver.basis_split), and what they are expected to
    give; `present`: what the given system gives as it is."""

    settings: dict[str, float]
    system: System
    expectation: Expectation
    present: Expectation


def optimise(
    system: System,
    loss_db: float,
    n_z: int | None = None,
    fixed: Sequence[str] = (),
    ranges: Mapping[str, tuple[float, float]] = RANGES,
) -> Proposal:
    """Settings with the most secret bits a second at this loss, block size and measured errors.

    `fixed` names settings that stay as the system has them; `ranges` are least and greatest value of each. Works for a
    source of one decoy; with two, the third intensity and its probability's share stay as they are. Raises ValueError
    on a name that is no setting.
    """
    if unknown := sorted(set(fixed) - set(RANGES)):
        raise ValueError(f"no setting {unknown[0]!r}; there are {', '.join(RANGES)}")
    now = settings_of(system)
    free = [name for name in RANGES if name not in fixed]

    def rate(values: Sequence[float]) -> float:
        return expected(with_settings(system, now | dict(zip(free, values, strict=True))), loss_db, n_z).skr_bps

    low, high = [ranges[n][0] for n in free], [ranges[n][1] for n in free]
    named = [dict(zip(RANGES, start, strict=True)) for start in _STARTS]
    starts = [[start[n] for n in free] for start in [now, *named]]
    inside = [[min(h, max(a, v)) for v, a, h in zip(s, low, high, strict=True)] for s in starts]
    ranked = sorted(inside, key=rate, reverse=True)[:2]
    best = max((climb(rate, start, low, high) for start in ranked), key=rate)
    present = expected(system, loss_db, n_z)
    chosen = with_settings(system, now | dict(zip(free, best, strict=True)))
    found = expected(chosen, loss_db, n_z)
    if found.skr_bps <= present.skr_bps:
        return Proposal(now, system, present, present)
    return Proposal(settings_of(chosen), chosen, found, present)


def settings_of(system: System) -> dict[str, float]:
    s = system.source
    return {
        "mu_signal": s.mu[0],
        "decoy_ratio": s.mu[1] / s.mu[0],
        "p_decoy": s.p_mu[1],
        "p_x": s.p_x,
        "basis_split": system.receiver.basis_split,
    }


def with_settings(system: System, settings: dict[str, float]) -> System:
    """The system with these settings; a third intensity keeps its value and probability."""
    s = system.source
    rest_mu, rest_p = s.mu[2:], s.p_mu[2:]
    p_decoy = min(settings["p_decoy"], 0.99 * (1.0 - sum(rest_p)))
    mu = (settings["mu_signal"], settings["mu_signal"] * settings["decoy_ratio"], *rest_mu)
    p_mu = (1.0 - p_decoy - sum(rest_p), p_decoy, *rest_p)
    source = s.model_copy(update={"mu": mu, "p_mu": p_mu, "p_x": settings["p_x"]})
    receiver = system.receiver.model_copy(update={"basis_split": settings["basis_split"]})
    return system.model_copy(update={"source": source, "receiver": receiver})


def climb(
    value: Callable[[Sequence[float]], float], start: Sequence[float], low: Sequence[float], high: Sequence[float]
) -> list[float]:
    """Highest point that steps along the axes reach, halved whenever none of them climbs; and one longer step in the
    direction of the last success (Hooke and Jeeves). A value that raises ValueError or is not finite counts as -inf."""

    def at(point: Sequence[float]) -> float:
        try:
            v = value(point)
        except ValueError:
            return -math.inf
        return v if math.isfinite(v) else -math.inf

    def clip(point: Sequence[float]) -> list[float]:
        return [min(h, max(a, p)) for p, a, h in zip(point, low, high, strict=True)]

    def explore(point: list[float], best: float, step: float) -> tuple[list[float], float]:
        for k in range(len(point)):
            for sign in (1.0, -1.0):
                tried = clip([*point[:k], point[k] + sign * step * (high[k] - low[k]), *point[k + 1 :]])
                if (v := at(tried)) > best:
                    point, best = tried, v
                    break
        return point, best

    here, best, step = clip(start), at(clip(start)), _FIRST_STEP
    for _ in range(_MOST_ROUNDS):
        found, higher = explore(here, best, step)
        if higher > best:
            leap = clip([2.0 * f - h for f, h in zip(found, here, strict=True)])
            far, farther = explore(leap, at(leap), step)
            here, best = (far, farther) if farther > higher else (found, higher)
        elif step <= _LAST_STEP:
            break
        else:
            step /= 2.0
    return here
