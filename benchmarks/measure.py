"""How a value is measured, and what is told about it."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt


class Mismatch(Exception):
    """The code under test and its reference disagree: their times cannot be compared."""


@dataclass(frozen=True)
class Result:
    """One measured value beside its reference, both in `unit`.

    `ratio` says how many times better the value is than the reference, whichever direction better is; None without a
    reference. `detail` holds further numbers of the same run, units in their names.
    """

    name: str
    value: float
    unit: str
    reference: float | None
    reference_name: str
    less_is_better: bool = False
    detail: dict[str, float] = field(default_factory=dict)

    @property
    def ratio(self) -> float | None:
        if self.reference is None:
            return None
        return self.reference / self.value if self.less_is_better else self.value / self.reference

    def as_dict(self) -> dict[str, Any]:
        """For JSON; numbers with six significant digits."""
        out: dict[str, Any] = {**asdict(self), "ratio": self.ratio}
        out["detail"] = {k: _rounded(v) for k, v in self.detail.items()}
        for name in ("value", "reference", "ratio"):
            out[name] = None if out[name] is None else _rounded(out[name])
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


def _rounded(value: float) -> float:
    return float(f"{value:.6g}")
