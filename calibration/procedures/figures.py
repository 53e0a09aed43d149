"""Plots of calibrations as data: readings, model and set point, from a record and its raw readings."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from calibration.fit import PI, Array
from calibration.plot import Plot, Series

POINTS = 121


def curve(
    title: str,
    x_label: str,
    y_label: str,
    x: Array,
    y: Array,
    model: Callable[[Array], Array],
    *,
    marks: Sequence[tuple[float, str]] = (),
    x_scale: float = 1.0,
    y_scale: float = 1.0,
) -> Plot:
    """Readings as points and a model as a line over their range; marks in the unit of x, before scaling."""
    line = np.linspace(float(x.min()), float(x.max()), POINTS)
    return Plot(
        title,
        x_label,
        y_label,
        (
            Series("read", (x * x_scale).tolist(), (y * y_scale).tolist()),
            Series("model", (line * x_scale).tolist(), (model(line) * y_scale).tolist(), "line"),
        ),
        tuple((at * x_scale, text) for at, text in marks),
    )


def sinusoid(offset: float, visibility: float, phi0_rad: float, x_pi: float) -> Callable[[Array], Array]:
    """offset [1 + visibility cos(phi0 + pi x/x_pi)]."""
    return lambda x: np.asarray(offset * (1.0 + visibility * np.cos(phi0_rad + PI * x / x_pi)))


def unit_for(largest: float) -> tuple[float, str]:
    """(scale, unit) in which a photocurrent reads well."""
    for scale, unit in ((1e3, "mA"), (1e6, "uA"), (1e9, "nA")):
        if largest * scale >= 1.0:
            return scale, unit
    return (1e12, "pA") if largest > 0.0 and math.isfinite(largest) else (1.0, "A")
