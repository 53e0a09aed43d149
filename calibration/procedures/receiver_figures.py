"""Plots of the receiver's calibrations as data, from a record and its raw readings."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from calibration.fit import PI, Array
from calibration.names import DETECTORS
from calibration.plot import Figure, Heatmap, Plot, Series
from calibration.procedure import Raw
from calibration.procedures.figures import POINTS, curve, sinusoid
from calibration.procedures.receiver_splits import readings
from calibration.receiver_optics import Reading
from calibration.record import Record

_erf = np.vectorize(math.erf, otypes=[np.float64])


def plateaus(record: Record, raw: Raw) -> list[Figure]:
    """Rate over bias of each detector in shares of its plateau, and the working points."""
    v, bias, rates = record.value, raw["bias_a"], raw["rates"]
    series: list[Series] = []
    line = np.linspace(float(bias.min()), float(bias.max()), POINTS)
    for d, name in enumerate(DETECTORS):
        top, centre, width = (v[f"{name}_{q}"] for q in ("top_hz", "centre_a", "width_a"))
        series.append(Series(name, (bias[:, d] * 1e6).tolist(), (rates[:, d] / top).tolist()))
        share = 0.5 * (1.0 + _erf((line - centre) / width))
        series.append(Series(f"{name} model", (line * 1e6).tolist(), share.tolist(), "line"))
    marks = tuple((v[f"{name}_bias_a"] * 1e6, name) for name in DETECTORS)
    return [Plot("Plateaus of the detectors", "bias (uA)", "rate over that of the plateau (1)", series, marks)]


def arrivals(record: Record, raw: Raw) -> list[Figure]:
    """Where in a slot the clicks of each detector arrive, and how many were counted."""
    at, counts = raw["positions"], raw["counts"]
    series = [Series(n, [float(x)], [float(c)]) for n, x, c in zip(DETECTORS, at, counts, strict=True)]
    marks = tuple((float(x), n) for n, x in zip(DETECTORS, at, strict=True))
    return [Plot("Arrival of the early pulse in its slot", "time in the slot (ps)", "clicks (1)", series, marks)]


def basis_fringe(record: Record, raw: Raw) -> list[Figure]:
    """Rate of DZ against the basis heater."""
    v = record.value
    shape = sinusoid(1.0, v["visibility"], v["phi0_rad"], v["p_pi_w"])
    scale = _scale(raw["z"], shape(raw["power_w"]))
    plot = curve(
        "Basis splitter by DZ's rate",
        "heater power (mW)",
        "rate (1000/s)",
        raw["power_w"],
        raw["z"],
        lambda x: scale * shape(x),
        marks=((v["power_w"], "set point"),),
        x_scale=1e3,
        y_scale=1e-3,
    )
    return [plot]


def balance(title: str, record: Record, raw: Raw, law: Callable[[Reading], float], y_label: str) -> list[Figure]:
    """Logarithm of the ratio of a coupler's two paths, against its heater."""
    x = raw["power_w"] * 1e3
    points = Series("ratio", x.tolist(), [law(r) for r in readings(raw)])
    zero = Series("balance", [float(x.min()), float(x.max())], [0.0, 0.0], "line")
    marks = ((record.value["power_w"] * 1e3, "set point"),)
    return [Plot(title, "heater power (mW)", y_label, (points, zero), marks)]


def arm_fringes(record: Record, raw: Raw) -> list[Figure]:
    """v cos t of both X states by both outputs, and the joint fit, against the heater with the die following."""
    v, power = record.value, raw["power_w"]
    line = np.linspace(float(power.min()), float(power.max()), POINTS)
    series: list[Series] = []
    for state in ("x0", "x1"):
        rows = {n.removeprefix(f"{state}_"): raw[n] for n in raw if n.startswith(f"{state}_")}
        read = [r.mean_interference()[0] for r in readings(rows)]
        series.append(Series(state.upper(), (power * 1e3).tolist(), read))
        t = v["phi0_rad"] + PI * line / v["p_pi_w"] - (v["xi_rad"] if state == "x0" else -v["xi_rad"])
        model = (1.0 if state == "x0" else -1.0) * v["visibility"] * np.cos(t)
        series.append(Series(f"{state.upper()} model", (line * 1e3).tolist(), model.tolist(), "line"))
    marks = ((v["power_w"] * 1e3, "set point"),)
    return [Plot("Interferometer by its middle bins", "heater power (mW)", "contrast at DX0 (1)", series, marks)]


def satellites(record: Record, raw: Raw) -> list[Figure]:
    """Clicks of X light by output and arm after the trim: equal in a row and in a column, up to the efficiencies."""
    values = [[float(np.ravel(raw[f"x{q}{b}"])[0]) for b in (0, 2)] for q in (0, 1)]
    return [Heatmap("Clicks after the trim", ("DX0", "DX1"), ("short arm", "long arm"), values, "clicks")]


def _scale(read: Array, shape: Array) -> float:
    """Least squares factor of a shape."""
    return float(read @ shape) / float(shape @ shape)
