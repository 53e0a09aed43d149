"""Readings behind the receiver's three power splitters; each measure is a logarithm that is zero when right.

With FIX Z0 light only the early pulse is there, nothing interferes, and DXq has bin 0 (short arm) and bin 1 (long arm):
b[q, bin]. Detector efficiencies cancel in the ratios used (reference pair A5).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from math import log, sqrt

import numpy as np

from calibration.context import CalibrationContext
from calibration.procedures.tags import count_bins

READ_S = 0.05


async def early_bins(context: CalibrationContext, seconds: float = READ_S) -> dict[str, float]:
    """Counts b00 (DX0 short), b01 (DX0 long), b10, b11 with FIX Z0 light, and dz."""
    bins = await count_bins(context, seconds, 0)
    return {
        "b00": float(bins.dx[0, 0]),
        "b01": float(bins.dx[0, 1]),
        "b10": float(bins.dx[1, 0]),
        "b11": float(bins.dx[1, 1]),
        "dz": float(bins.dz.sum()),
    }


def arm_imbalance(b: dict[str, float]) -> tuple[float, float]:
    """ln of short over long arm, (1-k)/(k l), whatever the output coupler does; and its standard uncertainty."""
    n = _positive(b)
    return 0.5 * log(n[0] * n[2] / (n[1] * n[3])), 0.5 * sqrt(float(np.sum(1.0 / n)))


def port_imbalance(b: dict[str, float]) -> tuple[float, float]:
    """ln of the output coupler's bar over cross share; and its standard uncertainty."""
    n = _positive(b)
    return 0.5 * log(n[0] * n[3] / (n[1] * n[2])), 0.5 * sqrt(float(np.sum(1.0 / n)))


def efficiency_ratio(b: dict[str, float]) -> float:
    """Efficiency of DX0 over that of DX1, free of both couplers."""
    n = _positive(b)
    return sqrt(float(n[0] * n[1] / (n[2] * n[3])))


def _positive(b: dict[str, float]) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    return np.array([max(b[k], 0.5) for k in ("b00", "b01", "b10", "b11")])


def measure(
    context: CalibrationContext, law: Callable[[dict[str, float]], tuple[float, float]]
) -> Callable[[], Awaitable[tuple[float, float]]]:
    """An imbalance as a function without arguments, for a trim."""

    async def read() -> tuple[float, float]:
        return law(await early_bins(context))

    return read
