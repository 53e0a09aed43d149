"""The receiver in the dark: cryostat, hardware lines, and each detector's bias, latching, reset, cables and darks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import cast

import numpy as np

from calibration.fit import Array
from drivers.instruments.cryostat import Cryostat
from qmodd.selftest.bench import Bench
from qmodd.selftest.diode import UNBIASED, bias_of
from qmodd.selftest.model import Check, Finding, Level, Limits, skipped
from qmodd.selftest.receiver import (
    DETECTOR_NAMES,
    SWITCHING,
    counted,
    counting,
    only,
    outputs_kept,
    working_bias,
)

CABLES = "cables of DX0 and DX1"
# Superconducting below about 3 K; the monitor's own line says so from 3.2 K down.
COLD_K, USUAL_K = Limits(1.0, 3.1), (2.0, 2.9)
# Volts at the bias tee of a wire that is normal: tens of kilohms; of one that is not: its leads.
LATCHED_V = 0.2
LEAD_OHM = Limits(20.0, 200.0)
READS, READOUT_V = 8, Limits(0.0, 4e-3)
# Staircase towards the switching current (pair A7: 18 to 24 uA), A; and a bias that no wire carries.
STAIRS_A = np.arange(9.0, 26.6, 0.25) * 1e-6
OVER_A = 28e-6
SWITCHING_A = Limits(17.0e-6, 25.0e-6)
SETTLE_S = 0.003
# Darks/s at the working bias: lognormal about 100, half of them gone at 0.90 of the switching current (pair A7).
DARK_S, CONTROLLER_S, DARKS_HZ = 0.6, 0.2, Limits(1.0, 700.0)
UNBIASED_S, UNBIASED_HZ = 0.2, Limits(0.0, 30.0)
# Clicks of a detector on its own channel, of all clicks while it alone has bias.
OWN_SHARE = Limits(low=0.7)


async def cryostat(bench: Bench) -> Sequence[Finding]:
    """Temperature and heater of the cryostat, and its line in the hardware interlock."""
    if not bench.has("cryostat"):
        return [skipped("cryostat.temperature", "cryostat", "this module has no cryostat monitor")]
    monitor, platform = cast(Cryostat, bench.module.devices["cryostat"]), bench.module.platform
    part, need = bench.part("cryostat"), (bench.bus("cryostat"),)
    seen = await monitor.read()
    limits = Limits(COLD_K.low, COLD_K.high, *USUAL_K)
    found = [
        Finding("cryostat.temperature", seen.kelvin, "K", limits, part, need, "Detectors are not superconducting."),
        Finding(
            "cryostat.heater", float(bool(seen.heater_fault)), "", Limits.exactly(0.0), part, need, seen.heater_fault
        ),
    ]
    if "cryostat_ok" in platform.lines:
        line = float(await platform.read("cryostat_ok"))
        hint = "The line does not follow the temperature."
        wanted = Limits.exactly(float(COLD_K.low <= seen.kelvin <= COLD_K.high))
        found.append(Finding("cryostat.line", line, "", wanted, part, (bench.part("platform"),), hint))
    return found


async def bias(bench: Bench) -> Sequence[Finding]:
    """Superconducting below, latched above, reset at zero: read-out, sources and wires of all three, and the line
    that the hardware interlock of the self-test diode hangs on."""
    detectors = bench.module.detectors
    found: list[Finding] = []
    async with outputs_kept(bench):
        found += await _as_found(bench)
        await detectors.set_bias([0.0] * 3)
        found += await _line(bench, "released", True)
        found += await _leads(bench)
        await detectors.set_bias([2e-6] * 3)
        found += await _line(bench, "held", False)
        switching = await _staircase(bench)
        bench.notes[SWITCHING] = switching
        found += [
            Finding(
                f"switching_current.{n}",
                float(switching[d]),
                "A",
                SWITCHING_A,
                f"detector {n}",
                _controller(bench, "cryostat.temperature"),
                "Wire damaged, or not cold.",
            )
            for d, n in enumerate(DETECTOR_NAMES)
        ]
        found += await _latching(bench)
    return found


async def _as_found(bench: Bench) -> list[Finding]:
    """A detector that is latched where it stands, before anything is reset."""
    if max(bias_of(bench.module.detectors)) == 0.0:
        return []
    volts = await bench.module.detectors.read_bias_voltage()
    return [
        Finding(
            f"latched.{n}", v, "V", Limits(high=LATCHED_V), f"detector {n}", (), "Latched in service: bias to zero."
        )
        for n, v in zip(DETECTOR_NAMES, volts, strict=True)
    ]


async def _line(bench: Bench, what: str, level: bool) -> list[Finding]:
    platform = bench.module.platform
    if UNBIASED not in platform.lines:
        return [skipped(f"interlock.{what}", "interlock", f"no line {UNBIASED}")]
    seen = float(await platform.read(UNBIASED))
    hint = f"The line {UNBIASED} does not follow the bias: the self-test diode's hardware interlock is not sure."
    needs = (bench.part("platform"), *_controller(bench))
    return [Finding(f"interlock.{what}", seen, "", Limits.exactly(float(level)), "interlock", needs, hint)]


async def _leads(bench: Bench) -> list[Finding]:
    """One detector biased at a time: its own leads show volts, and only they; how steady the read-out is."""
    detectors, found = bench.module.detectors, []
    for d, name in enumerate(DETECTOR_NAMES):
        await detectors.set_bias(only(d, 8e-6))
        await bench.sleep(SETTLE_S)
        rows = np.array([await detectors.read_bias_voltage() for _ in range(READS)])
        own, others = float(rows[:, d].mean()), np.abs(rows.mean(axis=0)) * (np.arange(3) != d)
        other, which = float(others.max()), f"detector {DETECTOR_NAMES[int(others.argmax())]}"
        part, needs = f"detector {name}", _controller(bench)
        found += [
            Finding(
                f"lead_resistance.{name}", own / 8e-6, "ohm", LEAD_OHM, part, needs, "Not superconducting, or open."
            ),
            Finding(f"bias_readout_noise.{name}", float(rows[:, d].std(ddof=1)), "V", READOUT_V, part, needs),
            Finding(
                f"bias_isolation.{name}",
                other,
                "V",
                Limits(high=READOUT_V.high),
                which,
                needs,
                "Another detector shows volts while this one alone has bias.",
            ),
        ]
    await detectors.set_bias([0.0] * 3)
    return found


async def _staircase(bench: Bench) -> Array:
    """A, (3,): the last step at which each detector was superconducting; all three climb at once, each until it
    latches, and is let down then. 0 for one that latches at the first."""
    detectors = bench.module.detectors
    top, climbing = np.zeros(3), np.ones(3, bool)
    await detectors.set_bias([0.0] * 3)
    for step in STAIRS_A:
        await detectors.set_bias([float(step) if up else 0.0 for up in climbing])
        await bench.sleep(SETTLE_S)
        volts = np.array(await detectors.read_bias_voltage())
        climbing &= volts < LATCHED_V
        top[climbing] = step
        if not climbing.any():
            break
    await detectors.set_bias([0.0] * 3)
    return top


async def _latching(bench: Bench) -> list[Finding]:
    """Above its switching current each detector shows volts, keeps them below it, counts nothing, and lets go at
    zero: what the service relies on when a detector has latched."""
    detectors = bench.module.detectors
    await detectors.set_bias([OVER_A] * 3)
    await bench.sleep(SETTLE_S)
    driven = await detectors.read_bias_voltage()
    await detectors.set_bias([10e-6] * 3)
    await bench.sleep(SETTLE_S)
    held = await detectors.read_bias_voltage()
    rates = await detectors.read_rates(0.05)
    await detectors.set_bias([0.0] * 3)
    await bench.sleep(SETTLE_S)
    await detectors.set_bias([8e-6] * 3)
    await bench.sleep(SETTLE_S)
    reset = await detectors.read_bias_voltage()
    await detectors.set_bias([0.0] * 3)
    found, needs = [], _controller(bench)
    for d, n in enumerate(DETECTOR_NAMES):
        part = f"detector {n}"
        found += [
            Finding(
                f"latch.{n}", driven[d], "V", Limits(low=LATCHED_V), part, needs, "It does not latch when overdriven."
            ),
            Finding(f"latch_holds.{n}", held[d], "V", Limits(low=LATCHED_V), part, needs),
            Finding(f"latched_rate.{n}", float(rates[d]), "1/s", UNBIASED_HZ, part, needs, "Counts while latched."),
            Finding(f"reset.{n}", reset[d], "V", Limits(high=LATCHED_V), part, needs, "Latched after a bias of zero."),
        ]
    return found


async def darks(bench: Bench) -> Sequence[Finding]:
    """Without bias nothing counts; each detector alone at its working bias counts its darks on its own channel, by
    the controller as by the time tagger."""
    chosen = working_bias(bench, bench.notes.get(SWITCHING))
    async with outputs_kept(bench), counting(bench):
        await bench.context.biases.set_voltage("shutter", bench.context.settings.shutter_closed_v)
        await bench.module.detectors.set_bias([0.0] * 3)
        await bench.sleep(0.02)
        silent = await _both(bench, UNBIASED_S)
        tagged, controller = np.zeros((3, 3)), np.zeros((3, 3))
        for d in range(3):
            await bench.module.detectors.set_bias(only(d, chosen[d]))
            await bench.sleep(0.02)
            tagged[d], controller[d] = await _both(bench, DARK_S)
    found = _silence(bench, *silent)
    tagged, controller = np.maximum(tagged - silent[0], 0.0), np.maximum(controller - silent[1], 0.0)
    found += _cables(bench, tagged + controller)
    mean = (tagged * DARK_S + controller * CONTROLLER_S) / (DARK_S + CONTROLLER_S)
    return [*found, *_dark_rates(bench, mean), *_both_count(bench, tagged, controller)]


async def _both(bench: Bench, seconds: float) -> tuple[Array, Array]:
    """Counts/s by the time tagger over `seconds`, and then by the controller."""
    return await counted(bench, seconds), np.asarray(await bench.module.detectors.read_rates(CONTROLLER_S))


def _silence(bench: Bench, tagged: Array, controller: Array) -> list[Finding]:
    """Clicks without bias: of the discriminator where both see them, of the input that alone does."""
    found = []
    for d, n in enumerate(DETECTOR_NAMES):
        noisy = tagged[d] > UNBIASED_HZ.high, controller[d] > UNBIASED_HZ.high
        part = {(True, False): bench.part("tags"), (False, True): bench.part("detectors")}.get(noisy, f"detector {n}")
        rate, hint = float(max(tagged[d], controller[d])), "Clicks without bias: noise at the discriminator or input."
        found.append(Finding(f"unbiased_rate.{n}", rate, "1/s", UNBIASED_HZ, part, (bench.bus("detectors"),), hint))
    return found


def _cables(bench: Bench, seen: Array) -> list[Finding]:
    """seen[biased, channel]: with DX0 or DX1 alone biased, whose channel counts."""
    own = float(seen[1, 1] + seen[2, 2])
    share = own / max(own + float(seen[1, 2] + seen[2, 1]), 1e-9)
    hint = "With one of the two biased the other one's channel counts: their cables are exchanged."
    if own + float(seen[1, 2] + seen[2, 1]) == 0.0:
        return [skipped("own_channel.DX", CABLES, "neither DX0 nor DX1 counts")]
    return [
        Finding("own_channel.DX", share, "", OWN_SHARE, CABLES, (bench.part("tags"), bench.part("detectors")), hint)
    ]


def _dark_rates(bench: Bench, seen: Array) -> list[Finding]:
    """On whichever channel they come: exchanged cables are told apart from darks."""
    found = []
    for d, n in enumerate(DETECTOR_NAMES):
        rate = float(seen[d].sum())
        limits = _dark_limits(bench, d)
        sigma = math.sqrt(max(rate * DARK_S, 1.0)) / DARK_S
        needs = (bench.part("tags"), bench.part("detectors"), "cryostat.temperature")
        found.append(Finding(f"dark_rate.{n}", rate, "1/s", limits, f"detector {n}", needs, "", sigma=sigma))
    return found


def _dark_limits(bench: Bench, d: int) -> Limits:
    """Around the record's rate, five standard deviations of counting and a factor of two of ageing; else the
    population's."""
    record = bench.context.store.active("detector_bias")
    if record is None:
        return DARKS_HZ
    known = record.value[f"{DETECTOR_NAMES[d].lower()}_dark_hz"]
    spread = 5.0 * math.sqrt(max(known * DARK_S, 1.0)) / DARK_S
    return Limits(max(0.0, 0.5 * known - spread), 2.0 * known + spread)


def _both_count(bench: Bench, tagged: Array, controller: Array) -> list[Finding]:
    """Controller and tagger see the same pulses: with few of them, as far as chance goes."""
    found = []
    for d, n in enumerate(DETECTOR_NAMES):
        a, b = float(tagged[:, d].sum()) * DARK_S, float(controller[:, d].sum()) * CONTROLLER_S
        share = CONTROLLER_S / (DARK_S + CONTROLLER_S)
        off = (b - (a + b) * share) / math.sqrt(max((a + b) * share * (1.0 - share), 1.0))
        who = bench.part("tags" if off > 0 else "detectors")
        hint = f"{a:.0f} clicks at the time tagger in {DARK_S:g} s, {b:.0f} at the controller in {CONTROLLER_S:g} s."
        needs = (f"detector {n}", bench.part("tags"))
        found.append(Finding(f"both_count.{n}", off, "sigma", Limits(-6.0, 6.0), who, needs, hint))
    return found


def _controller(bench: Bench, *more: str) -> tuple[str, ...]:
    return (bench.part("detectors"), bench.bus("detectors"), *more)


_BOB = ("bob",)
CHECKS = (
    Check("cryostat", Level.LIGHT_OFF, cryostat, ("cryostat",), _BOB, budget_s=5.0),
    Check("detector bias", Level.LIGHT_OFF, bias, ("detectors",), _BOB, budget_s=15.0),
    Check("detector darks", Level.LIGHT_OFF, darks, ("detectors", "time_tagger"), _BOB, budget_s=15.0),
)
