"""The receiver in the light of its own self-test diode: the diode, both shutters, and their interlock.

Nothing has to come from outside. The diode enters before the entry tap pb0 and before the input shutter, so that pb0
sees the diode whatever the rest of the module does.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from calibration.fit import Array, FitRefused, linear
from calibration.plot import Plot, Series
from drivers.errors import Refused
from qmodd.selftest.bench import Bench
from qmodd.selftest.diode import (
    FULL_V,
    PART,
    SETTLE_S,
    SHUTTER_PART,
    SelfTestDiode,
    has_diode,
    self_test_diode,
)
from qmodd.selftest.model import Check, Finding, Level, Limits, skipped
from qmodd.selftest.receiver import (
    DIODES,
    SAFE_BIAS_A,
    counted,
    counting,
    currents,
    outputs_kept,
    watts,
)

# By names in `Bench.notes`.
DARK, LAW, LIT = "receiver_dark_a", "diode_law", "receiver_lit_w"
NO_DIODE = "this module has no self-test diode"
# A photodiode sees light from this many times its dark current on, and from this current on, A.
LIT_RATIO, LIT_A = 1.5, 3e-10
# Drives, V: below threshold, about it, and up to full.
VOLTS = (0.0, 0.6, 1.4, 1.8, 2.4, 3.0, 3.6, 4.3, FULL_V)
LASING_V = 1.3
# Threshold 1.00 +- 0.05 V; 0.25 mW/V +- 8 % through 20 +- 0.3 dB is 2.5 uW/V +- 11 % in front of pb0.
THRESHOLD_V = Limits(0.75, 1.25, 0.85, 1.15)
SLOPE_W_PER_V = Limits(1.4e-6, 4.0e-6, 1.7e-6, 3.5e-6)
KINK = Limits(high=0.03)
# Light that is still there beyond a closed shutter, of what passes the open one: the amplifiers' floor bounds it.
CLOSED_SHARE = Limits(-0.02, 0.02)
# Weak light for the interlock's proof, V; a bias that no detector notices, A.
WEAK_V, HELD_A = 2.0, 2e-6
# With its shutter closed this much drive is some 1e6 photons/s at the input: any detector counts it.
PROBE_V, PROBE_S, PROBE_HZ = 1.6, 0.1, 20_000.0


async def interlock(bench: Bench) -> Sequence[Finding]:
    """While a detector is biased the diode's shutter does not open, whatever it is told: software refuses, and behind
    it the hardware holds. Weak light, the input shutter closed, a bias that makes no detector sensitive."""
    if not has_diode(bench):
        return [skipped("interlock.diode_shutter", "interlock", NO_DIODE)]
    async with outputs_kept(bench), self_test_diode(bench) as diode:
        await bench.context.biases.set_voltage("shutter", bench.context.settings.shutter_closed_v)
        await diode.detectors.set_bias([0.0] * 3)
        dark = (await currents(bench))["pb0"]
        await diode.drive(WEAK_V)
        await diode.detectors.set_bias([HELD_A] * 3)
        refused = await _refuses(diode)
        await diode.force_open()
        await bench.sleep(SETTLE_S)
        held = (await currents(bench))["pb0"]
        await diode.detectors.set_bias([0.0] * 3)
        await bench.sleep(SETTLE_S)
        free = (await currents(bench))["pb0"]
    light, leak = free - dark, held - dark
    return [
        Finding("interlock.software", float(refused), "", Limits.exactly(1.0), "interlock", (), "It did not refuse."),
        Finding(
            "interlock.hardware",
            leak / light if light > LIT_A else math.nan,
            "",
            Limits(-0.05, 0.05),
            "interlock",
            (PART, SHUTTER_PART, "photodiode pb0", bench.part("detectors")),
            "The diode's shutter opens while a detector is biased.",
        )
        if light > LIT_A
        else skipped("interlock.hardware", "interlock", "no light from the diode to prove it with"),
    ]


async def _refuses(diode: SelfTestDiode) -> bool:
    try:
        await diode.open()
    except Refused:
        return True
    return False


@dataclass
class _Seen:
    """Photocurrents above dark, A: `closed` by its own shutter at full drive, `entry` with the input shutter closed, by
    drive, `through` with both open."""

    dark: Mapping[str, float]
    closed: Mapping[str, float]
    entry: Sequence[Mapping[str, float]]
    through: Mapping[str, float]

    def lit(self, name: str) -> bool:
        return self.through[name] > max(LIT_A, LIT_RATIO * self.dark[name] - self.dark[name])


async def light(bench: Bench) -> Sequence[Finding]:
    """Light against drive at pb0, and both shutters closed and open."""
    if not has_diode(bench):
        return [skipped("diode.light", PART, NO_DIODE)]
    async with outputs_kept(bench), self_test_diode(bench) as diode:
        await diode.detectors.set_bias([0.0] * 3)
        seen = await _look(bench, diode)
        dead_end = not any(seen.lit(n) for n in DIODES) and await _detectors_see_it(bench, diode)
    bench.notes[DARK] = dict(seen.dark)
    return [*_sources(bench, seen, dead_end), *_entry(bench, seen), *_input_shutter(seen)]


async def _look(bench: Bench, diode: SelfTestDiode) -> _Seen:
    biases, settings = bench.context.biases, bench.context.settings

    async def above(dark: Mapping[str, float], samples: int = 8) -> dict[str, float]:
        await bench.sleep(SETTLE_S)
        now = await currents(bench, samples)
        return {n: now[n] - dark[n] for n in DIODES}

    await biases.set_voltage("shutter", settings.shutter_closed_v)
    await bench.sleep(SETTLE_S)
    dark = await currents(bench, 16)
    await diode.drive(FULL_V)
    closed = await above(dark)
    await diode.open()
    entry = []
    for volts in VOLTS:
        await diode.drive(volts)
        entry.append(await above(dark))
    await biases.set_voltage("shutter", settings.shutter_open_v)
    return _Seen(dark, closed, entry, await above(dark))


async def _detectors_see_it(bench: Bench, diode: SelfTestDiode) -> bool:
    """With its shutter closed the diode still gives the detectors light: then it is not the diode that is dark."""
    await diode.off()
    async with counting(bench):
        await diode.bias_detectors([SAFE_BIAS_A] * 3)
        await bench.sleep(SETTLE_S)
        before = await counted(bench, PROBE_S)
        await diode.drive(PROBE_V)
        await bench.sleep(SETTLE_S)
        during = await counted(bench, PROBE_S)
        await diode.drive(0.0)
        await diode.bias_detectors([0.0] * 3)
    return bool((during - before).max() > PROBE_HZ)


def _sources(bench: Bench, seen: _Seen, dead_end: bool) -> list[Finding]:
    """Who is dark: the diode, its shutter, or only pb0."""
    any_light = any(seen.lit(n) for n in DIODES)
    others = any(seen.lit(n) for n in DIODES[1:])
    full, closed = seen.entry[-1]["pb0"], seen.closed["pb0"]
    found = [
        Finding(
            "diode.emits", float(any_light or dead_end), "", Limits.exactly(1.0), PART, (), "No photodiode sees it."
        ),
        Finding(
            "diode_shutter.opens",
            float(any_light),
            "",
            Limits.exactly(1.0),
            SHUTTER_PART,
            (PART,),
            "Detectors see the diode's light, photodiodes do not: its shutter stays closed.",
        ),
    ]
    if full > LIT_A:
        hint = "Its shutter does not close."
        found.append(
            Finding("diode_shutter.leak", closed / full, "", CLOSED_SHARE, SHUTTER_PART, ("photodiode pb0",), hint)
        )
    if any_light:
        other = next((n for n in DIODES[1:] if seen.entry[-1][n] > 3.0 * LIT_A and not full > LIT_A), "")
        if other:
            part = f"cables of photodiode pb0 and photodiode {other}"
            hint = f"{other} sees the light in front of the input shutter, pb0 does not."
            found.append(Finding("entry.pb0", 0.0, "", Limits(low=1.0), part, (), hint))
        else:
            found.append(
                Finding(
                    "photodiode.pb0.lit",
                    float(full > LIT_A or not others),
                    "",
                    Limits.exactly(1.0),
                    "photodiode pb0",
                    (PART,),
                    "The others see the diode, pb0 does not.",
                )
            )
    return found


def _entry(bench: Bench, seen: _Seen) -> list[Finding]:
    """Threshold, slope and straightness of the diode in front of pb0; they go into the notes."""
    names, volts = ("diode.threshold", "diode.slope", "diode.kink"), np.array(VOLTS)
    zero = dict.fromkeys(DIODES, 0.0)
    power = np.array([watts(bench, row, zero)["pb0"] for row in seen.entry])
    lasing = volts > LASING_V
    try:
        fit = linear(np.stack([np.ones(int(lasing.sum())), volts[lasing]], axis=1), power[lasing])
        offset, slope = (float(p) for p in fit.parameters)
        if not slope > 1e-9:
            raise FitRefused("no light at pb0")
    except (FitRefused, np.linalg.LinAlgError) as e:
        return [skipped(n, PART, str(e), ("photodiode pb0",)) for n in names]
    threshold = -offset / slope
    kink = float(np.abs(fit.residuals).max() / power.max())
    bench.notes[LAW] = (threshold, slope)
    bench.figures["Self-test diode"] = _figure(volts, power, threshold, slope)
    needs = ("photodiode pb0", SHUTTER_PART, bench.part("biases"))
    return [
        Finding(names[0], threshold, "V", THRESHOLD_V, PART, needs, "Threshold has moved."),
        Finding(names[1], slope, "W/V", SLOPE_W_PER_V, PART, needs, "Light in front of pb0 for its drive."),
        Finding(names[2], kink, "", KINK, PART, needs, "Light does not follow the drive in a straight line."),
    ]


def _figure(volts: Array, power: Array, threshold: float, slope: float) -> Plot:
    model = np.maximum(slope * (volts - threshold), 0.0)
    lines = [
        Series("pb0", volts.tolist(), (1e6 * power).tolist()),
        Series("straight", volts.tolist(), (1e6 * model).tolist(), "line"),
    ]
    return Plot("Self-test diode", "drive (V)", "light at the entry (uW)", lines, marks=[(threshold, "threshold")])


def _input_shutter(seen: _Seen) -> list[Finding]:
    """Behind the input shutter: dark while it is closed, light while it is open."""
    if not any(seen.lit(n) for n in DIODES) and not seen.entry[-1]["pb0"] > LIT_A:
        return [skipped(f"shutter.{what}", "shutter", "no light to see it by") for what in ("opens", "closes")]
    inner = [n for n in DIODES[1:] if math.isfinite(seen.through[n])]
    opened = max((seen.through[n] for n in inner), default=math.nan)
    brightest = max(inner, key=lambda n: seen.through[n], default="pb1")
    cables = tuple(f"cables of photodiode pb0 and photodiode {n}" for n in DIODES[1:])
    needs = (PART, SHUTTER_PART, "bias_dac", *cables)
    found = [
        Finding(
            "shutter.opens",
            opened,
            "A",
            Limits(low=LIT_A),
            "shutter",
            needs,
            "pb0 sees the diode, nothing behind the input shutter does.",
        )
    ]
    if opened > LIT_A:
        leak = seen.entry[-1][brightest] / opened
        hint = "Light passes while it is closed."
        found.append(Finding("shutter.closes", leak, "", CLOSED_SHARE, "shutter", needs, hint))
    return found


_BOB = ("bob",)
CHECKS = (
    Check("diode interlock", Level.LIGHT_ON, interlock, ("bias_dac", "detectors", "monitor_adc"), _BOB, budget_s=5.0),
    Check("diode light", Level.LIGHT_ON, light, ("bias_dac", "monitor_adc"), _BOB, budget_s=8.0),
)
