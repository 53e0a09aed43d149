"""How a value is measured, and what is told about it."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

# Fraction done (0 to 1) and what is being done.
Progress = Callable[[float, str], None]


def silent(_fraction: float, _text: str) -> None:
    """For who does not want to know."""


class Mismatch(Exception):
    """The code under test and its reference disagree: their times cannot be compared."""


@dataclass(frozen=True)
class Result:
    """One measured value beside its reference, both in `unit`.

    `ratio` says how many times better the value is than the reference, whichever direction better is; None without a
    reference. `limit` is what the value must keep, in `unit` too: at most (`less_is_better`) or at least this, or both
    of a pair; None where nothing is asked. `detail` holds further numbers of the same run, units in their names; `note`
    is for people.
    """

    name: str
    value: float
    unit: str
    reference: float | None
    reference_name: str
    less_is_better: bool = False
    detail: dict[str, float] = field(default_factory=dict)
    limit: float | tuple[float, float] | None = None
    note: str = ""

    @property
    def ratio(self) -> float | None:
        if self.reference is None:
            return None
        return self.reference / self.value if self.less_is_better else self.value / self.reference

    @property
    def ok(self) -> bool:
        """The limit is kept; a value that is not a number keeps none."""
        if self.limit is None:
            return True
        if isinstance(self.limit, tuple):
            low, high = self.limit
            return low <= self.value <= high
        return self.value <= self.limit if self.less_is_better else self.value >= self.limit

    def as_dict(self) -> dict[str, Any]:
        """For JSON; numbers with six significant digits."""
        out: dict[str, Any] = {**asdict(self), "ratio": self.ratio, "ok": self.ok}
        out["detail"] = {k: _rounded(v) for k, v in self.detail.items()}
        for name in ("value", "reference", "ratio"):
            out[name] = None if out[name] is None else _rounded(out[name])
        if isinstance(self.limit, tuple):
            out["limit"] = list(self.limit)
        return out


def best_of(work: Callable[[], object], times: int = 5) -> float:
    """Shortest of several runs, s, after one that does not count (compilation, caches).

    The shortest, because everything else that a machine does can only make a run longer.
    """
    work()
    taken = []
    for _ in range(times):
        begun = time.perf_counter()
        work()
        taken.append(time.perf_counter() - begun)
    return min(taken)


def same_arrays(ours: Sequence[npt.NDArray[Any]], theirs: Sequence[npt.NDArray[Any]]) -> bool:
    """All of them, element by element."""
    return all(np.array_equal(a, b) for a, b in zip(ours, theirs, strict=True))


def must_agree(what: str, same: bool) -> None:
    """Raises Mismatch."""
    if not same:
        raise Mismatch(f"{what}: code and reference give different results")


def _rounded(value: float) -> float | None:
    """None for what JSON cannot say."""
    return float(f"{value:.6g}") if math.isfinite(value) else None


def wilson(successes: int, trials: int, z: float = 1.96) -> tuple[float, float]:
    """Interval of a rate of success, 95 % for the default z; (0, 1) without trials."""
    if trials == 0:
        return 0.0, 1.0
    p, n = successes / trials, float(trials)
    centre, spread = p + z * z / (2 * n), z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    return max(0.0, (centre - spread) / (1 + z * z / n)), min(1.0, (centre + spread) / (1 + z * z / n))
