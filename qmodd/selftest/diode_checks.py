"""Monitor photodiodes without light: dark current and noise of every channel (reference pair A2, A3, hardware A6)."""

from __future__ import annotations

from math import log

import numpy as np

from calibration.fit import Array
from calibration.noise import scatter
from qmodd.selftest.bench import Bench
from qmodd.selftest.heater_checks import cables_of
from qmodd.selftest.model import Finding, Limits, skipped

# Single conversions, spread so that what comes and goes is met.
READS, STEP_S = 64, 0.02
# Dark currents of good diodes at the working temperature, A; they double in 10 K. The factory's law of an amplifier is
# good to 1 %, and a diode is not exactly where the thermistor is.
DARK_A, DARK_C, DOUBLES_K = (1.5e-10, 4.0e-10), 30.0, 10.0
ROOM, WARN_ROOM = 1.35, 1.15
# An amplifier without current ends at 0 V, which its law calls its intercept; nearer than this is not told from it.
TOLD = 1.12
# Relative noise of one conversion: typical 0.05 %. None at all is no reading.
NOISE = Limits(1e-6, 0.01, warn_high=0.006)
SATURATED_V = 1.195


def diodes_of(bench: Bench) -> tuple[str, ...]:
    """Photodiodes of the module, as its configuration names them."""
    return tuple(c for c in bench.context.adc.channels if c[:2] in ("pa", "pb"))


async def diode_findings(bench: Bench) -> list[Finding]:
    """In the dark: the laser is off meanwhile, and on again afterwards if it was."""
    laser = bench.context.laser
    emitting = laser is not None and (await laser.read()).emitting
    if laser is not None and emitting:
        await laser.enable(False)
    try:
        await bench.context.settle()
        rows = []
        for _ in range(READS):
            rows.append(await bench.context.adc.read_volts(1))
            await bench.sleep(STEP_S)
        celsius = (await bench.context.tec.read()).object_c
    finally:
        if laser is not None and emitting:
            await laser.enable(True)
    found: list[Finding] = []
    for name in diodes_of(bench):
        found += _findings(bench, name, np.array([row[name] for row in rows]), celsius)
    return found


def dark_limits(celsius: float) -> Limits:
    """A, for a chip at this temperature."""
    warmer = 2.0 ** ((celsius - DARK_C) / DOUBLES_K)
    low, high = (warmer * a for a in DARK_A)
    return Limits(low / ROOM, high * ROOM, low / WARN_ROOM, high * WARN_ROOM)


def needs_of(bench: Bench) -> tuple[str, ...]:
    """What a reading of a photodiode stands on."""
    return (bench.part("adc"), bench.bus("adc"), "supply")


def _findings(bench: Bench, name: str, volts: Array, celsius: float) -> list[Finding]:
    law, part = bench.context.factory.photodiode(name), f"photodiode {name}"
    needs = (*needs_of(bench), *cables_of("photodiode", name, diodes_of(bench)))
    middle = float(np.median(volts))
    dark = law.current(middle)
    # Without a temperature there is no telling; then only what no temperature explains is judged.
    limits = dark_limits(celsius if 0.0 < celsius < 60.0 else DARK_C)
    least = TOLD * law.log_intercept_a
    if limits.low < least:
        limits = Limits(0.0 if limits.low * ROOM < least else least, limits.high, limits.warn_low, limits.warn_high)
    noise_name = f"dark_noise.{name}"
    out = [Finding(f"dark_current.{name}", dark, "A", limits, part, needs, _hint(dark, middle, limits))]
    if middle <= 0.0:
        return [*out, skipped(noise_name, part, "its amplifier is at 0 V", needs)]
    noise = scatter(volts) * log(10.0) / law.log_slope_v_per_decade
    hint = "its readings never change: stuck" if noise < NOISE.low else "noisy, or it comes and goes"
    return [*out, Finding(noise_name, noise, "1", NOISE, part, needs, hint)]


def _hint(dark: float, volts: float, limits: Limits) -> str:
    if volts > SATURATED_V:
        return "its amplifier is at its rail: shorted, or light where none should be"
    return "no current at all: dead or not connected" if dark < limits.low else "leaky, or light where none should be"
