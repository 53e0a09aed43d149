"""Production level: the other levels over temperature, heaters over their range, and a burn-in (reference control C).

What is measured at one temperature says little of a part that sits in a hot rack for years. Each finding of the levels
below is judged again at every temperature by its own limits; what should not depend on temperature is compared.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from calibration.fit import FitRefused
from calibration.names import HEATERS
from calibration.plot import Plot, Series
from qmodd.selftest.bench import Bench
from qmodd.selftest.burn_in import fit_log_drift, log_times
from qmodd.selftest.heater_checks import resistances, set_power
from qmodd.selftest.model import Check, Finding, Level, Limits, Verdict, skipped
from qmodd.selftest.runner import run

NEAR_K, NEAR_FOR_S, LOOK_S = 0.05, 5.0, 0.5
# What a lane that moves the temperature itself would find elsewhere than at the working point means nothing.
AT_TEMPERATURE = (Level.LIGHT_OFF, Level.LIGHT_ON)
OWN_TEMPERATURE = "tec"
# Every heater has to reach a full period, and all of them at half a period must fit the supply (pair A2, A7).
TURNS = Limits(low=2.0)
ALL_ON_W = Limits(high=0.30)
# A heater's law is R0 (1 + 0.1 % ln(1 + t/100 h)); twice that is out, and the chip's own temperature moves R by 0.02 %.
TAU_H, DRIFT = 100.0, Limits.around(0.001, 0.005, 0.002)
# A drift that is not known better than this is no proof.
DRIFT_SIGMA = Limits(high=0.002)
TOO_SHORT = "The burn-in was too short, or the readings scatter."
FIRST_H = 0.05
READINGS = 64
# Resistance of a heater over the temperature of the chip, 1/K: the coefficient of its metal.
TEMPERATURE_COEFFICIENT = Limits.around(0.0, 5e-3)


def checks(others: Sequence[Check]) -> tuple[Check, ...]:
    """The level's checks; `others` are those of the levels below."""
    again = [c for c in others if c.level in AT_TEMPERATURE and c.lane != OWN_TEMPERATURE]

    async def over_temperature(bench: Bench) -> list[Finding]:
        return await temperature_findings(bench, again)

    level = Level.PRODUCTION
    return (
        Check("temperature steps", level, over_temperature, ("tec",), budget_s=7200.0),
        Check("tuning range", level, range_findings, ("heater_dac",), budget_s=60.0),
        Check("burn-in", level, burn_in_findings, ("heater_dac",), budget_s=40 * 86_400.0),
    )


async def temperature_findings(bench: Bench, again: Sequence[Check]) -> list[Finding]:
    """Every temperature in turn, then back to the working point. Names get `@` and the temperature."""
    home, found = bench.module.config.control.tec_target_c, list[Finding]()
    by_name: dict[str, list[tuple[float, Finding]]] = {}
    if bench.aim is None:
        return [skipped("temperature_steps", bench.part("tec"), "no temperature loop is running")]
    try:
        for celsius in bench.production.temperatures_c:
            arrived = await _go(bench, celsius)
            found.append(arrived)
            if not arrived.ok:
                continue
            for finding in await _levels(bench, again):
                by_name.setdefault(finding.name, []).append((celsius, finding))
                found.append(replace(finding, name=f"{finding.name}@{celsius:g}C"))
    finally:
        back = await _go(bench, home)
    return [*found, replace(back, name="back_at_working_point"), *_resistance_over_temperature(bench, by_name)]


async def _go(bench: Bench, celsius: float) -> Finding:
    """Aim there and wait; the finding is how long it took, s."""
    assert bench.aim is not None
    bench.aim(celsius)
    bench.progress("temperature steps", 0.0, f"going to {celsius:g} C")
    begun = bench.clock.monotonic()
    since, allowed = math.inf, bench.production.settle_s
    while True:
        now = bench.clock.monotonic()
        reading = await bench.context.tec.read()
        since = min(since, now) if abs(reading.object_c - celsius) < NEAR_K else math.inf
        if now - since >= NEAR_FOR_S or now - begun > allowed:
            break
        await bench.sleep(LOOK_S)
    reached = math.isfinite(since)
    hint = (
        ""
        if reached
        else f"it is at {reading.object_c:.2f} C with {reading.current_a:+.2f} A, sink {reading.sink_c:.1f} C"
    )
    needs = ("peltier", "thermistor", "heat sink", "fan", "supply", bench.bus("tec"))
    seconds = bench.clock.monotonic() - begun if reached else math.inf
    return Finding(f"reached@{celsius:g}C", seconds, "s", Limits(high=allowed), bench.part("tec"), needs, hint)


async def _levels(bench: Bench, again: Sequence[Check]) -> list[Finding]:
    """Light-off and light-on at the present temperature; curves of the working point stay."""
    figures, notes, findings = dict(bench.figures), dict(bench.notes), bench.findings
    found: list[Finding] = []
    for level in AT_TEMPERATURE:
        found += (await run(bench, level, again, only=level)).findings
    bench.figures, bench.notes, bench.findings = figures, notes, findings
    return found


def _resistance_over_temperature(bench: Bench, by_name: dict[str, list[tuple[float, Finding]]]) -> list[Finding]:
    """A heater whose resistance runs away with temperature is a bad contact."""
    out = []
    for name, seen in sorted(by_name.items()):
        kind, _, channel = name.partition(".")
        if kind != "heater_resistance" or len(seen) < 2 or any(f.verdict is Verdict.SKIPPED for _, f in seen):
            continue
        celsius, ohm = np.array([c for c, _ in seen]), np.array([f.value for _, f in seen])
        slope = float(np.polyfit(celsius, ohm / ohm.mean(), 1)[0])
        part = f"heater {channel}"
        out.append(Finding(f"temperature_coefficient.{channel}", slope, "1/K", TEMPERATURE_COEFFICIENT, part))
    return out


async def range_findings(bench: Bench) -> list[Finding]:
    """How far each heater can turn, in units of pi, by the P_pi that light-on found; and all at P_pi at once."""
    laws = await resistances(bench)
    turned = (f for f in bench.findings if f.name.startswith("p_pi.") and f.ok)
    p_pi = {f.name.removeprefix("p_pi."): f.value for f in turned}
    rating, limit_a = bench.context.settings.heater_max_power_w, 0.999 * bench.context.heaters.max_current_a
    out = []
    for channel in HEATERS[bench.side]:
        part = f"heater {channel}"
        if channel not in p_pi or channel not in laws:
            out.append(skipped(f"tuning_range.{channel}", part, "its P_pi was not measured", (part,)))
            continue
        most = min(rating, laws[channel].power(limit_a))
        out.append(Finding(f"tuning_range.{channel}", most / p_pi[channel], "pi", TURNS, part, ("heater_dac",)))
    if p_pi:
        out.append(Finding("power_at_p_pi", math.fsum(p_pi.values()), "W", ALL_ON_W, bench.part("heaters")))
    return out


async def burn_in_findings(bench: Bench) -> list[Finding]:
    """Every heater at `burn_in_w` for `burn_in_h`, its resistance read evenly in the logarithm of time."""
    plan, laws = bench.production, await resistances(bench)
    channels = [c for c in HEATERS[bench.side] if c in laws]
    hours = log_times(plan.burn_in_h, plan.burn_in_points, FIRST_H)
    seen: dict[str, list[float]] = {c: [] for c in channels}
    before = {c: bench.context.heaters.current(c) for c in channels}
    begun = bench.clock.monotonic()
    try:
        for channel in channels:
            await set_power(bench, channel, plan.burn_in_w)
        for hour in hours:
            await bench.sleep(max(0.0, begun + float(hour) * 3600.0 - bench.clock.monotonic()))
            bench.progress("burn-in", hour / plan.burn_in_h, f"{hour:.2f} of {plan.burn_in_h:g} h")
            for channel in channels:
                seen[channel].append(await _resistance(bench, channel))
    finally:
        await bench.context.heaters.monitor(None)
        for channel, amperes in before.items():
            await bench.context.heaters.set_current(channel, amperes)
    _figure(bench, hours.tolist(), seen)
    return [f for c in channels for f in _drift(c, hours, np.array(seen[c]))]


async def _resistance(bench: Bench, channel: str) -> float:
    """Ohm at the present current."""
    context = bench.context
    await context.heaters.monitor(channel)
    await context.settle()
    volts = (await context.adc.read_volts(READINGS))["heater_monitor"] * context.settings.heater_monitor_divider
    return volts / context.heaters.current(channel)


def _drift(channel: str, hours: np.ndarray, ohm: np.ndarray) -> list[Finding]:
    part, needs = f"heater {channel}", ("heater_dac", "monitor_adc")
    try:
        drift = fit_log_drift(hours, ohm, TAU_H)
    except FitRefused as e:
        return [Finding(f"burn_in.{channel}", math.nan, "1", DRIFT, part, needs, str(e))]
    known = Finding(f"burn_in_sigma.{channel}", drift.slope_sigma, "1", DRIFT_SIGMA, part, needs, TOO_SHORT)
    if not known.ok:
        return [known, skipped(f"burn_in.{channel}", part, "its drift is not known well enough", (part,))]
    year = 100.0 * drift.after(8766.0, TAU_H)
    hint = f"after a year its resistance would be off by {year:+.2f} %"
    return [
        Finding(f"burn_in.{channel}", drift.slope, "1", DRIFT, part, needs, hint, sigma=drift.slope_sigma),
        known,
    ]


def _figure(bench: Bench, hours: list[float], seen: dict[str, list[float]]) -> None:
    series = [Series(c, hours, [1e2 * (r / ohm[0] - 1.0) for r in ohm]) for c, ohm in seen.items() if ohm]
    bench.figures["burn-in"] = Plot("Burn-in", "time (h)", "change of resistance (%)", series)
