"""The heat sink: how fast it gives away what the light-off level's burst has put into it (pair A6.5: 250 J/K, 1.5 K/W).

Only reads, beside the light-on level. The sink's own temperature wanders with the air, so the air is measured along:
the supply stands in it. What is left is a straight line against what the sink is above the air:

    C dT/dt = given - (T - T_air - b)/R

with `given` from the element's current and temperatures, b the unknown offset of the supply's sensor.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from calibration.fit import Array, FitRefused, linear
from calibration.plot import Plot, Series
from qmodd.selftest.bench import Bench
from qmodd.selftest.model import Finding, Limits, skipped
from qmodd.selftest.tec_watch import NOTE, Look, Watch

PART = "heat sink"
# (s, s): when the burst began and ended.
BURST_NOTE = "tec_burst"
AFTER_S, LEAST_LOOKS = 0.5, 20
WATCH_S, EVERY_S = 20.0, 0.25
# Element: alpha, R, K; sink: heat capacity (pair A6.5).
SEEBECK, OHM, LEAK_W_PER_K, ZERO_C = 0.0133, 1.03, 0.068, 273.15
SINK_J_PER_K = 250.0
# 1.5 K/W with the fan's air; twice that is a fan that stands or a sink that is blocked.
RESISTANCE_K_PER_W = Limits(0.6, 3.2, 0.9, 2.3)
# What the burst warms the sink by over what its electrical energy would warm the design's mass by.
CAPACITY = Limits(0.4, 2.5)
# The least that the sink must have been warmed for its cooling to say anything, K.
LEAST_K = 0.08


async def sink_findings(bench: Bench) -> list[Finding]:
    """Empty when the burst was never made."""
    before: list[Look] = list(bench.notes.get(NOTE, ()))
    if BURST_NOTE not in bench.notes or len(before) < LEAST_LOOKS:
        return []
    watch = Watch(bench)
    await watch.look(WATCH_S, EVERY_S)
    looks = watch.looks
    bench.figures["heat_sink"] = _figure(looks)
    if looks[0].inlet_c is None:
        return [skipped("sink_resistance", PART, "no thermometer of the air")]
    return judged(bench, looks, bench.notes[BURST_NOTE])


def judged(bench: Bench, looks: Sequence[Look], burst: tuple[float, float]) -> list[Finding]:
    t = np.array([k.at_s for k in looks])
    sink = np.array([k.tec.sink_c for k in looks])
    air = np.array([k.inlet_c if k.inlet_c is not None else np.nan for k in looks])
    given = delivered(looks)
    needs = (bench.part("tec"), bench.bus("tec"), "fan", "supply")
    energy = float(given.max(initial=0.0))
    warmed = float(sink.max() - sink[0])
    if energy < LEAST_K * SINK_J_PER_K:
        return [skipped("sink_resistance", PART, f"only {energy:.0f} J went into the sink")]
    share = warmed * SINK_J_PER_K / energy
    hint = f"{energy:.0f} J warmed the sink by {warmed:.3f} K"
    out = [Finding("sink_capacity", share, "1", CAPACITY, PART, needs, hint + ": loose, or its sensor is off")]
    try:
        ohms, sigma = resistance(t, sink, air, given, burst)
    except FitRefused as e:
        return [*out, skipped("sink_resistance", PART, str(e))]
    return [
        *out,
        Finding(
            "sink_resistance",
            ohms,
            "K/W",
            RESISTANCE_K_PER_W,
            PART,
            needs,
            hint + "; it cools too slowly: fan, blocked fins",
            sigma=sigma,
        ),
    ]


def delivered(looks: Sequence[Look]) -> Array:
    """Energy that the element has put into the sink since the first look, J, shape (n,)."""
    t = np.array([k.at_s for k in looks])
    i = np.array([k.tec.current_a for k in looks])
    hot = np.array([k.tec.sink_c for k in looks])
    cold = np.array([k.tec.object_c for k in looks])
    watts = SEEBECK * i * (hot + ZERO_C) + 0.5 * i * i * OHM - LEAK_W_PER_K * (hot - cold)
    # A current is read after it was set and holds until it is set again: the later reading counts for the step.
    return np.append(0.0, np.cumsum(watts[1:] * np.diff(t)))


def resistance(t: Array, sink: Array, air: Array, given: Array, burst: tuple[float, float]) -> tuple[float, float]:
    """(K/W, sigma) from the integrated balance before and after the burst: C (T - T0) = E - (1/R) int(T - air - b).

    During it the current's switching falls between the readings, so its energy is not known well enough. Raises
    FitRefused.
    """
    parts = [np.flatnonzero(t <= burst[0]), np.flatnonzero(t >= burst[1] + AFTER_S)]
    if min(len(p) for p in parts) < LEAST_LOOKS:
        raise FitRefused(f"{len(parts[0])} looks before the burst and {len(parts[1])} after; {LEAST_LOOKS} are needed")
    design, y = [], []
    for n, part in enumerate(parts):
        at, above = t[part], sink[part] - air[part]
        stored = np.append(0.0, np.cumsum(0.5 * (above[1:] + above[:-1]) * np.diff(at)))
        own = np.zeros((len(part), 2))
        own[:, n] = 1.0
        design.append(np.column_stack([own, -stored / SINK_J_PER_K, at - at[0]]))
        y.append(sink[part] - (given[part] - given[part[0]]) / SINK_J_PER_K)
    fit = linear(np.vstack(design), np.concatenate(y))
    per_ohm, sigma = float(fit.parameters[2]), float(np.sqrt(fit.covariance[2, 2]))
    least = 1.0 / 50.0
    return 1.0 / max(per_ohm, least), sigma / max(per_ohm, least) ** 2


def _figure(looks: Sequence[Look]) -> Plot:
    t = [k.at_s - looks[0].at_s for k in looks]
    series = [Series("heat sink", t, [k.tec.sink_c for k in looks], "line")]
    return Plot("Heat sink: warmed by a burst, cooled by its fan", "time (s)", "temperature (C)", series)
